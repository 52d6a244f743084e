"""Recursive Language Models for LangChain and LlamaIndex.

Each name is loaded at its first use, so that importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.errors import (
        BudgetExceededError,
        IncompleteError,
        InputError,
        ModelError,
        RLMError,
    )
    from rlm_integrations.lm.asker import Retry
    from rlm_integrations.lm.batch import (
        allm_batch,
        allm_batch_iter,
        allm_batch_records,
        aparallel_query,
        llm_batch,
        llm_batch_iter,
        llm_batch_records,
        parallel_query,
    )
    from rlm_integrations.lm.openai import OpenAILM
    from rlm_integrations.records import (
        Budget,
        Completion,
        Limits,
        LLMError,
        LLMReply,
        Message,
        Request,
        SpanRef,
        Usage,
    )
    from rlm_integrations.result import RLMResult
    from rlm_integrations.store import SharedStore

__all__ = [
    "RLM",
    "Budget",
    "BudgetExceededError",
    "Completion",
    "IncompleteError",
    "InputError",
    "LLMError",
    "LLMReply",
    "Limits",
    "Message",
    "ModelError",
    "OpenAILM",
    "RLMError",
    "RLMResult",
    "Request",
    "Retry",
    "SharedStore",
    "SpanRef",
    "Usage",
    "allm_batch",
    "allm_batch_iter",
    "allm_batch_records",
    "aparallel_query",
    "llm_batch",
    "llm_batch_iter",
    "llm_batch_records",
    "parallel_query",
]

_HOMES = {
    "engine.rlm": ["RLM"],
    "errors": ["BudgetExceededError", "IncompleteError", "InputError", "ModelError", "RLMError"],
    "lm.asker": ["Retry"],
    "lm.batch": [
        "allm_batch",
        "allm_batch_iter",
        "allm_batch_records",
        "aparallel_query",
        "llm_batch",
        "llm_batch_iter",
        "llm_batch_records",
        "parallel_query",
    ],
    "lm.openai": ["OpenAILM"],
    "records": [
        "Budget",
        "Completion",
        "LLMError",
        "LLMReply",
        "Limits",
        "Message",
        "Request",
        "SpanRef",
        "Usage",
    ],
    "result": ["RLMResult"],
    "store": ["SharedStore"],
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            globals()[name] = found = getattr(import_module(f"{__name__}.{home}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
