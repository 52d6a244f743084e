"""Turns messages into frames; see `wire`."""

import itertools
import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..records import LLMError, LLMReply, SpanRef, StoreObject
from .wire import DEPTH_CAP, FRAME_CAP, HEADER_CAP, LENGTH, Opaque

# Size of blobs, or eight times the size of the header, from which a new part is started
PART = 2 << 20
INLINE = 256  # longest string, in characters, that stays in the header
PIECE = 1 << 20  # characters in one piece of a long string
LONE = 4096  # length in characters from which a string is sent in parts once its frame is full
# Number of entries from which a dict is sent as a list of pairs, which can be sent in parts
_LARGE_DICT = 100

# Numbers of packed lists are below 0; those of an encoder's own parts are above 0
_packed = itertools.count(-1, -1)
_LENGTHS = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Packed:
    """A list that was encoded once, to be sent in any number of messages; see `pack`.

    Attributes:
        number: The number of its parts, unique to this list.
        frames: Its parts.
    """

    number: int
    frames: tuple[bytes, ...]


class _Frame:
    """The content of one frame; `weight` estimates its size in bytes."""

    __slots__ = ("blobs", "weight")

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.weight = 0


class Encoder:
    """Turns messages into frames. Thread-safe, because the parts of each message have different
    numbers.

    Args:
        opaque: Makes the `Opaque` for a value that cannot cross the wire.
    """

    def __init__(self, opaque: Callable[[Any], Opaque] | None = None) -> None:
        self._opaque = opaque or (lambda value: Opaque(type(value).__name__, ""))
        self._numbers = itertools.count(1)

    def pack(self, values: Iterable[Any]) -> Packed:
        """See the function `pack`."""
        self._numbers, number = _packed, next(_packed)
        frames: list[bytes] = []
        self._list(values, _Frame(), frames.append, 2, number)
        return Packed(
            number, tuple(frames or [_join({"op": "part", "part": number, "items": []}, [])])
        )

    def encode(self, message: dict[str, Any], emit: Callable[[bytes], None]) -> None:
        """Pass the frames of a message to `emit`, in order.

        Raises:
            ValueError: The message nests too deep, or has a number that JSON does not support, or a
                value with a field of the wrong type.
        """
        frame = _Frame()
        header = {key: self._value(value, frame, emit, 0) for key, value in message.items()}
        emit(_join(header, frame.blobs))

    def _value(self, value: Any, frame: _Frame, emit: Callable[[bytes], None], depth: int) -> Any:
        if depth > DEPTH_CAP:
            raise ValueError(f"a value nests deeper than {DEPTH_CAP} levels")
        if value is None or value is True or value is False:
            frame.weight += 48
            return value
        if isinstance(value, LLMError):
            return {
                "$e": self._list(
                    _checked(value, type=str, message=str, retries=int), frame, emit, depth
                )
            }
        if type(value) is LLMReply:
            reason = getattr(value, "finish_reason", None)
            known = reason if type(reason) is str else None
            return {
                "$r": self._list([str.__getitem__(value, slice(None)), known], frame, emit, depth)
            }
        if isinstance(value, str):
            # A subclass that the model defined may return any length.
            return self._text(
                value if type(value) is str else str.__getitem__(value, slice(None)), frame, emit
            )
        if isinstance(value, int):
            frame.weight += 160 + 4 * value.bit_length()
            return int(value)
        if isinstance(value, float):
            frame.weight += 160
            return float(value)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, frame, emit, depth)
        if isinstance(value, dict):
            pairs = [[str(key), item] for key, item in value.items()]
            frame.weight += 24
            if (
                len(value) > _LARGE_DICT
                or frame.weight > PART
                or any(key.startswith("$") or len(key) > INLINE for key, _ in pairs)
            ):
                return {"$d": self._list(pairs, frame, emit, depth)}
            return {
                self._text(key, frame, emit): self._value(item, frame, emit, depth + 1)
                for key, item in pairs
            }
        if isinstance(value, SpanRef):
            return {
                "$s": self._list(
                    _checked(value, source=str, start=int, end=int), frame, emit, depth
                )
            }
        if isinstance(value, StoreObject):
            plain = value.to_dict()
            StoreObject.from_dict(plain)  # as the other side counts
            return {"$o": self._value(plain, frame, emit, depth + 1)}
        if isinstance(value, Packed):
            for part in value.frames:
                emit(part)
            frame.weight += 160
            return {"$l": value.number}
        opaque = value if isinstance(value, Opaque) else self._opaque(value)
        return {"$x": self._list(_checked(opaque, type=str, text=str), frame, emit, depth)}

    def _text(self, text: str, frame: _Frame, emit: Callable[[bytes], None]) -> Any:
        if len(text) <= INLINE:
            plain = text.isascii() and text.isprintable()
            # An escaped character takes up to twelve
            frame.weight += 8 * (len(text) * (1 if plain else 12) + 4)
            return str(text)
        if len(text) > PIECE or (frame.weight > PART and len(text) > LONE):
            number = next(self._numbers)
            for start in range(0, len(text), PIECE):
                blob = _utf8(text[start : start + PIECE])
                emit(_join({"op": "part", "part": number, "items": [{"$b": len(blob)}]}, [blob]))
            frame.weight += 160
            return {"$j": number}
        blob = _utf8(text)
        frame.blobs.append(blob)
        frame.weight += len(blob) + 160
        return {"$b": len(blob)}

    def _list(
        self,
        values: Iterable[Any],
        frame: _Frame,
        emit: Callable[[bytes], None],
        depth: int,
        number: int = 0,
    ) -> Any:
        items: list[Any] = []
        own = _Frame()
        for value in values:
            items.append(self._value(value, own, emit, depth + 1))
            if own.weight > PART:
                number = number or next(self._numbers)
                emit(_join({"op": "part", "part": number, "items": items}, own.blobs))
                items, own = [], _Frame()
        if number or (items and frame.weight + own.weight > 2 * PART):
            number = number or next(self._numbers)
            if items:
                emit(_join({"op": "part", "part": number, "items": items}, own.blobs))
            frame.weight += 160
            return {"$l": number}
        frame.blobs += own.blobs
        frame.weight += own.weight + 24
        return items


def pack(values: Iterable[Any]) -> Packed:
    """A list encoded for use in any number of messages of any encoder.

    Raises:
        ValueError: As `Encoder.encode`.
    """
    return Encoder().pack(values)


def _checked(value: Any, **kinds: type) -> list[Any]:
    """The fields of a value, after checking their types: model code may have set them to anything.

    Raises:
        ValueError: A field has the wrong type.
    """
    fields = []
    for name, kind in kinds.items():
        field = getattr(value, name, None)
        if not isinstance(field, kind) or isinstance(field, bool):
            raise ValueError(  # noqa: TRY004 - the error for all values that cannot cross the wire
                f"the {name} of {type(value).__name__} must be {kind.__name__}, not "
                f"{type(field).__name__}"
            )
        fields.append(field)
    return fields


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _join(header: dict[str, Any], blobs: list[bytes]) -> bytes:
    packed = json.dumps(header, separators=(",", ":")).encode("ascii")
    length = LENGTH.size + len(packed) + sum(map(len, blobs))
    if len(packed) > HEADER_CAP or length > FRAME_CAP:
        raise ValueError("a value has too many small parts to be sent at once")
    return b"".join([_LENGTHS.pack(length, len(packed)), packed, *blobs])
