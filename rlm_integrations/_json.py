"""Records as plain JSON, and back: the annotations of their fields say what is valid."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError

_LARGEST = 1 << 63  # of an integer: a larger one cannot even be shown in a message


def plain(value: Any) -> Any:
    """The value in JSON's types. What JSON does not have becomes a string, NaN and the infinities included.

    An object with `to_dict` says itself what it is.
    """
    if isinstance(value, LLMError):
        return {"error": {"type": value.type, "message": value.message, "retries": value.retries}}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(float(value))]
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "model_dump"):  # a pydantic model
        return plain(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value)


def read(kind: Any, value: Any, where: str) -> Any:
    """The value of this type that `plain` wrote.

    Args:
        kind: A type, as an annotation has it. One with `from_dict` reads itself.
        value: Anything.
        where: The name of the field for messages, such as "citations[0].start".

    Raises:
        InputError: The value is not of this type; the message names the field.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in {Union, UnionType}:
        return _read_union(args, value, where)
    if origin is Literal:
        return value if isinstance(value, str) and value in args else _refuse(where, f"one of {', '.join(map(repr, args))}", value)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else _refuse(where, "a list", value)
        return tuple(read(args[0], item, f"{where}[{at}]") for at, item in enumerate(items))
    if origin is not None and issubclass(origin, Mapping):
        return {read(args[0], key, f"{where}: key"): read(args[1], item, f"{where}[{key!r}]") for key, item in _mapping(value, where)}
    if hasattr(kind, "__dataclass_fields__"):
        return kind(**read_fields(kind, value, where))
    if hasattr(kind, "from_dict"):
        return kind.from_dict(value)
    return _read_scalar(kind, value, where)


def read_fields(kind: Any, value: Any, where: str, *, omit: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of a record, by name. One that is missing gets its default.

    Raises:
        InputError: A field is missing, unknown or not of its type.
    """
    given = dict(_mapping(value, where))
    known = _fields_of(kind)
    if unknown := given.keys() - known.keys():
        raise InputError(f"{where or 'the record'} has an unknown field {min(unknown)!r}: a later version may have written it")
    found = {}
    for name, (hint, is_required) in known.items():
        path = f"{where}.{name}" if where else name
        if name in omit:
            continue
        if name in given:
            found[name] = read(hint, given[name], path)
        elif is_required:
            raise InputError(f"{path} is missing")
    return found


@cache
def _fields_of(kind: type) -> dict[str, tuple[Any, bool]]:
    """Of each field its type, and whether it must be there."""
    hints = get_type_hints(kind)
    return {each.name: (hints[each.name], _is_required(each)) for each in fields(kind)}


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _read_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        if kind is str and isinstance(value, str):
            return value
    return read(others[-1], value, where)


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is str and isinstance(value, Mapping) and value.keys() == {"error"}:
        error = dict(_mapping(value["error"], where))
        if error.keys() == {"type", "message", "retries"}:
            types = {"type": str, "message": str, "retries": int}
            return LLMError(**{name: read(types[name], item, f"{where}.error.{name}") for name, item in error.items()})
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            is_finite = math.isfinite(value)
        except OverflowError:  # an integer
            is_finite = False
        return value if is_finite else _refuse(where, "a finite number", value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value if -_LARGEST <= value < _LARGEST else _refuse(where, "an integer of 64 bits", value)
    if kind in {str, bool} and isinstance(value, kind):
        return value
    names = {str: "a string", int: "an integer", float: "a number", bool: "a boolean"}
    return _refuse(where, names[kind], value)


def _mapping(value: Any, where: str) -> Iterable[tuple[Any, Any]]:
    mapping: Mapping[Any, Any] = value if isinstance(value, Mapping) else _refuse(where or "the record", "an object", value)
    return mapping.items()


def _refuse(where: str, wanted: str, value: Any) -> Any:
    raise InputError(f"{where} must be {wanted}, not {'null' if value is None else f'a value of type {type(value).__name__}'}")
