"""The state of a run as a page knows it, and what changed from one state to the next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from rlm_integrations._json import to_plain
from rlm_integrations.corpus import Corpus
from rlm_integrations.report.data import compact_record, is_record, reading_data
from rlm_integrations.result import SCHEMA, RLMResult

State = Mapping[str, Any]
_KEYS: Final = ("path", "iteration", "block")  # of calls, turns and blocks


def run_state(
    result: RLMResult, corpus: Corpus | None = None, *, reading: State | None = None
) -> State:
    """The state of a run with this record.

    Args:
        result: The record.
        corpus: The document, of a run that has ended.
        reading: What was read of the document, if that is known.
    """
    run = {each.name: getattr(result, each.name) for each in fields(result)}
    run["store"] = to_plain(result.store)
    return {
        "run": {"schema": SCHEMA, **run},
        "reading": reading_data(result, corpus) if reading is None else reading,
        "calls": 0,
    }


def plain_state(state: State) -> dict[str, Any]:
    """The whole state as plain JSON."""
    return {name: _plain_part(part) for name, part in state.items()}


def _plain_part(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: compact_record(value) for name, value in part.items()}
    return compact_record(part)


def changes(old: Any, new: Any, at: Sequence[str | int] = ()) -> Iterator[dict[str, Any]]:
    """What turns one state into another: at each place a value that is set, or items that are added
    to a list. Values that are the same objects are not compared.
    """
    if old is new:
        return
    if is_record(new) and type(old) is type(new):
        for each in fields(new):
            yield from changes(getattr(old, each.name), getattr(new, each.name), [*at, each.name])
    elif isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in new:
            yield from changes(old[name], new[name], [*at, name])
    elif isinstance(new, list | tuple) and type(old) is type(new):
        yield from _list_changes(old, new, at)
    elif old != new:
        yield {"at": at, "set": compact_record(new)}


def _list_changes(
    old: Sequence[Any], new: Sequence[Any], at: Sequence[str | int]
) -> Iterator[dict[str, Any]]:
    changed = [
        number
        for number, (before, after) in enumerate(zip(old, new, strict=False))
        if before is not after and before != after
    ]
    others = {number for number in changed if _key(old[number]) != _key(new[number])}
    # An empty list may be a default, which the page's copy of the record does not have
    if not old or len(new) < len(old) or len(others) > len(old) // 2:
        if old or new:
            yield {"at": at, "set": compact_record(tuple(new))}
        return
    for number in changed:
        if number in others:
            yield {"at": [*at, number], "set": compact_record(new[number])}
        else:
            yield from changes(old[number], new[number], [*at, number])
    if len(new) > len(old):
        yield {"at": at, "add": compact_record(tuple(new[len(old) :]))}


def _key(item: Any) -> object:
    """What an item of a list is, whatever its state."""
    if isinstance(item, dict):
        return item.get("run_id")
    return next((getattr(item, name) for name in _KEYS if hasattr(item, name)), None)
