"""Recursive Language Models in LangChain: a runnable, batches, a retriever over findings, tools for
agents, a node for LangGraph, a middleware for agents.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from rlm_integrations.langchain.agents.middleware import RLMMiddleware

__all__ = [
    "LLMBatchRunnable",
    "RLMMiddleware",
    "RLMRunnable",
    "RLMStoreRetriever",
    "RLMStoreToolkit",
    "answer_message",
    "as_node",
    "create_rlm_tool",
    "fast_chat_openai",
    "result_of",
]


def __getattr__(name: str) -> Any:
    if name != "RLMMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import langchain.agents.middleware  # noqa: F401 - only to report a missing package
    except ImportError as error:
        raise MissingExtraError("RLMMiddleware", "langchain-agents") from error

    from rlm_integrations.langchain.agents.middleware import RLMMiddleware

    globals()[name] = RLMMiddleware
    return RLMMiddleware


def __dir__() -> list[str]:
    return sorted([*globals(), "RLMMiddleware"])
