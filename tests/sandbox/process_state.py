"""The processes, descriptors and tasks that sessions use, for tests of the process sandbox."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlm_integrations._concurrency import runtime
from rlm_integrations.sandbox.forkserver import ForkServer
from tests._processes import children_of


def server() -> ForkServer:
    """The process's only server, started if necessary."""
    return runtime.shared(
        ("fork server", sys.executable, ()), lambda: ForkServer(sys.executable, ())
    )


def children() -> set[int]:
    """The processes that the server has forked."""
    return set(children_of(server()._process.pid))


def open_files() -> int:
    """The number of open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """Check that no process, descriptor or task outlives a test."""
    server()
    before, files = children(), open_files()
    yield
    gc.collect()
    assert children() == before
    assert open_files() <= files
    assert asyncio.all_tasks() == {asyncio.current_task()}


def memory_of(pid: int, field: str = "VmHWM") -> int:
    """The current or peak memory of a process, in kilobytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
