"""The process sandbox: its limits, its losses, and what it leaves behind.

Traps are numbered as in the facts about sandboxes.
"""

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus, documents
from rlm_integrations.errors import (
    ContextError,
    SandboxClosedError,
    SandboxError,
    SandboxUnavailableError,
)
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import Opening, Sandbox
from rlm_integrations.sandbox.forkserver import ForkServer
from rlm_integrations.sandbox.process import ProcessSandbox, ProcessSession
from tests._processes import children_of
from tests._waits import at_every_wait
from tests.sandbox.conftest import FUNCTIONS, RecordingGate

SMALL = Limits(block_seconds=0.3, grace_seconds=0.2)


@pytest.fixture
def sandbox() -> Sandbox:
    return ProcessSandbox()


def server() -> ForkServer:
    """The process's one server, started if need be."""
    return runtime.shared(
        ("fork server", sys.executable, ()), lambda: ForkServer(sys.executable, ())
    )


def children() -> set[int]:
    """The processes that the server has forked."""
    return set(children_of(server()._process.pid))


def open_files() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """No process, no descriptor and no task outlives a test."""
    server()
    before, files = children(), open_files()
    yield
    gc.collect()
    assert children() == before
    assert open_files() <= files
    assert asyncio.all_tasks() == {asyncio.current_task()}


def memory_of(pid: int, field: str = "VmHWM") -> int:
    """Kilobytes that a process uses, or has used at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


async def test_layers_are_reported(open_session: Any) -> None:
    """A session says which layers hold it."""
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
    """Nothing weaker is chosen in silence: the error names what can be chosen."""
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(SandboxUnavailableError, match=f"{platform}.*sandbox='inprocess'"):
        await open_session()


async def test_a_server_that_cannot_start_says_why(gate: RecordingGate) -> None:
    """A wrong interpreter or a package that is not there: one clear error."""
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
    """A package that the user names can be imported, also its parts that were not loaded yet;
    others cannot.
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
    """Loops, sleep, a regex, a lock: a real signal wakes them, what was bound is kept, and the
    reason is said.
    """
    session = await open_session(limits=Limits(block_seconds=0.3))
    result = await session.execute(f"kept = 'yes'\n{code}", 1)
    assert (result.status, result.error and result.error.type) == ("interrupted", "Interrupted")
    assert result.error is not None
    assert "computed for more than 0.3 s" in result.error.message
    assert (await session.execute("kept", 2)).stdout == "'yes'\n"


async def test_trap_04_code_that_refuses_to_stop_is_killed(open_session: Any) -> None:
    """Code that swallows the interrupt loses its session, within the grace."""
    session = await open_session(limits=SMALL)
    result = await session.execute(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", 1
    )
    assert result.status == "lost"
    assert result.error is not None
    assert "did not end within 0.2 s" in result.error.message
    assert (await session.execute("1", 2)).status == "lost"


async def test_trap_03_waiting_for_the_host_is_no_computing(open_session: Any) -> None:
    """A block may wait for models far longer than it may compute."""
    session = await open_session(limits=SMALL)
    assert (await session.execute("slow(0.7)", 1)).stdout == "'slept'\n"


async def test_trap_03_an_open_call_does_not_stop_the_clock(open_session: Any) -> None:
    """A thread that keeps a call open while another computes is caught by the processor's time."""
    session = await open_session(limits=SMALL)
    result = await session.execute(
        "import threading\nthreading.Thread(target=slow, args=(60,), daemon=True).start()\nwhile True: pass",
        1,
    )
    assert result.status == "interrupted"


async def test_trap_03_wall_cap(open_session: Any) -> None:
    """Waiting has a bound too."""
    session = await open_session(limits=Limits(block_wall_seconds=0.3))
    result = await session.execute("slow(60)", 1)
    assert result.error is not None
    assert (result.status, "took more than 0.3 s in all" in result.error.message) == (
        "interrupted",
        True,
    )


async def test_trap_03_cap_of_calls(open_session: Any, gate: RecordingGate) -> None:
    """Calls beyond the cap are refused with words, and never reach the gate."""
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
    """interrupt() ends the block and keeps the session; without a block it does nothing."""
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


# Trap 6, 8, 9: what a replay and a next block rely on.


async def test_trap_06_seeds_are_pinned(open_session: Any) -> None:
    """Set order, hashes and `random` are the same in two sessions of the same seed."""
    code = "import random\nprint(list({str(i) for i in range(50)}), hash('text'), random.random())"
    outputs = []
    for _ in range(2):
        session = await open_session(seed=7)
        outputs.append((await session.execute(code, 1)).stdout)
    assert outputs[0] == outputs[1]
    other = await open_session(seed=8)
    assert (await other.execute(code, 1)).stdout != outputs[0]


async def test_trap_08_many_threads_fit(open_session: Any) -> None:
    """A pool of 100 threads works within the address space; one of 300 is told what any full
    machine would tell it, and loses nothing.
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
    """A burst of threads by the lower module is bounded at the start of each, whether the ones
    before have begun to run or not.
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
    """What a block leaves running does not run while no block does."""
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
    """A thread of an ended block that calls during the next one counts as the next one's; calls
    left open are cancelled.
    """
    session = await open_session()
    await session.execute(
        "import threading\nthreading.Thread(target=slow, args=(60,), daemon=True).start()\nllm_query('x')",
        1,
    )
    assert gate.cancelled == 1
    assert (await session.execute("llm_query('fine')", 2)).stdout == "'echo: fine'\n"


# Losses.


async def test_a_killed_child_is_a_lost_session(open_session: Any) -> None:
    """A crash, a kill or an exit in mid-block becomes status `lost` with the output so far, never
    an exception.
    """
    for code in (
        "import os\nos._exit(3)",
        "import ctypes\nctypes.string_at(0)",
        "import os, signal\nsignal.raise_signal(signal.SIGKILL)",
    ):
        session = await open_session()
        result = await session.execute(f"print('so far')\nllm_query('flush')\n{code}", 1)
        assert (result.status, result.stdout, result.error and result.error.type) == (
            "lost",
            "so far\n",
            "SandboxLost",
        )
        with pytest.raises(SandboxError, match="lost"):
            await session.set_vars({"x": 1})


async def test_a_child_killed_between_blocks_is_a_lost_session(open_session: Any) -> None:
    """Likewise when it happens while nobody looks."""
    session = await open_session()
    os.kill(session.child._pid, signal.SIGKILL)
    assert (await session.execute("1", 1)).status == "lost"


async def test_too_much_memory_is_a_memory_error(open_session: Any) -> None:
    """An allocation beyond the limit raises in the model's code; session and variables stay."""
    session = await open_session(limits=Limits(memory=256 << 20))
    result = await session.execute("x = 1\ny = 'a' * (1 << 30)", 1)
    assert result.error is not None
    assert result.error.type == "MemoryError"
    assert (await session.execute("x", 2)).stdout == "1\n"


async def test_the_server_is_replaced_when_it_dies(open_session: Any) -> None:
    """Its sessions are lost with it; the next one has a new server."""
    session = await open_session()
    old = server()
    old._process.kill()
    old._process.wait()
    assert (await session.execute("1", 1)).status == "lost"
    again = await open_session()
    assert (await again.execute("1", 1)).status == "ok"
    assert server() is not old


async def test_a_session_that_nobody_closes_ends_with_its_object(gate: RecordingGate) -> None:
    """The process is gone when the session's object is."""
    with Corpus.build("x") as corpus:
        session = await ProcessSandbox().open(Opening(corpus, [], gate, Limits()))
        await session.execute("1", 1)
    pid = session.child._pid
    session.channel.abort()
    await session.channel.wait_closed()
    del session
    gc.collect()
    assert pid not in children()


async def test_cancelling_open_leaves_no_process(
    sandbox: ProcessSandbox, gate: RecordingGate
) -> None:
    """A session that is cancelled while it starts is gone, wherever it was."""
    with Corpus.build("x" * 5_000_000) as corpus:
        for delay in (0, 0.001, 0.003, 0.006, 0.01):
            task = asyncio.ensure_future(sandbox.open(Opening(corpus, [], gate, Limits())))
            await asyncio.wait({task}, timeout=delay)
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, ProcessSession):
                await outcome.close()
        while len(children()):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("again", [0, 1, 2])
async def test_cancelling_in_every_wait_leaves_nothing(
    sandbox: ProcessSandbox, gate: RecordingGate, again: int
) -> None:
    """A session that is cancelled while it opens, runs or closes, once or again a little later, is
    gone when that has ended.
    """
    late = "import threading\nthreading.Thread(target=slow, args=(60,), daemon=True).start()\nllm_query('x')"
    with Corpus.build("x") as corpus:

        async def work() -> None:
            session = await sandbox.open(Opening(corpus, FUNCTIONS, gate, Limits()))
            try:
                await session.set_vars({"x": 1})
                await session.execute(late, 1)
            finally:
                await session.close()

        await work()
        files, cancelled = open_files(), 0
        async for task in at_every_wait(work, again=again):
            assert task.cancelled()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert (children(), open_files(), gate.open) == (set(), files, 0)
            cancelled += 1
        assert cancelled > 10


async def test_cancelling_the_end_of_a_block_ends_the_session(sandbox: ProcessSandbox) -> None:
    """A block that is done, but for a call that it left open, is cancelled like any other: its
    session is closed.
    """
    ending, go = asyncio.Event(), asyncio.Event()

    async def gate(_block: int, function: str, _args: list[Any], _kwargs: dict[str, Any]) -> Any:
        if function == "slow":
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await go.wait()

    with Corpus.build("x") as corpus:
        session = await sandbox.open(Opening(corpus, FUNCTIONS, gate, Limits()))
        code = "import threading\nthreading.Thread(target=slow, args=(60,), daemon=True).start()\nllm_query('x')"
        task = asyncio.ensure_future(session.execute(code, 1))
        await ending.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == set()
        with pytest.raises(SandboxClosedError):
            await session.execute("1", 2)


async def test_cancelling_kills_at_once_whatever_the_code_does(
    open_session: Any, gate: RecordingGate
) -> None:
    """Code that ignores every signal that it can is gone when its execution is cancelled."""
    session = await open_session()
    task = asyncio.ensure_future(
        session.execute(
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nllm_query('x')\nwhile True: pass",
            1,
        )
    )
    while not gate.calls:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == set()


# Several at once.


async def test_sessions_never_mix_their_output(open_session: Any) -> None:
    """Eight sessions print at the same time; each result holds its own lines alone."""
    sessions = [await open_session(f"document {i}") for i in range(8)]
    code = "for i in range(200):\n    print(context, i)\n    if i % 50 == 0: llm_query(context)"
    results = await asyncio.gather(*[session.execute(code, 1) for session in sessions])
    assert [result.stdout for result in results] == [
        "".join(f"document {n} {i}\n" for i in range(200)) for n in range(8)
    ]


async def test_sessions_share_nothing(open_session: Any) -> None:
    """What one does to the interpreter's modules, the next does not see."""
    first = await open_session()
    await first.execute("import json, builtins\njson.dumps = None\nbuiltins.len = None", 1)
    second = await open_session()
    assert (
        await second.execute("import json\n(len('ab'), json.dumps(1))", 1)
    ).stdout == "(2, '1')\n"


async def test_blocks_of_one_session_wait_for_each_other(open_session: Any) -> None:
    """Two execute at once run one after the other."""
    session = await open_session()
    await session.execute("log = []", 0)
    await asyncio.gather(
        *[session.execute(f"log.append({i}); slow(0.01); log.append({i})", i) for i in range(1, 4)]
    )
    assert (await session.execute("log", 9)).stdout == "[1, 1, 2, 2, 3, 3]\n"


def test_trap_05_threads_with_loops_of_their_own() -> None:
    """Six threads, each with an event loop, open sessions at the same time; none is swapped."""
    answers: dict[int, str] = {}

    async def one(number: int) -> None:
        with Corpus.build(f"mine {number}") as corpus:
            for _ in range(5):
                session = await ProcessSandbox().open(
                    Opening(corpus, FUNCTIONS, RecordingGate(), Limits())
                )
                answers[number] = (await session.execute("llm_query(context)", 1)).stdout
                assert answers[number] == f"'echo: mine {number}'\n"
                await session.close()

    threads = [threading.Thread(target=lambda n=n: asyncio.run(one(n))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6


# Context.


async def test_a_child_holds_its_context_once(open_session: Any) -> None:
    """At its peak, a child with an ASCII text of 100 MB holds little more than the text."""
    empty = await open_session("x")
    session = await open_session("0123456789" * 10_000_000)
    await session.execute("context.count('9')", 1)
    assert memory_of(session.child._pid) - memory_of(empty.child._pid) < 1.1 * 100_000_000 / 1024


async def test_a_slice_is_handed_over_without_its_whole(open_session: Any) -> None:
    """A child session over a slice sees the slice alone, at its own width."""
    with Corpus.build("é" * 100_000 + "needle" + "😀" * 100_000) as corpus:
        from rlm_integrations.records import SpanRef

        with corpus.slice([SpanRef("context_0", 100_000, 100_006)], is_list=False) as part:
            session = await ProcessSandbox().open(Opening(part, [], RecordingGate(), Limits()))
            assert (
                await session.execute("(context, context == 'needle', context.isascii())", 1)
            ).stdout == "('needle', True, True)\n"
            await session.close()


async def test_a_thousand_sources(open_session: Any, tmp_path: Any) -> None:
    """A thousand files need no thousand descriptors."""
    for i in range(1000):
        (tmp_path / f"{i}.txt").write_text(f"file {i}")
    session = await open_session([tmp_path / f"{i}.txt" for i in range(1000)])
    assert (
        await session.execute("(len(context), context[999], context_500)", 1)
    ).stdout == "(1000, 'file 999', 'file 500')\n"


async def test_a_file_that_changed_is_refused(
    tmp_path: Any, gate: RecordingGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large to be copied, and was written to after it was read, is not handed
    over.
    """
    monkeypatch.setattr(documents, "COPIED", 0)
    file = tmp_path / "a.txt"
    file.write_text("before")
    with Corpus.build(file) as corpus:
        file.write_text("after, and longer")
        with pytest.raises(ContextError, match="changed"):
            await ProcessSandbox().open(Opening(corpus, [], gate, Limits()))


async def test_a_batch_of_200_mb_passes(open_session: Any, gate: RecordingGate) -> None:
    """Two thousand prompts of 100 kB cross in frames under the cap, in order."""
    session = await open_session("x" * 100_000)
    result = await session.execute(
        "n = llm_batch([f'{i:04d}' + context for i in range(2000)])\n(len(n), n[1999][:10])", 1
    )
    assert result.stdout == "(2000, 'echo: 1999')\n", result.error
    assert [prompt[:4] for prompt in gate.calls[0][2][0]] == [f"{i:04d}" for i in range(2000)]


# The host's own life.


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)]
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


def test_the_interpreter_ends_without_noise() -> None:
    """Several loops in turn, and the server still there at exit: nothing is written, under -X dev
    -W error.
    """
    done = run_python(OPEN + "\n    print(asyncio.run(once()), asyncio.run(once()))\n")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["2", "2"], "")


def test_a_host_that_is_killed_leaves_no_process() -> None:
    """A kill -9 of the host ends server and children."""
    code = (
        OPEN
        + """
    async def main():
        s = await session()
        await s.execute("import threading; threading.Thread(target=threading.Event().wait).start()", 1)
        from rlm_integrations.corpus import documents
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


def test_a_forked_host_starts_a_server_of_its_own() -> None:
    """After os.fork, the child's sessions work, and the parent's session still does when the child
    has gone.
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
    """The terminal's interrupt goes to the host alone: a session that rests survives it."""
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


async def test_50_sessions_at_once(sandbox: ProcessSandbox, gate: RecordingGate) -> None:
    """Fifty open, run and close at the same time."""
    with Corpus.build("x") as corpus:

        async def one(number: int) -> str:
            session = await sandbox.open(Opening(corpus, FUNCTIONS, gate, Limits()))
            result = await session.execute(f"llm_query('{number}')", 1)
            await session.close()
            return result.stdout

        numbers = random.Random(0).sample(range(1000), 50)
        assert await asyncio.gather(*map(one, numbers)) == [
            f"'echo: {number}'\n" for number in numbers
        ]
