"""What tells one provider's wire from another's: plain functions over plain data, in one record for
each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

from tests.standin.settings import Ask, Fault, Reply, Usage


@dataclass(frozen=True, slots=True)
class Wire:
    """How a provider's requests read and how its answers look. Scripts and counts know nothing of
    it.

    Attributes:
        name: The provider's.
        read: From the address and the body of a request: the model's name, whether a stream is
            asked for, and the body in OpenAI's words, which is what an `Ask` holds. A
            `LookupError`, `ValueError`, `TypeError` or `AttributeError` says that the body is none.
        key: The key in the headers of a request, if any.
        errors: The kinds of faults that are an error with a status, and for each what `error`
            needs.
        lacks: The kinds of faults that have no form on this wire.
        error: Status, headers and body of the error that a fault is, with a message of its own or
            the given one.
        completion: The body of a plain answer as a kind of fault leaves it.
        events: The pieces of a streamed answer of so many characters each.
        opening: How many pieces there are up to the first with text.
    """

    name: str
    read: Callable[[SplitResult, Any], tuple[str, bool, Mapping[str, Any]]]
    key: Callable[[Mapping[str, str]], str | None]
    errors: Mapping[str, Any]
    lacks: frozenset[str]
    error: Callable[[Fault, str], tuple[int, dict[str, str], dict[str, Any]]]
    completion: Callable[[Ask, Reply, str | None], dict[str, Any]]
    events: Callable[[Ask, Reply, str | None, int], Iterator[bytes]]
    opening: int


def in_openais_words(
    model: str, system: str, messages: Sequence[tuple[str, str]], *, stream: bool, bound: int | None
) -> dict[str, Any]:
    """A request of another wire as scripts read it: messages with role and text, the system's
    first, where there is one.
    """
    told = [("system", system), *messages] if system else messages
    body = {
        "model": model,
        "messages": [{"role": role, "content": text} for role, text in told],
        "stream": stream,
    }
    return body if bound is None else body | {"max_completion_tokens": bound}


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key of a request that bears it."""
    return headers.get("authorization", "").removeprefix("Bearer ") or None


def counts_of(ask: Ask, reply: Reply) -> Usage:
    """The tokens that a reply claims, or one for every four characters."""
    if reply.usage is not None:
        return reply.usage
    asked = sum(len(str(message.get("content") or "")) for message in ask.body["messages"])
    return Usage(input=asked // 4 + 1, output=len(reply.text or "") // 4 + 1)


def retry_after(fault: Fault) -> dict[str, str]:
    """The header that asks the client to wait."""
    if fault.retry_after is None:
        return {}
    return {
        "retry-after": fault.retry_after
        if isinstance(fault.retry_after, str)
        else f"{fault.retry_after:g}"
    }
