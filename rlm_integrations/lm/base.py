"""The interface of a model."""

from collections.abc import AsyncIterator, Hashable, Mapping
from typing import Any, Protocol, runtime_checkable

from rlm_integrations.errors import InputError
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
    "StructuredLM",
    "Usage",
    "check_structured",
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


class StructuredLM(LM, Protocol):
    """A model that can answer in a JSON schema: it does so for a request that has a `schema`."""

    def check_structured(self, schema: Mapping[str, Any]) -> None:
        """Check that it can answer in this schema.

        Raises:
            InputError: It cannot; the message says why.
        """
        ...


def check_structured(lm: LM, schema: Mapping[str, Any]) -> None:
    """Check that a model can answer in a JSON schema.

    Raises:
        InputError: It cannot, or does not say so.
    """
    # Not `isinstance`: a wrapper passes on the methods of its model
    check = getattr(lm, "check_structured", None)
    if not callable(check):
        raise InputError(
            f"structured=True needs a root model that can answer in a JSON schema, and {lm.name!r} "
            f"does not say that it can: {type(lm).__name__} has no method check_structured(schema)"
        )
    check(schema)


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
