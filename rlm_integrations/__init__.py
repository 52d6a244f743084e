"""Recursive Language Models for LangChain and LlamaIndex.

Each name is loaded at its first use, so that importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.corpus.data import Data
    from rlm_integrations.coverage import Coverage
    from rlm_integrations.engine.chat import Chat
    from rlm_integrations.engine.code_session import CodeResult, CodeSession
    from rlm_integrations.engine.front_types import Context, Model
    from rlm_integrations.engine.prompts import Prompt
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.engine.warming import awarm, warm
    from rlm_integrations.errors import (
        BudgetExceededError,
        ClusterError,
        ContextError,
        DamagedDataError,
        IncompleteError,
        InputError,
        JournalError,
        LoopError,
        MissingExtraError,
        ModelError,
        QueryError,
        ReplayDivergedError,
        RLMError,
        RunBusyError,
        RunExistsError,
        SandboxClosedError,
        SandboxError,
        SandboxUnavailableError,
        StorageError,
        StorageUnavailableError,
    )
    from rlm_integrations.events import (
        BatchFinished,
        BatchProgress,
        BatchStarted,
        BlockFinished,
        BlockStarted,
        CallCached,
        CallFailed,
        CallFinished,
        CallReplayed,
        CallRetried,
        CallStarted,
        ChildFinished,
        Event,
        FunctionCalled,
        LimiterChanged,
        RunFailed,
        RunFinished,
        RunStarted,
        TurnFinished,
        TurnStarted,
    )
    from rlm_integrations.lm.asker import Retry
    from rlm_integrations.lm.base import LM
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
        CallRecord,
        Completion,
        Limits,
        LLMError,
        LLMReply,
        Message,
        Request,
        SpanRef,
        StoreObject,
        Usage,
    )
    from rlm_integrations.result import RLMResult
    from rlm_integrations.run_setup import ModelNames, SourceInfo
    from rlm_integrations.spending import Spent
    from rlm_integrations.store import SharedStore
    from rlm_integrations.trajectory import Citation, Execution, FunctionCall, Iteration, SubCall

__all__ = [
    "LM",
    "RLM",
    "BatchFinished",
    "BatchProgress",
    "BatchStarted",
    "BlockFinished",
    "BlockStarted",
    "Budget",
    "BudgetExceededError",
    "CallCached",
    "CallFailed",
    "CallFinished",
    "CallRecord",
    "CallReplayed",
    "CallRetried",
    "CallStarted",
    "Chat",
    "ChildFinished",
    "Citation",
    "ClusterError",
    "CodeResult",
    "CodeSession",
    "Completion",
    "Context",
    "ContextError",
    "Corpus",
    "Coverage",
    "DamagedDataError",
    "Data",
    "Event",
    "Execution",
    "FunctionCall",
    "FunctionCalled",
    "IncompleteError",
    "InputError",
    "Iteration",
    "JournalError",
    "LLMError",
    "LLMReply",
    "LimiterChanged",
    "Limits",
    "LoopError",
    "Message",
    "MissingExtraError",
    "Model",
    "ModelError",
    "ModelNames",
    "OpenAILM",
    "Prompt",
    "QueryError",
    "RLMError",
    "RLMResult",
    "ReplayDivergedError",
    "Request",
    "Retry",
    "RunBusyError",
    "RunExistsError",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "SandboxClosedError",
    "SandboxError",
    "SandboxUnavailableError",
    "SharedStore",
    "SourceInfo",
    "SpanRef",
    "Spent",
    "StorageError",
    "StorageUnavailableError",
    "StoreObject",
    "SubCall",
    "TurnFinished",
    "TurnStarted",
    "Usage",
    "allm_batch",
    "allm_batch_iter",
    "allm_batch_records",
    "aparallel_query",
    "awarm",
    "llm_batch",
    "llm_batch_iter",
    "llm_batch_records",
    "parallel_query",
    "warm",
]

_HOMES = {
    "corpus": ["Corpus"],
    "corpus.data": ["Data"],
    "coverage": ["Coverage"],
    "engine.chat": ["Chat"],
    "engine.code_session": ["CodeResult", "CodeSession"],
    "engine.front_types": ["Context", "Model"],
    "engine.prompts": ["Prompt"],
    "engine.rlm": ["RLM"],
    "engine.warming": ["awarm", "warm"],
    "errors": [
        "BudgetExceededError",
        "ClusterError",
        "ContextError",
        "DamagedDataError",
        "IncompleteError",
        "InputError",
        "JournalError",
        "LoopError",
        "MissingExtraError",
        "ModelError",
        "QueryError",
        "ReplayDivergedError",
        "RLMError",
        "RunBusyError",
        "RunExistsError",
        "SandboxClosedError",
        "SandboxError",
        "SandboxUnavailableError",
        "StorageError",
        "StorageUnavailableError",
    ],
    "events": [
        "BatchFinished",
        "BatchProgress",
        "BatchStarted",
        "BlockFinished",
        "BlockStarted",
        "CallCached",
        "CallFailed",
        "CallFinished",
        "CallReplayed",
        "CallRetried",
        "CallStarted",
        "ChildFinished",
        "Event",
        "FunctionCalled",
        "LimiterChanged",
        "RunFailed",
        "RunFinished",
        "RunStarted",
        "TurnFinished",
        "TurnStarted",
    ],
    "lm.asker": ["Retry"],
    "lm.base": ["LM"],
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
        "CallRecord",
        "Completion",
        "LLMError",
        "LLMReply",
        "Limits",
        "Message",
        "Request",
        "SpanRef",
        "StoreObject",
        "Usage",
    ],
    "result": ["RLMResult"],
    "run_setup": ["ModelNames", "SourceInfo"],
    "spending": ["Spent"],
    "store": ["SharedStore"],
    "trajectory": ["Citation", "Execution", "FunctionCall", "Iteration", "SubCall"],
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
