"""The process sandbox: how sessions are lost, cancelled and closed, also concurrently, without
leaks. The numbers are those of the traps in the facts about sandboxes.
"""

import asyncio
import gc
import os
import random
import signal
import threading
from typing import Any

import pytest

from rlm_integrations.corpus import Corpus, reading
from rlm_integrations.errors import ContextError, SandboxClosedError, SandboxError
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import Opening, Sandbox
from rlm_integrations.sandbox.process import ProcessSandbox, ProcessSession
from tests._waits import at_every_wait
from tests.sandbox.conftest import FUNCTIONS, RecordingGate
from tests.sandbox.process_state import (
    children,
    memory_of,
    nothing_is_left,  # noqa: F401 - a fixture
    open_files,
    server,
)

SMALL = Limits(block_seconds=0.3, grace_seconds=0.2)


@pytest.fixture
def sandbox() -> Sandbox:
    return ProcessSandbox()


async def test_a_killed_child_is_a_lost_session(open_session: Any) -> None:
    """A crash, a kill or an exit inside a block is the status `lost` with the output so far, never
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
    """The same applies to a child that is killed between blocks."""
    session = await open_session()
    os.kill(session.child._pid, signal.SIGKILL)
    assert (await session.execute("1", 1)).status == "lost"


async def test_too_much_memory_is_a_memory_error(open_session: Any) -> None:
    """An allocation above the limit raises in the model's code; session and variables stay."""
    session = await open_session(limits=Limits(memory=256 << 20))
    result = await session.execute("x = 1\ny = 'a' * (1 << 30)", 1)
    assert result.error is not None
    assert result.error.type == "MemoryError"
    assert (await session.execute("x", 2)).stdout == "1\n"


async def test_the_server_is_replaced_when_it_dies(open_session: Any) -> None:
    """The sessions of a dead server are lost; the next session starts a new server."""
    session = await open_session()
    old = server()
    old._process.kill()
    old._process.wait()
    assert (await session.execute("1", 1)).status == "lost"
    again = await open_session()
    assert (await again.execute("1", 1)).status == "ok"
    assert server() is not old


async def test_an_unclosed_session_ends_with_its_object(gate: RecordingGate) -> None:
    """The process of an unclosed session ends when the session object is collected."""
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
    """Cancelling `open` at any point leaves no process."""
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
    """Cancelling a session once or twice, while it opens, runs or closes, leaves nothing behind."""
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
    """Cancelling a finished block that still waits for an open call closes the session."""
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
    """Cancelling `execute` kills code that ignores every signal."""
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
    """Eight sessions print concurrently; each result has only its own lines."""
    sessions = [await open_session(f"document {i}") for i in range(8)]
    code = "for i in range(200):\n    print(context, i)\n    if i % 50 == 0: llm_query(context)"
    results = await asyncio.gather(*[session.execute(code, 1) for session in sessions])
    assert [result.stdout for result in results] == [
        "".join(f"document {n} {i}\n" for i in range(200)) for n in range(8)
    ]


async def test_sessions_share_nothing(open_session: Any) -> None:
    """Changes of one session to the interpreter's modules are invisible in the next."""
    first = await open_session()
    await first.execute("import json, builtins\njson.dumps = None\nbuiltins.len = None", 1)
    second = await open_session()
    assert (
        await second.execute("import json\n(len('ab'), json.dumps(1))", 1)
    ).stdout == "(2, '1')\n"


async def test_blocks_of_one_session_wait_for_each_other(open_session: Any) -> None:
    """Concurrent calls of `execute` on one session run one after the other."""
    session = await open_session()
    await session.execute("log = []", 0)
    await asyncio.gather(
        *[session.execute(f"log.append({i}); slow(0.01); log.append({i})", i) for i in range(1, 4)]
    )
    assert (await session.execute("log", 9)).stdout == "[1, 1, 2, 2, 3, 3]\n"


def test_trap_05_threads_with_separate_event_loops() -> None:
    """Six threads with separate event loops open sessions concurrently; no session is swapped."""
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
    """At its peak, a child with an ASCII document of 100 MB uses little more memory than the
    document.
    """
    empty = await open_session("x")
    session = await open_session("0123456789" * 10_000_000)
    await session.execute("context.count('9')", 1)
    assert memory_of(session.child._pid) - memory_of(empty.child._pid) < 1.1 * 100_000_000 / 1024


async def test_a_child_receives_only_its_slice(open_session: Any) -> None:
    """A child session over a slice receives only the slice, at the slice's own character width."""
    with Corpus.build("é" * 100_000 + "needle" + "😀" * 100_000) as corpus:
        from rlm_integrations.records import SpanRef

        with corpus.slice([SpanRef("context_0", 100_000, 100_006)], is_list=False) as part:
            session = await ProcessSandbox().open(Opening(part, [], RecordingGate(), Limits()))
            assert (
                await session.execute("(context, context == 'needle', context.isascii())", 1)
            ).stdout == "('needle', True, True)\n"
            await session.close()


async def test_a_thousand_sources(open_session: Any, tmp_path: Any) -> None:
    """A thousand files do not need a thousand descriptors."""
    for i in range(1000):
        (tmp_path / f"{i}.txt").write_text(f"file {i}")
    session = await open_session([tmp_path / f"{i}.txt" for i in range(1000)])
    assert (
        await session.execute("(len(context), context[999], context_500)", 1)
    ).stdout == "(1000, 'file 999', 'file 500')\n"


async def test_a_file_that_changed_is_refused(
    tmp_path: Any, gate: RecordingGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large to be copied, and was changed after it was read, is refused."""
    monkeypatch.setattr(reading, "COPIED", 0)
    file = tmp_path / "a.txt"
    file.write_text("before")
    with Corpus.build(file) as corpus:
        file.write_text("after, and longer")
        with pytest.raises(ContextError, match="changed"):
            await ProcessSandbox().open(Opening(corpus, [], gate, Limits()))


async def test_a_batch_of_200_mb_passes(open_session: Any, gate: RecordingGate) -> None:
    """Two thousand prompts of 100 kB cross in order, in frames below the limit."""
    session = await open_session("x" * 100_000)
    result = await session.execute(
        "n = llm_batch([f'{i:04d}' + context for i in range(2000)])\n(len(n), n[1999][:10])", 1
    )
    assert result.stdout == "(2000, 'echo: 1999')\n", result.error
    assert [prompt[:4] for prompt in gate.calls[0][2][0]] == [f"{i:04d}" for i in range(2000)]


# The host's own process.


async def test_50_sessions_at_once(sandbox: ProcessSandbox, gate: RecordingGate) -> None:
    """Fifty sessions open, run and close concurrently."""
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
