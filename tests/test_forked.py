"""The processes that tests start."""

import signal
from pathlib import Path

from tests._forked import Forked

ENDS = {
    "pass": (0, ""),
    "sys.exit(3)": (3, ""),
    "sys.exit('wrong')": (1, "wrong"),
    "1 / 0": (1, "ZeroDivisionError: division by zero"),
    "os.kill(0, signal.SIGTERM)": (-signal.SIGTERM, ""),
}


def test_it_ends_as_an_interpreter_does() -> None:
    """The exit code, stdout, the traceback, the arguments, threads and functions at the exit are
    those of `python -c`.
    """
    before = "import atexit, os, signal, sys, threading\natexit.register(print, 'last')\n"
    before += (
        "threading.Thread(target=lambda: print(sys.stdin.read(), *sys.argv, __name__)).start()\n"
    )
    for code, (expected, told) in ENDS.items():
        process = Forked("-c", before + code, "a word")
        out, err = process.communicate("given")
        assert (process.returncode, (err.splitlines() or [""])[-1]) == (expected, told)
        assert out == ("given -c a word __main__\nlast\n" if expected >= 0 else "")


def test_it_is_killed() -> None:
    """In the middle of what it does, with what it has printed so far; also at the end of a block."""
    code = "import time; print('ready', flush=True); time.sleep(1_000)"
    process = Forked("-c", code)
    assert (process.stdout.readline(), process.poll()) == ("ready\n", None)
    process.kill()
    assert process.communicate() == ("", "")
    assert process.poll() == -signal.SIGKILL
    with Forked("-c", code) as other:
        pass
    assert other.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{other.pid}").exists()
