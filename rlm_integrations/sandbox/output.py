"""The output of model code: both streams, in order and limited in size."""

import io
import threading
from collections.abc import Callable, Mapping
from typing import Literal

Stream = Literal["stdout", "stderr"]

_FLUSH_CHARS = 1 << 16  # characters after which output is sent while the block still runs


def replace_surrogates(text: str) -> str:
    """The string with lone surrogates escaped, so that every Unicode encoding can represent it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Output:
    """Collects the output of model code: both streams in order, each up to its limit; further
    characters are only counted.

    Args:
        kept: How many characters to keep of each stream in one block.
        send: Receives the written output as (stream, text) pairs, in order.
    """

    def __init__(
        self, kept: Mapping[Stream, int], send: Callable[[list[tuple[Stream, str]]], None]
    ) -> None:
        self._kept = kept
        self._send = send
        # Re-entrant, because a destructor that prints may run while its thread writes.
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
        """Append text to a stream."""
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
        """Send the output written so far."""
        with self._lock:
            pieces, self._pieces, self._pending = self._pieces, [], 0
            if pieces:
                self._send(pieces)


class OutputStream(io.TextIOBase):
    """One stream of an `Output` as a writable text file."""

    def __init__(self, output: Output, stream: Stream) -> None:
        self._output = output
        self._stream: Stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override] # typeshed has a plain attribute here
        """The encoding that code sees."""
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
