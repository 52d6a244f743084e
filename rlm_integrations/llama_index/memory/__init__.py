"""Memory for LlamaIndex's agents."""
