"""Reads a context into stored texts: strings, paths and documents of frameworks, one at a time."""

import codecs
import hashlib
import os
import zlib
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from io import IOBase
from itertools import chain
from pathlib import Path
from typing import Any, Final

from rlm_integrations.corpus.fixed_width import (
    BLOCK,
    AsciiFile,
    StoredText,
    Writer,
    identity,
    open_regular,
)
from rlm_integrations.corpus.source import is_name
from rlm_integrations.errors import ContextError
from rlm_integrations.records import undecodable

_STEP: Final = 4 * BLOCK
# Integers with more bits become hexadecimal: Python writes at most 4,300 decimal digits.
_MAX_DECIMAL_BITS: Final = 10_000
# Bytes of files that one corpus copies into its memory, so that later changes of the files do not
# matter. Larger ASCII files are read in place: a copy of gigabytes would cost more than it saves.
COPIED: Final = 64 << 20
# Encodings in which every byte below 128 is that ASCII character, wherever it is.
_ASCII_COMPATIBLE: Final = {"ascii", "utf-8", "utf-8-sig", "iso8859-1", "iso8859-15", "cp1252"}


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document before it is read.

    Attributes:
        content: The text, or the path of the file that holds it.
        metadata: In JSON's types.
        id: The document's own id, or None.
        hidden: The keys of `metadata` that no model may see.
        name: The key of a named text, or None.
        label: The name by which people know it: its key, or the name of its file. None for others.
    """

    content: str | os.PathLike[Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    hidden: frozenset[str] = frozenset()
    name: str | None = None
    label: str | None = None

    def read(self, writer: Writer, encoding: str, errors: str) -> tuple[StoredText, str]:
        """The text at fixed width, written with `writer` unless it is read in place, and the
        SHA-256 of its UTF-8 bytes.

        Raises:
            ContextError: The file cannot be read as text.
        """
        if not isinstance(self.content, str):
            return _read_file(os.fsdecode(self.content), writer, encoding, errors)
        writer.append(self.content)
        return writer.finish()


def check_encoding(encoding: str, errors: str) -> None:
    """Refuse an encoding or error handler that Python does not have.

    Raises:
        ContextError: One of them is unknown.
    """
    if (why := undecodable(encoding, errors)) is not None:
        raise ContextError(why)


def read_document(thing: object) -> SourceDocument | None:
    """The object as one document, or None if it is not a document."""
    if isinstance(thing, SourceDocument):
        return thing
    if isinstance(thing, str):
        return SourceDocument(thing)
    if isinstance(thing, os.PathLike):
        name = Path(os.fsdecode(thing)).name
        return SourceDocument(thing, {"file": name}, label=name)
    metadata = getattr(thing, "metadata", None)
    if not isinstance(metadata, Mapping):
        return None
    text = getattr(thing, "page_content", None)  # LangChain
    if not isinstance(text, str):
        # LlamaIndex; by default without the metadata
        get_content = getattr(thing, "get_content", None)
        text = get_content() if callable(get_content) else getattr(thing, "text", None)
    if not isinstance(text, str):
        return None
    own_id = getattr(thing, "id_", None) or getattr(thing, "id", None)
    return SourceDocument(
        text, json_safe(metadata), None if own_id is None else str(own_id), _hidden(thing)
    )


def _hidden(thing: object) -> frozenset[str]:
    """The metadata keys that a LlamaIndex node, or the node in a result, excludes from prompts."""
    keys = getattr(getattr(thing, "node", thing), "excluded_llm_metadata_keys", None)
    return (
        frozenset(map(str, keys))
        if isinstance(keys, list | tuple | set | frozenset) and keys
        else frozenset()
    )


def documents(context: object) -> Iterator[SourceDocument]:
    """The documents that a list, a generator or another iterable yields, or the named ones of a
    mapping, one at a time.

    Raises:
        ContextError: The context, or one of its items, is not a document.
    """
    if isinstance(context, Mapping):
        yield from _named(context)
        return
    if isinstance(
        context, str | bytes | bytearray | memoryview | AbstractSet | IOBase
    ) or not isinstance(context, Iterable):
        raise ContextError(f"the context is {_described(context)}")
    for number, item in enumerate(context):
        found = read_document(item)
        if found is None:
            raise ContextError(f"item {number} of the context is {_described(item)}")
        yield found


def _named(texts: Mapping[Any, Any]) -> Iterator[SourceDocument]:
    for name, item in texts.items():
        if not is_name(name):
            raise ContextError(
                f"the name of a text must be a printable string that is not empty, not {name!r:.99}"
            )
        found = read_document(item)
        if found is None:
            raise ContextError(f"{name!r} of the context is {_described(item)}")
        yield replace(found, name=str(name), label=str(name))


def _described(thing: object) -> str:
    """The description of an invalid context, and what to do about it."""
    if thing is None:
        return "None: pass a string, a path, a document, or a list of these"
    kind = type(thing).__name__
    if isinstance(thing, bytes | bytearray | memoryview):
        return (
            f"{kind}, not text: decode it first, such as context.decode('utf-8'), or pass the"
            " file's path"
        )
    if isinstance(thing, Mapping):
        return f"a {kind}: pass its texts, or json.dumps(…) of it"
    if isinstance(thing, AbstractSet):
        return f"a {kind}, which has no order: pass a list, such as sorted(…)"
    if isinstance(thing, IOBase):
        return f"an open file ({kind}): pass its path, or its content, file.read()"
    if isinstance(thing, AsyncIterable):
        return f"asynchronous ({kind}): collect it first, [item async for item in …]"
    if isinstance(thing, list | tuple):
        return f"a {kind}: pass one flat list of strings, paths or documents"
    return f"of type {kind}: pass a string, a path, a document, or a list or dict of these"


def json_safe(value: object, within: tuple[int, ...] = ()) -> Any:
    """A copy in JSON's types.

    Other values become strings, as do circular and deeply nested ones.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if abs(value).bit_length() < _MAX_DECIMAL_BITS else hex(value)
    if isinstance(value, float) and value - value == 0:  # neither infinite nor nan
        return float(value)
    if id(value) not in within and len(within) < 20:
        within = (*within, id(value))
        if isinstance(value, Mapping):
            return {_key(key): json_safe(item, within) for key, item in value.items()}
        if isinstance(value, list | tuple | AbstractSet):
            return [json_safe(item, within) for item in value]
    return str(value)


def _key(key: object) -> str:
    return str(json_safe(key)) if isinstance(key, int) and not isinstance(key, bool) else str(key)


def _read_file(path: str, writer: Writer, encoding: str, errors: str) -> tuple[StoredText, str]:
    fd, before = open_regular(path)
    try:
        _refuse_other_formats(fd, path)
        is_large = (
            writer.size + before.st_size > COPIED
            and codecs.lookup(encoding).name in _ASCII_COMPATIBLE
        )
        found = _ascii_run(fd, path, before) if is_large else None
        is_copied = found is None
        reading = _Reading(fd, before.st_size)
        found = found or _decoded(reading, path, writer, encoding, errors)
        after = os.fstat(fd)
        if identity(after) != identity(before) and not (
            is_copied and reading.has_only_grown(after.st_size)
        ):
            raise ContextError(
                f"{path!r} changed while it was read: wait until it is written, then start again"
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
    b"%PDF-": ("a PDF", "extract its text first, for example with pdftotext"),
    b"\x1f\x8b": ("gzip-compressed", "unpack it first, for example with gunzip"),
    b"BZh91AY&SY": ("bzip2-compressed", "unpack it first, for example with bunzip2"),
    b"\xfd7zXZ": ("xz-compressed", "unpack it first, for example with unxz"),
    b"(\xb5/\xfd": ("zstd-compressed", "unpack it first, for example with unzstd"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first, and take the files in it"),
    b"PK\x03\x04": (
        "a zip archive, as docx, xlsx, odt and epub files are",
        "unpack it, or save the document as plain text first",
    ),
    b"\xd0\xcf\x11\xe0": ("a document of an old Office version", "save it as plain text first"),
    b"\x89PNG": ("an image", "recognise its text first, for example with tesseract"),
    b"\xff\xd8\xff": ("an image", "recognise its text first, for example with tesseract"),
    b"SQLite format 3": ("an SQLite database", "export what you need as text first"),
}


def _refuse_other_formats(fd: int, path: str) -> None:
    """Refuse files that are not text in any encoding."""
    start = os.pread(fd, 16, 0)
    for mark, (what, advice) in _FORMATS.items():
        if start.startswith(mark):
            raise ContextError(f"{path!r} is {what}, not text: {advice}")


def _not_text(path: str, encoding: str, what: str) -> ContextError:
    return ContextError(
        f"{path!r} is not valid {encoding}: {what}; pass its encoding, or errors='replace'"
    )


def _line(fd: int, offset: int, encoding: str) -> int:
    """The line number of this byte, counted from 1."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return 1 + sum(
        decoder.decode(os.pread(fd, min(_STEP, offset - at), at)).count("\n")
        for at in range(0, offset, _STEP)
    )
