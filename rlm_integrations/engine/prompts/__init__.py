"""Every word that the engine says to a root model: the question, what the model sees of its code's
output, and remarks on both.
"""

from rlm_integrations.engine.prompts.observation import cut_output, observation, variables_shown
from rlm_integrations.engine.prompts.remarks import (
    NEW_REPL,
    NOTHING_TO_DO,
    SEVERAL_FINALS,
    UNREADABLE,
    WITHDRAWN,
    budget_left,
    closing,
    compacted,
    compacted_reply,
    cut_replies,
    invalid,
    note,
    notes,
    rebound,
    repeated,
    tell_too_long,
    turns_left,
    unfinished,
    unknown_variable,
    unresolved,
)
from rlm_integrations.engine.prompts.requests import IN_CONTEXT, single_call, worker_question
from rlm_integrations.engine.prompts.system import OPENING, question, system

__all__ = [
    "IN_CONTEXT",
    "NEW_REPL",
    "NOTHING_TO_DO",
    "OPENING",
    "SEVERAL_FINALS",
    "UNREADABLE",
    "WITHDRAWN",
    "budget_left",
    "closing",
    "compacted",
    "compacted_reply",
    "cut_output",
    "cut_replies",
    "invalid",
    "note",
    "notes",
    "observation",
    "question",
    "rebound",
    "repeated",
    "single_call",
    "system",
    "tell_too_long",
    "turns_left",
    "unfinished",
    "unknown_variable",
    "unresolved",
    "variables_shown",
    "worker_question",
]
