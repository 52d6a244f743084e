"""Models of LangChain and LlamaIndex, asked as ours are."""
