"""The default sandbox on Linux: one hardened CPython process per session, forked by a clean server.
This is the host's side.
"""

import asyncio
import signal
import socket
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations._concurrency.deadlines import end_after
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import SandboxClosedError, SandboxError, SandboxUnavailableError
from rlm_integrations.sandbox._block import LostError, RunningBlock
from rlm_integrations.sandbox._child_process import ChildProcess
from rlm_integrations.sandbox.base import (
    Capabilities,
    ExecutionError,
    ExecutionResult,
    HostCallError,
    Opening,
)
from rlm_integrations.sandbox.channel import Channel
from rlm_integrations.sandbox.forkserver import ForkServer, ServerGoneError
from rlm_integrations.sandbox.wire import WireError


class ProcessSandbox:
    """Opens each session in a new, hardened process.

    Args:
        python: The interpreter of the sessions; the host's own by default.
        preload: Packages that model code may import in addition to the standard library. They are
            imported before the sandbox is sealed.
    """

    name = "process"
    capabilities = Capabilities(
        isolated=True, bounded=True, interruptible=True, captures_streams=True, reads_on_demand=True
    )
    rules = (
        "The standard library is there, `re` and `json` without an import; files, the network and "
        "other processes are not."
    )

    def __init__(self, *, python: str | None = None, preload: Sequence[str] = ()) -> None:
        self._python = python or sys.executable
        self._preload = tuple(preload)
        self._key = ("fork server", self._python, self._preload)

    def prepare(self) -> None:
        """Start the server of the sessions in a thread, if it does not run; see `Preparable`."""
        if sys.platform == "linux" and self._python and runtime.peek(self._key) is None:
            # RuntimeError: no thread can be started. `open` reports that.
            with suppress(RuntimeError):
                runtime.threads("opening", 4).submit(self._server)

    async def open(self, opening: Opening) -> "ProcessSession":
        """Open a REPL in a new process; see `Sandbox.open`."""
        if sys.platform != "linux":
            raise SandboxUnavailableError(
                f"the sandbox 'process' needs Linux, and this is {sys.platform!r}: run on Linux "
                "(a container will do), "
                "or choose sandbox='inprocess', which gives model code the whole of this process"
            )
        limits = opening.limits
        message = {
            "op": "open",
            "functions": [
                [each.name, each.signature, each.doc, list(each.aliases)]
                for each in opening.functions
            ],
            "memory": limits.memory,
            "threads": limits.threads,
            "stdout_kept": limits.stdout_kept,
            "stderr_kept": limits.stderr_kept,
            "seed": opening.seed,
        }
        child = ChildProcess()
        try:
            starting = runtime.open_apart(self._start, child, message, opening.context)
        except RuntimeError as error:  # no thread is left, or the interpreter is shutting down
            raise SandboxError(
                f"the sandbox needs a thread to start in, and none can be started: {error}"
            ) from error
        try:
            reader, writer = await asyncio.open_connection(sock=await asyncio.shield(starting))
        except BaseException:
            await self._give_up(child, starting)
            raise
        return ProcessSession(child, Channel(reader, writer, limits.message_bytes), opening)

    async def _give_up(
        self, child: ChildProcess, starting: "asyncio.Future[socket.socket]"
    ) -> None:
        """End a child that has started, or is about to, and release its resources."""
        child.kill()  # ends the wait of the thread
        try:
            await wait_until_done(starting)
        finally:
            if starting.exception() is None:
                starting.result().close()
            await finish_despite_cancel(runtime.close_apart(child.release))

    def _start(
        self, child: ChildProcess, message: dict[str, Any], context: Corpus
    ) -> socket.socket:
        """Fork a child, send it its context and wait until it reports that it is sealed. Blocks;
        runs in one of the library's threads.
        """
        try:
            for again in (True, False):
                connection = self._fork(child)
                try:
                    child.begin(connection, message, context)
                except BaseException as error:
                    connection.close()
                    if not (again and child.may_start_anew(error)):
                        raise
                    child.discard()
                else:
                    return connection
        except BaseException:
            child.release()
            raise
        raise AssertionError("the second attempt returns or raises")

    def _fork(self, child: ChildProcess) -> socket.socket:
        if not self._python:
            raise SandboxError(
                "Python does not say where its interpreter is (sys.executable is empty, as in "
                "programs that embed it): "
                "name one, as in ProcessSandbox(python='/usr/bin/python3')"
            )
        for _ in range(2):
            try:
                server = self._server()
            except OSError as error:
                raise SandboxError(str(error)) from error
            try:
                connection, pidfd, pid = server.fork()
            except ServerGoneError:
                runtime.forget(self._key, server)
                server.close()
            except OSError as error:
                raise SandboxError(str(error)) from error
            else:
                child.adopt(pidfd, pid)
                return connection
        raise SandboxError(
            "the sandbox's server ended twice in a row; is the machine out of memory?"
        )

    def _server(self) -> ForkServer:
        """The process's server, which is started at the first call."""
        return runtime.shared(self._key, lambda: ForkServer(self._python, self._preload))


class ProcessSession:
    """One child and its REPL. See `Session`."""

    def __init__(
        self,
        child: ChildProcess,
        channel: Channel,
        opening: Opening,
    ) -> None:
        self.layers = child.layers
        self.child = child
        self.channel = channel
        self._limits = opening.limits
        self._functions = frozenset(each.name for each in opening.functions)
        self._gate = opening.answer
        self._busy = asyncio.Lock()
        self._running: RunningBlock | None = None
        self._lost = ""
        self._closed = False
        # If a session is never closed, its child is ended when the session object is collected: a
        # stopped child would not notice that its socket closed.
        self._release = weakref.finalize(self, child.release)

    async def execute(self, code: str, block: int) -> ExecutionResult:
        """Run one block; see `Session.execute`."""
        async with self._busy:
            self._check_open()
            if self._lost:
                return _lost_result(self._lost, None)
            running = self._running = RunningBlock(
                self.channel, self.child, self._answer, self._limits, block
            )
            try:
                self.child.signal(signal.SIGCONT)
                await self.channel.send({"op": "run", "code": code, "block": block})
                result = await running.follow()
                self._running = None
                await running.stop()  # here, because cancelling this ends the session too
                self.channel.forget_parts()
            except (LostError, WireError, ConnectionError, asyncio.IncompleteReadError) as error:
                self._lost = running.killed_because or _how_lost(error)
                await self._end()
                if running.fault is not None:
                    self._closed = True
                    raise running.fault from None
                return _lost_result(self._lost, running)
            except BaseException:
                self._closed = True
                await self._end()
                raise
            finally:
                self._running = None
                await running.stop()
            # Threads that the block left running pause until the next block
            self.child.signal(signal.SIGSTOP)
            return result

    async def set_vars(self, variables: Mapping[str, Any]) -> None:
        """Bind variables; see `Session.set_vars`."""
        async with self._busy:
            self._check_open()
            if self._lost:
                raise SandboxError(f"the session was lost: {self._lost}")
            try:
                async with asyncio.timeout(None) as timeout:
                    end_after(timeout, self._limits.block_seconds + self._limits.grace_seconds)
                    self.child.signal(signal.SIGCONT)
                    await self.channel.send({"op": "vars", "values": dict(variables), "block": -1})
                    while await self.channel.receive() != {"op": "done", "block": -1}:
                        continue  # messages from threads of an earlier block
            except (TimeoutError, WireError, ConnectionError, asyncio.IncompleteReadError) as error:
                self._lost = (
                    "its process did not take the variables in time"
                    if isinstance(error, TimeoutError)
                    else _how_lost(error)
                )
                await self._end()
                raise SandboxError(f"the session was lost: {self._lost}") from error
            except BaseException:
                await self.close()
                raise
            self.child.signal(signal.SIGSTOP)

    async def interrupt(self) -> None:
        """End the running block; see `Session.interrupt`."""
        if self._running is not None:
            self._running.interrupt("it was interrupted from outside")

    async def close(self) -> None:
        """End the session at once."""
        self._closed = True
        await self._end()

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxClosedError("this session was closed; open another one")

    async def _end(self) -> None:
        """Kill the process, wait until it has ended and release its resources. Safe to call
        twice.
        """
        self.child.kill()
        self.channel.abort()
        try:
            await finish_despite_cancel(self._released())
        finally:
            await self.channel.wait_closed()

    async def _released(self) -> None:
        try:
            releasing = runtime.close_apart(self._release)
        except RuntimeError:  # no thread to wait in; a killed process ends soon
            self._release()
        else:
            await releasing

    async def _answer(
        self, block: int, number: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Have the gate answer the call, and send the answer to the child."""
        reply: dict[str, Any]
        if function not in self._functions:
            reply = {
                "error": "NameError",
                "message": f"{function!r} is not a function of this session",
            }
        else:
            try:
                reply = {"value": await self._gate(block, function, args, kwargs)}
            except HostCallError as refusal:
                reply = {"error": refusal.type, "message": str(refusal)}

        def refuse(error: Exception) -> dict[str, Any]:
            said = f"the result of {function} is too large or nested too deep for the REPL: {error}"
            return {"op": "answer", "call": number, "error": "ValueError", "message": said}

        await self.channel.send({"op": "answer", "call": number, **reply}, refuse)


def _how_lost(error: Exception) -> str:
    if isinstance(error, WireError):
        return f"its process broke the protocol ({error}) and was killed"
    return "its process ended by itself: it crashed, ran out of memory, or was killed from outside"


def _lost_result(reason: str, block: RunningBlock | None) -> ExecutionResult:
    error = ExecutionError("SandboxLost", f"the REPL and its variables are gone: {reason}")
    return (
        block.result("lost", error)
        if block is not None
        else ExecutionResult(status="lost", error=error)
    )
