"""Models of LangChain and LlamaIndex as `LM`s."""
