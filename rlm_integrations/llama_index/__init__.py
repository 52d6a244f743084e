"""Recursive Language Models in LlamaIndex: engines, a synthesizer, retrievers, tools and batches.

Requires only llama-index-core.
"""

from rlm_integrations.errors import MissingExtraError

try:
    from rlm_integrations.llama_index.batch import LLMBatch
    from rlm_integrations.llama_index.chat_engine import RLMChatEngine
    from rlm_integrations.llama_index.fast import fast_openai, fast_openai_like
    from rlm_integrations.llama_index.memory.block import RLMMemoryBlock
    from rlm_integrations.llama_index.message import cited_message
    from rlm_integrations.llama_index.progress import RLMProgressEvent, RLMWorkflowEvent
    from rlm_integrations.llama_index.query_engine import RLMQueryEngine
    from rlm_integrations.llama_index.results import result_of
    from rlm_integrations.llama_index.retriever import RLMStoreRetriever
    from rlm_integrations.llama_index.synthesizer import RLMSynthesizer
    from rlm_integrations.llama_index.tool import as_query_engine_tool, askable
    from rlm_integrations.llama_index.tool_spec import RLMStoreToolSpec
    from rlm_integrations.lm.frameworks.slow_transport import SlowTransportWarning
# LlamaIndex is not installed, or its version lacks something that is needed
except ImportError as error:
    raise MissingExtraError("rlm_integrations.llama_index", "llama-index") from error

__all__ = [
    "LLMBatch",
    "RLMChatEngine",
    "RLMMemoryBlock",
    "RLMProgressEvent",
    "RLMQueryEngine",
    "RLMStoreRetriever",
    "RLMStoreToolSpec",
    "RLMSynthesizer",
    "RLMWorkflowEvent",
    "SlowTransportWarning",
    "as_query_engine_tool",
    "askable",
    "cited_message",
    "fast_openai",
    "fast_openai_like",
    "result_of",
]
