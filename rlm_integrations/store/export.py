"""A store as a file: a line that names the format, then one line of JSON for each event, in
ASCII.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Never

from rlm_integrations._files import write_whole
from rlm_integrations.errors import InputError
from rlm_integrations.store import checks
from rlm_integrations.store.backend import StoreBackend, StoreState
from rlm_integrations.store.content import decode_content
from rlm_integrations.store.draft import draft
from rlm_integrations.store.log import LINK_TYPES, Created, Invalidated, Linked, StoreEvent

HEADER: Final = {"format": "rlm-integrations-store", "version": 1}
COMMON_FIELDS: Final = ("op", "seq", "ts", "worker", "id", "type")
FIELDS: Final = {
    "create": {*COMMON_FIELDS, "description", "content", "backrefs", "parents", "tags", "takes"},
    "invalidate": {*COMMON_FIELDS, "reason"},
    "link": {*COMMON_FIELDS, "dst"},
}
# An event without an origin has no such field, so files from before origins stay valid
OPTIONAL_FIELDS: Final = {"origin"}


def write(events: Iterable[StoreEvent], path: str | os.PathLike[str]) -> None:
    """Write the complete file, or leave the old one; see `write_whole`.

    Raises:
        InputError: It cannot be written.
    """
    try:
        write_whole(path, (f"{line}\n" for line in export_lines(events)))
    except OSError as error:
        raise InputError(
            f"the store cannot be written to {str(path)!r}: {error.strerror}"
        ) from error


def export_lines(events: Iterable[StoreEvent]) -> Iterator[str]:
    """The lines of the file, one after the other."""
    yield json.dumps(HEADER)
    for event in events:
        yield json.dumps(line_of(event))


def read_export(backend: StoreBackend, path: str | os.PathLike[str], prefix: str) -> None:
    """Import all events of a file, or none.

    Raises:
        InputError: It cannot be read, is not an export, or does not fit the store's objects.
    """
    if prefix:
        checks.part("prefix", prefix)
    source = Path(path)
    try:
        with source.open(encoding="ascii", newline="\n") as file:
            events = Reader(backend.corpus).events(file)
    except OSError as error:
        raise InputError(f"{str(source)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{str(source)!r} is not an exported store: it has a byte that is not ASCII"
        ) from error
    except InputError as error:
        raise InputError(f"{str(source)!r} cannot be imported: {error}") from None
    backend.append(
        lambda state, seq, _: _prefixed(state, seq, events, prefix) if seq > 1 else events
    )


def _prefixed(
    state: StoreState, seq: int, events: Sequence[StoreEvent], prefix: str
) -> list[StoreEvent]:
    """The events renumbered and renamed so that they fit behind the store's own."""
    ids = [event.id for event in events if isinstance(event, Created)]
    if prefix:
        taken = next((f"{prefix}/{id_}" for id_ in ids if state.find(f"{prefix}/{id_}")), None)
        if taken:
            raise InputError(
                f"the store has an object {taken!r} already: import under another prefix "
                f"than {prefix!r}"
            )
    else:
        number = 1
        while any(state.find(f"import{number}/{id_}") for id_ in ids):
            number += 1
        prefix = f"import{number}"
    return [_renamed(event, number, f"{prefix}/") for number, event in enumerate(events, seq)]


def _renamed(event: StoreEvent, seq: int, prefix: str) -> StoreEvent:
    moved = replace(event, seq=seq, worker=prefix + event.worker, id=prefix + event.id)
    if isinstance(moved, Created):
        return replace(moved, parents=tuple(prefix + parent for parent in moved.parents), takes=0)
    if isinstance(moved, Linked):
        return replace(moved, dst=prefix + moved.dst)
    return moved


def line_of(event: StoreEvent) -> dict[str, Any]:
    """The event as the JSON object of its line."""
    line = {name: getattr(event, name) for name in ("op", *event.__slots__)}
    if event.origin is None:
        del line["origin"]
    if isinstance(event, Created):
        line["content"] = decode_content(event.content)
        line["backrefs"] = [
            {"source": span.source, "start": span.start, "end": span.end} for span in event.backrefs
        ]
    return line


class Reader:
    """Reads and checks events of unknown origin."""

    def __init__(self, corpus: checks.SpanText | None) -> None:
        self._corpus = corpus
        self._types: dict[str, str] = {}  # of the objects so far, by id
        self._invalid: set[str] = set()
        self._taken: dict[str, int] = {}

    def events(self, lines: Iterable[str]) -> list[StoreEvent]:
        """The events of a file."""
        numbered = enumerate(lines, 1)
        header = self._json(*next(numbered, (1, "")))
        if header != HEADER:
            raise InputError(f"line 1 must be {json.dumps(HEADER)}")
        return list(self._events(numbered))

    def values(self, events: Any) -> list[StoreEvent]:
        """The events of a list with the JSON objects of a file's lines."""
        if not isinstance(events, list | tuple):
            raise InputError(f"events must be a list, not {checks.quote_value(events)}")
        made = []
        for seq, value in enumerate(events, 1):
            try:
                made.append(self._event(seq, value))
            except InputError as error:
                raise InputError(f"events[{seq - 1}]: {error}") from None
        return made

    def _events(self, numbered: Iterable[tuple[int, str]]) -> Iterator[StoreEvent]:
        for number, line in numbered:
            try:
                yield self._event(number - 1, self._json(number, line))
            except InputError as error:
                raise InputError(f"line {number}: {error}") from None

    @staticmethod
    def _json(number: int, line: str) -> Any:
        def refuse(constant: str) -> Never:
            raise ValueError(f"{constant} is not JSON")

        try:
            return json.loads(line, parse_constant=refuse)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {number} is not JSON: {error}") from None

    def _event(self, seq: int, line: Any) -> StoreEvent:
        op = line.get("op") if isinstance(line, dict) else None
        if not isinstance(op, str) or op not in FIELDS:
            raise InputError(f"op must be one of {', '.join(FIELDS)}")
        if line.keys() - OPTIONAL_FIELDS != FIELDS[op]:
            raise InputError(f"{op!r} must have the fields {', '.join(sorted(FIELDS[op]))}")
        if type(line["seq"]) is not int or line["seq"] != seq:
            raise InputError(f"seq must be {seq}: events are numbered without gaps")
        if not _is_time(line["ts"]):
            raise InputError(f"ts must be a number, not {checks.quote_value(line['ts'])}")
        worker = checks.word("worker", line["worker"], checks.ID_CHARS)
        origin = (
            checks.word("origin", line["origin"], checks.ID_CHARS) if "origin" in line else None
        )
        if op == "create":
            return self._created(line, worker, origin)
        start = (seq, line["ts"], worker, self._known("id", line["id"]))
        if op == "link":
            if line["type"] not in LINK_TYPES:
                raise InputError(
                    f"type must be one of {', '.join(LINK_TYPES)}, not "
                    f"{checks.quote_value(line['type'])}"
                )
            return Linked(*start, line["type"], self._known("dst", line["dst"]), origin)
        if line["id"] in self._invalid or line["type"] != self._types[line["id"]]:
            raise InputError(f"{line['id']!r} is already invalid, or of another type")
        self._invalid.add(line["id"])
        return Invalidated(
            *start,
            line["type"],
            checks.text("reason", line["reason"], checks.DESCRIPTION_CHARS),
            origin,
        )

    def _created(self, line: dict[str, Any], worker: str, origin: str | None) -> Created:
        own, takes = checks.word("id", line["id"], checks.ID_CHARS), line["takes"]
        if type(takes) is not int or not 0 <= takes <= 10**9:
            raise InputError(f"takes must be a number of ids, not {checks.quote_value(takes)}")
        self._taken[worker] = self._taken.get(worker, 0) + takes
        stem, _, number = own.rpartition("_")
        numbered = (
            stem == worker
            and number.isascii()
            and number.isdigit()
            and own == f"{worker}_{int(number[:12]):06d}"
        )
        # Later objects get the numbers above the counter: no id may use one of those.
        if own in self._types or not (
            "/" in own or (numbered and 1 <= int(number) <= self._taken[worker])
        ):
            raise InputError(
                f"id {own!r} does not fit worker {worker!r}: expected {worker}_NNNNNN up to "
                "its counter, used once, or an id with a slash"
            )
        fields = [
            line[name] for name in ("type", "description", "content", "backrefs", "parents", "tags")
        ]
        made = draft(
            *fields, spans=lambda spans: checks.existing(spans, self._corpus), parent=self._known
        )
        self._types[own] = made.type
        return Created(line["seq"], line["ts"], worker, own, *made, takes, origin)

    def _known(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in self._types:
            raise InputError(
                f"{name}: no object before this line has the id {checks.quote_value(value)}"
            )
        return value


def _is_time(value: Any) -> bool:
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:  # an integer too large for a float
        return False
