"""Batches and their process: Ctrl-C, a fork, the exit. Each in another process."""

from collections.abc import Iterator

import pytest

from tests._forked import Forked
from tests._script import run_script
from tests.lm.test_batch_server import settled
from tests.standin import Fault, RemoteStandIn, serve_in_process


@pytest.fixture
def far_server() -> Iterator[RemoteStandIn]:
    with serve_in_process(faults=[Fault("hang", match="needle")]) as standin:
        yield standin


PREPARE = """
import os, signal, sys, threading, time
from rlm_integrations import llm_batch, llm_batch_iter
from rlm_integrations.lm.openai import OpenAILM
from tests.standin import answer_to
lm = OpenAILM("sub", base_url=sys.argv[1])
def right(name):
    asked = [f"{name}{n}" for n in range(20)]
    return llm_batch(asked, lm) == [answer_to(prompt) for prompt in asked]
assert right("first")
"""


def test_ctrl_c(far_server: RemoteStandIn) -> None:
    """Ctrl-C in a synchronous batch raises KeyboardInterrupt and closes the connections, and the
    next batch works.
    """
    code = """
def press():
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
try:
    llm_batch([f"needle {n}" for n in range(50)], lm)
except KeyboardInterrupt:
    assert right("second")
    print("interrupted")
"""
    process = Forked("-c", PREPARE + code, far_server.base_url)
    assert process.communicate() == ("interrupted\n", "")
    assert settled(far_server, 10)
    assert far_server.stats().calls == 20 + 10 + 20


def test_fork(far_server: RemoteStandIn) -> None:
    """A process forked after a batch opens new connections, and the parent keeps using its own."""
    code = """
for number in range(2):
    child = os.fork()
    if child == 0:
        assert right("child")
        raise SystemExit(3)
    assert right("parent")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
print("done")
"""
    process = Forked("-c", PREPARE + code, far_server.base_url)
    assert process.communicate() == ("done\n", "")
    assert far_server.stats().calls == 5 * 20


def test_the_interpreter_exits_silently(far_server: RemoteStandIn) -> None:
    """An exit in the middle of batches, one half read and one in a daemon thread, writes nothing
    and leaves no call open.
    """
    code = """
threading.Thread(target=lambda: llm_batch([f"needle {n}" for n in range(30)], lm), daemon=True).start()
replies = llm_batch_iter(["quick", *[f"needle {n}" for n in range(30)]], lm)
print(next(replies)[0])
time.sleep(0.3)
"""
    done = run_script(PREPARE + code, far_server.base_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert settled(far_server, 20)
