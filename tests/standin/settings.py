"""What the stand-in does, as frozen data that crosses a process boundary as JSON."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

# In OpenAI's words; other wires have their own for the same, or none (`Wire.lacks`).
FaultKind = Literal[
    "rate_limit",  # 429, with Retry-After where `retry_after` says so
    "quota",  # 429 "insufficient_quota": no use in asking again
    "server",  # 500
    "unavailable",  # 503, with Retry-After where `retry_after` says so
    "auth",  # 401
    "echo_key",  # 401 with the request's key in its message
    "bad_request",  # 400
    "context_length",  # 400 "context_length_exceeded"
    "not_found",  # 404: no such model
    "hang",  # no answer, ever; a stream stops after its first piece
    "reset",  # the connection is reset; a stream's after its first piece
    # A right answer, then the connection is closed without a word, as an idle keep-alive connection
    # is
    "close",
    # JSON cut in half under a matching length; a stream ends in mid-answer without [DONE]
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
    "length",  # the answer cut short, finish_reason "length"
    "content_filter",  # no text, finish_reason "content_filter"
    "no_stream",  # a plain answer though a stream was asked for
    "no_usage",  # a right answer without token counts
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts that a reply claims."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0


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
    """One chat completion as it was asked, on whichever wire; `body` is in OpenAI's words, `prompt`
    the content of its last message.
    """

    number: int
    model: str
    prompt: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def turn(self) -> int:
        """How many replies the conversation holds already."""
        return sum(message.get("role") == "assistant" for message in self.body["messages"])


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong; which calls it meets is told by one of `rate`, `at` and `match`,
    or all of them without.
    """

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
        jitter: The latency differs by up to so many seconds either way, in a seeded order.
        slow_above: From so many calls in flight on, latency grows in proportion, as on an
            overloaded machine.
        capacity: With so many calls in flight, a further one gets 429 at once.
        seed: Decides jitter and which calls a fault's rate meets.
        faults: What goes wrong; the first that fits.
        scripts: Answers by model name; see the package's docstring.
        piece: Characters in each piece of a stream.
        piece_interval: Seconds between the pieces of a stream.
        models: What `/v1/models` lists.
        api_key: Where set, a request with another key gets 401.
        headers: Sent with every answer.
        compress: Answers are sent with gzip where the request accepts it.
        port: Where it listens; a free one by default. For servers that start late.
        certificate: Files of a certificate and its key: then it speaks TLS, from the start on.
        keep_requests: Keep headers and bodies of all chat completions, for `requests()`.
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
        """The settings that `dataclasses.asdict` made JSON of."""
        return cls(**revive(values))


def revive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Settings` as JSON gave them, with their records back in place."""
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
