"""Turns frames into messages; see `wire`. The frames of a sandbox are hostile."""

import codecs
import json
import struct
import sys
from collections.abc import Iterable
from typing import Any, cast

from ..records import LLMError, LLMReply, SpanRef, StoreObject
from .wire import DEPTH_CAP, FRAME_CAP, HEADER_CAP, LENGTH, Opaque, WireError

# How far the number of a part may be from the highest so far: threads overtake one another, but not
# by more
_MAX_NUMBER_GAP = 100_000
_DECODE_STEP_BYTES = 1 << 16  # bytes of a string that are decoded at once
OBJECT = 64  # bytes that a value takes in memory, however short it was on the wire

# Bytes of a text that is not ASCII beside its characters and the null at its end
_NOT_ASCII = sys.getsizeof("\xe9") - 2


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
            return None  # the rest of what was forgotten; its message will be stale
        # Freely chosen numbers could collide, and make the dict slow.
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
            raise WireError("a string with a piece that is not a string")
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
    """Parts may hold parts, and so nest deeper than any frame; code that walks the value must not
    overflow the stack.
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
