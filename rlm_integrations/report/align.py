"""Two trees of turns side by side, aligned by place."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Final

from rlm_integrations.lm.pricing import cost
from rlm_integrations.records import LLMError, Usage
from rlm_integrations.trajectory import Execution, FunctionCall, Iteration, SubCall

_Call = SubCall | FunctionCall
_Item = Iteration | Execution | SubCall | FunctionCall
_Key = tuple[str, tuple[int, ...]]  # of a call in its block: function, and its numbers
# Fields that differ between any two runs even if both did the same, or that only sum up others
_INCIDENTAL: Final = frozenset({"seconds", "tokens within", "cost within"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceDiff:
    """What two runs did at one place of their trees.

    Attributes:
        place: The place, such as "turn 2, block 1, llm_batch 17".
        level: Its depth in the tree; 1 for turns of the root.
        one: The fields of the first run by name, such as "code", "reply" or "tokens"; None if it did
            nothing at this place. "tokens within" and "cost within" are sums over the calls of a
            block or a child run. Costs are list prices by the model's name, as of this version.
        other: The same for the second run.
    """

    place: str
    level: int
    one: Mapping[str, str] | None
    other: Mapping[str, str] | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the fields that differ, times and sums excepted; empty if only one run has
        the place.
        """
        if self.one is None or self.other is None:
            return ()
        return tuple(
            name
            for name, value in self.one.items()
            if name not in _INCIDENTAL and self.other.get(name) != value
        )

    @property
    def is_same(self) -> bool:
        """Whether both runs did the same."""
        return self.one is not None and self.other is not None and not self.changed


def align(
    one: Sequence[Iteration], other: Sequence[Iteration], *, within: str = "", level: int = 1
) -> Iterator[PlaceDiff]:
    """All places of both trees, in order: the n-th turn with the n-th turn, and so on. Prompts of a
    batch have their number in it; the calls of each function are numbered by their start.
    """
    for number, (turn, its) in enumerate(zip_longest(one, other), 1):
        place = f"{within}turn {number}"
        yield _place(place, level, turn, its)
        blocks = zip_longest(_blocks(turn), _blocks(its))
        for block_number, (block, theirs) in enumerate(blocks, 1):
            inner = f"{place}, block {block_number}"
            yield _place(inner, level + 1, block, theirs)
            yield from _align_calls(block, theirs, inner, level + 2)


def _align_calls(
    one: Execution | None, other: Execution | None, within: str, level: int
) -> Iterator[PlaceDiff]:
    first, second = _calls_by_place(one), _calls_by_place(other)
    for key in sorted(first.keys() | second.keys()):
        call, theirs = first.get(key), second.get(key)
        function, numbers = key
        place = f"{within}, {function} {'.'.join(str(each + 1) for each in numbers)}"
        yield _place(place, level, call, theirs)
        turns = call.turns if isinstance(call, SubCall) else ()
        their_turns = theirs.turns if isinstance(theirs, SubCall) else ()
        yield from align(turns, their_turns, within=f"{place}, ", level=level + 1)


def _blocks(turn: Iteration | None) -> Sequence[Execution]:
    return () if turn is None else turn.executions


def _calls_by_place(block: Execution | None) -> dict[_Key, _Call]:
    """The calls by function, number of the call, and number of the prompt in it."""
    if block is None:
        return {}
    calls: list[_Call] = [*block.subcalls, *block.function_calls]
    calls.sort(key=lambda call: call.start)
    numbers: dict[str, int] = {}  # of the calls of each function, by path without items
    counts: dict[str, int] = {}
    found: dict[_Key, _Call] = {}
    for call in calls:
        path, items = _items_of(call.path)
        if path not in numbers:
            numbers[path] = counts.get(call.function, 0)
            counts[call.function] = numbers[path] + 1
        key: _Key = (call.function, (numbers[path], *items))
        while key in found:  # a record of other programs may have any paths
            key = (call.function, (*key[1], 0))
        found[key] = call
    return found


def _items_of(path: str) -> tuple[str, tuple[int, ...]]:
    """The path of a call, and the position of one prompt in it."""
    folder, slash, name = path.rpartition("/")
    call, *items = name.split(".")
    if not all(each.isascii() and each.isdigit() and len(each) < 10 for each in items):
        return path, ()
    return f"{folder}{slash}{call}", tuple(map(int, items))


def _place(place: str, level: int, one: _Item | None, other: _Item | None) -> PlaceDiff:
    return PlaceDiff(place=place, level=level, one=_fields(one), other=_fields(other))


def _fields(item: _Item | None) -> Mapping[str, str] | None:
    """What is compared, as text."""
    match item:
        case Iteration():
            return {
                "reply": item.reply,
                "note": item.note,
                **_call_fields(item, item.call_end),
            }
        case Execution():
            return {
                "code": item.code,
                "output": item.output,
                "status": item.status,
                "error": item.error or "",
                **_sums(_uses_of(item)),
                "seconds": f"{item.elapsed:.3f}",
            }
        case SubCall():
            return {
                "prompt": str(item.prompt),
                "reply": str(item.reply),
                "error": item.reply.type if isinstance(item.reply, LLMError) else "",
                **(_sums(_uses_of(item)) if item.turns else {}),
                **_call_fields(item, item.end),
            }
        case FunctionCall():
            return {
                "arguments": item.arguments,
                "error": item.error or "",
                "seconds": f"{item.end - item.start:.3f}",
            }
    return None


def _call_fields(call: Iteration | SubCall, end: float) -> Mapping[str, str]:
    """What turns and calls of models have; a child run has only its time."""
    seconds = {"seconds": f"{end - call.start:.3f}"}
    if isinstance(call, SubCall) and call.turns:
        return seconds
    used = [(call.model, call.usage)]
    return {"model": call.model, "tokens": _tokens(used), "cost": _cost(used), **seconds}


_Uses = Sequence[tuple[str, Usage | None]]  # the model and the tokens of calls


def _uses_of(item: _Item) -> _Uses:
    """What the calls of models within an item used."""
    match item:
        case Iteration():
            within = [use for block in item.executions for use in _uses_of(block)]
            return [(item.model, item.usage), *within]
        case Execution():
            return [use for call in item.subcalls for use in _uses_of(call)]
        case SubCall() if item.turns:
            return [use for turn in item.turns for use in _uses_of(turn)]
        case SubCall():
            return [(item.model, item.usage)]
    return []


def _sums(used: _Uses) -> Mapping[str, str]:
    return {"tokens within": _tokens(used), "cost within": _cost(used)} if used else {}


def _tokens(used: _Uses) -> str:
    known = [usage for _, usage in used if usage is not None]
    if not known:
        return "unknown"
    total = sum(known, Usage())
    more = " + unknown" if len(known) < len(used) else ""
    return f"{total.input_tokens:,} in, {total.output_tokens:,} out{more}"


def _cost(used: _Uses) -> str:
    total = 0.0
    for model, usage in used:
        price = None if usage is None else _list_price(usage, model)
        if price is None:
            return "unknown"
        total += price
    return f"${total:,.6f}"


@lru_cache(10_000)
def _list_price(usage: Usage, model: str) -> float | None:
    return 0.0 if usage == Usage() else cost(usage, model)


def settings_of(parts: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Settings as one level of names and texts: `limits.memory` for a field of a field."""
    found: dict[str, str] = {}
    for name, value in parts:
        if isinstance(value, Mapping):
            found |= settings_of((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            found[name] = str(value)
    return found
