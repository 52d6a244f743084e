"""What a run leaves: its answer, where that stands in the document, and the record of how it came about."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError, Message, SpanRef, Usage
from rlm_integrations.spans import PromptPieces

if TYPE_CHECKING:
    from rlm_integrations.store import SharedStore

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
]


@dataclass(frozen=True, slots=True)
class Citation:
    """A place in the document that supports the answer. `document[start:end] == quote` was checked when it was made.

    Attributes:
        source: The name of the text, `context_0` and so on.
        start: Its first character there.
        end: The character after its last.
        quote: The document's own words.
        metadata: What the document said about that text.
        ambiguous: Whether the words were looked up, and stand elsewhere too; the first place is shown.
    """

    source: str
    start: int
    end: int
    quote: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ambiguous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubCall:
    """One call to a model that code made, or a child run.

    Attributes:
        path: Its place in the run, such as `r.2/b.17`; the same at every replay.
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
        turns: What a child run did.
        citations: The places of the root's document that a child run gave as evidence; verified, as the result's own.
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
    turns: tuple["Iteration", ...] = ()
    citations: tuple[Citation, ...] = ()
    dropped_citations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One block that was run.

    Attributes:
        block: Its number in the run.
        code: What was run.
        status: "ok", "error", "interrupted" or "lost".
        stdout: What it printed, up to `Limits.stdout_kept` characters.
        stderr: Likewise.
        output: Both in the order in which they were written.
        dropped: Characters that were not kept.
        error: The traceback, or None.
        elapsed: Seconds.
        store_events: What it wrote to the store: `op`, `id`, `type`, `description`, `worker`, `ts`.
        batch_calls: Its batches: `prompts_count`, `model`, `execution_time`, `ts`.
        subcalls: Its calls to models and child runs, in the order in which they ended.
    """

    block: int
    code: str
    status: str
    stdout: str = ""
    stderr: str = ""
    output: str = ""
    dropped: int = 0
    error: str | None = None
    elapsed: float = 0.0
    store_events: tuple[Mapping[str, Any], ...] = ()
    batch_calls: tuple[Mapping[str, Any], ...] = ()
    subcalls: tuple[SubCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One turn of the root model.

    Attributes:
        iteration: Its number, from 1.
        reply: What the model wrote.
        executions: The blocks that were run.
        note: What the model was told beside their output, or "".
        start: When the model was asked, in seconds since the run began.
        end: When its blocks were done.
        usage: The tokens of the root's call.
    """

    iteration: int
    reply: str
    executions: tuple[Execution, ...] = ()
    note: str = ""
    start: float = 0.0
    end: float = 0.0
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls took.

    Attributes:
        calls: How many there were.
        usage: Their tokens, as far as providers said.
        cost: US dollars, or None ("unknown") where any of them has no price.
    """

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        """Both in sum."""
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Spent(self.calls + other.calls, self.usage + other.usage, cost)


Price = Callable[[Usage, str], float | None]


class Tally:
    """What a run took, its children included. It is added up when it is first asked: reading the price list takes a while.

    Args:
        calls: Of each call the model, the depth, and the tokens, or None where the provider did not say.
        price: What tokens of a model cost.
    """

    def __init__(self, calls: Sequence[tuple[str, int, Usage | None]] = (), price: Price = lambda _usage, _model: None) -> None:
        self._calls = calls
        self._price = price

    @cached_property
    def _added_up(self) -> tuple[dict[str, Spent], dict[int, Spent]]:
        by_model: dict[str, Spent] = {}
        by_depth: dict[int, Spent] = {}
        for model, depth, usage in self._calls:
            spent = Spent(1, usage or Usage(), None if usage is None else self._price(usage, model))
            by_model[model] = by_model.get(model, Spent()) + spent
            by_depth[depth] = by_depth.get(depth, Spent()) + spent
        return by_model, by_depth

    def calls_at(self, depth: int) -> int:
        """How many calls there were at this depth."""
        if "_added_up" in self.__dict__:
            return self.by_depth[depth].calls if depth in self.by_depth else 0
        return sum(each == depth for _, each, _ in self._calls)

    @cached_property
    def usage(self) -> Mapping[str, Usage]:
        """Tokens by model. Unlike the rest it needs no price list."""
        if "_added_up" in self.__dict__:
            return {model: spent.usage for model, spent in self.by_model.items()}
        found: dict[str, Usage] = {}
        for model, _, usage in self._calls:
            found[model] = found.get(model, Usage()) + (usage or Usage())
        return found

    @property
    def by_model(self) -> Mapping[str, Spent]:
        """By the name of the model."""
        return self._added_up[0]

    @property
    def by_depth(self) -> Mapping[int, Spent]:
        """0 for the root's own calls, 1 for those of its code, and so on."""
        return self._added_up[1]

    @property
    def total(self) -> Spent:
        """All in all."""
        return sum(self.by_model.values(), Spent())

    def to_dict(self) -> dict[str, Any]:
        """The tally as plain JSON."""
        return {"by_model": _plain(self.by_model), "by_depth": _plain(self.by_depth), "total": _plain(self.total)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The tally that `to_dict` wrote."""
        tally = cls()
        by_model = {model: _spent(each) for model, each in data["by_model"].items()}
        tally.__dict__["_added_up"] = by_model, {int(depth): _spent(each) for depth, each in data["by_depth"].items()}
        return tally

    def __eq__(self, other: object) -> bool:
        return self._added_up == other._added_up if isinstance(other, Tally) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # it holds dicts

    def __repr__(self) -> str:
        return f"<Tally of {len(self._calls)} calls>"  # not its sums: whoever prints an object does not want to wait for a price list


@dataclass(frozen=True, slots=True, kw_only=True)
class RLMResult:
    """What a run leaves.

    Attributes:
        answer: The answer: a string, or an instance of `output_type`. Of a run that did not finish it is the best string so far; with an
            `output_type` it is None, unless the last value fits the type.
        partial: The best words so far of a run that did not finish; None where `stop_reason` is "final".
        citations: Verified places in the document; see `Citation`.
        stop_reason: How the run ended; "final" is the only end that the model chose.
        iterations: How many turns the root model took.
        total_calls: Calls to models: root, sub and child.
        spent: What they took, by model and by depth.
        trajectory: Every turn.
        messages: The conversation with the root model.
        run_id: The run's name.
        dropped_citations: How many of the model's citations were not in the document, and are not shown.
        error: What went wrong, for the stops that are errors.
        elapsed: Seconds.
        layers: The layers of the sandbox that were on.
        store: What was found on the way; None with `store_mode="none"`.
    """

    answer: Any
    partial: str | None = None
    citations: tuple[Citation, ...] = ()
    stop_reason: StopReason = "final"
    iterations: int = 0
    total_calls: int = 0
    spent: Tally = field(default_factory=Tally)
    trajectory: tuple[Iteration, ...] = ()
    messages: tuple[Message, ...] = ()
    run_id: str = ""
    dropped_citations: int = 0
    error: str | None = None
    elapsed: float = 0.0
    layers: Mapping[str, str] = field(default_factory=dict)
    store: "SharedStore | None" = field(default=None, compare=False, repr=False)

    @property
    def usage(self) -> Mapping[str, Usage]:
        """Tokens by model; by depth they stand in `spent`."""
        return self.spent.usage

    @property
    def cost(self) -> float | None:
        """US dollars, or None where a model has no known price; by model and by depth they stand in `spent`."""
        return self.spent.total.cost

    @property
    def repl_history(self) -> tuple[Execution, ...]:
        """Every block that was run, in order."""
        return tuple(execution for turn in self.trajectory for execution in turn.executions)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON, but for the store, which has an export of its own."""
        return {"schema": SCHEMA, **{name: _plain(getattr(self, name)) for name in self.__slots__ if name != "store"}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote.

        Raises:
            InputError: It is of another version, or no result.
        """
        if data.get("schema") != SCHEMA:
            raise InputError(f"this is no result of schema {SCHEMA}, but of {data.get('schema')!r}: use the version that wrote it")
        fields = {name: value for name, value in data.items() if name != "schema"}
        fields["citations"] = tuple(Citation(**each) for each in data["citations"])
        fields["trajectory"] = tuple(_iteration(each) for each in data["trajectory"])
        fields["messages"] = tuple(Message(**each) for each in data["messages"])
        fields["spent"] = Tally.from_dict(data["spent"])
        return cls(**fields)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the result to a file as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), ensure_ascii=True), encoding="utf-8")


def _plain(value: Any) -> Any:
    """Any value of a result as JSON."""
    if isinstance(value, LLMError):
        return {"error": {"type": value.type, "message": value.message, "retries": value.retries}}
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Tally):
        return value.to_dict()
    if hasattr(value, "model_dump"):  # an instance of a pydantic `output_type`
        return value.model_dump(mode="json")
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return str(value)


def _iteration(data: Mapping[str, Any]) -> Iteration:
    executions = tuple(_execution(each) for each in data["executions"])
    return Iteration(**{**data, "executions": executions, "usage": _usage(data["usage"])})


def _execution(data: Mapping[str, Any]) -> Execution:
    lists = {name: tuple(data[name]) for name in ("store_events", "batch_calls")}
    return Execution(**{**data, **lists, "subcalls": tuple(_subcall(each) for each in data["subcalls"])})


def _subcall(data: Mapping[str, Any]) -> SubCall:
    prompt = data["prompt"]
    pieces = tuple(each if isinstance(each, str) else SpanRef(**each) for each in prompt["pieces"])
    reply = data["reply"] if isinstance(data["reply"], str) else LLMError(**data["reply"]["error"])
    known = {"prompt": PromptPieces(pieces, tuple(prompt["ambiguous"]), prompt["sha256"]), "reply": reply, "usage": _usage(data["usage"])}
    lists = {"turns": tuple(_iteration(each) for each in data["turns"]), "citations": tuple(Citation(**each) for each in data["citations"])}
    return SubCall(**{**data, **known, **lists})


def _usage(data: Mapping[str, int] | None) -> Usage | None:
    return None if data is None else Usage(**data)


def _spent(data: Mapping[str, Any]) -> Spent:
    return Spent(data["calls"], Usage(**data["usage"]), data["cost"])
