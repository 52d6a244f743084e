"""Encodes and decodes a journal's answers as JSON. The input may be damaged, and is checked."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, Final, cast

from rlm_integrations._json import encode_plain, read_record, to_plain
from rlm_integrations.engine.block_outcome import BlockOutcome
from rlm_integrations.engine.budget import Charge
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.child_requests import ChildAnswer
from rlm_integrations.engine.journal import Answer
from rlm_integrations.engine.model_calls import ModelAnswer
from rlm_integrations.engine.notes import AmbiguousQuote, CallNote, UncheckedQuote
from rlm_integrations.errors import InputError
from rlm_integrations.records import CallRecord, LLMError, LLMReply, SpanRef, StoreObject, Usage
from rlm_integrations.sandbox.base import ExecutionResult, FinalValue
from rlm_integrations.sandbox.wire import Opaque
from rlm_integrations.store.log import Created, Invalidated, Linked

VERSION: Final = 1  # of the format
_NOTES: Final[Mapping[str, type]] = {
    "create": Created,
    "invalidate": Invalidated,
    "link": Linked,
    "ambiguous": AmbiguousQuote,
    "unchecked": UncheckedQuote,
}
_NAMES: Final = {kind: name for name, kind in _NOTES.items()}
_EXACT_INTEGER: Final = 1 << 53  # some JSON readers convert larger integers to floats
# Records of which a run has thousands are encoded as the list of their fields, without names
_FIELDS: Final[Mapping[type, tuple[str, ...]]] = {
    kind: tuple(each.name for each in fields(kind))
    for kind in (CallId, ModelAnswer, CallRecord, Charge, Usage)
}
_VALUES: Final = {kind: attrgetter(*names) for kind, names in _FIELDS.items()}


def encode_answer(call: CallId, answer: Answer) -> bytes:
    """The call and its answer as one JSON object."""
    kind, value = _encoded(answer.value)
    record = {
        "version": VERSION,
        "call": _values(call),
        "kind": kind,
        "value": value,
        "notes": [{"note": _NAMES[type(note)], **to_plain(note)} for note in answer.notes],
        "error": answer.error,
        "prompt": answer.prompt,
    }
    return encode_plain(record)


def decode_answer(encoded: bytes) -> tuple[CallId, Answer]:
    """The call and the answer that `encode_answer` encoded.

    Raises:
        InputError: The record is damaged, or was written by a later version.
    """
    try:
        record = json.loads(encoded)
        if record["version"] != VERSION:
            raise InputError(
                f"a journal record has version {record['version']!r}; "
                f"this version of the library reads {VERSION}"
            )
        error = record["error"]
        answer = Answer(
            _decoded(record["kind"], record["value"]),
            tuple(map(_note, record["notes"])),
            None if error is None else (str(error[0]), str(error[1])),
            str(record["prompt"]),
        )
        return read_record(CallId, _named(CallId, record["call"]), "call"), answer
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a journal record is damaged: {type(error).__name__}: {error}") from error


def _values(record: Any) -> list[Any]:
    """The values of a record's fields, and of the records in it."""
    values = []
    for value in _VALUES[type(record)](record):
        kind = type(value)
        if kind in _VALUES:
            values.append(_values(value))
        else:
            values.append(to_plain(value) if kind is LLMError else value)
    return values


def _named(kind: type, values: Any) -> Any:
    """The fields of a record by their names, from the list of their values."""
    if values is None:
        return None
    if not isinstance(values, list):
        raise TypeError(f"the fields of {kind.__name__} must be a list")
    return dict(zip(_FIELDS[kind], values, strict=True))


def _encoded(value: Any) -> tuple[str, Any]:
    match value:
        case ModelAnswer():
            return "model", _values(value)
        case ChildAnswer():
            return "child", to_plain(value)
        case BlockOutcome(result, unanswered):
            final = result.final
            return "block", {
                "result": to_plain(replace(result, final=None)),
                "final": None
                if final is None
                else _tagged([final.value, list(final.evidence), final.several]),
                "unanswered": to_plain(unanswered),
            }
        case _:
            return "value", _tagged(value)


def _decoded(kind: str, value: Any) -> Any:
    match kind:
        case "model":
            return _model_answer(value)
        case "child":
            return read_record(ChildAnswer, value, "answer")
        case "block":
            return _block(value)
        case "value":
            return _untagged(value)
    raise InputError(f"a journal record has the unknown kind {kind!r}")


def _model_answer(values: Any) -> ModelAnswer:
    """The answer, with its reply as an `LLMReply`, which has the finish reason."""
    named = _named(ModelAnswer, values)
    record = named["record"] = _named(CallRecord, named["record"])
    charge = named["charge"] = _named(Charge, named["charge"])
    for part, name in ((record, "usage"), (record, "saved"), (charge, "usage")):
        if part is not None:
            part[name] = _named(Usage, part[name])
    answer: ModelAnswer = read_record(ModelAnswer, named, "answer")
    found = answer.record
    if isinstance(found.reply, LLMError):
        return answer
    reply = LLMReply(found.reply, found.finish_reason)
    return replace(answer, record=replace(found, reply=reply))


def _block(value: Any) -> BlockOutcome:
    final = None if value["final"] is None else _untagged(value["final"])
    found = None if final is None else FinalValue(final[0], tuple(final[1]), several=bool(final[2]))
    result = read_record(ExecutionResult, value["result"], "result")
    unanswered = read_record(tuple[CallId, ...], value["unanswered"], "unanswered")
    return BlockOutcome(replace(result, final=found), unanswered)


def _note(value: Any) -> CallNote:
    kind = _NOTES[value.pop("note")]
    return cast("CallNote", read_record(kind, value, "note"))


# Values that cross the sandbox's boundary. A type that JSON does not have is encoded as an object
# with one key that begins with a dollar sign.


def _tagged(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case LLMError():
            return {"$error": [value.type, value.message, value.retries]}
        case LLMReply():
            return {"$reply": [str(value), value.finish_reason]}
        case str():
            return str(value)
        case int():
            return value if abs(value) < _EXACT_INTEGER else {"$int": hex(value)}
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case list():
            return [_tagged(item) for item in value]
        case tuple():
            return {"$tuple": [_tagged(item) for item in value]}
        case SpanRef() | StoreObject():
            return {f"${type(value).__name__}": {**to_plain(value), **_content(value)}}
        case Opaque():
            return {"$opaque": [value.type, value.text]}
        case dict():
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: _tagged(item) for key, item in value.items()}
            return {"$dict": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored in a journal")


def _content(value: SpanRef | StoreObject) -> dict[str, Any]:
    return {"content": _tagged(value.content)} if isinstance(value, StoreObject) else {}


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name, inner), *_ = value.items()
        if name.startswith("$"):
            return _UNTAG[name](inner)
    return {name: _untagged(item) for name, item in value.items()}


def _store_object(fields: dict[str, Any]) -> StoreObject:
    content = _untagged(fields.pop("content"))
    links = tuple((kind, id_) for kind, id_ in fields.pop("links"))
    found: StoreObject = read_record(StoreObject, {**fields, "content": None}, "object")
    return replace(found, content=content, links=links)


_UNTAG: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$error": lambda parts: LLMError(*parts),
    "$reply": lambda parts: LLMReply(*parts),
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$tuple": lambda items: tuple(map(_untagged, items)),
    "$SpanRef": lambda fields: read_record(SpanRef, fields, "span"),
    "$StoreObject": _store_object,
    "$opaque": lambda parts: Opaque(*parts),
    "$dict": lambda pairs: {_untagged(key): _untagged(item) for key, item in pairs},
}
