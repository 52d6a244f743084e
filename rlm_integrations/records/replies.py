"""What a call of a model returns to its caller: a string, for a reply and for an error."""

from typing import Any, ClassVar, Self

# The finish reasons of incomplete replies, as providers name them.
CUT = frozenset(
    {"content_filter", "length", "max_output_tokens", "max_tokens", "model_context_window_exceeded"}
)


class LLMReply(str):
    """A model's reply: a string with the reason why the model stopped.

    Attributes:
        finish_reason: The reason, as the provider names it: "stop", "length" and the like; None if
            it reported none.
    """

    __slots__ = ("finish_reason",)

    finish_reason: str | None

    def __new__(cls, text: str, finish_reason: str | None = None) -> Self:
        """The string with its field."""
        reply = super().__new__(cls, text)
        reply.finish_reason = finish_reason
        return reply

    @property
    def truncated(self) -> bool:
        """Whether the reply is incomplete, because of a length limit or a content filter."""
        return self.finish_reason is not None and self.finish_reason.lower() in CUT

    def __reduce__(self) -> tuple[Any, ...]:
        return (LLMReply, (str(self), self.finish_reason))


class LLMError(str):
    """The result of a failed call: a string that begins with "Error:", with the cause as fields.

    Attributes:
        type: The kind of failure: "timeout", "rate_limit", "server", "connection", "budget",
            "input", "refusal" and the like.
        message: What happened.
        retries: How many retries were made.
        finish_reason: None, as for a reply.
        truncated: False, as for a reply.
    """

    __slots__ = ("message", "retries", "type")

    finish_reason: ClassVar[None] = None
    truncated: ClassVar[bool] = False

    type: str
    message: str
    retries: int

    def __new__(
        cls,
        type: str,  # noqa: A002 - the field's name is the contract
        message: str,
        retries: int = 0,
    ) -> Self:
        """The string with its fields."""
        error = super().__new__(
            cls, f"Error: {message}" if type == "error" else f"Error: {type}: {message}"
        )
        error.type = type
        error.message = message
        error.retries = retries
        return error

    def __repr__(self) -> str:
        return f"LLMError(type={self.type!r}, message={self.message!r}, retries={self.retries!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (LLMError, (self.type, self.message, self.retries))
