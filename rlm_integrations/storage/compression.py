"""Compressed bytes that notice when they are damaged."""

import threading

import zstandard

from rlm_integrations.errors import DamagedDataError

_LEVEL = 3  # more than this costs several times as long for a few per cent
_THREADS = threading.local()  # has each thread's compressor: a new one costs more than a record


def compress(data: bytes) -> bytes:
    """The data as one frame of Zstandard with its checksum."""
    compressor: zstandard.ZstdCompressor | None = getattr(_THREADS, "compressor", None)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        _THREADS.compressor = compressor
    return compressor.compress(data)


def decompress(data: bytes, name: str) -> bytes:
    """The data of a frame; `name` is what messages call it.

    Raises:
        DamagedDataError: The frame is cut or changed.
    """
    try:
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedDataError(
            f"{name} is damaged ({error}); restore it from a backup, or remove the run that uses it"
        ) from None
