"""Interpreters for `ProcessSandbox(python=…)` that run the fork server in another world; see
`launcher.py`.
"""

import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rlm_integrations._concurrency import runtime
from rlm_integrations.sandbox.process import ProcessSandbox
from tests.sandbox.attacks.prelude import NUMBERS

NOBODY = 65534
ROOT = os.geteuid() == 0
IDENTITIES = ("user", "root") if ROOT else ("user",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The kernel's answer to a system call that it does not execute.

    Attributes:
        call: The name of the system call.
        error: The error to return; 0 pretends success.
        when: The (position, value) of arguments for which it applies; the value None means any
            value except 0.
    """

    call: str
    error: int
    when: tuple[tuple[int, int | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The differences of a fork server's environment.

    Attributes:
        user: The user that it becomes, or None for the current user.
        sealed: Whether its children seal themselves.
        machine: The architecture that the machine reports, if not its real one.
        answers: The system calls that the kernel does not execute.
        python: The interpreter; by default that of the tests.
    """

    user: int | None = None
    sealed: bool = True
    machine: str = ""
    answers: tuple[Answer, ...] = ()
    python: str = sys.executable

    @contextlib.contextmanager
    def sandbox(self) -> Iterator[ProcessSandbox]:
        """A sandbox whose server runs in this world, and ends with it."""
        with tempfile.TemporaryDirectory() as folder:
            python = self._interpreter(Path(folder))
            try:
                yield ProcessSandbox(python=python)
            finally:
                key = ("fork server", python, ())
                server = runtime._shared.get(key)
                if server is not None:
                    runtime.forget(key, server)
                    server.close()

    def _interpreter(self, folder: Path) -> str:
        """An executable that takes the interpreter's arguments and runs them in this world."""
        answers = [
            {"number": NUMBERS[each.call], "when": each.when, "error": each.error}
            for each in self.answers
        ]
        described = json.dumps({**asdict(self), "answers": answers})
        launcher = Path(__file__).with_name("launcher.py")
        file = folder / "python"
        # The interpreter's own options first, as the library passes them.
        file.write_text(
            "#!/bin/sh\noptions=\n"
            'while [ "$1" != -c ]; do options="$options $1"; shift; done\n'
            f'exec {shlex.quote(self.python)} $options {shlex.join([str(launcher), described])} "$@"\n'
        )
        file.chmod(0o755)
        return str(file)


def identity(name: str) -> World:
    """The world of an ordinary user, or of root."""
    return World(user=NOBODY if name == "user" and ROOT else None)
