"""Runs attacks: sessions in one world, listeners and files that must stay untouched, and a
neighbouring session that must not be affected.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shutil
import site
import socket
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import ExecutionResult, Opening
from rlm_integrations.sandbox.process import ProcessSession
from tests.sandbox.attacks import prelude
from tests.sandbox.attacks.case import Attack
from tests.sandbox.conftest import FUNCTIONS, RecordingGate
from tests.sandbox.wrappers import World

SECRET = "ATTACKED_SECRET"  # a variable of the host's environment
WELL = "(2, '42')\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The host's observations of an attack.

    Attributes:
        result: How its block ended.
        after: How the session's next block ended, if the session should continue.
        pause: The longest time for which the event loop was blocked, in seconds.
        megabytes: The growth of the host's memory at its peak.
        reached: Listeners that received data.
        changed: Files that were changed.
        logged: The host's log messages.
        left: Processes of the session that still exist.
        neighbour: The answer of another session.
    """

    result: ExecutionResult
    after: ExecutionResult | None
    pause: float
    megabytes: int
    reached: list[str]
    changed: list[str]
    logged: list[str]
    left: set[int]
    neighbour: str


class Arena:
    """Sessions of one world.

    Attributes:
        attacker: The attacking session.
        gate: Records the calls of the attacker.
        secrets: Strings in the host's environment and in the neighbour's text.
    """

    attacker: ProcessSession

    def __init__(self, world: World) -> None:
        self.gate = RecordingGate()
        self.gate.gifts = _TextsOfLength()
        self._stack = contextlib.ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._folder.chmod(0o755)
        self._owner = world.user
        self._scratch = self._folder / "scratch"
        self._reset_files()
        self.secrets = [f"SECRET-{secrets.token_hex(8)}" for _ in range(2)]
        os.environ[SECRET] = self.secrets[0]
        self._stack.callback(os.environ.pop, SECRET, None)
        self._listeners = {
            name: self._stack.enter_context(each) for name, each in self._listen().items()
        }
        self._sandbox = self._stack.enter_context(world.sandbox())
        self._corpus = self._stack.enter_context(Corpus.build("text"))
        self._blocks = iter(range(1, 1 << 30))

    async def __aenter__(self) -> Self:
        with Corpus.build(f"the neighbour's text: {self.secrets[1]}") as corpus:
            self._neighbour = await self._sandbox.open(
                Opening(corpus, [], self.gate, Limits(block_seconds=10))
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._neighbour.close()
        self._stack.close()

    async def run(self, attack: Attack) -> Evidence:
        """Run an attack in a new session and collect the host's observations."""
        self.gate.calls.clear()
        files = self._files()
        self.attacker = await self.open(attack.limits)
        pid = self.attacker.child._pid
        log = _Log()
        logging.getLogger().addHandler(log)
        pauses = [0.0]
        watcher = asyncio.ensure_future(_record_pauses(pauses))
        resident = _forget_peak()
        try:
            result = await self.attacker.execute(self.code(attack.code), 1)
            peak = _memory("VmHWM")
            if attack.check is not None:
                attack.check(result, self)
            after = (
                await self.attacker.execute("6 * 7", 2)
                if attack.keeps and result.status != "lost"
                else None
            )
        finally:
            watcher.cancel()
            logging.getLogger().removeHandler(log)
            await self.attacker.close()
        return Evidence(
            result=result,
            after=after,
            pause=max(pauses),
            megabytes=(peak - resident) >> 10,
            reached=self._reached(),
            changed=self._changed(files),
            logged=log.lines,
            left=_processes_of(pid),
            neighbour=await self.ask_neighbour(),
        )

    async def assert_held(self, attack: Attack) -> None:
        """Run an attack: it must fail for its declared reason, and must affect nothing else."""
        evidence = await self.run(attack)
        result, after = evidence.result, evidence.after
        said = (
            f"{result.error.type}: {result.error.message}\n" if result.error else ""
        ) + result.output
        assert "BREACH" not in said, f"{attack.must_not} {said[:2000]}"
        assert result.status in attack.ends, f"{result.status}: {said[:2000]}"
        assert re.search(attack.says, said), said[:2000]
        untouched = {"reached": [], "changed": [], "logged": [], "left": set(), "neighbour": WELL}
        assert {name: getattr(evidence, name) for name in untouched} == untouched, attack.must_not
        assert evidence.megabytes < attack.megabytes, f"the host grew by {evidence.megabytes} MB"
        assert after is None or after.stdout == "42\n", f"the session did not go on: {after.error}"

    async def ask_neighbour(self) -> str:
        """The neighbouring session's answer to a simple question."""
        return (
            await self._neighbour.execute(
                "import json\n(len('ab'), json.dumps(6 * 7))", next(self._blocks)
            )
        ).stdout

    async def open(self, limits: Limits) -> ProcessSession:
        """Open another session; the caller closes it."""
        return await self._sandbox.open(Opening(self._corpus, FUNCTIONS, self.gate, limits))

    def code(self, attack: str) -> str:
        """The code of an attack, preceded by the definitions that it uses."""
        values = {
            "HOST": os.getpid(),
            "NEIGHBOUR": self._neighbour.child._pid,
            "SCRATCH": str(self._scratch),
            "VICTIM": str(self._scratch / "victim"),
            "LISTENER": str(self._folder / "listener"),
            "DATAGRAMS": str(self._folder / "datagrams"),
            "ABSTRACT": self._listeners["abstract"].getsockname(),
            "PORT": self._listeners["tcp"].getsockname()[1],
            "UDP_PORT": self._listeners["udp"].getsockname()[1],
            "SITE": site.getsitepackages(),
        }
        constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        return prelude.CODE + constants + textwrap.dedent(attack)

    def _listen(self) -> dict[str, socket.socket]:
        def bound(family: int, kind: int, address: Any) -> socket.socket:
            made = socket.socket(family, kind)
            made.bind(address)
            made.setblocking(False)
            if kind == socket.SOCK_STREAM:
                made.listen()
            if family == socket.AF_UNIX and isinstance(address, str):
                Path(address).chmod(0o777)
            return made

        return {
            "tcp": bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "udp": bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "unix": bound(socket.AF_UNIX, socket.SOCK_STREAM, str(self._folder / "listener")),
            "datagrams": bound(socket.AF_UNIX, socket.SOCK_DGRAM, str(self._folder / "datagrams")),
            "abstract": bound(socket.AF_UNIX, socket.SOCK_STREAM, b"\0" + secrets.token_bytes(8)),
        }

    def _reached(self) -> list[str]:
        reached = []
        for name, each in self._listeners.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    if each.type == socket.SOCK_STREAM:
                        each.accept()[0].close()
                    else:
                        each.recv(100)
                    reached.append(name)
        return reached

    def _reset_files(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        (self._scratch / "victim").write_text("untouched")
        (self._scratch / "planted.py").write_text("print('BREACH')\n")
        if self._owner is not None:
            for each in (self._scratch, *self._scratch.iterdir()):
                os.chown(each, self._owner, self._owner)

    def _files(self) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for each in (self._scratch, *self._scratch.rglob("*")):
            status = each.lstat()
            content = each.read_bytes() if each.is_file() else b""
            found[str(each)] = (
                content,
                status.st_mode,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_nlink,
            )
        return found

    def _changed(self, before: dict[str, tuple[Any, ...]]) -> list[str]:
        after = self._files()
        changed = sorted(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )
        if changed:
            self._reset_files()
        return changed


class _TextsOfLength(dict[Any, str]):
    """The results of `give(length)`."""

    def __missing__(self, length: Any) -> str:
        return "x" * int(length)


class _Log(logging.Handler):
    """The messages that are logged while an attack runs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def _record_pauses(pauses: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.002)
        pauses.append(time.perf_counter() - begun - 0.002)


def _memory(field: str) -> int:
    """The memory of this process, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _forget_peak() -> int:
    """Reset the peak of this process's memory; returns the current memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _processes_of(session: int) -> set[int]:
    """Living processes of the process session with this id, which includes everything that it
    forked.
    """
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = stat.read_text().rpartition(") ")[2].split()
            if int(words[3]) == session and words[0] != "Z":
                found.add(int(stat.parent.name))
    return found
