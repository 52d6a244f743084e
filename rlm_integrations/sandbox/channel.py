"""The host's end of a session's wire: messages over two asyncio streams."""

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

_YIELD_FRAMES = 64  # after which other tasks are let run
_OFF_LOOP_BYTES = 256 << 10  # of a message, from which it is packed or parsed in a thread


class Channel:
    """Sends messages to a sandbox and receives its messages, which are hostile: check each field
    before use.

    Args:
        reader: What the sandbox writes.
        writer: What the sandbox reads.
        message_bytes: The most that one message may take.
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
        """Write a message; a large one is packed off the loop.

        Messages are packed and written one at a time.

        Args:
            message: The message.
            instead: Makes the message to send where this one cannot cross.

        Raises:
            ValueError: The message cannot cross, and there is no `instead`.
            ConnectionError: The other end is gone.
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
        """The next message of the sandbox.

        Args:
            ready: Awaited before each frame is read.

        Raises:
            WireError: The sandbox broke the rules of the wire.
            IncompleteReadError: The other end is gone.
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
        """Bytes that the last message takes in memory."""
        return self._decoder.weight

    @property
    def received_stale(self) -> bool:
        """Whether parts of the last message came during an earlier block and were forgotten."""
        return self._decoder.stale

    @property
    def held_weight(self) -> int:
        """Bytes of the parts whose message has not come yet."""
        return self._decoder.held

    def forget_parts(self) -> None:
        """Drop the parts whose message never came."""
        self._decoder.forget_parts()

    def abort(self) -> None:
        """Close the streams at once, without sending what is buffered."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the streams are closed, even if the caller is cancelled."""
        with contextlib.suppress(ConnectionError):
            await finish_despite_cancel(self._writer.wait_closed())


def _is_large(value: Any, budget: int = _OFF_LOOP_BYTES) -> bool:
    """Whether a value is worth a thread; it looks at the lengths and does not walk far."""
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
