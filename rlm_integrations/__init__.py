"""Recursive Language Models for LangChain and LlamaIndex."""

from rlm_integrations.lm.batch import allm_batch, allm_batch_iter, llm_batch, llm_batch_iter
from rlm_integrations.records import LLMError, SpanRef

__all__ = ["LLMError", "SpanRef", "allm_batch", "allm_batch_iter", "llm_batch", "llm_batch_iter"]
