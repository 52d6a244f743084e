"""Recursive Language Models in LangChain: a runnable, batches, a retriever over findings, tools for
agents, a node for LangGraph.
"""

from rlm_integrations.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401 - only to report a missing package
except ImportError as error:
    raise MissingExtraError("rlm_integrations.langchain", "langchain") from error

from rlm_integrations.langchain.batch import LLMBatchRunnable
from rlm_integrations.langchain.fast import fast_chat_openai
from rlm_integrations.langchain.kept_stores import result_of
from rlm_integrations.langchain.message import answer_message
from rlm_integrations.langchain.node import as_node
from rlm_integrations.langchain.retriever import RLMStoreRetriever
from rlm_integrations.langchain.runnable import RLMRunnable
from rlm_integrations.langchain.tool import create_rlm_tool
from rlm_integrations.langchain.toolkit import RLMStoreToolkit

__all__ = [
    "LLMBatchRunnable",
    "RLMRunnable",
    "RLMStoreRetriever",
    "RLMStoreToolkit",
    "answer_message",
    "as_node",
    "create_rlm_tool",
    "fast_chat_openai",
    "result_of",
]
