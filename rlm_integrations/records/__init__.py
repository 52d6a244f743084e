"""Frozen data that all layers share. Only the standard library is imported here: the child process
of the sandbox loads these modules too.
"""

from .budget import Budget
from .encodings import undecodable
from .host_functions import HostFunction
from .limits import Limits
from .model_calls import BOUND, CallRecord, Completion, Message, Request, Role, Usage
from .replies import CUT, LLMError, LLMReply
from .store_objects import SpanRef, StoreObject

__all__ = [
    "BOUND",
    "CUT",
    "Budget",
    "CallRecord",
    "Completion",
    "HostFunction",
    "LLMError",
    "LLMReply",
    "Limits",
    "Message",
    "Request",
    "Role",
    "SpanRef",
    "StoreObject",
    "Usage",
    "undecodable",
]
