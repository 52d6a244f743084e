"""What a run did, turn by turn, and the places in the document that support its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import Usage


@dataclass(frozen=True, slots=True)
class Citation:
    """A place in the document that supports the answer. `document[start:end] == quote` was checked
    when it was made.

    Attributes:
        source: The name of the text, `context_0` and so on.
        start: Its first character there.
        end: The character after its last.
        quote: The document's own words.
        metadata: What the document said about that text.
        ambiguous: Whether the words were looked up, and stand elsewhere too; the first place is
            shown.
    """

    source: str
    start: int
    end: int
    quote: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    ambiguous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubCall:
    """One call to a model that code made, or a child run.

    Attributes:
        path: Its place in the run, such as `r.b2/b1f0c9a3e57.17`; the same at every replay.
        function: What the code called.
        model: Who answered, "" for a child run.
        prompt: Its own words, and the document's by span.
        reply: The answer; an `LLMError` where there is none.
        depth: 1 for the calls of the root's code, and so on.
        start: When it was sent, in seconds since the run began.
        end: When it was over.
        wait: Seconds that it waited for its turn.
        retries: Further tries that it took.
        usage: Tokens, or None where the provider did not say.
        finish_reason: Why the model stopped, in the provider's word: "length" where its reply was
            cut.
        turns: What a child run did.
        citations: The places of the root's document that a child run gave as evidence; verified, as
            the result's own.
        dropped_citations: How many further ones it gave that are not in the document.
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
    turns: tuple["Iteration", ...] = ()
    citations: tuple[Citation, ...] = ()
    dropped_citations: int = 0

    @property
    def calls(self) -> int:
        """How many calls to models it stands for: 1, or of a child run those of its root and its
        code.
        """
        return sum(1 + turn.calls for turn in self.turns) if self.turns else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """One call of a host function other than a model: a tool, `cite`, or a method of the store.

    Attributes:
        path: Its place in the run, such as `r.b2/cite-1f0c9a3e57`; the same in every replay.
        function: The name of the function.
        arguments: The arguments, shortened.
        start: When it began, in seconds since the run began.
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
    """One block that was run.

    Attributes:
        block: Its number in the run.
        code: What was run.
        status: "ok", "error", "interrupted" (also by the end of its run) or "lost".
        stdout: What it printed, up to `Limits.stdout_kept` characters.
        stderr: Likewise.
        output: Both in the order in which they were written.
        dropped: Characters that were not kept.
        error: The traceback, or None.
        start: When it began, in seconds since the run began.
        elapsed: Seconds.
        store_events: What it wrote to the store: `op`, `id`, `type`, `description`, `worker`, `ts`.
            What its child runs wrote is in the executions of `subcalls[…].turns`.
        batch_calls: Its batches of prompts: `prompts_count`, `model`, `execution_time`, `ts`. The
            runs of a `recursive_batch` are in `subcalls`.
        subcalls: Its calls to models and child runs, in the order in which they ended.
        function_calls: Its calls of tools, of `cite` and of the store, as far as the record has
            room for them.
        unrecorded: How many further calls of models it made, for which the record had no room; see
            `Limits.recorded_chars`.
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
        iteration: Its number, from 1.
        reply: What the model wrote.
        prompt: What the model was asked where that holds the whole document, which is in it by
            span; else None, and `messages` has it.
        executions: The blocks that were run.
        note: What the model was told beside their output, or "".
        start: When the model was asked, in seconds since the run began.
        call_end: When its reply had come.
        end: When its blocks were done.
        model: The name by which the provider answered.
        wait: Seconds that the call waited for its turn.
        retries: How many further attempts the call took.
        usage: The tokens of the root's call.
        finish_reason: Why the model stopped, in the provider's word: "length" where its reply was
            cut.
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

    @property
    def calls(self) -> int:
        """How many calls to models its code and its child runs made."""
        noted = sum(call.calls for execution in self.executions for call in execution.subcalls)
        return noted + sum(execution.unrecorded for execution in self.executions)
