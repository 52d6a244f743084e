"""Reads documents in a process of its own: what is hostile or slow in a file ends that process, not
the host, and holds up no event loop.
"""

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, runtime_checkable

from rlm_integrations._concurrency.work import spend
from rlm_integrations.errors import ContextError, MissingExtraError
from rlm_integrations.extraction.child import LENGTHS

_FORMATS: Final = {
    ".pdf": "pdf",
    **dict.fromkeys([".html", ".htm", ".xhtml"], "html"),
    ".docx": "docx",
    ".epub": "epub",
    ".eml": "eml",
    ".mbox": "mbox",
}
_SUFFIXES: Final = tuple(_FORMATS)
_SUFFIX_CHARS: Final = max(map(len, _FORMATS))
_SECONDS: Final = {"pdf": 600}  # of processor time for one document
_OTHER_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.1  # after which a stopped build ends
_VERSION: Final = 1  # of the texts in caches: a higher one has all files read again
_HASHED_BYTES: Final = 1 << 18  # at once
_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "TZ")  # no API keys
_BOOT: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from rlm_integrations.extraction.child import main; main(int(sys.argv[1]))"
)


def has_format(name: str) -> bool:
    """Whether `format_of` may find a format for this name; much faster."""
    return name[-_SUFFIX_CHARS:].lower().endswith(_SUFFIXES)


def format_of(name: str) -> str | None:
    """The format whose text is extracted from files of this name; None for others."""
    return _FORMATS.get(Path(name).suffix.lower())


class NotTextError(ContextError):
    """A file has no text that can be read.

    Attributes:
        reason: In a few words, without its path.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """The text of a document.

    Attributes:
        text: The text.
        starts: Where each of its parts begins.
        labels: What people call each part, such as " p. 12".
        properties: What is known of the document, in JSON's types.
    """

    text: str
    starts: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    properties: dict[str, Any] = field(default_factory=dict)


class TextCache(Protocol):
    """Keeps what was read from documents."""

    def find(self, key: str) -> bytes | None:
        """What was kept for this key, or None. Blocks."""
        ...

    def keep(self, key: str, data: bytes) -> None:
        """Keep what was read. Blocks."""
        ...


@runtime_checkable
class KeepsTexts(Protocol):
    """A storage that has a cache of texts."""

    @property
    def texts(self) -> TextCache:
        """The cache."""
        ...


class Extractor:
    """Reads documents, one at a time. Its process starts with the first one, and ends with the
    `with`.

    Args:
        cache: Keeps the texts, by the hashes of their files; None to keep none.
    """

    def __init__(self, cache: TextCache | None = None) -> None:
        self._cache = cache
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._end()

    def extract(
        self, descriptor: int, kind: str, name: str, encoding: str, errors: str
    ) -> ExtractedText:
        """The text of a document. It blocks.

        Args:
            descriptor: The file; its position changes.
            kind: Its format; see `format_of`.
            name: Its name, for messages.
            encoding: The encoding of an HTML file that declares none.
            errors: How bytes that are invalid in it are handled.

        Raises:
            NotTextError: It has no text that can be read.
            MissingExtraError: The package for its format is not installed.
        """
        if self._cache is None:
            return _parsed(*self._read(descriptor, kind, name, encoding, errors))
        key = _key_of(descriptor, f"{kind} {encoding} {errors}")
        if (kept := self._cache.find(key)) is not None:
            head, _ = LENGTHS.unpack_from(kept)
            return _parsed(kept[LENGTHS.size : LENGTHS.size + head], kept[LENGTHS.size + head :])
        described, text = self._read(descriptor, kind, name, encoding, errors)
        self._cache.keep(key, LENGTHS.pack(len(described), len(text)) + described + text)
        return _parsed(described, text)

    def _read(
        self, descriptor: int, kind: str, name: str, encoding: str, errors: str
    ) -> tuple[bytes | bytearray, bytes | bytearray]:
        """The description of a document in JSON, and its text in UTF-8."""
        seconds = _SECONDS.get(kind, _OTHER_SECONDS)
        request = {"format": kind, "encoding": encoding, "errors": errors, "seconds": seconds}
        connection = self._connected()
        try:
            socket.send_fds(connection, [json.dumps(request).encode()], [descriptor])
            head, size = LENGTHS.unpack(self._receive(LENGTHS.size))
            described = self._receive(head)
            text = self._receive(size)
        except OSError:
            raise NotTextError(*self._why_ended(name, seconds)) from None
        except BaseException:
            self._end()  # it is in the middle of this document
            raise
        answer = json.loads(described)
        if "missing" in answer:
            raise MissingExtraError(f"reading {name!r}", "files")
        if "error" in answer:
            raise NotTextError(f"{name!r} {answer['error']}", answer["reason"])
        return described, text

    def _connected(self) -> socket.socket:
        if self._connection is None:
            ours, theirs = socket.socketpair()
            package = str(Path(__file__).parents[2])
            folders = [package, *(each for each in sys.path if Path(each).is_absolute())]
            with theirs:
                try:
                    self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                        [
                            *[
                                sys.executable,
                                "-I",
                                "-S",
                                *(["-B"] if sys.dont_write_bytecode else []),
                            ],
                            *["-c", _BOOT],
                            *[str(theirs.fileno()), *dict.fromkeys(folders)],
                        ],
                        pass_fds=[theirs.fileno()],
                        env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
                        cwd="/",
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,  # Ctrl-C in the terminal is for the host
                    )
                except BaseException:
                    ours.close()
                    raise
            self._connection = ours
        return self._connection

    def _receive(self, count: int) -> bytearray:
        """So many bytes of the answer.

        Raises:
            OSError: The process has ended.
        """
        connection = self._connected()
        data = bytearray(count)
        view, done = memoryview(data), 0
        readable = select.poll()
        readable.register(connection, select.POLLIN)
        while done < count:
            spend(0)
            if not readable.poll(_POLL_SECONDS * 1e3):
                continue
            received = connection.recv_into(view[done:])
            if not received:
                raise ConnectionResetError
            done += received
        return data

    def _why_ended(self, name: str, seconds: float) -> tuple[str, str]:
        code = self._end()
        if code == -signal.SIGPROF:
            message = (
                f"{name!r} takes too long to be read: more than {seconds} seconds, or one of its"
                " pages far longer than a page should"
            )
            return message, "takes too long"
        return f"{name!r} cannot be read: its reader ended ({code})", "unreadable"

    def _end(self) -> int | None:
        """End the process; its exit code if it had ended by itself."""
        if self._connection is None or self._process is None:
            return None
        self._connection.close()
        process, self._connection, self._process = self._process, None, None
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _parsed(described: bytes | bytearray, text: bytes | bytearray) -> ExtractedText:
    answer = json.loads(described)
    return ExtractedText(
        text.decode("utf-8", "surrogatepass"),
        tuple(answer["starts"]),
        tuple(answer["labels"]),
        answer["properties"],
    )


def _key_of(descriptor: int, how: str) -> str:
    """The hash of a file and of how it is read."""
    digest = hashlib.sha256(f"{_VERSION} {how}\n".encode())
    at = 0
    while data := os.pread(descriptor, _HASHED_BYTES, at):
        digest.update(data)
        at += len(data)
    return digest.hexdigest()
