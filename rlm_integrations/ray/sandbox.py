"""A sandbox whose sessions are in the processes of actors."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations.engine.gate import digest_of, is_large
from rlm_integrations.errors import ClusterError, RLMError, SandboxClosedError, SandboxError
from rlm_integrations.ray.cluster import ACTOR_ENDED, Actors
from rlm_integrations.ray.documents import SentDocument
from rlm_integrations.ray.held_session import (
    CallMade,
    CallReply,
    CallWithdrawn,
    SessionFailed,
    SessionGone,
    SessionOpening,
)
from rlm_integrations.sandbox import sandbox_named
from rlm_integrations.sandbox.base import ExecutionError, ExecutionResult, HostCallError, Opening


class RaySandbox:
    """Opens sessions of the sandbox "process" on actors, for the runs of this process. If an actor
    ends, its sessions continue on another one: their blocks run again, with the answers that their
    calls got before.

    Args:
        actors: The actors.
        max_restarts: How often one session may continue on another actor.
    """

    def __init__(self, actors: Actors, max_restarts: int) -> None:
        there = sandbox_named("process")
        self.name, self.capabilities, self.rules = there.name, there.capabilities, there.rules
        self._actors = actors
        self._max_restarts = max_restarts

    def __repr__(self) -> str:
        return f"<RaySandbox of {len(self._actors)} actors>"

    def __reduce__(self) -> tuple[Any, ...]:
        """On an actor: the sandbox of its own machine."""
        return sandbox_named, (self.name,)

    async def open(self, opening: Opening) -> "RaySession":
        """Open a REPL on an actor; see `Sandbox.open`."""
        document = await runtime.open_apart(SentDocument.of, opening.context)
        session = RaySession(
            self._actors,
            SessionOpening(
                sandbox=self.name,
                document=document,
                functions=opening.functions,
                limits=opening.limits,
                seed=opening.seed,
            ),
            opening,
            self._max_restarts,
        )
        await session.begin()
        return session


@dataclass(slots=True, eq=False)
class _Block:
    """A block of a session.

    Attributes:
        calls: Its calls with the same function and arguments, in their order.
        result: How it ended; None while it runs.
    """

    code: str
    number: int
    calls: dict[tuple[str, str], list[asyncio.Task[Any]]] = field(default_factory=dict)
    result: ExecutionResult | None = None


class _GoneError(Exception):
    """The actor was started again, and has no session of this key."""


_ENDED = (*ACTOR_ENDED, _GoneError)


class RaySession:
    """A session on an actor. See `Session`."""

    layers: Mapping[str, str]

    def __init__(
        self, actors: Actors, there: SessionOpening, opening: Opening, max_restarts: int
    ) -> None:
        self.layers = {}
        self._actors = actors
        self._there = there
        self._answer = opening.answer
        self._restarts_left = max_restarts
        self._actor: Any = None
        self._key = ""
        self._steps: list[_Block | Mapping[str, Any]] = []  # blocks, and variables that were set
        self._running: _Block | None = None
        self._replies: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None
        self._is_interrupted = self._is_closed = False
        self._lost = ""

    async def begin(self) -> None:
        """Open the session on an actor.

        Raises:
            SandboxError: It could not be opened.
        """
        while True:
            try:
                await self._open()
            except ClusterError as error:
                raise SandboxError(str(error)) from error
            except ACTOR_ENDED as error:
                if not self._restarts_left:
                    raise SandboxError("the session's actor ended each time") from error
                self._restarts_left -= 1
            else:
                return

    async def _open(self) -> None:
        self._actor, self._key = await self._actors.take(), secrets.token_hex(8)
        try:
            opened = await self._actor.open_session.remote(self._key, self._there)
        except asyncio.CancelledError:
            await self.close()
            raise
        except ACTOR_ENDED:
            self._leave(has_ended=True)
            raise
        if isinstance(opened, RLMError) or self._is_closed:
            await self.close()
            raise opened if isinstance(opened, RLMError) else SandboxClosedError("it was closed")
        self.layers = opened

    def _leave(self, *, has_ended: bool) -> Any:
        """Give the actor back, if there is one, and return it."""
        actor, self._actor = self._actor, None
        if actor is not None:
            self._actors.release(actor, has_ended=has_ended)
            if has_ended:  # or it only could not be reached, and has the session still
                actor.close_session.options(max_task_retries=-1).remote(self._key)
        return actor

    async def execute(self, code: str, block: int) -> ExecutionResult:
        """Run one block; see `Session.execute`."""
        self._check_open()
        if self._lost:
            return _lost(self._lost)
        self._is_interrupted = False
        running = self._running = _Block(code, block)
        try:
            running.result = await self._run_anywhere(running)
        except BaseException:
            await finish_despite_cancel(self.close())
            raise
        finally:
            self._running = None
            await self._end_calls(running)
        self._steps.append(running)
        return running.result

    async def _run_anywhere(self, block: _Block) -> ExecutionResult:
        while True:
            try:
                return await self._run(block)
            except _ENDED as error:
                if not await self._move(error):
                    return _lost(self._lost)

    async def _move(self, error: Exception) -> bool:
        """Open the session on another actor, and run its blocks again there. Returns whether it
        can continue.
        """
        self._lost = "its actor ended"
        while self._restarts_left and not (self._is_interrupted or self._is_closed):
            self._restarts_left -= 1
            self._leave(has_ended=not isinstance(error, _GoneError))
            try:
                await self._open()
                for step in self._steps:
                    if isinstance(step, _Block):
                        await self._run(step)
                    else:
                        await self._set(step)
            except _ENDED as ended:
                error = ended
                continue
            except (ClusterError, SandboxError) as failed:
                self._lost = f"its actor ended, and it could not be restored: {failed}"
                return False
            self._lost = ""
            return True
        return False

    async def _run(self, block: _Block) -> ExecutionResult:
        """Run a block on the current actor; again, if calls of it were answered before."""
        self._check_open()
        seen = Counter[tuple[str, str]]()
        open_calls: dict[int, asyncio.Task[Any]] = {}
        async for reference in self._actor.execute.remote(self._key, block.code, block.number):
            match await reference:
                case CallMade() as call:
                    key = call.function, await _digest(call)
                    seen[key] += 1
                    task = await self._task(block, key, seen[key], call)
                    if task is not None:
                        open_calls[call.number] = task
                        self._begin_reply(call.number, task)
                case CallWithdrawn(number):
                    if number in open_calls:
                        open_calls[number].cancel()
                case ExecutionResult() as result:
                    return result
                case SessionFailed():
                    raise self._fault or SandboxClosedError("this session was closed")
                case SessionGone():
                    raise _GoneError
        raise AssertionError("the last frame is a result")

    async def _task(
        self, block: _Block, key: tuple[str, str], occurrence: int, call: CallMade
    ) -> "asyncio.Task[Any] | None":
        """The task that answers this call, or None if the block got no answer to it before."""
        tasks = block.calls.setdefault(key, [])
        if occurrence > len(tasks) and block.result is None:
            answering = self._answer(call.block, call.function, call.args, call.kwargs)
            tasks.append(asyncio.ensure_future(answering))
        if occurrence <= len(tasks) and not (block.result and tasks[occurrence - 1].cancelled()):
            return tasks[occurrence - 1]
        if block.result is not None and block.result.status == "interrupted":
            await self._actor.interrupt.remote(self._key)
        elif occurrence > len(tasks):
            raise SandboxError(f"its code called {call.function} otherwise than before")
        return None

    def _begin_reply(self, number: int, task: "asyncio.Task[Any]") -> None:
        replying = asyncio.ensure_future(self._reply(self._actor, self._key, number, task))
        self._replies.add(replying)
        replying.add_done_callback(self._replies.discard)

    async def _reply(
        self, actor: Any, session: str, number: int, task: "asyncio.Task[Any]"
    ) -> None:
        try:
            reply = CallReply(await asyncio.shield(task))
        except HostCallError as error:
            reply = CallReply(error=(error.type, str(error)))
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            return
        except BaseException as fault:  # noqa: BLE001 - raised by `execute`
            self._fault = fault
            reply = CallReply(is_fault=True)
        with suppress(*_ENDED):
            await actor.answer.remote(session, number, reply)

    async def _end_calls(self, block: _Block) -> None:
        """Cancel the calls of a block that has ended, and wait until they have ended."""
        tasks = [task for tasks in block.calls.values() for task in tasks if not task.done()]
        for each in (*tasks, *self._replies):
            each.cancel()
        await wait_until_done(*tasks, *self._replies)

    async def set_vars(self, variables: Mapping[str, Any]) -> None:
        """Bind variables; see `Session.set_vars`."""
        self._check_open()
        while not self._lost:
            try:
                await self._set(variables)
            except _ENDED as error:
                await self._move(error)
            else:
                self._steps.append(dict(variables))
                return
        raise SandboxError(f"the session was lost: {self._lost}")

    async def _set(self, variables: Mapping[str, Any]) -> None:
        failed = await self._actor.set_vars.remote(self._key, dict(variables))
        if isinstance(failed, SessionGone):
            raise _GoneError
        if failed is not None:
            raise failed

    async def interrupt(self) -> None:
        """End the running block; see `Session.interrupt`."""
        if self._running is None:
            return
        self._is_interrupted = True
        if self._actor is not None:
            with suppress(*_ENDED):
                await self._actor.interrupt.remote(self._key)

    async def close(self) -> None:
        """End the session at once."""
        self._is_closed = True
        actor = self._leave(has_ended=False)
        if actor is not None:
            with suppress(*_ENDED):
                await finish_despite_cancel(actor.close_session.remote(self._key))

    def _check_open(self) -> None:
        if self._is_closed:
            raise SandboxClosedError("this session was closed; open another one")


async def _digest(call: CallMade) -> str:
    given = call.args, call.kwargs
    return await runtime.offload(digest_of, *given) if is_large(given) else digest_of(*given)


def _lost(reason: str) -> ExecutionResult:
    error = ExecutionError("SandboxLost", f"the REPL and its variables are gone: {reason}")
    return ExecutionResult(status="lost", error=error)
