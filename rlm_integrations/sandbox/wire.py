"""How host and sandbox speak: frames over a stream socket, the same code at both ends.

A frame is `u32 length, u32 header length, header, blobs`, lengths big-endian. The header is JSON;
texts longer than a line leave it and follow as blobs, in the order in which the header names them,
so that a reader consumes lengths strictly in order and a small frame can never claim to be large. A
message that would make a large frame is sent in parts: long lists and long texts go ahead piece by
piece under a number that the message then names.

No pickle, no marshal: what arrives is None, bool, int, float, str, list, dict with text keys, and
the tagged values below. Whoever reads treats the other side as hostile; what breaks these rules
raises `WireError`, and nothing else.
"""

import codecs
import itertools
import json
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from ..records import LLMError, LLMReply, SpanRef, StoreObject

FRAME_CAP = 16 << 20  # bytes; a longer frame breaks the rules
# Bytes: JSON of 60 MB would hold its reader for 12 s, this at its worst for a tenth of one
HEADER_CAP = 1 << 20
# Where a writer begins a further part, in bytes of blobs, or eight times the weight of header
PART = 2 << 20
INLINE = 256  # characters up to which a text stays in the header
PIECE = 1 << 20  # characters of one piece of a long text
LONE = 4096  # characters from which a text goes ahead by itself once its frame is full
DEPTH_CAP = 100  # nesting of one value
# Entries from which a dict is sent as a list of pairs, which can be sent in parts
_LARGE_DICT = 100
# How far the number of a part may be from the highest so far: threads overtake one another, but not
# by more
_AHEAD = 100_000
_STEP = 1 << 16  # bytes of a text that are decoded in one go
OBJECT = 64  # bytes that a value takes in memory, however short it was on the wire

# The numbers of packed lists; those of an encoder's own parts are above 0
_packed = itertools.count(-1, -1)
_LENGTHS = struct.Struct(">II")
LENGTH = struct.Struct(">I")
# Bytes of a text that is not ASCII beside its characters and the null at its end
_NOT_ASCII = sys.getsizeof("\xe9") - 2


class WireError(ValueError):
    """The other side broke the rules of the wire."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """What stands for a value that cannot cross, such as an instance of a class of the model's own:
    its type and its text.
    """

    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A list that was encoded once, to be sent in any number of messages; see `pack`.

    Attributes:
        number: The number of its parts, which no other list has.
        frames: Its parts.
    """

    number: int
    frames: tuple[bytes, ...]


class _Frame:
    """What one frame will hold; `weight` estimates its size in bytes."""

    __slots__ = ("blobs", "weight")

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.weight = 0


class Encoder:
    """Turns messages into frames; several threads may use one, since parts have numbers of their
    own.

    Args:
        opaque: Makes the `Opaque` of a value that cannot cross.
    """

    def __init__(self, opaque: Callable[[Any], Opaque] | None = None) -> None:
        self._opaque = opaque or (lambda value: Opaque(type(value).__name__, ""))
        self._numbers = itertools.count(1)

    def pack(self, values: Iterable[Any]) -> Packed:
        """See the function of this name."""
        self._numbers, number = _packed, next(_packed)
        frames: list[bytes] = []
        self._list(values, _Frame(), frames.append, 2, number)
        return Packed(
            number, tuple(frames or [_join({"op": "part", "part": number, "items": []}, [])])
        )

    def encode(self, message: dict[str, Any], emit: Callable[[bytes], None]) -> None:
        """Hand the frames of a message to `emit`, in order.

        Raises:
            ValueError: The message nests too deep, or holds a number that JSON cannot hold or a
                value whose fields are not of their type.
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
            # A subclass of the model's own may have any length that it likes.
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
            StoreObject.from_dict(plain)  # as the other side will
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
            # A character is escaped by up to twelve
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
    """A list encoded for any number of messages, of any encoder.

    Raises:
        ValueError: As `Encoder.encode`.
    """
    return Encoder().pack(values)


def _checked(value: Any, **kinds: type) -> list[Any]:
    """These fields of a value, which code may have made of anything.

    Raises:
        ValueError: One is not of its type.
    """
    fields = []
    for name, kind in kinds.items():
        field = getattr(value, name, None)
        if not isinstance(field, kind) or isinstance(field, bool):
            raise ValueError(  # noqa: TRY004 - as for all that cannot cross
                f"the {name} of {type(value).__name__} must be {kind.__name__}, not {type(field).__name__}"
            )
        fields.append(field)
    return fields


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _join(header: dict[str, Any], blobs: list[bytes]) -> bytes:
    packed = json.dumps(header, separators=(",", ":")).encode("ascii")
    length = LENGTH.size + len(packed) + sum(map(len, blobs))
    if len(packed) > HEADER_CAP or length > FRAME_CAP:
        raise ValueError("a value holds too many small parts to cross at once")
    return b"".join([_LENGTHS.pack(length, len(packed)), packed, *blobs])


class _Part:
    """What came ahead of its message under one number."""

    __slots__ = ("items", "stale", "weight")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.weight = 0
        self.stale = False


class Decoder:
    """Turns frames back into messages, keeping the parts of messages that are still to come.

    Args:
        part_cap: How many bytes parts may take while they wait for their message. None trusts the
            other side: only the sandbox does, of its host.
    """

    def __init__(self, part_cap: int | None = None) -> None:
        self._part_cap = part_cap
        self._parts: dict[int, _Part] = {}
        self._held = 0
        self._highest = 0  # the number of a part
        self._forgotten = 0  # the highest number at that time
        # Bytes that the last frame takes in memory, the parts that it names included
        self._weight = 0
        self.weight = 0  # likewise of the last message
        self.stale = False  # whether the last message names parts that were forgotten

    @staticmethod
    def check_length(length: int) -> int:
        """The length that a frame declares, if a frame may have it."""
        if not LENGTH.size <= length <= FRAME_CAP:
            raise WireError(f"a frame of {length} bytes")
        return length

    @property
    def held(self) -> int:
        """Bytes that the parts take whose message is still to come."""
        return self._held

    def forget_parts(self) -> None:
        """Drop the parts whose message never came."""
        self._parts.clear()
        self._held = 0
        self._forgotten = self._highest

    def decode(self, frame: bytes | bytearray | memoryview) -> dict[str, Any] | None:
        """The message that this frame completes, or None for a part of a later one. `frame` begins
        after its length.

        Raises:
            WireError: The frame breaks the rules.
        """
        self._weight, self.stale = len(frame), False
        try:
            message = self._parse(memoryview(frame))
        except WireError:
            raise
        except (ValueError, RecursionError, TypeError, KeyError, struct.error) as error:
            raise WireError(f"a frame that does not parse: {type(error).__name__}") from error
        if not isinstance(message, dict) or not isinstance(message.get("op"), str):
            raise WireError("a frame that is no message")
        if message["op"] != "part":
            self.weight = self._weight
            _check_depth(message)
            return message
        number, items = message.get("part"), message.get("items")
        if type(number) is not int or type(items) is not list:
            raise WireError("a part without number or items")
        part = self._parts.get(number)
        if part is None and 0 < number <= self._forgotten:
            return None  # the rest of what was forgotten; its message will be stale
        # Numbers that anybody could choose would be chosen so that a dict of them is slow.
        of_packed = number < 0 and self._part_cap is None  # only the host packs
        if (
            part is None
            and not of_packed
            and not max(0, self._highest - _AHEAD) < number <= self._highest + _AHEAD
        ):
            raise WireError("a part whose number is out of sequence")
        self._highest = max(self._highest, number)
        self._hold(self._weight)
        if part is None:
            part = self._parts[number] = _Part()
        part.items.extend(items)
        part.weight += self._weight
        part.stale |= self.stale
        return None

    def _hold(self, weight: int) -> None:
        self._held += weight
        if self._part_cap is not None and self._held > self._part_cap:
            raise WireError(f"parts of more than {self._part_cap} bytes")

    def _parse(self, frame: memoryview) -> Any:
        (header_length,) = LENGTH.unpack_from(frame)
        position = LENGTH.size + header_length
        if header_length > HEADER_CAP or position > len(frame):
            raise WireError("a header longer than its frame or the cap")

        def untag(pairs: dict[str, Any]) -> Any:
            nonlocal position
            tag = next((key for key in pairs if key.startswith("$")), None)
            if tag is None:
                return pairs
            value = pairs[tag]
            if len(pairs) != 1:
                raise WireError("a tag among keys")
            if tag == "$b":
                if type(value) is not int or value < 0 or position + value > len(frame):
                    raise WireError("a blob longer than its frame")
                text = _decoded(frame[position : position + value])
                position += value
                self._weight += max(0, sys.getsizeof(text) - value)
                return text
            return self._untagged(tag, value)

        packed = bytes(frame[LENGTH.size : position])
        self._weight += OBJECT * (packed.count(b",") + packed.count(b"[") + packed.count(b"{"))
        if b"\\u" in packed:
            self._weight += 3 * len(packed)  # one wide character makes all of its text as wide
        header = json.loads(packed.decode("ascii"), object_hook=untag)
        if position != len(frame):
            raise WireError("bytes that no blob claims")
        return header

    def _untagged(self, tag: str, value: Any) -> Any:
        match tag, value:
            case "$l" | "$j", int() if value in self._parts:
                part = self._parts.pop(value)
                self._held -= part.weight
                self.stale |= part.stale
                if tag == "$l":
                    self._weight += part.weight
                    return part.items
                return self._joined(part.items)
            case "$l" | "$j", int() if type(value) is int and 0 < value <= self._forgotten:
                self.stale = True
                return [] if tag == "$l" else ""
            case "$d", list() if all(
                type(pair) is list and len(pair) == 2 and type(pair[0]) is str for pair in value
            ):
                return dict(value)
            case "$s", [str() as source, int() as start, int() as end] if (
                type(start) is type(end) is int
            ):
                return SpanRef(source, start, end)
            case "$e", [str() as kind, str() as message, int() as retries] if type(retries) is int:
                return LLMError(kind, message, retries)
            case "$r", [str() as text, str() | None as reason]:
                return LLMReply(text, reason) if self._part_cap is None else text
            case "$o", dict():
                return StoreObject.from_dict(value)
            case "$x", [str() as name, str() as text]:
                return Opaque(name, text)
        raise WireError(f"an unknown or malformed tag {tag[:10]!r}")

    def _joined(self, pieces: list[Any]) -> str:
        """The text of these pieces.

        One wide character makes the whole of it wide, which counts before it is made.
        """
        if not all(type(piece) is str for piece in pieces):
            raise WireError("a text whose pieces are no texts")
        size = max(map(_width, pieces), default=1) * sum(map(len, pieces))
        self._weight += size
        if self._part_cap is not None and self._held + self._weight > self._part_cap:
            raise WireError(f"parts of more than {self._part_cap} bytes")
        return "".join(pieces)


def _width(text: str) -> int:
    """Bytes that each of its characters takes in memory."""
    return 1 if text.isascii() else (sys.getsizeof(text) - _NOT_ASCII) // (len(text) + 1)


def _decoded(blob: memoryview) -> str:
    """The text of a blob, in steps: one of broken characters takes long, and others want to run
    meanwhile.
    """
    if len(blob) <= _STEP:
        return str(blob, "utf-8", "surrogatepass")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    steps = range(0, len(blob), _STEP)
    return "".join(
        decoder.decode(blob[at : at + _STEP], final=at + _STEP >= len(blob)) for at in steps
    )


def _check_depth(value: Any) -> None:
    """Parts may hold parts, and so nest deeper than any frame; whoever walks the value must not
    overflow.
    """
    level = [value]
    for _ in range(DEPTH_CAP + 2):
        level = [inner for each in level for inner in _inside(each) if type(inner) in _NESTING]
        if not level:
            return
    raise WireError(f"a value that nests deeper than {DEPTH_CAP} levels")


_NESTING = {list, dict, StoreObject}


def _inside(value: Any) -> Iterable[Any]:
    if type(value) is StoreObject:
        return (value.content,)
    return cast("Iterable[Any]", value.values() if type(value) is dict else value)
