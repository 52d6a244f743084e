"""Turns frames into messages; see `wire`. The frames of a sandbox are hostile."""

import codecs
import json
import struct
import sys
from collections.abc import Iterable
from typing import Any, cast

from ..records import LLMError, LLMReply, SpanRef, StoreObject
from .wire import DEPTH_CAP, FRAME_CAP, HEADER_CAP, LENGTH, Opaque, WireError

# How far a part's number may be from the highest so far: threads may send out of order, but only
# within this range
_MAX_NUMBER_GAP = 100_000
_DECODE_STEP_BYTES = 1 << 16  # bytes of a string decoded in one step
OBJECT = 64  # minimum size of a value in memory, in bytes, however short it is on the wire

# Overhead of a string that is not ASCII, in bytes, including the terminating null
_NOT_ASCII = sys.getsizeof("\xe9") - 2


class _Part:
    """The items that arrived under one number, ahead of their message."""

    __slots__ = ("items", "stale", "weight")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.weight = 0
        self.stale = False


class Decoder:
    """Turns frames back into messages. It keeps parts until their message arrives.

    Args:
        part_cap: The maximum size, in bytes, of all parts that wait for their message. None trusts
            the other side, as the sandbox trusts its host.
    """

    def __init__(self, part_cap: int | None = None) -> None:
        self._part_cap = part_cap
        self._parts: dict[int, _Part] = {}
        self._held = 0
        self._highest = 0  # by the part's number
        self._forgotten = 0  # the highest number at that time
        # The size of the last frame in memory, in bytes, including the parts that it names
        self._weight = 0
        self.weight = 0  # the same for the last message
        self.stale = False  # whether the last message names discarded parts

    @staticmethod
    def check_length(length: int) -> int:
        """The frame length that a header declares, if it is allowed."""
        if not LENGTH.size <= length <= FRAME_CAP:
            raise WireError(f"a frame of {length} bytes")
        return length

    @property
    def held(self) -> int:
        """The size of all parts whose message has not arrived yet, in bytes."""
        return self._held

    def forget_parts(self) -> None:
        """Discard the parts whose message never arrived."""
        self._parts.clear()
        self._held = 0
        self._forgotten = self._highest

    def decode(self, frame: bytes | bytearray | memoryview) -> dict[str, Any] | None:
        """The message that this frame completes, or None for a part of a later one. `frame`
        excludes its length prefix.

        Raises:
            WireError: The frame violates the wire format.
        """
        self._weight, self.stale = len(frame), False
        try:
            message = self._parse(memoryview(frame))
        except WireError:
            raise
        except (ValueError, RecursionError, TypeError, KeyError, struct.error) as error:
            raise WireError(f"a frame that does not parse: {type(error).__name__}") from error
        if not isinstance(message, dict) or not isinstance(message.get("op"), str):
            raise WireError("a frame that is not a message")
        if message["op"] != "part":
            self.weight = self._weight
            _check_depth(message)
            return message
        number, items = message.get("part"), message.get("items")
        if type(number) is not int or type(items) is not list:
            raise WireError("a part without number or items")
        part = self._parts.get(number)
        if part is None and 0 < number <= self._forgotten:
            return None  # belongs to discarded parts; its message will be stale
        # Arbitrary numbers could have colliding hashes, which makes a dict slow.
        of_packed = number < 0 and self._part_cap is None  # only the host packs
        if (
            part is None
            and not of_packed
            and not max(0, self._highest - _MAX_NUMBER_GAP)
            < number
            <= self._highest + _MAX_NUMBER_GAP
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
            # one wide character makes all characters of the string wide
            self._weight += 3 * len(packed)
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
        """The string of these pieces.

        One wide character makes the whole string wide; that size is checked before the string is
        built.
        """
        if not all(type(piece) is str for piece in pieces):
            raise WireError("a string with a piece that is not a string")
        size = max(map(_width, pieces), default=1) * sum(map(len, pieces))
        self._weight += size
        if self._part_cap is not None and self._held + self._weight > self._part_cap:
            raise WireError(f"parts of more than {self._part_cap} bytes")
        return "".join(pieces)


def _width(text: str) -> int:
    """The size of each of its characters in memory, in bytes."""
    return 1 if text.isascii() else (sys.getsizeof(text) - _NOT_ASCII) // (len(text) + 1)


def _decoded(blob: memoryview) -> str:
    """The text of a blob, decoded in steps: invalid bytes take long to decode, and other threads
    must be able to run meanwhile.
    """
    if len(blob) <= _DECODE_STEP_BYTES:
        return str(blob, "utf-8", "surrogatepass")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    steps = range(0, len(blob), _DECODE_STEP_BYTES)
    return "".join(
        decoder.decode(
            blob[at : at + _DECODE_STEP_BYTES], final=at + _DECODE_STEP_BYTES >= len(blob)
        )
        for at in steps
    )


def _check_depth(value: Any) -> None:
    """Raise if a value nests too deep. Parts may contain parts, and so nest deeper than any frame;
    code that walks the value must not overflow the stack.
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
