"""The wire between host and sandbox: frames over a stream socket, with the same code at both ends.

A frame is `u32 length, u32 header length, header, blobs`, lengths big-endian. The header is JSON;
texts longer than a line leave it and follow as blobs, in the order in which the header names them,
so that a reader consumes lengths strictly in order and a small frame can never claim to be large. A
message that would make a large frame is sent in parts: long lists and long texts go ahead piece by
piece under a number that the message then names.

No pickle, no marshal: what arrives is None, bool, int, float, str, list, dict with text keys, and
the tagged values below. Whoever reads treats the other side as hostile; what breaks these rules
raises `WireError`, and nothing else.
"""

import struct
from dataclasses import dataclass

FRAME_CAP = 16 << 20  # bytes; a longer frame breaks the rules
# Bytes: JSON of 60 MB would hold its reader for 12 s, this at its worst for a tenth of one
HEADER_CAP = 1 << 20
DEPTH_CAP = 100  # nesting of one value
LENGTH = struct.Struct(">I")


class WireError(ValueError):
    """The other side broke the rules of the wire."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """What stands for a value that cannot cross, such as an instance of a class of the model's own:
    its type and its text.
    """

    type: str
    text: str
