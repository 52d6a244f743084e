"""Code that the LangChain and LlamaIndex integrations share."""
