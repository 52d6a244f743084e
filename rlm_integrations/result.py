"""The result of a run: its answer, the supporting places in the document, and a record of every
turn and call.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

from rlm_integrations._files import write_whole
from rlm_integrations._json import encode_record, read_fields, to_plain
from rlm_integrations.cited_answer import AnswerCitation, answer_citations
from rlm_integrations.coverage import Coverage
from rlm_integrations.errors import InputError
from rlm_integrations.records import Message, Usage
from rlm_integrations.run_setup import ModelNames, SourceInfo
from rlm_integrations.spending import Spending
from rlm_integrations.trajectory import (
    Citation,
    DroppedEvidence,
    Execution,
    FunctionCall,
    Iteration,
    SubCall,
)

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from rlm_integrations.report import RunDiff
    from rlm_integrations.store import SharedStore

    T_co = TypeVar("T_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    # the annotations are evaluated at run time, and the store is in a higher layer
    SharedStore = Any
    T_co = TypeVar("T_co", covariant=True)  # defaults need Python 3.13

__all__ = [
    "AnswerCitation",
    "Citation",
    "DroppedEvidence",
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
    "running",
    "interrupted",
]


_SHOWN = 2_000  # characters of the answer that `print(result)` shows
_CITATIONS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RLMResult(Generic[T_co]):
    """The result of a run.

    It can be pickled and copied; a pickle contains the store, but not the document.

    Attributes:
        answer: The answer: a string, or an instance of `output_type`. For an incomplete run it is
            the best string so far; with an `output_type` it is None, unless the last value is valid
            for the type.
        partial: The best text so far of an incomplete run; None if `stop_reason` is "final".
        citations: Verified places in the document; see `Citation`.
        stop_reason: Why the run ended. "final" means that the model gave its final answer;
            "failed", that the run raised an exception. Only `Storage.run` gives "running", for a
            run that a process has, and "interrupted", for one whose process ended without a
            result.
        iterations: The number of turns of the root model.
        total_calls: The number of model calls: of the root, of its code and of child runs. Those
            that the cache answered are not in it; `spent.cached` counts them.
        spent: The calls, tokens and cost, by model and by depth.
        trajectory: Every turn.
        messages: The conversation with the root model. A document that was sent as a whole
            (`Limits.single_call_below`) is replaced by its name.
        run_id: The id of the run.
        dropped_citations: How many citations were dropped because they are not in the document.
        dropped: What was dropped, and why; the first hundred.
        error: The error's message, if the run ended with an error; or how much was read, if that is
            less than `require_coverage`; otherwise None.
        elapsed: Its duration in seconds.
        layers: The sandbox's layers of protection and the state of each.
        store: The store with the run's findings; None with `store_mode="none"`.
        question: The question that was asked.
        sources: The documents of the context; see `SourceInfo`.
        models: The names of its models; see `ModelNames`.
        options: The options of the `RLM` other than its models, as plain JSON: `max_iterations`,
            `max_depth`, `max_parallel_calls`, `store_mode`, `instructions`, `prompt`,
            `structured`, `on_incomplete`, `require_coverage`, `cache`, `budget`, `limits` and
            `retry` with all their fields, and the names of `sandbox`, `tools` and `output_type`.
        version: The version of this library that ran it.
        started: When the run began, in seconds since 1970 (UTC); the other times of the record are
            seconds since then. None if it was loaded from a file without this field.
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
    dropped: tuple[DroppedEvidence, ...] = ()
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
        """Tokens by model, or None ("unknown") for a model whose provider did not report the tokens
        of every call.

        The reported ones, and tokens by depth, are in `spent`.
        """
        uncounted = self.spent.uncounted
        return {
            model: None if model in uncounted else usage
            for model, usage in self.spent.usage.items()
        }

    @property
    def cost(self) -> float | None:
        """The cost in US dollars, or None if a model has no known price; the cost by model and by
        depth is in `spent`.
        """
        return self.spent.total.cost

    @property
    def repl_history(self) -> tuple[Execution, ...]:
        """All blocks that were run, in order."""
        return tuple(execution for turn in self.trajectory for execution in turn.executions)

    @property
    def coverage(self) -> Coverage:
        """Which parts of the document were in which prompts, by this record; computed at each
        access. It has what root models were shown only with `RLM(require_coverage=…)`.
        """
        return Coverage.of(self)

    @property
    def answer_citations(self) -> tuple[AnswerCitation, ...]:
        """The statements of the answer that numbers in brackets follow, with their citations:
        `[1]` is `citations[0]`. Empty for an answer that is no string.
        """
        return self._cited[0]

    @property
    def uncited(self) -> tuple[str, ...]:
        """The sentences of the answer that no number follows."""
        return self._cited[1]

    @property
    def _cited(self) -> tuple[tuple[AnswerCitation, ...], tuple[str, ...]]:
        text = self.answer if isinstance(self.answer, str) else ""
        cited, uncited = answer_citations(text, self.citations)
        return tuple(cited), tuple(uncited)

    def __repr__(self) -> str:
        counts = (
            f"iterations={self.iterations}, total_calls={self.total_calls}, "
            f"citations={len(self.citations)}"
        )
        return (
            f"RLMResult(answer={_cut(self.answer, 200)}, stop_reason={self.stop_reason!r}, "
            f"{counts}, run_id={self.run_id!r})"
        )

    def __str__(self) -> str:
        """The answer, its citations, and how the run ended. Long ones are cut."""
        best = self.partial if self.answer is None and self.partial is not None else self.answer
        answer = best if isinstance(best, str) and len(best) <= _SHOWN else _cut(best, _SHOWN)
        cited = [
            f"[{number}] {each.location or f'{each.source}[{each.start}:{each.end}]'} "
            f"{_cut(each.quote, 200)}"
            for number, each in enumerate(self.citations[:_CITATIONS_SHOWN], 1)
        ]
        more = len(self.citations) - _CITATIONS_SHOWN
        cited += [f"… and {more:,} more citations"] if more > 0 else []
        end = (
            f"({self.stop_reason}; {self.iterations} turns, {self.total_calls} calls, "
            f"{self.elapsed:.2f} s)"
        )
        return "\n".join([answer, *cited, *([_cut(self.error, 200)] if self.error else []), end])

    def __hash__(self) -> int:
        return hash(self.run_id)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON, its store included. The document is not in it: prompts and the
        store refer to it by spans.

        The blocks of `repl_history` are under `trajectory`, in `executions`. Values that JSON does
        not support become strings: NaN and the infinities ("NaN", "Infinity", "-Infinity"), dates
        and others.
        """
        return {
            "schema": SCHEMA,
            **{name: to_plain(getattr(self, name)) for name in self.__slots__},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The result from the output of `to_dict`.

        A typed answer is loaded as plain JSON:
        `pydantic.TypeAdapter(output_type).validate_python(result.answer)` converts it. The store is
        loaded without the document: `result.store.with_document(context)` adds it.

        Raises:
            InputError: The data has another schema, or is damaged; the message names the field.
        """
        given: object = data  # a file may contain any JSON
        schema = given.get("schema") if isinstance(given, Mapping) else None
        if type(schema) is not int or schema != SCHEMA:
            of = (
                f"of schema {schema}"
                if type(schema) is int and abs(schema) < 1_000
                else "not a saved result"
            )
            raise InputError(
                f"a result of schema {SCHEMA} is needed, but this is {of}: read it with the "
                "version that wrote it"
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
        """Load a result that `save` wrote; see `from_dict` on typed answers and the store.

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

    def to_html(
        self,
        path: str | PathLike[str] | None = None,
        *,
        context: object = None,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> str:
        """The run as a page of HTML: one file that needs no network and no other file.

        It contains the whole record, prompts and replies included, and with `context` the text of
        the document. Blocks.

        Args:
            path: The file to write the page to, if any.
            context: The document of the run, in any form that `RLM.completion` takes.
            encoding: As in `Limits`.
            errors: As `Limits.decode_errors`.

        Raises:
            ContextError: The context cannot be read.
            InputError: It is not the document of the run, or has more than 50,000,000 characters.
            OSError: The file cannot be written.
        """
        from rlm_integrations import report

        page = report.run_page(self, context, encoding=encoding, errors=errors)
        if path is not None:
            write_whole(path, [page], encoding="utf-8")
        return page

    def diff(self, other: "RLMResult[Any]") -> "RunDiff":
        """The comparison with another run: settings, totals, answers, and what both did at each
        place of their trees. `print` shows it in short, `to_html` as a page.
        """
        from rlm_integrations import report

        return report.RunDiff(self, other)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """The result in a notebook: as text, and as its page in a sandboxed frame."""
        from rlm_integrations import report

        return report.notebook_bundle(self)


def _store(data: Any) -> "SharedStore | None":
    # A store that a storage keeps is saved as its name: `Storage.run` opens it
    if data is None or (isinstance(data, Mapping) and data.keys() == {"stored"}):
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


def encode_result(result: RLMResult[Any]) -> bytes:
    """The output of `RLMResult.to_dict` as compact JSON."""
    return b'{"schema":%d,%b' % (SCHEMA, b"".join(encode_record(result))[1:])
