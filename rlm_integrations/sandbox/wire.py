"""The wire format between host and sandbox: frames over a stream socket, with the same code at both
ends.

A frame is `u32 length, u32 header length, header, blobs`, lengths big-endian. The header is JSON;
long strings follow it as blobs, in the order in which the header names them, so that a reader
consumes lengths strictly in order and a small frame can never claim to be large. A
message that would make a large frame is sent in parts: long lists and long strings are sent first,
piece by piece, under a number that the message then names.

No pickle, no marshal: values are None, bool, int, float, str, list, dict with str keys, and the
tagged values of `Encoder`. A reader treats the other side as hostile: a frame that violates these
rules raises `WireError` and no other exception.
"""

import struct
from dataclasses import dataclass

FRAME_CAP = 16 << 20  # bytes; a longer frame is invalid
# Bytes; in the worst case, 60 MB of JSON blocks the reader for 12 s, and this for 0.1 s
HEADER_CAP = 1 << 20
DEPTH_CAP = 100  # nesting of one value
LENGTH = struct.Struct(">I")


class WireError(ValueError):
    """The other side violated the wire format."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """The placeholder for a value that cannot cross the wire, such as an instance of a class that
    the model defined: its type and its string.
    """

    type: str
    text: str
