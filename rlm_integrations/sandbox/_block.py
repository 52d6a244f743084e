"""A running block: its calls, its output and its limits."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, get_args

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import ExecutionError, ExecutionResult, FinalValue, Status
from rlm_integrations.sandbox.channel import Channel
from rlm_integrations.sandbox.describe import MESSAGE_KEPT, TRACEBACK_KEPT
from rlm_integrations.sandbox.output import Stream, replace_surrogates
from rlm_integrations.sandbox.repl import REBOUND_TOLD, VARIABLES_SHOWN
from rlm_integrations.sandbox.wire import WireError

_CHECK_SECONDS = 0.25  # between two checks of the limits
# Delay before an interrupt is sent again; at most a tenth of the grace period
_RESEND_SECONDS = 0.1
_MAX_NAME_CHARS = 200  # of a variable's name or description

INTERRUPTED = "this block was interrupted and makes no further calls"


# Answers the call of this block, with this number, function, args and kwargs, over the channel
AnswerAndSend = Callable[[int, int, str, list[Any], dict[str, Any]], Coroutine[Any, Any, None]]


class Process(Protocol):
    """The process that runs a session, on this machine or on another."""

    def signal(self, number: int) -> None:
        """Send the process a signal; does nothing if the process has ended."""
        ...

    def kill(self) -> None:
        """End the process at once, which ends the channel too."""
        ...

    def cpu_seconds(self) -> float:
        """The CPU time that the process has used so far, in seconds."""
        ...

    def threads(self) -> int:
        """The number of its threads."""
        ...


class LostError(Exception):
    """The session ended without being closed."""


class RunningBlock:
    """Follows one block from its start to its result. Every field of the child's messages is
    checked.

    Args:
        channel: Receives the child's messages.
        process: The child process, which may be interrupted or killed.
        answer: Answers the calls.
        limits: The limits of the block.
        number: The block's number.

    Attributes:
        killed_because: Why the limit check killed the process, or None.
        fault: The gate's exception if the gate failed, or None.
    """

    def __init__(
        self,
        channel: Channel,
        process: Process,
        answer: AnswerAndSend,
        limits: Limits,
        number: int,
    ) -> None:
        self.killed_because = ""
        self.fault: BaseException | None = None
        self._channel = channel
        self._process = process
        self._answer = answer
        self._limits = limits
        self._number = number
        self._host_calls = 0
        # open calls and their sizes in bytes
        self._open: dict[int, tuple[asyncio.Task[None], int]] = {}
        self._slot: asyncio.Future[None] | None = None
        self._output: list[tuple[str, str]] = []
        self._room = {"stdout": self._limits.stdout_kept, "stderr": self._limits.stderr_kept}
        self._interrupted_because = ""
        self._refused_further_calls = False  # the code may end with this exception
        self._stopped = False
        self._kill_at = float("inf")
        self._begun = time.monotonic()
        self._computing_since: float | None = self._begun
        self._computed = 0.0
        self._cpu_before = process.cpu_seconds()
        self._watch = asyncio.get_running_loop().call_later(
            min(_CHECK_SECONDS, self._limits.block_seconds), self._look
        )

    async def follow(self) -> ExecutionResult:
        """Answer the child's calls until the child reports the end of the block."""
        while True:
            message = await self._channel.receive(self._slot_free)
            match message:
                case {"op": "out"} if self._channel.received_stale:
                    pass  # its first parts were discarded at the end of the block that sent them
                case {"op": "out", "pieces": list() as pieces}:
                    self._take_output(pieces)
                case {
                    "op": "call",
                    "call": int() as call,
                    "block": int() as block,
                    "function": str() as function,
                }:
                    await self._take_call(
                        block, call, function, message.get("args"), message.get("kwargs")
                    )
                case {"op": "done", "block": self._number} if not self._channel.received_stale:
                    return self._done(message)
                case _:
                    raise WireError(f"an unexpected message {message['op'][:20]!r}")

    async def stop(self) -> None:
        """End the limit check and every open call. Safe to call twice."""
        self._stopped = True
        self._watch.cancel()
        tasks = [task for task, _ in self._open.values()]
        for task in tasks:
            task.cancel()
        await wait_until_done(*tasks)

    def interrupt(self, reason: str) -> None:
        """Interrupt the code repeatedly until it ends; kill the process if it does not end in time.

        Open calls are cancelled too, because threads of the code that wait for one could not end
        before it.
        """
        if not self._interrupted_because:
            self._interrupted_because = reason
            self._kill_at = time.monotonic() + self._limits.grace_seconds
            for task, _ in self._open.values():
                task.cancel()
            self._look()

    def result(self, status: Status, error: ExecutionError | None, **more: Any) -> ExecutionResult:
        """The result, with the output received so far."""
        texts = {
            stream: replace_surrogates(
                "".join(text for each, text in self._output if each == stream)
            )
            for stream in self._room
        }
        return ExecutionResult(
            status=status,
            stdout=texts["stdout"],
            stderr=texts["stderr"],
            output=replace_surrogates("".join(text for _, text in self._output)),
            error=error,
            elapsed=time.monotonic() - self._begun,
            host_calls=self._host_calls,
            **more,
        )

    # Calls.

    async def _slot_free(self) -> None:
        """Wait while too many calls are open, so that unread messages cannot flood the host."""
        while self._open and (
            len(self._open) >= self._limits.calls_in_flight
            or sum(weight for _, weight in self._open.values()) + self._channel.held_weight
            > self._limits.message_bytes
        ):
            if self.killed_because or self.fault:
                raise LostError
            self._slot = asyncio.get_running_loop().create_future()
            await self._slot

    def _wake(self) -> None:
        if self._slot is not None and not self._slot.done():
            self._slot.set_result(None)

    async def _take_call(
        self, block: int, call: int, function: str, args: Any, kwargs: Any
    ) -> None:
        if not isinstance(args, list) or not isinstance(kwargs, dict) or call in self._open:
            raise WireError("a malformed call")
        refusal = ""
        if block != self._number or self._channel.received_stale:
            refusal = f"block {block}, which makes this call, has ended"
        elif self._interrupted_because:
            refusal = INTERRUPTED
        elif self._host_calls >= self._limits.calls_per_block:
            refusal = (
                f"this block has made {self._host_calls} calls already, which is its limit; use "
                "llm_batch, or continue in another block"
            )
        if refusal:
            await self._refuse(call, refusal)
            return
        self._host_calls += 1
        if self._computing_since is not None:
            self._computed += time.monotonic() - self._computing_since
            self._computing_since = None
        self._begin(
            call,
            self._answer(block, call, function, args, kwargs),
            self._channel.received_weight,
        )

    async def _refuse(self, call: int, reason: str) -> None:
        self._refused_further_calls |= reason is INTERRUPTED
        await self._channel.send(
            {"op": "answer", "call": call, "error": "RuntimeError", "message": reason}
        )

    def _begin(self, call: int, answering: Coroutine[Any, Any, None], weight: int) -> None:
        task = asyncio.ensure_future(answering)
        self._open[call] = task, weight
        task.add_done_callback(lambda done: self._call_done(call, done))

    def _call_done(self, call: int, task: "asyncio.Task[None]") -> None:
        self._open.pop(call, None)
        if task.cancelled() and self._interrupted_because and not self._stopped:
            self._begin(call, self._refuse(call, INTERRUPTED), 0)
        if not self._open:
            self._computing_since = time.monotonic()
        if (
            not task.cancelled()
            and (fault := task.exception()) is not None
            and not isinstance(fault, ConnectionError)
        ):
            self.fault = self.fault or fault
            self._process.kill()
        self._wake()

    # Limits

    def _look(self) -> None:
        """Check the block against its limits; interrupt it first, then kill it."""
        now = time.monotonic()
        wall = now - self._begun
        computed = self._computed + (
            now - self._computing_since if self._computing_since is not None else 0.0
        )
        # Check the CPU time too: the other clock stops while a call is open, but other threads may
        # still compute.
        used = max(computed, self._process.cpu_seconds() - self._cpu_before)
        if self._process.threads() > self._limits.threads:
            self._kill(f"it had more than {self._limits.threads} threads")
        elif now >= self._kill_at:
            self._kill(
                f"{self._interrupted_because}, did not end within "
                f"{self._limits.grace_seconds:g} s, and its process was killed"
            )
        elif self._interrupted_because:
            self._process.signal(signal.SIGINT)
            self._schedule_check(
                min(self._kill_at - now, _RESEND_SECONDS, self._limits.grace_seconds / 10)
            )
        elif used >= self._limits.block_seconds:
            self.interrupt(f"it computed for more than {self._limits.block_seconds:g} s")
        elif wall >= self._limits.block_wall_seconds:
            self.interrupt(f"it took more than {self._limits.block_wall_seconds:g} s in all")
        else:
            self._schedule_check(
                min(
                    _CHECK_SECONDS,
                    self._limits.block_seconds - used,
                    self._limits.block_wall_seconds - wall,
                )
            )

    def _schedule_check(self, seconds: float) -> None:
        self._watch.cancel()
        self._watch = asyncio.get_running_loop().call_later(max(0.001, seconds), self._look)

    def _kill(self, reason: str) -> None:
        self.killed_because = reason
        self._process.kill()
        self._wake()

    # Messages from the child

    def _take_output(self, pieces: list[Any]) -> None:
        for piece in pieces:
            match piece:
                case [str() as stream, str() as text] if (
                    stream in get_args(Stream) and 0 < len(text) <= self._room[stream]
                ):
                    self._room[stream] -= len(text)
                    self._output.append((stream, text))
                case _:
                    raise WireError("output that is malformed or beyond its bound")

    def _done(self, message: dict[str, Any]) -> ExecutionResult:
        error: ExecutionError | None = None
        match message.get("error"):
            case None:
                pass
            case {"type": str() as kind, "message": str() as text, "traceback": str() as trace}:
                error = ExecutionError(
                    replace_surrogates(kind[:_MAX_NAME_CHARS]),
                    replace_surrogates(text[:MESSAGE_KEPT]),
                    replace_surrogates(trace[:TRACEBACK_KEPT]),
                )
            case _:
                raise WireError("a malformed error")
        final: FinalValue | None = None
        match message.get("final"):
            case None:
                pass
            case {"value": value, "evidence": list() as evidence}:
                final = FinalValue(value, tuple(evidence), message["final"].get("several") is True)
            case _:
                raise WireError("a malformed final")
        dropped, variables, rebound = (
            message.get("dropped"),
            message.get("locals"),
            message.get("rebound", []),
        )
        if (
            type(dropped) is not int
            or not 0 <= dropped < 1 << 63
            or not isinstance(variables, dict)
            or len(variables) > VARIABLES_SHOWN + 1
        ):
            raise WireError("a malformed end of a block")
        if (
            not isinstance(rebound, list)
            or len(rebound) > REBOUND_TOLD
            or not all(isinstance(text, str) for text in (*variables.values(), *rebound))
        ):
            raise WireError("a malformed end of a block")
        status: Status = "error" if error is not None else "ok"
        if self._interrupted_because and (
            message.get("interrupted") is True
            or (error is not None and self._refused_further_calls)
        ):
            status = "interrupted"
            error = ExecutionError(
                "Interrupted",
                f"{self._interrupted_because}; variables that were set before are kept",
                error.traceback if error else "",
            )
        described = {
            replace_surrogates(name[:_MAX_NAME_CHARS]): replace_surrogates(kind[:_MAX_NAME_CHARS])
            for name, kind in variables.items()
        }
        names = tuple(replace_surrogates(name[:_MAX_NAME_CHARS]) for name in rebound)
        return self.result(
            status, error, final=final, locals=described, rebound=names, dropped=dropped
        )
