"""A call of a model: the request, its completion, and the record of the call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .replies import LLMError

Role = Literal["system", "user", "assistant"]
# The parameter with which requests limit a reply; adapters translate it to their model's own name.
BOUND = "max_completion_tokens"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation with a model."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a model, and its place in the run.

    Attributes:
        messages: The conversation, oldest first.
        params: Further parameters in the provider's own names, such as `temperature`.
        role: "root" for calls of the root model, "sub" for calls by the code in its REPL.
        query: The user's question in the run that makes the call.
        path: The identity of the call in its run, such as `r:t2` or `r.b2/b1f0c9a3e57.17`, or its
            number in a batch, such as `b.17`; the same in every replay.
        depth: 0 for the root's own calls, 1 for those of its code and children, and so on.
        reply_tokens: The maximum length of the reply that the run's budget sets, or None. `params`
            contains it too, as `max_completion_tokens`, for models that pass parameters on
            unchanged.
        schema: The JSON schema in which the model has to answer, or None.
    """

    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    role: Literal["root", "sub"] = "sub"
    query: str = ""
    path: str = ""
    depth: int = 0
    reply_tokens: int | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """The token counts that the provider reported.

    Cached tokens are part of the input, reasoning tokens part of the output.

    Attributes:
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the reply.
        cached_tokens: Input tokens that the provider read from its cache.
        reasoning_tokens: Output tokens of reasoning.
        cache_write_tokens: Input tokens that the provider wrote to its cache and charges for that,
            as Anthropic does.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """The sum of two counts."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """The completion of a request.

    Attributes:
        text: The text that the model generated.
        usage: The token counts that the provider reported, or None.
        model: The model name that the provider reported.
        finish_reason: Why the model stopped, as the provider names it: "stop", "length" and the
            like.
    """

    text: str
    usage: Usage | None = None
    model: str = ""
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """The outcome of one call of a model, including its retries.

    Attributes:
        reply: The model's reply as an `LLMReply`, or an `LLMError`.
        model: The model name that the provider reported; for a failed call, the requested name.
        usage: The token counts that the provider reported for the reply, or None.
        cost: The price of the reply in US dollars, or None if it is unknown or was not looked up.
            Never zero for "unknown".
        finish_reason: Why the model stopped, as the provider names it.
        retries: How many retries were made.
        wait: How many seconds the call waited for a slot of the limiter, all attempts together.
        start: When the first attempt was sent, in seconds of `time.monotonic()`; if none was sent,
            when the call failed.
        end: When the reply arrived, or the last attempt failed.
        saved: For a reply from a cache, the tokens of the call that it saved; `usage` and `cost`
            are zero. None for a call that was made.
        replayed: Whether the reply is from the journal of a resumed run: the call was made before.
    """

    reply: str
    model: str
    usage: Usage | None = None
    cost: float | None = None
    finish_reason: str | None = None
    retries: int = 0
    wait: float = 0.0
    start: float = 0.0
    end: float = 0.0
    saved: Usage | None = None
    replayed: bool = False

    @property
    def error(self) -> LLMError | None:
        """The error of a failed call, else None."""
        return self.reply if isinstance(self.reply, LLMError) else None
