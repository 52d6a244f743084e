"""What a run leaves: its answer, where that stands in the document, and the record of how it came
about.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

from rlm_integrations._files import write_whole
from rlm_integrations._json import read_fields, to_plain
from rlm_integrations.errors import InputError
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import Message, Usage
from rlm_integrations.run_setup import ModelNames, SourceInfo
from rlm_integrations.spending import Spending

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from rlm_integrations.store import SharedStore

    T_co = TypeVar("T_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    SharedStore = Any  # the annotations are read at run time, and the store is a layer above
    T_co = TypeVar("T_co", covariant=True)  # defaults came with Python 3.13

SCHEMA = 1

StopReason = Literal[
    "final",
    "max_iterations",
    "budget_calls",
    "budget_tokens",
    "budget_cost",
    "budget_seconds",
    "repeated_reply",
    "model_error",
    "sandbox_lost",
    "cancelled",
    "failed",
]


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


_SHOWN = 2_000  # characters of an answer that `print(result)` shows
_CITATIONS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RLMResult(Generic[T_co]):
    """What a run leaves.

    It can be pickled and copied; a pickle holds the store, but not the document.

    Attributes:
        answer: The answer: a string, or an instance of `output_type`. Of a run that did not finish
            it is the best string so far; with an `output_type` it is None, unless the last value
            fits the type.
        partial: The best words so far of a run that did not finish; None where `stop_reason` is
            "final".
        citations: Verified places in the document; see `Citation`.
        stop_reason: How the run ended; "final" is the only end that the model chose. "failed" has
            the record of a run that raised.
        iterations: How many turns the root model took.
        total_calls: Calls to models: root, sub and child.
        spent: What they took, by model and by depth.
        trajectory: Every turn.
        messages: The conversation with the root model. A document that was sent whole
            (`Limits.single_call_below`) is named, not repeated.
        run_id: The run's name.
        dropped_citations: How many of the model's citations were not in the document, and are not
            shown.
        error: What went wrong, for the stops that are errors.
        elapsed: Seconds.
        layers: The layers of the sandbox that were on.
        store: What was found on the way; None with `store_mode="none"`.
        question: The question that was asked.
        sources: The documents that it was asked about; see `SourceInfo`.
        models: The names of its models; see `ModelNames`.
        options: What the `RLM` was made with beside its models, as plain JSON: `max_iterations`,
            `max_depth`, `max_parallel_calls`, `store_mode`, `on_incomplete`, `budget`, `limits` and
            `retry` with all their fields, and by name `sandbox`, `tools` and `output_type`.
        version: The version of this library that ran it.
        started: When it began, in seconds since 1970 (UTC); the other times of the record are
            seconds since then. None where a file does not say.
    """

    answer: T_co
    partial: str | None = None
    citations: tuple[Citation, ...] = ()
    stop_reason: StopReason = "final"
    iterations: int = 0
    total_calls: int = 0
    spent: Spending = field(default_factory=Spending)
    trajectory: tuple[Iteration, ...] = ()
    messages: tuple[Message, ...] = ()
    run_id: str = ""
    dropped_citations: int = 0
    error: str | None = None
    elapsed: float = 0.0
    layers: Mapping[str, str] = field(default_factory=dict)
    store: "SharedStore | None" = field(default=None, compare=False, repr=False)
    question: str = ""
    sources: tuple[SourceInfo, ...] = ()
    models: ModelNames = field(default_factory=ModelNames)
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    started: float | None = None

    @property
    def usage(self) -> Mapping[str, Usage | None]:
        """Tokens by model, or None ("unknown") where its provider did not count every call.

        What it did count, and tokens by depth, are in `spent`.
        """
        uncounted = self.spent.uncounted
        return {
            model: None if model in uncounted else usage
            for model, usage in self.spent.usage.items()
        }

    @property
    def cost(self) -> float | None:
        """US dollars, or None where a model has no known price; by model and by depth they stand in
        `spent`.
        """
        return self.spent.total.cost

    @property
    def repl_history(self) -> tuple[Execution, ...]:
        """Every block that was run, in order."""
        return tuple(execution for turn in self.trajectory for execution in turn.executions)

    def __repr__(self) -> str:
        counts = f"iterations={self.iterations}, total_calls={self.total_calls}, citations={len(self.citations)}"
        return f"RLMResult(answer={_cut(self.answer, 200)}, stop_reason={self.stop_reason!r}, {counts}, run_id={self.run_id!r})"

    def __str__(self) -> str:
        """The answer, its citations, and how the run ended. Long ones are cut."""
        best = self.partial if self.answer is None and self.partial is not None else self.answer
        answer = best if isinstance(best, str) and len(best) <= _SHOWN else _cut(best, _SHOWN)
        cited = [
            f"[{number}] {each.source}[{each.start}:{each.end}] {_cut(each.quote, 200)}"
            for number, each in enumerate(self.citations[:_CITATIONS_SHOWN], 1)
        ]
        more = len(self.citations) - _CITATIONS_SHOWN
        cited += [f"… and {more:,} more citations"] if more > 0 else []
        end = f"({self.stop_reason}; {self.iterations} turns, {self.total_calls} calls, {self.elapsed:.2f} s)"
        return "\n".join([answer, *cited, *([_cut(self.error, 200)] if self.error else []), end])

    def __hash__(self) -> int:
        return hash(self.run_id)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON, its store included. The document is not in it: prompts and the
        store refer to it by spans.

        Blocks, which `repl_history` lists, are under `trajectory`, in `executions`. What JSON does
        not have becomes a string: NaN and the infinities ("NaN", "Infinity", "-Infinity"), dates
        and the like.
        """
        return {
            "schema": SCHEMA,
            **{name: to_plain(getattr(self, name)) for name in self.__slots__},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote.

        A typed answer comes back as plain JSON:
        `pydantic.TypeAdapter(output_type).validate_python(result.answer)` makes the type of it. The
        store comes back without the document: `result.store.with_document(context)` gives it back.

        Raises:
            InputError: It is of another schema, or damaged; the message names the field.
        """
        given: object = data  # a file may hold any JSON
        schema = given.get("schema") if isinstance(given, Mapping) else None
        if type(schema) is not int or schema != SCHEMA:
            of = (
                f"of schema {schema}"
                if type(schema) is int and abs(schema) < 1_000
                else "not a saved result"
            )
            raise InputError(
                f"a result of schema {SCHEMA} is needed, but this is {of}: read it with the version that wrote it"
            )
        rest = {name: value for name, value in data.items() if name != "schema"}
        try:
            return cls(
                **read_fields(cls, rest, omit=frozenset({"store"})), store=_store(rest.get("store"))
            )
        except RecursionError:
            raise InputError("the record nests too deep: it is not a saved result") from None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the result to a file as JSON. If that fails, the file keeps its old content.

        Raises:
            OSError: The file cannot be written.
        """
        write_whole(path, [json.dumps(self.to_dict(), allow_nan=False)])

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The result that `save` wrote; see `from_dict` for what comes back.

        Raises:
            OSError: The file cannot be read.
            InputError: The file is not a saved result, or is damaged.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_bytes()))
        except InputError as error:
            raise InputError(f"{str(path)!r}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{str(path)!r} is not a saved result: {error}") from None


def _store(data: Any) -> "SharedStore | None":
    if data is None:
        return None
    from rlm_integrations.store import SharedStore

    return SharedStore.from_dict(data)


def _cut(value: Any, most: int) -> str:
    """The value's repr, of bounded length."""
    if isinstance(value, str):
        return (
            repr(value) if len(value) <= most else f"{value[:most]!r}… ({len(value):,} characters)"
        )
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
