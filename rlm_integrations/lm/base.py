"""What a model is to the rest of the library."""

from collections.abc import AsyncIterator, Hashable
from typing import Protocol, runtime_checkable

from rlm_integrations.records import Completion, Message, Request, Usage

__all__ = [
    "LM",
    "Completion",
    "Message",
    "Prepared",
    "RateLimited",
    "Request",
    "SeveralModels",
    "StreamingLM",
    "Usage",
]


@runtime_checkable
class LM(Protocol):
    """A model that can be asked.

    Attributes:
        name: How it is called in records and errors.
        context_window: How many tokens it reads at once, or None where that is not known. Nothing
            is cut to it in silence.
    """

    name: str
    context_window: int | None

    async def complete(self, request: Request) -> Completion:
        """The model's answer.

        Raises:
            ModelError: It did not answer usably. The model makes no retries of its own: the batch
                and the loop do.
        """
        ...


@runtime_checkable
class StreamingLM(LM, Protocol):
    """A model that can show its answer while it writes it."""

    def astream(self, request: Request) -> AsyncIterator[str | Completion]:
        """The pieces of the answer's text as they come, and last the whole `Completion`."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A model that has something to do before its first call, such as loading a client.

    That does not count into the time of a call.
    """

    async def prepare(self) -> None:
        """Do it, unless it is done on the running loop."""
        ...


@runtime_checkable
class SeveralModels(Protocol):
    """A model that may stand for several, such as one with fallbacks: each completion names the one
    that answered.
    """

    is_several: bool


@runtime_checkable
class RateLimited(Protocol):
    """A model that shares its provider's limits with other objects; one that is not has a limiter
    of its own.
    """

    limit_key: Hashable
