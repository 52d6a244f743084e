"""Events and objects of stores as rows.

Texts may hold what databases cannot: NUL, and halves of surrogate pairs. Rows therefore have them
as ASCII JSON or as bytes.
"""

import json
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, get_args

from rlm_integrations.errors import DamagedDataError
from rlm_integrations.records import SpanRef
from rlm_integrations.storage.record_bodies import packed, unpacked
from rlm_integrations.store.content import Content, Json, length
from rlm_integrations.store.log import Created, Invalidated, Linked, LinkType, StoreEvent
from rlm_integrations.store.view import Card

SEQ_BITS: Final = 40  # of a key; the bits above are the number of the store
LAST_SEQ: Final = (1 << SEQ_BITS) - 1

_CARD = ("id", "type", "description", "tags", "parents", "worker", "ts", "chars")
_LINK_TYPES = frozenset(get_args(LinkType))
_to_json = json.JSONEncoder(separators=(",", ":")).encode


def key_of(store_no: int, seq: int) -> int:
    """The key of an event."""
    return store_no << SEQ_BITS | seq


def seq_of(key: int) -> int:
    """The number of an event in its store."""
    return key & LAST_SEQ


@lru_cache(10_000)
def term_of(store_no: int, kind: str, value: str) -> int:
    """The hash under which objects are found by a type, a tag, an id and so on. Columns compare
    some texts as equal that are not, and keys of columns have a bound.
    """
    text = f"{store_no}\0{kind}\0{value}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)


def as_json(value: str) -> str:
    """A text in ASCII."""
    return _to_json(value)


def from_json(text: str, name: str) -> str:
    """The text of `as_json`; `name` is what messages call it."""
    value = _loaded(text, name)
    if not isinstance(value, str):
        raise _damaged(name)
    return value


def as_bytes(text: str) -> bytes:
    """A text as bytes, in which parts of texts are found as in the text."""
    return text.encode("utf-8", "surrogatepass")


def encode_card(event: Created) -> str:
    """The metadata of an object."""
    values = (
        event.id,
        event.type,
        event.description,
        event.tags,
        event.parents,
        event.worker,
        event.ts,
        length(event.content),
    )
    return _to_json(values)


def decode_card(text: str, invalid: str | None, name: str) -> Card:
    """The metadata of `encode_card`, and the reason of an invalid object as `as_json` has it."""
    values = _loaded(text, name)
    try:
        card: Any = dict(zip(_CARD, values, strict=True))
    except (TypeError, ValueError):
        raise _damaged(name) from None
    _check_texts(name, card["id"], card["type"], card["description"], card["worker"])
    _check_texts(name, *card["tags"], *card["parents"])
    if invalid is not None:
        card["invalid"] = from_json(invalid, name)
    found: Card = card
    return found


def encode_event(event: StoreEvent, card: str = "") -> bytes:
    """An event without its number; `card` is the `encode_card` of an object."""
    match event:
        case Created():
            spans = [(span.source, span.start, span.end) for span in event.backrefs]
            is_json = isinstance(event.content, Json)
            rest = _to_json((spans, event.takes, event.origin, is_json))
            content = event.content.text if isinstance(event.content, Json) else event.content
            return packed(b"%b\n%b\n%b" % (card.encode(), rest.encode(), as_bytes(content)))
        case Invalidated():
            values = [event.op, event.ts, event.worker, event.id, event.type, event.reason]
        case Linked():
            values = [event.op, event.ts, event.worker, event.id, event.type, event.dst]
    return packed(_to_json([*values, event.origin]).encode())


def decode_event(seq: int, body: bytes, store: str) -> StoreEvent:
    """The event of `encode_event`.

    Raises:
        DamagedDataError: It is not what was written.
    """
    name = f"event {seq} of store {store!r}"
    first, *rest = unpacked(body, name).split(b"\n", 2)
    try:
        if len(rest) == 2:
            return _created(seq, first, rest[0], rest[1], name)
        op, ts, worker, id_, kind, text, origin = json.loads(first)
        _check_texts(name, worker, id_, kind, text)
        if op == Invalidated.op:
            return Invalidated(seq, float(ts), worker, id_, kind, text, _origin(origin, name))
        if op == Linked.op and kind in _LINK_TYPES:
            return Linked(seq, float(ts), worker, id_, kind, text, _origin(origin, name))
    except (TypeError, ValueError, RecursionError):
        pass
    raise _damaged(name)


def _created(seq: int, head: bytes, rest: bytes, content: bytes, name: str) -> Created:
    # Decoded first: for bytes, `json` looks for their encoding
    id_, kind, description, tags, parents, worker, ts, _ = json.loads(head.decode("ascii"))
    spans, takes, origin, is_json = json.loads(rest.decode("ascii"))
    _check_texts(name, id_, kind, description, worker, *tags, *parents)
    text = content.decode("utf-8", "surrogatepass")
    kept: Content = Json(text) if is_json else text
    return Created(
        seq,
        ts,
        worker,
        id_,
        kind,
        description,
        kept,
        tuple(SpanRef(str(source), int(start), int(end)) for source, start, end in spans),
        tuple(parents),
        tuple(tags),
        int(takes),
        _origin(origin, name),
    )


def _origin(value: Any, name: str) -> str | None:
    if value is not None:
        _check_texts(name, value)
    return None if value is None else str(value)


def _check_texts(name: str, *values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise _damaged(name)


def _loaded(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(name) from None


def _damaged(name: str) -> DamagedDataError:
    return DamagedDataError(f"{name} is damaged: it is not what was written; restore a backup")
