"""Frozen data that everybody speaks. Only the standard library is imported here: the sandbox's
child reads it too.
"""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from .errors import InputError

Role = Literal["system", "user", "assistant"]
# The parameter by which requests bound a reply; each model has a name of its own for it
BOUND = "max_completion_tokens"


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
        path: The call's place in the run, such as `r.2/b.17`, or in a batch, such as `b.17`; the
            same at every replay.
        depth: 0 for the root's own calls, 1 for those of its code and children, and so on.
        reply_tokens: The bound of the reply that a run's budget sets, or None. `params` has it too,
            as `max_completion_tokens`, for models that hand parameters on as they are.
    """

    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    role: Literal["root", "sub"] = "sub"
    query: str = ""
    path: str = ""
    depth: int = 0
    reply_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them.

    Cached tokens are part of the input, reasoning tokens part of the output.
    """

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


# Why a model stopped before its end, in the words of providers.
CUT = frozenset(
    {"content_filter", "length", "max_output_tokens", "max_tokens", "model_context_window_exceeded"}
)


class LLMReply(str):
    """A model's reply: a string that knows why the model stopped.

    Attributes:
        finish_reason: Why, in the provider's word: "stop", "length" and the like; None where it did
            not say.
    """

    __slots__ = ("finish_reason",)

    finish_reason: str | None

    def __new__(cls, text: str, finish_reason: str | None = None) -> Self:
        """The reply as a string and its field."""
        reply = super().__new__(cls, text)
        reply.finish_reason = finish_reason
        return reply

    @property
    def truncated(self) -> bool:
        """Whether it was cut before its end, by a bound of its length or by a filter."""
        return self.finish_reason is not None and self.finish_reason.lower() in CUT

    def __reduce__(self) -> tuple[Any, ...]:
        return (LLMReply, (str(self), self.finish_reason))


class LLMError(str):
    """What stands in the slot of a call that failed: a text that begins with "Error:", with the
    reason as fields.

    Attributes:
        type: The kind of failure: "timeout", "rate_limit", "server", "connection", "budget",
            "input", "refusal" and the like.
        message: What happened.
        retries: How many further tries were made.
        finish_reason: None, as for a reply.
        truncated: False, as for a reply.
    """

    __slots__ = ("message", "retries", "type")

    finish_reason: ClassVar[None] = None
    truncated: ClassVar[bool] = False

    type: str
    message: str
    retries: int

    def __new__(cls, type: str, message: str, retries: int = 0) -> Self:  # noqa: A002 - the field's name is the contract
        """The error as text and as fields."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """What became of one call of a model, its further tries included.

    Attributes:
        reply: What the model wrote, as an `LLMReply`, or the `LLMError` in its place.
        model: The name by which the provider answered; where there was no answer, the name by which
            it was asked.
        usage: Tokens as the provider counted them for the answer, or None where it did not say.
        cost: What the answer cost in US dollars, or None where that is not known or was not looked
            up. Never zero for "unknown".
        finish_reason: Why the model stopped, in the provider's word.
        retries: How many further tries were made.
        wait: How many seconds it waited for its turn, before all tries together.
        start: When the first try was sent, in seconds of `time.monotonic()`; when it failed, where
            none was.
        end: When the answer had come, or the last try had failed.
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

    @property
    def error(self) -> LLMError | None:
        """Why there is no answer, or None where there is one."""
        return self.reply if isinstance(self.reply, LLMError) else None


@dataclass(frozen=True, slots=True)
class SpanRef:
    """A piece of one source: the characters from `start` up to, not including, `end`."""

    source: str
    start: int
    end: int
    unit: Literal["chars"] = "chars"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreObject:
    """An object of the shared store, as `get`, `children` and `parents` return it.

    Over a wire it is `to_dict()`, plain JSON, and in the REPL what `from_dict` makes of that: the
    same object, whose fields are read as attributes or as keys (`found.content`,
    `found["content"]`). Its content is a copy: changing it changes nothing in the store.

    Attributes:
        id: `worker_A_000001`, or with slashes where it came in a commit or an import.
        type: A word such as "note", "claim" or "summary"; the writer's choice.
        description: What a reader of a list of objects sees.
        content: Any JSON value.
        backrefs: The places in the document that it rests on.
        parents: The ids of the objects that it was made from.
        tags: Words to find it by.
        worker: Who wrote it.
        seq: The number of the event that created it.
        ts: When that was, in seconds since 1970.
        links: What it "supports", "contradicts" or "refines": pairs of such a word and an id.
        invalid: Why it was invalidated, or None.
    """

    id: str
    type: str
    description: str
    content: Any
    backrefs: tuple[SpanRef, ...]
    parents: tuple[str, ...]
    tags: tuple[str, ...]
    worker: str
    seq: int
    ts: float
    links: tuple[tuple[str, str], ...] = ()
    invalid: str | None = None

    def __getitem__(self, key: str) -> Any:
        """The field of this name, so that objects read like the dicts that queries return."""
        if key not in self.__slots__:
            raise KeyError(key)
        return getattr(self, key)

    def to_dict(self) -> dict[str, Any]:
        """The object as plain JSON."""
        plain = {key: getattr(self, key) for key in self.__slots__}
        backrefs = [
            {"source": span.source, "start": span.start, "end": span.end} for span in self.backrefs
        ]
        lists = {
            "parents": list(self.parents),
            "tags": list(self.tags),
            "links": [list(link) for link in self.links],
        }
        return {**plain, "backrefs": backrefs, **lists}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The object that `to_dict` wrote."""
        backrefs = tuple(SpanRef(**span) for span in data["backrefs"])
        links = tuple((str(word), str(other)) for word, other in data["links"])
        return cls(
            **{
                **data,
                "backrefs": backrefs,
                "parents": tuple(data["parents"]),
                "tags": tuple(data["tags"]),
                "links": links,
            }
        )


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function of the host that model code may call by its name.

    Attributes:
        name: Its name in the REPL; `store.create` makes an object `store` with a method.
        signature: Its parameters, as `help` shows them. Whether a call fits them is the gate's to
            check.
        doc: What else `help` shows.
        aliases: Further names for the same function.
    """

    name: str
    signature: str = "(*args, **kwargs)"
    doc: str = ""
    aliases: tuple[str, ...] = ()


def undecodable(encoding: object, errors: object) -> str | None:
    """Why Python cannot decode text in this encoding with this treatment of errors, and what to do;
    None where it can.
    """
    if not isinstance(encoding, str) or not isinstance(errors, str):
        return "the names of an encoding and of a treatment of errors are strings"
    try:
        b"a".decode(encoding, "replace")
        codecs.getincrementaldecoder(encoding)
        codecs.lookup_error(errors)
    except (LookupError, ValueError) as error:  # ValueError: a null character in the name
        return (
            f"{error}: choose an encoding such as 'utf-8', and errors such as 'strict' or 'replace'"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Everything that bounds a run, beside its `Budget`.

    Attributes:
        memory: Bytes of address space that the code of one REPL may take beside the context itself.
        block_seconds: How long one block may compute: wall time while no call to the host is open,
            and processor time in any case.
        block_wall_seconds: How long one block may take in all, waiting for models included.
        grace_seconds: How long an interrupted block, which is interrupted again and again, may take
            to end before its process is killed.
        calls_per_block: How many calls to the host one block may make; a whole batch is one call.
        calls_in_flight: How many of them may be open at once; further ones wait.
        threads: How many threads one REPL may have, two of the REPL's own included. Python code
            that starts more gets a RuntimeError; code that starts them past Python is ended when
            they are next counted, four times a second.
        stdout_kept: Characters of a block's standard output that are kept, from its start.
        stderr_kept: Likewise for its standard error.
        message_bytes: How much memory the arguments of one call may take, and those of all open
            calls of a REPL together.
        stdout_shown: Characters of a block's output that the model is shown, the first and the last
            of them.
        call_seconds: How long one try of a call to a model may take once it has its turn.
        reply_tokens: How many tokens a reply may have while tokens or cost are limited; it is
            reserved before each call.
        encoding: How files are encoded, as Python's codecs name it.
        decode_errors: What stands for bytes of a file that are no text, as Python's codecs name it:
            "strict" refuses them.
        single_call_below: A context of fewer characters is answered by one call, without a REPL; 0
            for never.
        compact_at: The part of the root model's window at which older outputs and replies in its
            conversation are shortened.
        window: The root model's window in tokens, where the model does not say.
        child_runs: How many child runs, each with a REPL of its own, may be under way at once at
            each depth of a tree; further ones wait.
        batch_items: How many prompts or tasks one batch of code may have.
        prompt_chars: Characters of one prompt that code may send, or have filled in from a
            template; a longer one fails in its own slot.
        answer_chars: Characters of an answer, as text or as JSON; a longer one is refused, and the
            model is told so.
        recorded_chars: Characters of prompts, replies and writes that a tree's record keeps. Beyond
            three quarters of it, long prompts and replies are kept by their first and last
            characters and their SHA-256; beyond all of it, calls are only counted.
        store_bytes: Bytes of memory that the store of a run may take. What text searches index of
            it, once they are made, comes on top.
        query_chars: Characters that one query to the store may read and compare; to compare one
            object's type or tags counts as 10, and so does each character that the query gives out.
    """

    memory: int = 2 << 30
    block_seconds: float = 60.0
    block_wall_seconds: float = 3600.0
    grace_seconds: float = 1.0
    calls_per_block: int = 2_000
    calls_in_flight: int = 64
    threads: int = 256
    stdout_kept: int = 200_000
    stderr_kept: int = 20_000
    message_bytes: int = 1 << 30
    stdout_shown: int = 10_000
    call_seconds: float = 300.0
    reply_tokens: int = 8_192
    encoding: str = "utf-8"
    decode_errors: str = "strict"
    single_call_below: int = 0
    compact_at: float = 0.7
    window: int = 128_000
    child_runs: int = 16
    batch_items: int = 100_000
    prompt_chars: int = 20_000_000
    answer_chars: int = 10_000_000
    recorded_chars: int = 100_000_000
    store_bytes: int = 1 << 29
    query_chars: int = 500_000_000

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type is str:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"Limits({each.name}={value!r}): a number is needed")
            if not value >= 0 or (value == 0 and each.default != 0):
                raise InputError(f"Limits({each.name}={value!r}): it must be greater than 0")
            if each.type is int and not isinstance(value, int):
                raise InputError(f"Limits({each.name}={value!r}): it must be an integer")
        if self.compact_at > 1:
            raise InputError(
                f"Limits(compact_at={self.compact_at!r}): it is a part of the model's window, at most 1"
            )
        if (why := undecodable(self.encoding, self.decode_errors)) is not None:
            raise InputError(
                f"Limits(encoding={self.encoding!r}, decode_errors={self.decode_errors!r}): {why}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may spend, its children included. What is None has no bound.

    Attributes:
        max_calls: Calls to models, the root's own included; further tries of one call count once.
        max_tokens: Input and output tokens in sum.
        max_cost: US dollars. Refused before the first call for a model without a known price.
        max_seconds: Wall time.
        on_exceeded: "partial" gives the best answer so far, with its `stop_reason`; "raise" raises
            `BudgetExceededError`, which has it. `RLM(on_incomplete="raise")` raises for every other
            end without a final answer too.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    on_exceeded: Literal["partial", "raise"] = "partial"

    def __post_init__(self) -> None:
        for name in ("max_calls", "max_tokens", "max_cost", "max_seconds"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InputError(
                    f"Budget({name}={value!r}): a number greater than 0 is needed, or None for no bound"
                )
            if name in {"max_calls", "max_tokens"} and not isinstance(value, int):
                raise InputError(f"Budget({name}={value!r}): it must be an integer")
        if self.on_exceeded not in {"partial", "raise"}:
            raise InputError(
                f"Budget(on_exceeded={self.on_exceeded!r}): choose 'partial' or 'raise'"
            )
