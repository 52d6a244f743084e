"""Recursive Language Models for LangChain and LlamaIndex."""

from rlm_integrations.records import LLMError, SpanRef

__all__ = ["LLMError", "SpanRef"]
