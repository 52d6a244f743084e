"""The interface of a model."""

from collections.abc import AsyncIterator, Hashable
from typing import Protocol, runtime_checkable

from rlm_integrations.records import Completion, Message, Request, Usage

__all__ = [
    "LM",
    "CacheableLM",
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
    """A model.

    Attributes:
        name: Its name in records and errors.
        context_window: How many tokens it reads at once, or None if unknown. Requests are never
            silently truncated to it.
    """

    name: str
    context_window: int | None

    async def complete(self, request: Request) -> Completion:
        """The model's answer.

        Raises:
            ModelError: The call failed, or its reply is unusable. The model itself does not retry:
                batches and runs do.
        """
        ...


@runtime_checkable
class StreamingLM(LM, Protocol):
    """A model that can stream its answer."""

    def astream(self, request: Request) -> AsyncIterator[str | Completion]:
        """The pieces of the answer's text as they arrive, then the whole `Completion`."""
        ...


@runtime_checkable
class CacheableLM(LM, Protocol):
    """A model whose replies can be kept in a cache, and reused by other processes."""

    def cache_identity(self, request: Request) -> object:
        """What a reply depends on besides the messages and parameters of a request: the model's
        name, its address, its own parameters.

        Plain JSON, the same in every process, without keys and other secrets.

        Raises:
            InputError: It cannot be told.
        """
        ...


@runtime_checkable
class Prepared(Protocol):
    """A model that needs preparation before its first call, such as loading a client.

    Preparation does not count towards a call's timeout.
    """

    async def prepare(self) -> None:
        """Prepare for the running loop, unless that is done."""
        ...


@runtime_checkable
class SeveralModels(Protocol):
    """A model that may consist of several, such as one with fallbacks: each completion names the
    model that answered.
    """

    is_several: bool


@runtime_checkable
class RateLimited(Protocol):
    """A model that shares its provider's limits with other objects; every other model has a
    separate limiter.
    """

    limit_key: Hashable
