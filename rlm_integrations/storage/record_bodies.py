"""Journal records as rows keep them: JSON, compressed unless it is short."""

from rlm_integrations.storage.compression import compress, decompress

_SHORT_BYTES = 512  # compression gains little, and costs as much time as the rest of the row


def packed(record: bytes) -> bytes:
    """The record as a row keeps it."""
    return record if len(record) < _SHORT_BYTES else compress(record)


def unpacked(body: bytes, name: str) -> bytes:
    """The record of a row; `name` is what messages call it.

    Raises:
        DamagedDataError: It is damaged.
    """
    return body if body.startswith(b"{") else decompress(body, name)
