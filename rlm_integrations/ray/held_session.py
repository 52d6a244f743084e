"""A REPL in an actor's process, whose calls are answered by the process of its run."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations.errors import SandboxClosedError
from rlm_integrations.ray.documents import HeldDocuments, SentDocument
from rlm_integrations.records import HostFunction, Limits
from rlm_integrations.sandbox import sandbox_named
from rlm_integrations.sandbox.base import ExecutionResult, HostCallError, Opening, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpening:
    """What a session needs; see `sandbox.base.Opening`.

    Attributes:
        sandbox: The name of the sandbox.
        document: The document.
    """

    sandbox: str
    document: SentDocument
    functions: Sequence[HostFunction]
    limits: Limits
    seed: int


@dataclass(frozen=True, slots=True)
class CallMade:
    """Code has made a call."""

    number: int
    block: int
    function: str
    args: list[Any]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallWithdrawn:
    """A call is not waited for any more."""

    number: int


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """The session has ended because a call could not be answered, or because it was closed."""


@dataclass(frozen=True, slots=True)
class SessionGone:
    """The actor has no such session: it was started again."""


Frame: TypeAlias = CallMade | CallWithdrawn | ExecutionResult | SessionFailed | SessionGone


@dataclass(frozen=True, slots=True)
class CallReply:
    """The answer to a call: a value, or an exception for the code.

    Attributes:
        value: The value.
        error: The type of the exception and its message; None if there is none.
        is_fault: Whether the host failed, which ends the session.
    """

    value: Any = None
    error: tuple[str, str] | None = None
    is_fault: bool = False


class _FaultError(Exception):
    """The host failed to answer a call."""


class HeldSession:
    """One session of a sandbox in this process."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[CallMade | CallWithdrawn | None] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[CallReply]] = {}
        self._cleanup = AsyncExitStack()
        self._opening: asyncio.Future[Session] | None = None

    async def open(self, documents: HeldDocuments, opening: SessionOpening) -> Session:
        """Open it."""
        self._opening = asyncio.ensure_future(self._open(documents, opening))
        await wait_until_done(self._opening)
        return self._session

    async def _open(self, documents: HeldDocuments, opening: SessionOpening) -> Session:
        corpus = await self._cleanup.enter_async_context(documents.open(opening.document))
        session = await sandbox_named(opening.sandbox).open(
            Opening(corpus, opening.functions, self._answer, opening.limits, opening.seed)
        )
        self._cleanup.push_async_callback(session.close)
        return session

    @property
    def _session(self) -> Session:
        if self._opening is None or self._opening.cancelled():
            raise SandboxClosedError("the session was closed")
        return self._opening.result()

    async def set_vars(self, variables: Mapping[str, Any]) -> None:
        """See `Session.set_vars`."""
        await self._session.set_vars(variables)

    async def interrupt(self) -> None:
        """See `Session.interrupt`."""
        await self._session.interrupt()

    async def execute(self, code: str, block: int) -> AsyncGenerator[Frame, None]:
        """Run a block: its calls, and then its result."""
        running = asyncio.ensure_future(self._session.execute(code, block))
        running.add_done_callback(lambda _: self._frames.put_nowait(None))
        try:
            while (frame := await self._frames.get()) is not None:
                yield frame
        finally:
            running.cancel()
            await wait_until_done(running)
        try:
            yield running.result()
        except (_FaultError, SandboxClosedError, asyncio.CancelledError):
            yield SessionFailed()

    def take(self, number: int, reply: CallReply) -> None:
        """Take the answer to a call."""
        call = self._calls.get(number)
        if call is not None and not call.done():
            call.set_result(reply)

    async def close(self) -> None:
        """End it at once, even if it is being opened."""
        if self._opening is not None:
            self._opening.cancel()
            await wait_until_done(self._opening)
        await finish_despite_cancel(self._cleanup.aclose())

    async def _answer(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        number = next(self._numbers)
        call = self._calls[number] = asyncio.get_running_loop().create_future()
        self._frames.put_nowait(CallMade(number, block, function, args, kwargs))
        try:
            reply = await call
        except asyncio.CancelledError:
            self._frames.put_nowait(CallWithdrawn(number))
            raise
        finally:
            del self._calls[number]
        if reply.is_fault:
            raise _FaultError
        if reply.error is not None:
            kind, message = reply.error
            raise HostCallError(message, type=kind)
        return reply.value
