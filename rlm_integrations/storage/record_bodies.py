"""Journal records as rows keep them: compressed unless they are short, with a checksum."""

import zlib

from rlm_integrations.errors import DamagedDataError
from rlm_integrations.storage.compression import compress, decompress

_SHORT_BYTES = 512  # compression gains little, and costs as much time as the rest of the row
_SHORT = b"s"  # begins a short record: no compressed one begins so
_CHECKSUM_BYTES = 4


def packed(record: bytes) -> bytes:
    """The record as a row keeps it."""
    if len(record) >= _SHORT_BYTES:
        return compress(record)
    return b"%b%b%b" % (_SHORT, zlib.crc32(record).to_bytes(_CHECKSUM_BYTES, "big"), record)


def unpacked(body: bytes, name: str) -> bytes:
    """The record of a row; `name` is what messages call it.

    Raises:
        DamagedDataError: It is damaged.
    """
    if not body.startswith(_SHORT):
        return decompress(body, name)
    checksum, record = body[1 : 1 + _CHECKSUM_BYTES], body[1 + _CHECKSUM_BYTES :]
    if zlib.crc32(record).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise DamagedDataError(
            f"{name} is damaged: its checksum is wrong; restore it from a backup, or remove the run"
        )
    return record
