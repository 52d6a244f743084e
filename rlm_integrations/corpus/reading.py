"""Reads files as text."""

import codecs
import hashlib
import os
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from rlm_integrations.corpus.fixed_width import (
    BLOCK,
    AsciiFile,
    StoredText,
    Writer,
    identity,
    open_regular,
)
from rlm_integrations.errors import ContextError
from rlm_integrations.extraction.extractor import NotTextError

_STEP: Final = 4 * BLOCK
_ZEROS_SEARCHED: Final = 8_192  # bytes
# Bytes of files that one corpus copies into its memory, so that later changes of the files do not
# matter. Larger ASCII files are read in place: a copy of gigabytes would cost more than it saves.
COPIED: Final = 64 << 20
# Encodings in which every byte below 128 is that ASCII character, wherever it is.
ASCII_COMPATIBLE: Final = {"ascii", "utf-8", "utf-8-sig", "iso8859-1", "iso8859-15", "cp1252"}


def read_file(
    path: str, writer: Writer, encoding: str, errors: str, *, checks_zeros: bool = False
) -> tuple[StoredText, str]:
    """The text of a file, and the SHA-256 of its UTF-8 bytes.

    Args:
        path: The file.
        writer: Writes the text, unless it is read in place.
        encoding: Its encoding.
        errors: How bytes that are invalid in it are handled.
        checks_zeros: Whether a file with zero bytes is not text.

    Raises:
        NotTextError: It is not text.
        ContextError: It cannot be read, or changes meanwhile.
    """
    fd, before = open_regular(path)
    try:
        _refuse_other_formats(fd, path)
        if checks_zeros and codecs.lookup(encoding).name in ASCII_COMPATIBLE:
            _refuse_zeros(fd, path)
        is_large = (
            writer.size + before.st_size > COPIED
            and codecs.lookup(encoding).name in ASCII_COMPATIBLE
        )
        found = _ascii_run(fd, path, before) if is_large else None
        is_copied = found is None
        reading = _Reading(fd, before.st_size)
        found = found or _decoded(reading, path, writer, encoding, errors)
        after = os.fstat(fd)
        if identity(after) != identity(before) and not (
            is_copied and reading.has_only_grown(after.st_size)
        ):
            raise NotTextError(
                f"{path!r} changed while it was read: wait until it is written, then start again",
                "changed while it was read",
            )
    except OSError as error:
        raise ContextError(f"{path!r} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    return found


def _ascii_run(fd: int, path: str, info: os.stat_result) -> tuple[StoredText, str] | None:
    """The file on the disk as a stored text, or None if it is not ASCII."""
    digest = hashlib.sha256()
    size = 0
    while data := os.pread(fd, _STEP, size):
        if not data.isascii():
            return None
        digest.update(data)
        size += len(data)
    return StoredText(
        AsciiFile(Path(path).absolute(), identity(info)), 0, size, 1, b""
    ), digest.hexdigest()


class _Reading:
    """Reads a file in steps, up to the size that it had when it was opened: a log may grow.

    Args:
        fd: The file.
        size: Its size in bytes; 0 if the system does not know it, as in /proc.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self._most = size or None
        self._size = self._checksum = 0

    def __iter__(self) -> Iterator[bytes]:
        for data in self._steps(self._most):
            self._size += len(data)
            self._checksum = zlib.crc32(data, self._checksum)
            yield data

    def has_only_grown(self, size: int) -> bool:
        """Whether the file, which now has this size, still begins with the bytes that were read."""
        checksum = 0
        for data in self._steps(self._size):
            checksum = zlib.crc32(data, checksum)
        return size > self._size and checksum == self._checksum

    def _steps(self, most: int | None) -> Iterator[bytes]:
        at = 0
        while data := os.pread(self.fd, _STEP if most is None else min(_STEP, most - at), at):
            at += len(data)
            yield data


def _decoded(
    reading: _Reading, path: str, writer: Writer, encoding: str, errors: str
) -> tuple[StoredText, str]:
    """The file decoded in steps."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    size = 0
    for data in chain(reading, [b""]):  # the final call reports a truncated character
        size += len(data)
        try:
            writer.append(decoder.decode(data, final=not data))
        except UnicodeDecodeError as error:
            offset = size - len(error.object) + error.start
            line = _line(reading.fd, offset, encoding)
            where = f"byte 0x{error.object[error.start]:02x} at offset {offset:,}, line {line:,}"
            raise _not_text(path, encoding, f"{where} ({error.reason})") from error
        except UnicodeError as error:
            raise _not_text(path, encoding, str(error)) from error
    return writer.finish()


_FORMATS: Final = {  # by their first bytes
    b"%PDF-": ("a PDF", "give it a name that ends with .pdf"),
    b"\x1f\x8b": ("gzip-compressed", "unpack it first, for example with gunzip"),
    b"BZh91AY&SY": ("bzip2-compressed", "unpack it first, for example with bunzip2"),
    b"\xfd7zXZ": ("xz-compressed", "unpack it first, for example with unxz"),
    b"(\xb5/\xfd": ("zstd-compressed", "unpack it first, for example with unzstd"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first, and take the files in it"),
    b"PK\x03\x04": (
        "a zip archive, as xlsx, pptx and odt files are",
        "unpack it, or save the document as plain text first",
    ),
    b"\xd0\xcf\x11\xe0": ("a document of an old Office version", "save it as plain text first"),
    b"\x89PNG": ("an image", "recognise its text first, for example with tesseract"),
    b"\xff\xd8\xff": ("an image", "recognise its text first, for example with tesseract"),
    b"SQLite format 3": ("an SQLite database", "export what you need as text first"),
}


def decode_member(data: bytes, name: str, encoding: str, errors: str) -> str:
    """The text of a file in an archive, or of a compressed one.

    Raises:
        NotTextError: It is not text.
    """
    start = data[:_ZEROS_SEARCHED]
    _refuse_formats(start, name)
    if codecs.lookup(encoding).name in ASCII_COMPATIBLE and b"\0" in start:
        raise NotTextError(f"{name!r} is binary, not text", "binary")
    try:
        return data.decode(encoding, errors)
    except UnicodeError as error:
        raise _not_text(name, encoding, str(error)) from error


def _refuse_other_formats(fd: int, path: str) -> None:
    """Refuse files that are not text in any encoding."""
    _refuse_formats(os.pread(fd, 16, 0), path)


def _refuse_formats(start: bytes, path: str) -> None:
    for mark, (what, advice) in _FORMATS.items():
        if start.startswith(mark):
            raise NotTextError(f"{path!r} is {what}, not text: {advice}", "binary")


def _refuse_zeros(fd: int, path: str) -> None:
    """Refuse files that have a zero byte near their beginning: no text has."""
    if b"\0" in os.pread(fd, _ZEROS_SEARCHED, 0):
        raise NotTextError(f"{path!r} is binary, not text", "binary")


def _not_text(path: str, encoding: str, what: str) -> NotTextError:
    return NotTextError(
        f"{path!r} is not valid {encoding}: {what}; pass its encoding, or errors='replace'",
        f"not {encoding.removesuffix('-sig')}",
    )


def _line(fd: int, offset: int, encoding: str) -> int:
    """The line number of this byte, counted from 1."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return 1 + sum(
        decoder.decode(os.pread(fd, min(_STEP, offset - at), at)).count("\n")
        for at in range(0, offset, _STEP)
    )
