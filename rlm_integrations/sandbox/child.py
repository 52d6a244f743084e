"""The sandbox's child process: receives its context, seals itself, and runs blocks until its host
closes the socket. It is forked by `forkserver` and never returns.

The host treats its messages as hostile.
"""

import asyncio
import contextvars
import itertools
import os
import queue
import random
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn

from ..records import HostFunction
from . import decoder, describe, encoder, harden, output, repl, wire
from .fill import fill
from .forbidden import forbid_builtins
from .interrupts import Interrupts
from .threads import Threads

# bytes; with the default of 8 MB, few threads would exhaust the address space
_THREAD_STACK = 512 << 10
_OWN_THREADS = 2  # the main thread and the reader
_READ = 1 << 20


class ChildChannel:
    """The socket to the host. Any thread writes frames; one thread reads."""

    def __init__(self, session: socket.socket) -> None:
        self._socket = session
        self._file = session.fileno()
        self._write_lock = threading.RLock()
        self._encoder = encoder.Encoder(describe.opaque)
        self._decoder = decoder.Decoder()
        # An interrupt inside a frame would cut the frame off. In `flush`, output would be lost.
        self.interrupts = Interrupts(
            whole=[repl.Repl._run],  # noqa: SLF001 - frames to recognise on the stack, not calls
            below=[repl.Repl.close, describe.describe_exception, describe.message_of, self.prepare],
            undivided=[self.write, output.Output.flush],
        )

    def send(self, message: dict[str, Any]) -> None:
        """Write a message. Raises ValueError if a value cannot be encoded, or any exception that a
        class of the model raises.
        """
        self._encoder.encode(message, self.write)

    def prepare(self, message: dict[str, Any]) -> bytes:
        """Write all frames of a message except the last, and return that one. If this raises, the
        message has not been sent.
        """
        ready: list[bytes] = []

        def emit(frame: bytes) -> None:
            for each in ready:
                self.write(each)
            ready[:] = [frame]

        self._encoder.encode(message, emit)
        return ready[0]

    def write(self, frame: bytes) -> None:
        """Write a complete frame, even if a signal arrives meanwhile."""
        rest = memoryview(frame)
        with self._write_lock:
            while rest:
                rest = rest[os.write(self._file, rest[:_READ]) :]
        self.interrupts.raise_late()

    def receive(self) -> dict[str, Any]:
        """The next message; the process exits when the host closes the socket."""
        while True:
            length = decoder.Decoder.check_length(
                wire.LENGTH.unpack(self._read(wire.LENGTH.size))[0]
            )
            message = self._decoder.decode(self._read(length))
            if message is not None:
                return message

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = os.readv(self._file, [view])
            if count == 0:
                os._exit(0)
            view = view[count:]
        return data

    def receive_file(self) -> int:
        """The next file descriptor that the host sends."""
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not descriptors:
            os._exit(0)
        return descriptors[0]


def main(session: socket.socket, plan: harden.Plan, parent: int) -> NoReturn:
    """Run a child process from start to exit."""
    channel = ChildChannel(session)
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # A host that waits for signals blocks them, and children inherit the mask
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()
        os.environ.clear()
        opening = channel.receive()
        # Only now: until here the server used the socket too, to report the fork
        _hand_over_state(session)
        texts = _take_context(channel, opening["pieces"])
        layers = plan.seal(
            parent=parent, memory=opening["memory"], keep=(0, 1, 2, session.fileno())
        )
        child = ChildMain(channel, opening, texts)
        channel.send({"op": "ready", "layers": layers})
        child.serve()
    except harden.LayerMissingError as error:
        channel.send({"op": "refused", "layer": str(error.args[1])})
    except BaseException as error:  # noqa: BLE001
        # Any error is reported to the host and ends this process
        channel.send({"op": "failed", "error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(1)


def _hand_over_state(session: socket.socket) -> None:
    """Send the host the open file that has this process's thread count. The host itself may be
    unable to open it, if /proc hides other users' processes.
    """
    try:
        state = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise harden.LayerMissingError(
            error.errno, f"threads: they cannot be counted ({error})"
        ) from error
    socket.send_fds(session, [b"T"], [state])
    os.close(state)


def _take_context(channel: ChildChannel, pieces: list[list[int]]) -> list[str]:
    """The sources of the context, read from the files that the host sends."""
    texts = [""] * len(pieces)
    of_file: dict[int, list[int]] = {}
    for place, piece in enumerate(pieces):
        of_file.setdefault(piece[0], []).append(place)
    for file in sorted(of_file):
        descriptor = channel.receive_file()
        for place in of_file[file]:
            texts[place] = fill(descriptor, *pieces[place][1:])
        os.close(descriptor)
    return texts


class ChildMain:
    """A REPL behind a channel. The main thread runs blocks, because only it receives signals; a
    second thread reads.
    """

    def __init__(self, channel: ChildChannel, opening: Mapping[str, Any], texts: list[str]) -> None:
        self._channel = channel
        self._answers: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._blocks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.stack_size(_THREAD_STACK)
        self._threads = Threads(opening["threads"] - _OWN_THREADS)
        channel.interrupts.add_undivided(self._threads.start)
        printed = output.Output(
            {"stdout": opening["stdout_kept"], "stderr": opening["stderr_kept"]},
            lambda pieces: channel.send({"op": "out", "pieces": pieces}),
        )
        self._streams = (
            output.OutputStream(printed, "stdout"),
            output.OutputStream(printed, "stderr"),
        )
        names, metadata = opening["names"], opening["metadata"]
        if opening["is_lazy"]:
            metadata["sizes"] = dict(zip(names, opening["sizes"], strict=True))
            reserved = repl.host_variables(names, metadata, self._read_texts)
        else:
            reserved = repl.context_variables(
                texts,
                names,
                is_list=opening["is_list"],
                metadata=metadata,
                objects=opening["objects"],
            )
        functions = [
            HostFunction(name, signature, doc, tuple(aliases))
            for name, signature, doc, aliases in opening["functions"]
        ]
        # pickle and similar modules look up the model's classes here
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        self._repl = repl.Repl(self._call, functions, reserved, printed, module.__dict__)
        random.seed(opening["seed"])
        self._path = list(sys.path)
        forbid_builtins()
        # Such as invalid escapes in patterns: no use to the model
        for noise in (DeprecationWarning, SyntaxWarning):
            warnings.simplefilter("ignore", noise)
        _allow_nested_asyncio_run()
        sys.argv[:] = ["repl"]

    def serve(self) -> NoReturn:
        """Run blocks as they arrive."""
        threading.Thread(target=self._read, daemon=True, name="host").start()
        self._threads.bound()
        while True:
            message = self._blocks.get()
            if message["op"] == "vars":
                self._repl.namespace.update(message["values"])
                self._channel.send({"op": "done", "block": message["block"]})
                continue
            self._channel.interrupts.begin()
            sys.stdout, sys.stderr = self._streams
            sys.path[:] = self._path
            done = self._repl.execute(message["code"], message["block"])
            self._channel.interrupts.listen()
            self._finish({"op": "done", "block": message["block"], **done})

    def _finish(self, done: dict[str, Any]) -> None:
        done["interrupted"] = self._channel.interrupts.raised
        try:
            last = self._channel.prepare(done)
        except BaseException as error:  # noqa: BLE001
            # Reading a value runs the model's classes, which may raise anything
            refused = {
                "type": "ValueError",
                "message": (
                    f"FINAL: {describe.message_of(error)}; use a plain string, number, list or dict"
                ),
                "traceback": "",
            }
            self._channel.send(
                {
                    **done,
                    "final": None,
                    "error": refused,
                    "interrupted": self._channel.interrupts.raised,
                }
            )
        else:
            self._channel.write(last)

    def _read_texts(self, *args: Any) -> Any:
        return self._repl.read_texts(*args)

    def _call(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> "Future[Any]":
        answer: Future[Any] = Future()
        # From here on the host works on the call: it is not withdrawn if the wait is cancelled
        answer.set_running_or_notify_cancel()
        number = next(self._numbers)
        self._answers[number] = answer
        try:
            self._channel.send(
                {
                    "op": "call",
                    "block": block,
                    "call": number,
                    "function": function,
                    "args": args,
                    "kwargs": kwargs,
                }
            )
        except BaseException:
            self._answers.pop(number, None)
            raise
        return answer

    def _read(self) -> None:
        try:
            self._read_messages()
        finally:
            # Such as no memory for an answer: without a reader, every call would wait forever
            os._exit(1)

    def _read_messages(self) -> None:
        while True:
            message = self._channel.receive()
            if message["op"] != "answer":
                self._blocks.put(message)
                continue
            answer = self._answers.pop(message["call"], None)
            if answer is None:
                continue
            if "error" in message:
                answer.set_exception(_exception(message["error"], message["message"]))
            else:
                answer.set_result(message["value"])


def _exception(name: str, message: str) -> Exception:
    """The builtin exception with this name."""
    import builtins

    kind = getattr(builtins, name, None)
    return (
        kind(message)
        if isinstance(kind, type) and issubclass(kind, Exception)
        else RuntimeError(f"{name}: {message}")
    )


def _allow_nested_asyncio_run() -> None:
    """Run `asyncio.run(main())` in a new thread if the block also awaits at its top level: it would
    fail in the running loop.
    """
    real_run = asyncio.run

    def run(main: Coroutine[Any, Any, Any], **options: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return real_run(main, **options)
        call: Callable[..., Any] = contextvars.copy_context().run
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(call, real_run, main, **options).result()

    asyncio.run = run
