"""The host's end of the connection to a session: messages over two asyncio streams."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations.records import StoreObject
from rlm_integrations.sandbox.decoder import Decoder
from rlm_integrations.sandbox.encoder import Encoder
from rlm_integrations.sandbox.wire import LENGTH

_YIELD_FRAMES = 64  # bytes between two yields to other tasks
_OFF_LOOP_BYTES = 256 << 10  # bytes of a message from which it is packed or parsed in a thread


class Channel:
    """Sends messages to a sandbox and receives its messages. Received messages are hostile: check
    each field before use.

    Args:
        reader: The stream that the sandbox writes to.
        writer: The stream that the sandbox reads from.
        message_bytes: The maximum size of one message in memory.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message_bytes: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._message_bytes = message_bytes
        self._encoder = Encoder()
        self._decoder = Decoder(message_bytes)
        self._sending = asyncio.Lock()
        self.frames_received = 0

    async def send(
        self,
        message: dict[str, Any],
        instead: Callable[[Exception], dict[str, Any]] | None = None,
    ) -> None:
        """Write a message.

        A large one is packed off the loop. Messages are packed and written one at a time.

        Args:
            message: The message.
            instead: Makes the message to send if this one cannot be encoded.

        Raises:
            ValueError: The message cannot be encoded, and there is no `instead`.
            ConnectionError: The other end has closed the connection.
        """
        async with self._sending:
            try:
                frames = await self._pack(message)
            except (ValueError, RecursionError, MemoryError) as error:
                if instead is None:
                    raise
                frames = await self._pack(instead(error))
            await self._write(frames)

    async def _write(self, frames: list[bytes]) -> None:
        for frame in frames:
            if self._writer.is_closing():
                raise ConnectionResetError("the session has ended")
            self._writer.write(frame)
            await self._writer.drain()

    async def _pack(self, message: dict[str, Any]) -> list[bytes]:
        frames: list[bytes] = []
        room = self._message_bytes

        def keep(frame: bytes) -> None:
            nonlocal room
            room -= len(frame)
            if room < 0:
                raise ValueError(f"it takes more than {self._message_bytes:,} bytes")
            frames.append(frame)

        if _is_large(message):
            await runtime.offload(self._encoder.encode, message, keep)
        else:
            self._encoder.encode(message, keep)
        return frames

    async def receive(self, ready: Callable[[], Awaitable[None]] | None = None) -> dict[str, Any]:
        """The next message from the sandbox.

        Args:
            ready: Awaited before each frame is read.

        Raises:
            WireError: The sandbox violated the wire format.
            IncompleteReadError: The other end has closed the connection.
        """
        while True:
            if ready is not None:
                await ready()
            self.frames_received += 1
            if self.frames_received % _YIELD_FRAMES == 0:
                await asyncio.sleep(0)  # frames in the buffer are read without waiting
            length = self._decoder.check_length(
                LENGTH.unpack(await self._reader.readexactly(LENGTH.size))[0]
            )
            frame = await self._reader.readexactly(length)
            is_large = length + self._decoder.held > _OFF_LOOP_BYTES
            message = (
                await runtime.offload(self._decoder.decode, frame)
                if is_large
                else self._decoder.decode(frame)
            )
            if message is not None:
                return message

    @property
    def received_weight(self) -> int:
        """The size of the last message in memory, in bytes."""
        return self._decoder.weight

    @property
    def received_stale(self) -> bool:
        """Whether parts of the last message arrived during an earlier block and were discarded."""
        return self._decoder.stale

    @property
    def held_weight(self) -> int:
        """The size of all parts whose message has not arrived yet, in bytes."""
        return self._decoder.held

    def forget_parts(self) -> None:
        """Discard the parts whose message never arrived."""
        self._decoder.forget_parts()

    def abort(self) -> None:
        """Close the streams at once and discard buffered output."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the streams are closed, even if the caller is cancelled."""
        with contextlib.suppress(ConnectionError):
            await finish_despite_cancel(self._writer.wait_closed())


def _is_large(value: Any, budget: int = _OFF_LOOP_BYTES) -> bool:
    """Whether a value is large enough to be packed in a thread; estimated from lengths, without
    walking the whole value.
    """
    if isinstance(value, StoreObject):
        value = value.content
    if isinstance(value, str):
        return len(value) > budget
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return len(value) > budget >> 6 or any(
            _is_large(item, budget // len(value)) for item in value
        )
    return False
