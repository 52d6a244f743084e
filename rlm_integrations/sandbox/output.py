"""What model code prints: both streams, in order and bounded."""

import io
import threading
from collections.abc import Callable, Mapping
from typing import Literal

Stream = Literal["stdout", "stderr"]

_FLUSH_CHARS = 1 << 16  # after which output is sent while the block still runs


def replace_surrogates(text: str) -> str:
    """The string with lone surrogates as escapes, so that every encoding of Unicode can hold it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Output:
    """Collects what model code writes: both streams in order, each up to its limit; the rest is
    counted.

    Args:
        kept: Characters kept of each stream in one block.
        send: Takes what has been written, as (stream, text) in order.
    """

    def __init__(
        self, kept: Mapping[Stream, int], send: Callable[[list[tuple[Stream, str]]], None]
    ) -> None:
        self._kept = kept
        self._send = send
        # Re-entrant, since a destructor that prints may run while its own thread writes.
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Begin a new block."""
        with self._lock:
            self._room = dict(self._kept)
            self._pieces: list[tuple[Stream, str]] = []
            self._pending = 0
            self.dropped = 0

    def write(self, stream: Stream, text: str) -> None:
        """Add to a stream."""
        with self._lock:
            kept = text[: self._room[stream]]
            self._room[stream] -= len(kept)
            self.dropped += len(text) - len(kept)
            if kept:
                self._pieces.append((stream, kept))
                self._pending += len(kept)
        if self._pending > _FLUSH_CHARS:
            self.flush()

    def flush(self) -> None:
        """Send what has been written so far."""
        with self._lock:
            pieces, self._pieces, self._pending = self._pieces, [], 0
            if pieces:
                self._send(pieces)


class OutputStream(io.TextIOBase):
    """One stream of an `Output` as a text file that can be written."""

    def __init__(self, output: Output, stream: Stream) -> None:
        self._output = output
        self._stream: Stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override] # typeshed has a plain attribute here
        """The encoding that code finds when it asks."""
        return "utf-8"

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Add text to the stream; see `Output`."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._output.write(self._stream, text)
        return len(text)
