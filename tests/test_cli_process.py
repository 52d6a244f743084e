"""The command line as a process: interrupts, closed pipes, full disks and terminals."""

import os
import signal
from pathlib import Path

from rlm_integrations.result import RLMResult
from tests._cli import FACT, QUESTION, bare_environment, block, run, server, started, until
from tests.report._page import Page
from tests.standin import Fault, serve_in_thread

__all__ = ["bare_environment", "run", "server"]  # fixtures


def descendants(root: int) -> set[int]:
    """The processes below this one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
    found: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in {root, *found}} - found:
        found |= more
    return found


def is_there(pid: int) -> bool:
    """Whether this process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_leaves_nothing_behind() -> None:
    """Exit code 130 within seconds and without a traceback; calls are cancelled, no process is left,
    and an open page shows that the run was cancelled.
    """
    with serve_in_thread(
        scripts={"root": [block("llm_batch(['slow'] * 5)")]}, faults=[Fault("hang", match="slow")]
    ) as server:
        process = started(
            "ask",
            "report.txt",
            "q",
            "--model",
            "root",
            "--base-url",
            server.base_url,
            "--serve",
            start_new_session=True,
        )
        assert process.stderr is not None
        page = Page(process.stderr.readline().split()[-1])
        until(lambda: server.stats().in_flight == 5)
        below = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        page.until(lambda page: page.has_ended).close()
        out, err = process.communicate(timeout=60)
        until(lambda: server.stats().in_flight == 0)
    assert page.run["stop_reason"] == "cancelled"
    assert (process.returncode, out) == (130, "")
    told, last = err.splitlines()
    assert told.startswith("rlm-integrations: cancelled, 1 turn, 6 calls, ")
    assert last == "rlm-integrations: interrupted"
    assert len(below) >= 2  # the server of the sandbox and a session
    until(lambda: not [pid for pid in below if is_there(pid)])


def test_a_closed_pipe_ends_quietly() -> None:
    """With a closed pipe on stdout there is no traceback, the result is saved all the same, and the
    exit code is that of a process that SIGPIPE ends.
    """
    reading, writing = os.pipe()
    os.close(reading)
    words = ["ask", "report.txt", QUESTION, "--model", "offline", "--quiet", "--save", "run.json"]
    process = started(*words, stdout=writing)
    os.close(writing)
    assert (process.communicate()[1], process.returncode) == ("", 141)
    assert RLMResult.load("run.json").answer == FACT


def test_a_result_that_cannot_be_written() -> None:
    """Exit code 1 if the disk is full, with the reason and no traceback; the answer is printed
    before it is saved.
    """
    with Path("/dev/full").open("w") as full:
        process = started(
            "ask", "report.txt", QUESTION, "--model", "offline", "--quiet", stdout=full
        )
        err = process.communicate()[1]
    assert (process.returncode, err) == (
        1,
        "rlm-integrations: [Errno 28] No space left on device\n",
    )
    process = started(
        "ask", "report.txt", QUESTION, "--model", "offline", "--quiet", "--save", "/dev/full"
    )
    out, err = process.communicate()
    assert (process.returncode, out.splitlines()[0]) == (1, FACT)
    assert err == "rlm-integrations: [Errno 28] No space left on device\n"
