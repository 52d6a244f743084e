"""The turns of a run, and the places in the document that support its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import CallRecord, Usage


@dataclass(frozen=True, slots=True)
class Citation:
    """A place in the document that supports the answer. `document[start:end] == quote` was verified
    when it was created.

    Attributes:
        source: The name of the source: the key of a named text, else `context_0` and so on.
        start: The offset of its first character in the source.
        end: The offset after its last character.
        quote: The exact text at this place.
        metadata: The metadata of the source.
        ambiguous: Whether the place was found by its quote, and the quote occurs more than once;
            the first place is given.
        location: The name or file of the source, and where in it the place begins, as people say
            it: `app.py:120`, `report.pdf p. 12`, `data.csv row 14`; "" for a text without a name.
    """

    source: str
    start: int
    end: int
    quote: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    ambiguous: bool = False
    location: str = ""


DropReason = Literal[
    "not found",
    "found with other words between",
    "stands in another source",
    "unknown number",
    "no evidence",
    "document changed",
    "limit reached",
]


@dataclass(frozen=True, slots=True)
class DroppedEvidence:
    """Evidence that a model gave for its answer, and that is not shown as a citation.

    Attributes:
        evidence: What it gave: a quote, cut at 1,000 characters, a span, or a number in brackets.
        reason: Why it was dropped. "not found": the document does not say so word for word. "found
            with other words between": only parts of it are there, in order. "stands in another
            source": the document says so, but not in the source, or the part, that it was given
            for. "unknown number": the answer refers to evidence that was not given. "no evidence":
            it is neither a quote nor a span of the document. "document changed": the document's
            file has changed. "limit reached": there was too much evidence, or no time to search.
    """

    evidence: str
    reason: DropReason


@dataclass(frozen=True, slots=True, kw_only=True)
class SubCall:
    """One model call made by code, or a child run.

    Attributes:
        path: Its place in the run, such as `r.b2/b1f0c9a3e57.17`; the same in every replay.
        function: The function that the code called.
        model: The model that answered; "" for a child run.
        prompt: The prompt; parts of the document are stored as spans.
        reply: The answer, or an `LLMError` if the call failed.
        depth: 1 for calls of the root's code, 2 for calls of its children's code, and so on.
        start: When the call began, in seconds since the start of the run.
        end: When the call ended.
        wait: How many seconds it waited for a slot of the limiter.
        retries: The number of retries.
        usage: Its tokens, or None if the provider did not report them.
        finish_reason: The provider's reason for the end of the reply, such as "length" for a
            truncated one.
        saved: For a reply from the cache, the tokens of the call that it saved; `usage` is zero.
            None for a call that was made.
        replayed: Whether the reply is from the journal of a resumed run: the call was made before
            the resumption, and with a child run all calls in `turns`.
        turns: The turns of a child run.
        citations: The verified places in the root's document that a child run gave as evidence.
        dropped_citations: How many citations of a child run were dropped because they are not in
            the document.
    """

    path: str
    function: str
    model: str
    prompt: PromptPieces
    reply: str
    depth: int
    start: float
    end: float
    wait: float = 0.0
    retries: int = 0
    usage: Usage | None = None
    finish_reason: str | None = None
    saved: Usage | None = None
    replayed: bool = False
    turns: tuple["Iteration", ...] = ()
    citations: tuple[Citation, ...] = ()
    dropped_citations: int = 0

    @property
    def calls(self) -> int:
        """The number of model calls: 1, or for a child run all calls of its root and its code."""
        return sum(1 + turn.calls for turn in self.turns) if self.turns else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """One call of a host function other than a model: a tool, `cite`, or a method of the store.

    Attributes:
        path: Its place in the run, such as `r.b2/cite-1f0c9a3e57`; the same in every replay.
        function: The name of the function.
        arguments: The arguments, shortened.
        start: When it began, in seconds since the start of the run.
        end: When it was answered.
        error: The exception that the code received, or None.
    """

    path: str
    function: str
    arguments: str
    start: float
    end: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One block of code that was run.

    Attributes:
        block: The block's number in the run.
        code: Its code.
        status: "ok", "error", "interrupted" (also at the end of the run) or "lost".
        stdout: The beginning of its standard output, up to `Limits.stdout_kept` characters.
        stderr: The beginning of its standard error, up to `Limits.stderr_kept` characters.
        output: Both streams, in the order in which they were written.
        dropped: How many characters of both streams were not kept.
        error: The traceback of its exception, or None.
        start: When it began, in seconds since the start of the run.
        elapsed: Its duration in seconds.
        store_events: Its writes to the store: `op`, `id`, `type`, `description`, `worker`, `ts`.
            The writes of its child runs are in the executions of `subcalls[…].turns`.
        batch_calls: Its batches of prompts: `prompts_count`, `model`, `execution_time`, `ts`. The
            child runs of a `recursive_batch` are in `subcalls`.
        subcalls: Its model calls and child runs, in the order in which they ended.
        function_calls: Its calls of tools, of `cite` and of the store, while the record has room.
        unrecorded: How many further model calls it made that were not recorded, because the record
            was full; see `Limits.recorded_chars`.
    """

    block: int
    code: str
    status: str
    stdout: str = ""
    stderr: str = ""
    output: str = ""
    dropped: int = 0
    error: str | None = None
    start: float = 0.0
    elapsed: float = 0.0
    store_events: tuple[Mapping[str, Any], ...] = ()
    batch_calls: tuple[Mapping[str, Any], ...] = ()
    subcalls: tuple[SubCall, ...] = ()
    function_calls: tuple[FunctionCall, ...] = ()
    unrecorded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One turn of the root model.

    Attributes:
        iteration: The turn's number, starting at 1.
        reply: The model's reply.
        prompt: The prompt, if it contains the whole document; with `RLM(require_coverage=…)` the
            user messages that the model was not sent before. Parts of the document are stored as
            spans. Otherwise None, and the prompt is in `messages`.
        executions: The blocks that were run in this turn.
        note: The note that the model got in addition to their output, or "".
        start: When the call to the model began, in seconds since the start of the run.
        call_end: When its reply arrived.
        end: When its last block ended.
        model: The name of the model in the provider's response.
        wait: How many seconds the call waited for a slot of the limiter.
        retries: The number of retries of the call.
        usage: The tokens of the call, or None if the provider did not report them.
        finish_reason: The provider's reason for the end of the reply, such as "length" for a
            truncated one.
        saved: For a reply from the cache, the tokens of the call that it saved; `usage` is zero.
            None for a call that was made.
        replayed: Whether the reply is from the journal of a resumed run: the call was made before.
    """

    iteration: int
    reply: str
    prompt: PromptPieces | None = None
    executions: tuple[Execution, ...] = ()
    note: str = ""
    start: float = 0.0
    call_end: float = 0.0
    end: float = 0.0
    model: str = ""
    wait: float = 0.0
    retries: int = 0
    usage: Usage | None = None
    finish_reason: str | None = None
    saved: Usage | None = None
    replayed: bool = False

    @property
    def calls(self) -> int:
        """The number of model calls that its code and its child runs made."""
        noted = sum(call.calls for execution in self.executions for call in execution.subcalls)
        return noted + sum(execution.unrecorded for execution in self.executions)


_OF_THE_RECORD: Final = (
    *("model", "wait", "retries", "usage"),
    *("finish_reason", "saved", "replayed"),
)


def call_fields(record: CallRecord) -> dict[str, Any]:
    """The fields that a turn and a sub-call have from the record of their call, without times."""
    return {name: getattr(record, name) for name in _OF_THE_RECORD}
