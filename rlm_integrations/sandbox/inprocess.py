"""Runs model code in the host's own process, without any protection: for debugging, by explicit
name only.
"""

import asyncio
import contextlib
import ctypes
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel, wait_until_done
from rlm_integrations.corpus.lazy import LazyCorpus
from rlm_integrations.errors import SandboxClosedError
from rlm_integrations.sandbox.base import (
    Capabilities,
    ExecutionError,
    ExecutionResult,
    FinalValue,
    HostCallError,
    Opening,
)
from rlm_integrations.sandbox.decoder import Decoder
from rlm_integrations.sandbox.describe import opaque
from rlm_integrations.sandbox.encoder import Encoder
from rlm_integrations.sandbox.output import Output, OutputStream, Stream, replace_surrogates
from rlm_integrations.sandbox.repl import Repl, context_variables, host_variables
from rlm_integrations.sandbox.wire import LENGTH


class InProcessSandbox:
    """Opens sessions in a thread of the host. Model code can do everything that the host can; only
    `print` is captured.
    """

    name = "inprocess"
    capabilities = Capabilities(
        isolated=False,
        bounded=False,
        interruptible=False,
        captures_streams=False,
        reads_on_demand=True,
    )
    rules = (
        "The standard library is there, `re` and `json` without an import; do not use files, the "
        "network or other processes."
    )

    def __init__(self) -> None:
        warnings.warn(
            (
                "sandbox='inprocess' runs model code inside this process, with its files, "
                "network and keys: for debugging only"
            ),
            RuntimeWarning,
            stacklevel=2,
        )

    async def open(self, opening: Opening) -> "InProcessSession":
        """Open a REPL in this process; see `Sandbox.open`.

        The seed is not used, because `random` belongs to the host.
        """
        context = opening.context
        if isinstance(context, LazyCorpus):
            names = [source.name for source in context.sources]
            reserved = host_variables(names, context.metadata, context.texts)
            return InProcessSession(reserved, opening)
        texts = [context.text(source.name) for source in context.sources]
        named = [source.name for source in context.sources] if context.is_named else None
        objects = [number for number, each in enumerate(context.sources) if each.is_object]
        reserved = context_variables(
            texts, named, is_list=context.is_list, metadata=context.metadata, objects=objects
        )
        return InProcessSession(reserved, opening)


class InProcessSession:
    """One REPL; each block runs in a thread. See `Session`."""

    layers: Mapping[str, str] = {}

    def __init__(
        self,
        reserved: dict[str, Any],
        opening: Opening,
    ) -> None:
        limits = opening.limits
        self._gate = opening.answer
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(limits.calls_in_flight)
        self._busy = asyncio.Lock()
        self._closed = False
        self._host_calls = 0
        self._open: set[Future[Any]] = set()
        self._answering: set[asyncio.Task[Any]] = set()
        self._thread: threading.Thread | None = None
        self._pieces: list[tuple[Stream, str]] = []
        output = Output(
            {"stdout": limits.stdout_kept, "stderr": limits.stderr_kept}, self._pieces.extend
        )
        reserved["print"] = partial(print, file=OutputStream(output, "stdout"))
        self._repl = Repl(self._call, opening.functions, reserved, output)

    async def execute(self, code: str, block: int) -> ExecutionResult:
        """Run one block; see `Session.execute`.

        A cancelled block is interrupted, and abandoned if it does not end.
        """
        async with self._busy:
            if self._closed:
                raise SandboxClosedError("this session was closed; open another one")
            self._pieces.clear()
            self._host_calls = 0
            done: asyncio.Future[dict[str, Any]] = self._loop.create_future()

            def finish(outcome: dict[str, Any]) -> None:
                if not done.done():
                    done.set_result(outcome)

            def run() -> None:
                outcome = self._repl.execute(code, block)
                if self._closed:
                    self._repl.close()
                # The loop of an abandoned block may be closed by now
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(finish, outcome)

            self._thread = threading.Thread(target=run, daemon=True, name="rlm-inprocess")
            self._thread.start()
            try:
                return self._result(await done)
            except asyncio.CancelledError:
                await self.close()
                raise
            finally:
                self._thread = None

    def _result(self, done: dict[str, Any]) -> ExecutionResult:
        texts = {
            stream: replace_surrogates(
                "".join(text for each, text in self._pieces if each == stream)
            )
            for stream in ("stdout", "stderr")
        }
        final = done["final"]
        if final is not None:
            final = _crossed({"op": "final", **final})
        return ExecutionResult(
            status="interrupted" if done["interrupted"] else "error" if done["error"] else "ok",
            **texts,
            output=replace_surrogates("".join(text for _, text in self._pieces)),
            dropped=done["dropped"],
            error=ExecutionError(
                **{key: replace_surrogates(text) for key, text in done["error"].items()}
            )
            if done["error"]
            else None,
            final=FinalValue(final["value"], tuple(final["evidence"]), final["several"])
            if final
            else None,
            locals=done["locals"],
            rebound=tuple(done["rebound"]),
            elapsed=done["elapsed"],
            host_calls=self._host_calls,
        )

    def _call(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> "Future[Any]":
        self._host_calls += 1
        call = _crossed({"op": "call", "args": args, "kwargs": kwargs})
        answer = asyncio.run_coroutine_threadsafe(
            self._answer(block, function, call["args"], call["kwargs"]), self._loop
        )
        self._open.add(answer)
        answer.add_done_callback(self._open.discard)
        return answer

    async def _answer(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        import builtins

        if self._closed:
            raise asyncio.CancelledError
        if (task := asyncio.current_task()) is not None:
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        async with self._slots:
            try:
                return _crossed(
                    {"op": "answer", "value": await self._gate(block, function, args, kwargs)}
                )["value"]
            except HostCallError as refusal:
                kind = getattr(builtins, refusal.type, RuntimeError)
                raise kind(str(refusal)) from None

    async def set_vars(self, variables: Mapping[str, Any]) -> None:
        """Bind variables; see `Session.set_vars`."""
        self._repl.namespace.update(_crossed({"op": "vars", "values": dict(variables)})["values"])

    async def interrupt(self) -> None:
        """Interrupt the running block; code that never returns to the interpreter cannot be
        interrupted.
        """
        if self._thread is None or self._thread.ident is None:
            return
        repl, raise_in = self._repl, ctypes.pythonapi.PyThreadState_SetAsyncExc
        thread, error = ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt)
        # Without a call in between, at which the interpreter could switch threads: once the block
        # has ended, the exception would end its thread, and the result would be lost
        if repl.running:
            repl.interrupted = True
            raise_in(thread, error)

    async def close(self) -> None:
        """End the session; a running block is interrupted."""
        self._closed = True
        for call in list(self._open):
            call.cancel()
        for answering in self._answering:  # the code's thread may not have recorded its call yet
            answering.cancel()
        await self.interrupt()
        await wait_until_done(*self._answering)
        if self._thread is None:
            await finish_despite_cancel(runtime.close_apart(self._repl.close))


def _crossed(message: dict[str, Any]) -> dict[str, Any]:
    """The message as it arrives after encoding and decoding, so that code behaves as in a real
    sandbox.
    """
    frames: list[bytes] = []
    Encoder(opaque).encode(message, frames.append)
    decoder = Decoder()
    for frame in frames:
        message = decoder.decode(memoryview(frame)[LENGTH.size :]) or message
    return message
