"""Records as plain JSON, and back, validated by the annotations of their fields."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError, LLMReply

_PLAIN = frozenset([str, int, bool, type(None)])
_INTEGER_BOUND = 1 << 63  # a larger integer may be too long even for a message


def to_plain(value: Any) -> Any:
    """The value in JSON's types.

    Other values become strings, NaN and the infinities included.
    """
    kind: Any = type(value)
    return value if kind in _PLAIN else _encoder(kind)(value)


def encode_plain(value: Any) -> bytes:
    """Data in JSON's types, tuples included, as compact JSON."""
    from pydantic_core import to_json  # takes long to load

    try:
        return to_json(value)
    except ValueError:  # half of a surrogate pair, or very deep
        return json.dumps(value, separators=(",", ":"), check_circular=False).encode()


def encode_record(record: Any) -> Iterator[bytes]:
    """The pieces of what `encode_plain(to_plain(record))` returns, for records with long lists of
    records: their plain data never exists as a whole, which would occupy the garbage collector.
    """
    kind: Any = type(record)
    if issubclass(kind, list | tuple):
        yield b"["
        for number, item in enumerate(record):
            yield b"," if number else b""
            yield from encode_record(item)
        yield b"]"
    elif any(getattr(record, name) for name in _tuples_of(kind)):
        yield b"{"
        for number, field in enumerate(fields(record)):
            yield b'%b"%b":' % (b"," if number else b"", field.name.encode())
            yield from encode_record(getattr(record, field.name))
        yield b"}"
    else:
        yield encode_plain(to_plain(record))


@cache
def _tuples_of(kind: Any) -> Sequence[str]:
    """The fields of a record that may be long."""
    is_own = is_dataclass(kind) and kind.__module__.startswith("rlm_integrations.")
    hints = get_type_hints(kind) if is_own else {}
    return [name for name, hint in hints.items() if get_origin(hint) is tuple]


@lru_cache(maxsize=1_000)
def _encoder(kind: Any) -> Callable[[Any], Any]:
    """What makes values of this type plain."""
    if issubclass(kind, LLMError):
        return _plain_error
    if issubclass(kind, float):
        return _plain_float
    if issubclass(kind, Enum):
        return lambda value: to_plain(value.value)
    if issubclass(kind, LLMReply):
        return str
    if issubclass(kind, str | int):
        return lambda value: value
    if issubclass(kind, Mapping):
        return lambda value: {str(key): to_plain(item) for key, item in value.items()}
    if issubclass(kind, list | tuple | set | frozenset):
        return lambda value: list(map(to_plain, value))
    if hasattr(kind, "model_dump"):  # a pydantic model
        return lambda value: to_plain(value.model_dump(mode="json"))
    if is_dataclass(kind):
        names = [each.name for each in fields(kind)]
        return lambda value: {name: to_plain(getattr(value, name)) for name in names}
    if kind.__module__.startswith("rlm_integrations.") and hasattr(kind, "to_dict"):
        return lambda value: value.to_dict()
    return _as_string


def _plain_error(value: LLMError) -> Any:
    return {"error": {"type": value.type, "message": value.message, "retries": value.retries}}


def _plain_float(value: float) -> Any:
    if math.isfinite(value):
        return float(value)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(float(value))]


def _as_string(value: Any) -> Any:
    """A value of any other type, such as a date, in pydantic's form."""
    from pydantic_core import to_jsonable_python

    try:
        return to_plain(to_jsonable_python(value, fallback=str))
    except ValueError:  # bytes that are not UTF-8
        return str(value)


def read_record(kind: Any, value: Any, where: str) -> Any:
    """The value of this type from the output of `to_plain`.

    Args:
        kind: The type annotation. A class with `from_dict` reads itself.
        value: Anything.
        where: The name of the value for messages, such as "spent.by_model".

    Raises:
        InputError: The value is not of this type; the message names the field, such as
            "citations[0].start".
    """
    try:
        return _reader(kind)(value)
    except _InvalidError as error:
        raise error.as_input_error(where) from None


def read_fields(kind: Any, value: Any, *, omit: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The fields of a record, by name. A missing one gets its default.

    Raises:
        InputError: A field is missing, unknown or not of its type.
    """
    try:
        return _fields(kind, value, omit)
    except _InvalidError as error:
        raise error.as_input_error("") from None


class _InvalidError(Exception):
    """A value is not of its type. The path to it grows on the way up."""

    def __init__(self, wanted: str) -> None:
        super().__init__(wanted)
        self.path: list[str] = []

    def within(self, part: str) -> Self:
        self.path.insert(0, part)
        return self

    def as_input_error(self, where: str) -> InputError:
        return InputError(
            f"{''.join([where, *self.path]).removeprefix('.') or 'the record'} {self}"
        )


_Reader = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> _Reader:
    """A function that reads values of this type."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return lambda value: value
    if origin in {Union, UnionType}:
        return _union_reader(args)
    if origin is Literal:
        return partial(_read_choice, args)
    if origin is tuple:
        return partial(_read_list, _reader(args[0]))
    if origin is not None and issubclass(origin, Mapping):
        return partial(_read_mapping, _reader(args[1]))
    if hasattr(kind, "__dataclass_fields__"):
        return lambda value: kind(**_fields(kind, value, frozenset()))
    if hasattr(kind, "from_dict"):
        return partial(_read_itself, kind)
    return {str: _read_str, int: _read_int, float: _read_float, bool: _read_bool}[kind]


def _fields(kind: Any, value: Any, omit: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _type_error("an object", value)
    known = _fields_of(kind)
    if not value.keys() <= known.keys():
        raise _InvalidError(
            f"has an unknown field {min(map(str, value.keys() - known.keys()))[:40]!r}: a "
            "later version may have written it"
        )
    found = {}
    for name, (reader, is_required) in known.items():
        if name in omit:
            continue
        if name in value:
            try:
                found[name] = reader(value[name])
            except _InvalidError as error:
                raise error.within(f".{name}") from None
        elif is_required:
            raise _InvalidError("is missing").within(f".{name}")
    return found


@cache
def _fields_of(kind: type) -> dict[str, tuple[_Reader, bool]]:
    """Each field's reader, and whether the field is required."""
    hints = get_type_hints(kind)
    return {
        each.name: (
            _lazy_reader(hints[each.name]),
            each.default is MISSING and each.default_factory is MISSING,
        )
        for each in fields(kind)
    }


def _lazy_reader(kind: Any) -> _Reader:
    """A reader of this type, made at its first use, because records may be recursive."""

    def read_late(value: Any) -> Any:
        return _reader(kind)(value)

    return read_late


def _union_reader(kinds: tuple[Any, ...]) -> _Reader:
    others = [kind for kind in kinds if kind is not type(None)]
    is_optional = len(others) < len(kinds)
    takes_str = str in others[:-1]
    last = _reader(others[-1])

    def read_union(value: Any) -> Any:
        if (value is None and is_optional) or (takes_str and isinstance(value, str)):
            return value
        return last(value)

    return read_union


def _read_choice(choices: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str) and value in choices:
        return value
    raise _type_error(f"one of {', '.join(map(repr, choices))}", value)


def _read_list(reader: _Reader, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _type_error("a list", value)
    at = 0
    found = []
    try:
        for at, item in enumerate(value):  # noqa: B007 - the error names it
            found.append(reader(item))
    except _InvalidError as error:
        raise error.within(f"[{at}]") from None
    return tuple(found)


def _read_mapping(reader: _Reader, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _type_error("an object", value)
    found = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _type_error("an object whose keys are strings", value)
        try:
            found[key] = reader(item)
        except _InvalidError as error:
            raise error.within(f"[{key[:40]!r}]") from None
    return found


def _read_itself(kind: Any, value: Any) -> Any:
    try:
        return kind.from_dict(value)
    except InputError as error:
        raise _InvalidError(f"is damaged: {error}") from None


def _read_str(value: Any) -> str:
    if isinstance(value, str):
        return value
    error = value.get("error") if isinstance(value, Mapping) and value.keys() == {"error"} else None
    if isinstance(error, Mapping) and error.keys() == {"type", "message", "retries"}:
        return LLMError(
            _read_str(error["type"]), _read_str(error["message"]), _read_int(error["retries"])
        )
    raise _type_error("a string", value)


def _read_int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _type_error("an integer", value)
    if not -_INTEGER_BOUND <= value < _INTEGER_BOUND:
        raise _InvalidError("must be an integer of 64 bits")
    return value


def _read_float(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _type_error("a number", value)
    try:
        is_finite = math.isfinite(value)
    except OverflowError:  # an integer that no float can represent
        is_finite = False
    if not is_finite:
        raise _InvalidError("must be a finite number")
    return value


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _type_error("a boolean", value)


def _type_error(wanted: str, value: Any) -> _InvalidError:
    return _InvalidError(
        f"must be {wanted}, not "
        f"{'null' if value is None else f'a value of type {type(value).__name__}'}"
    )
