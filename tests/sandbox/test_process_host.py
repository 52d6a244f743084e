"""The process sandbox in a host that exits, is killed, forks or is interrupted."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests._script import QUIET
from tests.sandbox.process_state import nothing_is_left  # noqa: F401 - a fixture


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", QUIET + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


OPEN = """
    import asyncio, os, sys
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.records import Limits
    from rlm_integrations.sandbox.base import Opening
    from rlm_integrations.sandbox.process import ProcessSandbox

    async def gate(*_): pass

    async def session():
        return await ProcessSandbox().open(Opening(Corpus.build("x"), [], gate, Limits()))

    async def once():
        s = await session()
        r = await s.execute("1 + 1", 1)
        await s.close()
        return r.stdout
"""


def test_the_interpreter_exits_silently() -> None:
    """An exit after several event loops, with a running server, writes nothing under -X dev -W
    error.
    """
    done = run_python(OPEN + "\n    print(asyncio.run(once()), asyncio.run(once()))\n")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["2", "2"], "")


def test_a_host_that_is_killed_leaves_no_process() -> None:
    """Killing the host with SIGKILL ends server and children."""
    code = (
        OPEN
        + """
    async def main():
        s = await session()
        await s.execute("import threading; threading.Thread(target=threading.Event().wait).start()", 1)
        from rlm_integrations.corpus import reading
        from rlm_integrations._concurrency import runtime
        server = next(v for v in runtime._shared.values() if type(v).__name__ == "ForkServer")
        print(server._process.pid, s.child._pid, flush=True)
        os.kill(os.getpid(), 9)
    asyncio.run(main())
    """
    )
    done = run_python(code)
    pids = [int(each) for each in done.stdout.split()]
    assert (done.returncode, len(pids)) == (-9, 2)
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_forked_host_starts_a_new_server() -> None:
    """After os.fork, sessions of the forked process work, and the parent's session still works
    after it has exited.
    """
    code = (
        OPEN
        + """
    async def main():
        s = await session()
        await s.execute("kept = 5", 1)
        pid = os.fork()
        if pid == 0:
            import threading
            def other():
                sys.stdout.write(asyncio.run(once()))
                sys.stdout.flush()
            t = threading.Thread(target=other); t.start(); t.join()
            os._exit(0)
        assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
        print((await s.execute("kept", 2)).stdout)
        await s.close()
    asyncio.run(main())
    """
    )
    done = run_python(code)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["2", "5"], "")


def test_ctrl_c_spares_the_server() -> None:
    """Ctrl-C in the terminal interrupts only the host: an idle session survives it."""
    code = (
        OPEN
        + """
    import signal
    async def main():
        s = await session()
        await s.execute("kept = 5", 1)
        signal.signal(signal.SIGINT, lambda *a: None)
        os.killpg(0, signal.SIGINT)
        print((await s.execute("kept", 2)).stdout)
        await s.close()
    os.setpgid(0, 0)
    asyncio.run(main())
    """
    )
    done = run_python(code)
    assert (done.returncode, done.stdout.split()) == (0, ["5"]), done.stderr
