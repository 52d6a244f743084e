"""Other processes for the price of a fork: they have imported what the tests have, and done nothing.

A new interpreter spends up to two seconds of a processor on imports. Tests of the imports, of the
interpreter's options and of its exit start one all the same, most by `_script.run_script`.
"""

import atexit
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Self


class Starter:
    """A fork of the tests' process as it was before the first test, which forks itself on demand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with warnings.catch_warnings():
            # The other threads are those of xdist, which the fork does not need
            warnings.filterwarnings("ignore", "This process", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _serve(other)
        other.close()

    def ask(self, asked: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        """Its answer to one request."""
        with self._lock:
            socket.send_fds(self._control, [json.dumps(asked).encode()], descriptors)
            return int(self._control.recv(100))

    def close(self) -> None:
        """End it, and each of its processes that still runs."""
        self._control.close()
        os.waitpid(self._pid, 0)


_starters: list[Starter] = []  # of the tests' process, where it runs tests


@contextmanager
def starter() -> Iterator[None]:
    """What processes are started with, in the block."""
    _starters.append(Starter())
    yield
    _starters.pop().close()


class Forked:
    """A process that runs `-m MODULE` or `-c CODE` with arguments, in a session of its own.

    It has those methods of `subprocess.Popen` that tests need. Its streams are UTF-8 text; what it
    writes to stderr is in a file, which is read when it has ended.
    """

    def __init__(self, *command: str) -> None:
        self._starter = _starters[-1]
        (given, stdin), (stdout, printed) = os.pipe(), os.pipe()
        errors = os.memfd_create("stderr")
        asked = {"command": command, "folder": str(Path.cwd()), "environment": {**os.environ}}
        self.pid = self._starter.ask(asked, [given, printed, errors])
        self._pidfd = os.pidfd_open(self.pid)
        os.close(given)
        os.close(printed)
        self.stdin = os.fdopen(stdin, "w", encoding="utf-8")
        self.stdout = os.fdopen(stdout, encoding="utf-8")
        self.stderr = os.fdopen(errors, encoding="utf-8")
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, unless it has ended."""
        if self.returncode is None:
            self.kill()
            self.communicate()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._end(0)

    def communicate(self, given: str = "") -> tuple[str, str]:
        """What it wrote to stdout and to stderr, once it has ended."""
        if given:
            self.stdin.write(given)
        self.stdin.close()
        with self.stdout, self.stderr:
            out = self.stdout.read()
            self._end(None)
            self.stderr.seek(0)
            return out, self.stderr.read()

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        if self.returncode is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _end(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._pidfd], [], [], timeout)[0]:
            self.returncode = self._starter.ask({"ended": self.pid})
            os.close(self._pidfd)
        return self.returncode


def _serve(control: socket.socket) -> NoReturn:
    """Start processes, and report how they ended, until the tests' process closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.closerange(3, control.fileno())  # pipes of xdist, which would never end
    os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    running = set[int]()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not message:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        asked = json.loads(message)
        if "ended" in asked:
            _, status = os.waitpid(asked["ended"], 0)
            running.remove(asked["ended"])
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                control.close()
                _run(asked, descriptors)
            running.add(answer)
            for each in descriptors:
                os.close(each)
        control.send(str(answer).encode())


def _run(asked: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Do what an interpreter does, from its start to its end."""
    os.setsid()
    for number, each in enumerate(descriptors):
        os.dup2(each, number)
        os.close(each)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    # What pytest has replaced
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8")
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
    threading.excepthook = threading.__excepthook__
    logging.root.handlers.clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run_command(*asked["command"])
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001 - as the interpreter reports it
        sys.excepthook(*sys.exc_info())
        code = 1
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code or 0)


def _run_command(option: str, what: str, *words: str) -> None:
    sys.argv = [option, *words]
    if option == "-m":
        sys.modules.pop(what, None)  # as tests have imported it
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)
