"""The settings of the stand-in, as frozen data that is sent to another process as JSON."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

# In OpenAI's terms; other APIs have their own, or cannot express the fault (`Wire.lacks`).
FaultKind = Literal[
    "rate_limit",  # 429, with Retry-After if `retry_after` is set
    "quota",  # 429 "insufficient_quota": a retry cannot help
    "server",  # 500
    "unavailable",  # 503, with Retry-After if `retry_after` is set
    "auth",  # 401
    "echo_key",  # 401 with the request's key in its message
    "bad_request",  # 400
    "context_length",  # 400 "context_length_exceeded"
    "not_found",  # 404: no such model
    "hang",  # never an answer; a stream stops after its first piece
    "reset",  # the connection is reset; a stream's after its first piece
    # A right answer, then the connection is closed silently, as an idle keep-alive connection is
    "close",
    # Truncated JSON with a matching length; a stream ends inside the answer without [DONE]
    "truncated",
    # Less body than content-length announced, then the end; a stream ends after its first piece
    "cut",
    "content_type",  # 200 with an HTML page
    # 200 with an error object instead of choices, as some gateways do; a stream sends it as an
    # event
    "error_body",
    "empty_choices",
    "null_content",
    "refusal",
    "tool_calls",
    "length",  # a truncated answer, finish_reason "length"
    "content_filter",  # no text, finish_reason "content_filter"
    "no_stream",  # a plain answer although a stream was requested
    "no_usage",  # a right answer without token counts
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The token counts that a reply reports; `written` to a cache is Anthropic's."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer; `usage` None counts a token for every four characters.

    A tool call is a tool's name and its arguments.
    """

    text: str | None
    finish_reason: str = "stop"
    refusal: str | None = None
    usage: Usage | None = None
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """One requested chat completion, of any API; `body` is in OpenAI's words, `prompt` the content
    of its last message.
    """

    number: int
    model: str
    prompt: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def turn(self) -> int:
        """The number of replies in the conversation."""
        return sum(message.get("role") == "assistant" for message in self.body["messages"])


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault; one of `rate`, `at` and `match` selects its calls, or all calls without them."""

    kind: FaultKind
    _: dataclasses.KW_ONLY
    rate: float = 0.0
    at: tuple[int, ...] = ()
    match: str = ""
    times: int | None = None
    retry_after: float | str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"no fault is called {self.kind!r}; there are {get_args(FaultKind)}")
        if abs(self.rate * 100 - round(self.rate * 100)) > 1e-9 or not 0 <= self.rate <= 1:
            raise ValueError(f"a rate is a whole number of per cents, not {self.rate!r}")
        if (self.rate > 0) + bool(self.at) + bool(self.match) > 1:
            raise ValueError("a fault is chosen by one of rate, at and match")


Script = Sequence[str | Reply] | Callable[[Ask], str | Reply] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the stand-in behaves.

    Attributes:
        latency: Seconds from the end of the request to its answer, faults included.
        jitter: The latency varies by up to this many seconds either way, in a seeded order.
        slow_above: Above this many calls in flight, latency grows in proportion, as on an
            overloaded machine.
        capacity: With this many calls in flight, a further one gets 429 at once.
        seed: Determines the jitter and the calls of a fault's rate.
        faults: The faults; the first that matches applies.
        scripts: Answers by model name; see the package's docstring.
        piece: Characters in each piece of a stream.
        piece_interval: Seconds between the pieces of a stream.
        models: What `/v1/models` lists.
        api_key: If set, a request with another key gets 401.
        headers: Sent with every answer.
        compress: Whether answers are sent with gzip if the request accepts it.
        port: The port; a free one by default. For servers that start late.
        certificate: Files of a certificate and its key, for TLS.
        keep_requests: Whether to keep headers and bodies of all chat completions, for `requests()`.
    """

    latency: float = 0.0
    jitter: float = 0.0
    slow_above: int | None = None
    capacity: int | None = None
    seed: int = 0
    faults: Sequence[Fault] = ()
    scripts: Mapping[str, Script] = field(default_factory=dict)
    piece: int = 16
    piece_interval: float = 0.0
    models: Sequence[str] = ("root", "sub")
    api_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    compress: bool = False
    port: int = 0
    certificate: tuple[str, str] | None = None
    keep_requests: bool = False

    def __post_init__(self) -> None:
        if sum(round(fault.rate * 100) for fault in self.faults) > 100:
            raise ValueError("the faults' rates come to more than all calls")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The settings from the JSON of `dataclasses.asdict`."""
        return cls(**revive(values))


def revive(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Settings` from JSON, with their records restored."""
    fields = dict(values)
    if "faults" in fields:
        fields["faults"] = tuple(
            Fault(**{**each, "at": tuple(each["at"])}) for each in fields["faults"]
        )
    if "scripts" in fields:
        fields["scripts"] = {
            model: _revive_script(script) for model, script in fields["scripts"].items()
        }
    return fields


def _revive_script(script: Any) -> Any:
    if isinstance(script, str):
        return script
    return [
        each
        if isinstance(each, str)
        else Reply(**{**each, "usage": each["usage"] and Usage(**each["usage"])})
        for each in script
    ]
