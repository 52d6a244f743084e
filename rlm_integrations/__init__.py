"""Recursive Language Models for LangChain and LlamaIndex.

Each name is loaded at its first use, so that importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.errors import IncompleteError
    from rlm_integrations.lm.batch import allm_batch, allm_batch_iter, llm_batch, llm_batch_iter
    from rlm_integrations.lm.openai import OpenAILM
    from rlm_integrations.records import Budget, Limits, LLMError, SpanRef
    from rlm_integrations.result import RLMResult
    from rlm_integrations.store import SharedStore

__all__ = [
    "RLM",
    "Budget",
    "IncompleteError",
    "LLMError",
    "Limits",
    "OpenAILM",
    "RLMResult",
    "SharedStore",
    "SpanRef",
    "allm_batch",
    "allm_batch_iter",
    "llm_batch",
    "llm_batch_iter",
]

_HOMES = {
    "engine.rlm": ["RLM"],
    "errors": ["IncompleteError"],
    "lm.batch": ["allm_batch", "allm_batch_iter", "llm_batch", "llm_batch_iter"],
    "lm.openai": ["OpenAILM"],
    "records": ["Budget", "LLMError", "Limits", "SpanRef"],
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
