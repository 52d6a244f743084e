"""The differences between providers' APIs: plain functions over plain data, one record for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

from tests.standin.settings import Ask, Fault, Reply, Usage


@dataclass(frozen=True, slots=True)
class Wire:
    """The form of a provider's requests and answers. Scripts and counts do not depend on it.

    Attributes:
        name: The provider's name.
        read: From the address and the body of a request: the model's name, whether a stream is
            requested, and the body in OpenAI's form, as in an `Ask`. A `LookupError`, `ValueError`,
            `TypeError` or `AttributeError` means that the body is invalid.
        key: The key in the headers of a request, if any.
        errors: The kinds of faults that are an error status, and for each the data that `error`
            needs.
        lacks: The kinds of faults that this API cannot express.
        error: Status, headers and body of a fault's error, with its own message or the given one.
        completion: The body of a plain answer, changed by a kind of fault.
        events: The pieces of a streamed answer, with this many characters each.
        opening: The number of pieces up to the first with text.
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
    """A request of another API as scripts see it: messages with role and text, the system message
    first, if any.
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
    """The tokens that a reply reports, or one for every four characters."""
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
