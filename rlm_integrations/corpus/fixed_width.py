"""Text at a fixed width, outside of Python's heap: every character takes 1, 2 or 4 bytes, so a
slice is read without reading the text before it.

A `ByteSource` holds bytes: anonymous memory, or an ASCII file on the disk. A `StoredText` is one
text in it. Both are immutable once created, so any thread may read. A descriptor stays open as long
as its byte source is referenced.
"""

import errno
import hashlib
import os
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from rlm_integrations.errors import ContextError

# Characters handled at once: small enough for the processor's cache, and to hold the GIL for less
# than a millisecond.
BLOCK: Final = 1 << 16
# The classes of strings in CPython, as the widest character that each can contain.
MAXCHARS: Final = (0x7F, 0xFF, 0xFFFF, 0x10FFFF)
WIDTHS: Final = (1, 1, 2, 4)
_ORDER: Final = "le" if sys.byteorder == "little" else "be"
_CODECS: Final = {1: "latin-1", 2: f"utf-16-{_ORDER}", 4: f"utf-32-{_ORDER}"}


def encode_fixed(text: str, width: int) -> bytes:
    """The text at this width, which must be wide enough. A lone surrogate is a character too."""
    return text.encode(_CODECS[width], "surrogatepass")


def decode_fixed(data: bytes, width: int) -> str:
    """The inverse of `encode_fixed`."""
    text = data.decode(_CODECS[width], "surrogatepass")
    if len(text) * width == len(data):
        return text
    # UTF-16 decodes two adjacent surrogates as one character; UTF-32 keeps them separate.
    wide = bytearray(2 * len(data))
    first = 0 if _ORDER == "le" else 2
    wide[first::4], wide[first + 1 :: 4] = data[::2], data[1::2]
    return wide.decode(_CODECS[4], "surrogatepass")


def narrowest(text: str) -> tuple[int, bytes]:
    """The text's class, as an index into `MAXCHARS`, and the text at that class's width."""
    if text.isascii():
        return 0, text.encode()
    try:
        return 1, text.encode("latin-1")
    except UnicodeEncodeError:
        data = encode_fixed(text, 2)
        return (2, data) if len(data) == 2 * len(text) else (3, encode_fixed(text, 4))


class ByteSource(Protocol):
    """Bytes that do not change."""

    def opened(self) -> AbstractContextManager[int]:
        """A descriptor to read from, valid inside the `with`.

        Raises:
            ContextError: The bytes have changed since they were first read.
        """


class Memory:
    """Anonymous memory, to be written inside a `with` and sealed at its end.

    Its pages are not mapped into this process.
    """

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            try:
                self.fd = os.memfd_create("rlm-context", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            except OSError as error:
                raise no_room(error) from error
        else:
            with tempfile.TemporaryFile(buffering=0) as file:
                self.fd = os.dup(file.fileno())
        self._close = weakref.finalize(self, os.close, self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, failed: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """Seal the memory: from now on no process can write or resize it, not even one that
        receives the descriptor.
        """
        if failed:
            self._close()
            if isinstance(error, OSError) and error.errno in {
                errno.EFBIG,
                errno.ENOSPC,
                errno.ENOMEM,
            }:
                raise no_room(error) from error
        elif hasattr(os, "memfd_create"):
            import fcntl

            fcntl.fcntl(
                self.fd,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
            )

    def write(self, data: bytes, offset: int = 0) -> None:
        """Write bytes at this offset."""
        done = os.pwrite(self.fd, data, offset)
        while done < len(data):
            done += os.pwrite(self.fd, data[done:], offset + done)

    def opened(self) -> AbstractContextManager[int]:
        """The descriptor, which stays open as long as this object is referenced."""
        return nullcontext(self.fd)


class GrowingMemory(Memory):
    """Memory that is written as long as it is referenced. Others get a descriptor that cannot
    write.

    Raises:
        ContextError: This machine has no such memory.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self._read_only = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise no_room(error) from error
        weakref.finalize(self, os.close, self._read_only)

    def opened(self) -> AbstractContextManager[int]:
        """A descriptor to read from, which stays open as long as this object is referenced."""
        return nullcontext(self._read_only)


def no_room(error: OSError) -> ContextError:
    """The error for a document that does not fit into memory."""
    return ContextError(
        f"the document cannot be put into memory that a sandbox can read ({error.strerror}):"
        " raise this machine's limit of file sizes (`ulimit -f`), open files or memory"
    )


@dataclass(frozen=True, slots=True)
class AsciiFile:
    """A file that contained only ASCII when it was read. It is opened again for each use.

    Attributes:
        path: Its path.
        identity: Its `identity` at that time.
    """

    path: Path
    identity: tuple[int, ...]

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the same unchanged file; the error may reach a model, so it shows no
        path.
        """
        changed = (
            f"the file {self.path.name!r} is gone, or has changed since it was read: start again"
            " with the file as it is now"
        )
        try:
            fd, info = open_regular(self.path)
        except ContextError as error:
            raise ContextError(changed) from error
        try:
            if identity(info) != self.identity:
                raise ContextError(changed)
            yield fd
        finally:
            os.close(fd)


def identity(info: os.stat_result) -> tuple[int, ...]:
    """The attributes that change when a file is replaced or written to."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def open_regular(path: str | Path) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, and the file's status.

    Raises:
        ContextError: It is missing or unreadable, or it is a directory, a pipe or a device.
    """
    try:
        # Opening a pipe would wait for its writer
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ContextError(f"{str(path)!r} cannot be read: {reason}") from error
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode):
        return fd, info
    os.close(fd)
    if stat.S_ISDIR(info.st_mode):
        raise ContextError(
            f"{str(path)!r} is a directory: pass it alone, or in a dict, such as"
            f" {{'notes': Path({str(path)!r})}}"
        )
    raise ContextError(
        f"{str(path)!r} is not a regular file: read it yourself and pass its content"
    )


def read_exactly(fd: int, count: int, offset: int) -> bytes:
    """`count` bytes from `offset`; fewer only at the end of the file."""
    data = os.pread(fd, count, offset)
    if len(data) == count or not data:
        return data
    parts = [data]
    while count := count - len(parts[-1]):
        offset += len(parts[-1])
        if not (data := os.pread(fd, count, offset)):
            break
        parts.append(data)
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class StoredText:
    """One text in a byte source.

    Attributes:
        store: The source of its bytes.
        offset: The place of its first byte there.
        length: How many characters it has.
        width: Bytes a character takes.
        classes: The class of each block of `BLOCK` characters; empty where all is ASCII.
    """

    store: ByteSource
    offset: int
    length: int
    width: int
    classes: bytes

    def read(self, start: int, end: int) -> str:
        """The characters from `start` up to `end`."""
        parts = [self._read(at, min(at + 16 * BLOCK, end)) for at in range(start, end, 16 * BLOCK)]
        return parts[0] if len(parts) == 1 else "".join(parts)

    def _read(self, start: int, end: int) -> str:
        count = (end - start) * self.width
        with self.store.opened() as fd:
            data = read_exactly(fd, count, self.offset + start * self.width)
        if len(data) != count or (isinstance(self.store, AsciiFile) and not data.isascii()):
            raise ContextError(
                "the context has changed since it was read: start again with it as it is now"
            )
        return decode_fixed(data, self.width)

    def widest(self, start: int, end: int) -> int:
        """The narrowest class that fits these characters. The classes of whole blocks are known;
        only the blocks at the edges are read.
        """
        if not self.classes:
            return 0
        first = -(-start // BLOCK)
        last = -(-end // BLOCK) if end == self.length else end // BLOCK
        edges = (
            [(start, min(first * BLOCK, end)), (last * BLOCK, end)]
            if first <= last
            else [(start, end)]
        )
        known = max(self.classes[first:last], default=0)
        for edge, stop in edges:
            if edge < stop and self.classes[edge // BLOCK] > known:
                known = max(known, narrowest(self.read(edge, stop))[0])
        return known


class Writer:
    """Writes texts into a memory, one after another, each at its least width."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._end = 0
        self._begin()

    def _begin(self) -> None:
        self._start, self._length, self._width = self._end, 0, 1
        self._classes = bytearray()
        self._hash = hashlib.sha256()

    @property
    def size(self) -> int:
        """The bytes of all texts so far."""
        return self._end

    def append(self, text: str) -> None:
        """Add characters to the text."""
        at = 0
        while at < len(text):
            room = BLOCK - self._length % BLOCK
            part = text[at : at + room]
            at += room
            self._append(part)

    def _append(self, part: str) -> None:
        kind, data = narrowest(part)
        self._hash.update(data if kind == 0 else part.encode("utf-8", "surrogatepass"))
        if self._length % BLOCK == 0:
            self._classes.append(kind)
        else:
            self._classes[-1] = max(self._classes[-1], kind)
        if WIDTHS[kind] > self._width:
            self._widen(WIDTHS[kind])
        elif WIDTHS[kind] < self._width:
            data = encode_fixed(part, self._width)
        self._memory.write(data, self._end)
        self._length += len(part)
        self._end += len(data)

    def _widen(self, width: int) -> None:
        """Rewrite the text so far in place, from its end, so that no block is overwritten before
        it is read.
        """
        for start in reversed(range(0, self._length, BLOCK)):
            count = min(BLOCK, self._length - start) * self._width
            text = decode_fixed(
                read_exactly(self._memory.fd, count, self._start + start * self._width), self._width
            )
            self._memory.write(encode_fixed(text, width), self._start + start * width)
        self._width = width
        self._end = self._start + self._length * width

    def finish(self) -> tuple[StoredText, str]:
        """The text, and the SHA-256 of its UTF-8 bytes. The next `append` begins another text."""
        classes = bytes(self._classes) if any(self._classes) else b""
        run, sha256 = (
            StoredText(self._memory, self._start, self._length, self._width, classes),
            self._hash.hexdigest(),
        )
        self._begin()
        return run, sha256
