"""Frozen data that everybody speaks. Only the standard library is imported here: the sandbox's child reads it too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation with a model."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked, and where in the run the question stands.

    Attributes:
        messages: The conversation, oldest first.
        params: Further parameters in the provider's own names, such as `temperature`.
        role: Whether the root of a run asks, or code in its REPL.
        query: The user's question of the run that asks.
        path: The call's place in the run, such as `r.2/b.17`; the same at every replay.
        depth: 0 for the root's own calls, 1 for those of its code and children, and so on.
    """

    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    role: Literal["root", "sub"] = "sub"
    query: str = ""
    path: str = ""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them. Cached tokens are part of the input, reasoning tokens part of the output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """The sum of two counts."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer.

    Attributes:
        text: What it wrote.
        usage: What it counted, or None where it did not say.
        model: The name by which the provider answered.
        finish_reason: Why it stopped, in the provider's word: "stop", "length" and the like.
    """

    text: str
    usage: Usage | None = None
    model: str = ""
    finish_reason: str | None = None


class LLMError(str):
    """What stands in the slot of a call that failed: a text that begins with "Error:", with the reason as fields.

    Attributes:
        type: The kind of failure: "timeout", "rate_limit", "server", "connection", "budget", "input", "refusal" and the like.
        message: What happened.
        retries: How many further tries were made.
    """

    __slots__ = ("message", "retries", "type")

    type: str
    message: str
    retries: int

    def __new__(cls, type: str, message: str, retries: int = 0) -> Self:  # noqa: A002 - the field's name is the contract
        """The error as text and as fields."""
        error = super().__new__(cls, f"Error: {type}: {message}")
        error.type = type
        error.message = message
        error.retries = retries
        return error

    def __repr__(self) -> str:
        return f"LLMError(type={self.type!r}, message={self.message!r}, retries={self.retries!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (LLMError, (self.type, self.message, self.retries))


@dataclass(frozen=True, slots=True)
class SpanRef:
    """A piece of one source: the characters from `start` up to, not including, `end`."""

    source: str
    start: int
    end: int
    unit: Literal["chars"] = "chars"
