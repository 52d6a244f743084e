"""The process sandbox: its layers, limits and threads. The numbers are those of the traps in the
facts about sandboxes.
"""

import asyncio
import sys
import time
from typing import Any

import pytest

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import SandboxError, SandboxUnavailableError
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import Opening, Sandbox
from rlm_integrations.sandbox.process import ProcessSandbox
from tests.sandbox.conftest import RecordingGate
from tests.sandbox.process_state import nothing_is_left  # noqa: F401 - a fixture

SMALL = Limits(block_seconds=0.3, grace_seconds=0.2)


@pytest.fixture
def sandbox() -> Sandbox:
    return ProcessSandbox()


async def test_layers_are_reported(open_session: Any) -> None:
    """A session reports its layers."""
    session = await open_session()
    layers = ["rlimits", "no_new_privs", "capabilities", "not_dumpable", "parent_death", "seccomp"]
    assert [session.layers[name] for name in layers] == ["on"] * len(layers)
    assert (session.layers["landlock"], session.layers["files"]) in {
        ("on", "standard library, read only"),
        (session.layers["landlock"], "none"),
    }


@pytest.mark.parametrize("platform", ["darwin", "win32"])
async def test_other_systems_are_refused(
    open_session: Any, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    """A weaker sandbox is never chosen silently: the error names the alternatives."""
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(SandboxUnavailableError, match=f"{platform}.*sandbox='inprocess'"):
        await open_session()


async def test_a_server_that_cannot_start_says_why(gate: RecordingGate) -> None:
    """A wrong interpreter or a missing package is one clear error."""
    with Corpus.build("x") as corpus:
        with pytest.raises(SandboxError, match="No such file"):
            await ProcessSandbox(python="/nowhere/python").open(Opening(corpus, [], gate, Limits()))
        with pytest.raises(
            SandboxError,
            match="did not start: ModuleNotFoundError: No module named 'no_such_package'",
        ):
            await ProcessSandbox(preload=["no_such_package"]).open(
                Opening(corpus, [], gate, Limits())
            )


async def test_packages_can_be_preloaded(gate: RecordingGate) -> None:
    """A preloaded package can be imported, including submodules that were not loaded yet; other
    packages cannot.
    """
    sandbox = ProcessSandbox(preload=["tqdm"])
    with Corpus.build("x") as corpus:
        session = await sandbox.open(Opening(corpus, [], gate, Limits()))
        result = await session.execute("import tqdm.contrib\ntqdm.tqdm.__name__", 1)
        assert result.stdout == "'tqdm'\n", result.error
        assert (await session.execute("import pytest", 2)).status == "error"
        await session.close()
    key = ("fork server", sys.executable, ("tqdm",))
    preloaded = runtime.shared(key, lambda: pytest.fail("there is a server already"))
    runtime.forget(key, preloaded)
    preloaded.close()


# Trap 3: limits of time.


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')",
        "import threading; threading.Event().wait()",
        "sum(i for i in iter(int, 1))",
        "await __import__('asyncio').sleep(60)",
    ],
)
async def test_trap_04_time_limit_interrupts_and_keeps_state(open_session: Any, code: str) -> None:
    """The time limit interrupts loops, sleep, a regex and a lock with a real signal, keeps
    variables, and reports the reason.
    """
    session = await open_session(limits=Limits(block_seconds=0.3))
    result = await session.execute(f"kept = 'yes'\n{code}", 1)
    assert (result.status, result.error and result.error.type) == ("interrupted", "Interrupted")
    assert result.error is not None
    assert "computed for more than 0.3 s" in result.error.message
    assert (await session.execute("kept", 2)).stdout == "'yes'\n"


async def test_trap_04_code_that_refuses_to_stop_is_killed(open_session: Any) -> None:
    """Code that catches every interrupt loses its session at the end of the grace period."""
    session = await open_session(limits=SMALL)
    result = await session.execute(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", 1
    )
    assert result.status == "lost"
    assert result.error is not None
    assert "did not end within 0.2 s" in result.error.message
    assert (await session.execute("1", 2)).status == "lost"


async def test_trap_03_waiting_for_the_host_is_not_computing(open_session: Any) -> None:
    """Waiting for host calls does not count towards a block's computing time."""
    session = await open_session(limits=SMALL)
    assert (await session.execute("slow(0.7)", 1)).stdout == "'slept'\n"


async def test_trap_03_an_open_call_does_not_stop_the_clock(open_session: Any) -> None:
    """CPU time counts: a block that computes in one thread while another keeps a call open exceeds
    its limit.
    """
    session = await open_session(limits=SMALL)
    result = await session.execute(
        "import threading\nthreading.Thread(target=slow, args=(60,), daemon=True).start()\nwhile True: pass",
        1,
    )
    assert result.status == "interrupted"


async def test_trap_03_wall_cap(open_session: Any) -> None:
    """The total time of a block, waiting included, is limited."""
    session = await open_session(limits=Limits(block_wall_seconds=0.3))
    result = await session.execute("slow(60)", 1)
    assert result.error is not None
    assert (result.status, "took more than 0.3 s in all" in result.error.message) == (
        "interrupted",
        True,
    )


async def test_trap_03_cap_of_calls(open_session: Any, gate: RecordingGate) -> None:
    """Calls above the limit are refused with an explanation, and never reach the gate."""
    session = await open_session(limits=Limits(calls_per_block=5))
    result = await session.execute("for i in range(10): llm_query(str(i))", 1)
    assert result.error is not None
    assert ("use llm_batch" in result.error.message, len(gate.calls), result.host_calls) == (
        True,
        5,
        5,
    )
    assert (await session.execute("llm_query('again')", 2)).status == "ok"


async def test_interrupt_from_outside(open_session: Any, gate: RecordingGate) -> None:
    """interrupt() ends the block and keeps the session; without a running block it does nothing."""
    session = await open_session()
    await session.interrupt()
    task = asyncio.ensure_future(
        session.execute("x = 1\nprint('in')\nllm_query('a')\nwhile True: pass", 1)
    )
    while not gate.calls:
        await asyncio.sleep(0.001)
    await session.interrupt()
    result = await task
    assert (result.status, result.stdout) == ("interrupted", "in\n")
    assert (await session.execute("x", 2)).stdout == "1\n"


# Trap 6, 8, 9: requirements of a replay and of the next block.


async def test_trap_06_seeds_are_pinned(open_session: Any) -> None:
    """Set order, hashes and `random` are the same in two sessions with the same seed."""
    code = "import random\nprint(list({str(i) for i in range(50)}), hash('text'), random.random())"
    outputs = []
    for _ in range(2):
        session = await open_session(seed=7)
        outputs.append((await session.execute(code, 1)).stdout)
    assert outputs[0] == outputs[1]
    other = await open_session(seed=8)
    assert (await other.execute(code, 1)).stdout != outputs[0]


async def test_trap_08_many_threads_fit(open_session: Any) -> None:
    """A pool of 100 threads works within the address space; a pool of 300 gets the error of a
    machine without free threads, and no data is lost.
    """
    session = await open_session()
    code = """
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(100) as pool:
            print(sum(pool.map(lambda i: time.sleep(0.01) or i, range(100))))
    """
    assert (await session.execute(code, 1)).stdout == "4950\n"
    code = """
        paid = llm_query("paid")
        go_on = threading.Event()
        try:
            with ThreadPoolExecutor(300) as pool:
                try:
                    pool.map(lambda _: go_on.wait(), range(300))
                finally:
                    go_on.set()
        except RuntimeError as error:
            print(error, len(pool._threads))
    """
    # The main thread and the reader are the others
    assert (await session.execute(code, 2)).stdout == "can't start new thread 254\n"
    assert (await session.execute("paid", 3)).stdout == "'echo: paid'\n"
    assert (
        await session.execute(
            "with ThreadPoolExecutor(250) as pool: print(sum(pool.map(int, range(250))))", 4
        )
    ).stdout == "31125\n"


async def test_threads_count_however_they_are_started(open_session: Any) -> None:
    """Threads started with the low-level module count at their start, whether the earlier ones are
    running yet or not.
    """
    session = await open_session(limits=Limits(threads=50))
    code = """
        import _thread
        held = _thread.allocate_lock()
        held.acquire()
        started = 0
        def wait():
            held.acquire()
            held.release()
        try:
            while True:
                _thread.start_new_thread(wait, ())
                started += 1
        except RuntimeError as error:
            print(error, started)
        held.release()
    """
    assert (await session.execute(code, 1)).stdout == "can't start new thread 48\n"


async def test_trap_09_threads_rest_between_blocks(open_session: Any) -> None:
    """Threads that a block leaves running are paused between blocks."""
    session = await open_session()
    code = """
        import threading, time
        n = 0
        def count():
            global n
            while True:
                n += 1
                time.sleep(0.001)
        threading.Thread(target=count, daemon=True).start()
    """
    await session.execute(code, 1)
    before = int((await session.execute("n", 2)).stdout)
    await asyncio.to_thread(time.sleep, 0.3)
    after = int((await session.execute("n", 3)).stdout)
    assert after - before < 100


async def test_trap_09_a_late_call_is_refused(open_session: Any, gate: RecordingGate) -> None:
    """A call that a thread of an ended block makes during the next block counts for the next block;
    calls still open at the end of a block are cancelled.
    """
    session = await open_session()
    await session.execute(
        "import threading\nthreading.Thread(target=slow, args=(60,), daemon=True).start()\nllm_query('x')",
        1,
    )
    assert gate.cancelled == 1
    assert (await session.execute("llm_query('fine')", 2)).stdout == "'echo: fine'\n"


# Losses.
