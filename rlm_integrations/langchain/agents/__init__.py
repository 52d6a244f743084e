"""Memory for LangChain's agents."""
