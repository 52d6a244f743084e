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
from rlm_integrations.records import Message, Usage
from rlm_integrations.run_setup import ModelNames, SourceInfo
from rlm_integrations.spending import Spending
from rlm_integrations.trajectory import Citation, Execution, FunctionCall, Iteration, SubCall

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from rlm_integrations.store import SharedStore

    T_co = TypeVar("T_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    SharedStore = Any  # the annotations are read at run time, and the store is a layer above
    T_co = TypeVar("T_co", covariant=True)  # defaults came with Python 3.13

__all__ = [
    "Citation",
    "Execution",
    "FunctionCall",
    "Iteration",
    "RLMResult",
    "StopReason",
    "SubCall",
]

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
