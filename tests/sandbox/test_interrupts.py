"""An interrupt, or a time limit, ends the block and leaves the session intact: no frame is
truncated, no variable is lost.
"""

import asyncio
import random
import textwrap
import threading
import time
from typing import Any

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import Limits
from rlm_integrations.sandbox import inprocess, sandbox_named
from rlm_integrations.sandbox.base import Opening, Sandbox
from rlm_integrations.sandbox.process import ProcessSandbox
from tests._exhaustive import exhaustive
from tests._script import run_script

PATIENT = Limits(grace_seconds=60, block_seconds=600, calls_per_block=1_000_000)

# Raises the signal at a chosen step of the main thread, including steps of the code around model
# code. A step is a point where the interpreter checks for signals: at the start of a function, at
# each round of a loop, and after a call.
AT_A_STEP = textwrap.dedent("""
    import dis, signal, sys

    class AtAStep:
        def __init__(self):
            self.left = -1
            self.steps = 0
            self.before = {}  # each frame's last instruction

        def arm(self, left):
            self.left, self.steps, self.before = left, 0, {}
            frame = sys._getframe(1)
            while frame is not None:
                frame.f_trace, frame.f_trace_opcodes, frame.f_trace_lines = self.local, True, False
                frame = frame.f_back
            sys.settrace(self.call)

        def call(self, frame, event, argument):
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return self.local

        def local(self, frame, event, argument):
            if event == "opcode":
                name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
                if name in ("RESUME", "JUMP_BACKWARD") or self.before.get(frame, "").startswith("CALL"):
                    self.steps += 1
                    self.left -= 1
                    if self.left == 0:
                        signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)  # as the interpreter would
                self.before[frame] = name
            elif event == "return":
                self.before.pop(frame, None)
            return self.local

    at_a_step = AtAStep()
""")


@pytest.fixture
def sandbox() -> Sandbox:
    return ProcessSandbox()


CODE = {
    "nothing": "pass",
    "a call": "llm_query('x' * 300)",
    "a call of many frames": "llm_batch(['x' * 5_000] * 900)",
    "output": "print('x' * 70_000)",
    "an awaited call": "await llm_query('x')",
    "a thread": "thread = threading.Thread(target=llm_query, args=('x',)); thread.start(); thread.join()",
    "an error": "1 / 0",
    "a final": "FINAL(['x' * 5_000] * 900)",
    "a final with a text of its own": "FINAL(type('Own', (), {'__str__': lambda _: 'own'})())",
}


async def interrupt_at(session: Any, task: "asyncio.Task[Any]", seconds: float) -> Any:
    """The result of a block that is interrupted from outside after this time, unless it has ended
    before.
    """
    await asyncio.wait({task}, timeout=seconds)
    await session.interrupt()
    return await task


EXHAUSTIVE = CODE.keys() - {"nothing", "a call", "an error"}


@pytest.mark.parametrize(
    "what", [exhaustive(what) if what in EXHAUSTIVE else what for what in CODE]
)
async def test_an_interrupt_at_any_step_loses_nothing(open_session: Any, what: str) -> None:
    """An interrupt at any step of a block, up to the start of the next one, leaves the session, its
    variables and all frames intact.
    """
    session = await open_session(limits=PATIENT)
    await session.execute(AT_A_STEP + "import threading\nblocks = 0", 0)
    await session.execute(f"at_a_step.arm(-1)\n{CODE[what]}", 1)
    steps = int((await session.execute("at_a_step.steps", 2)).stdout)
    numbers = range(1, steps + 1, max(1, steps // (50 if steps > 20_000 else 200)))
    raised = 0
    for number in numbers:
        for code in (f"blocks += 1\nat_a_step.arm({number})\n{CODE[what]}", "sys.settrace(None)"):
            # asyncio may wait forever for a step that was interrupted; the host sends another
            # interrupt, as always.
            result = await interrupt_at(
                session, asyncio.ensure_future(session.execute(code, 2 + number)), 1
            )
            assert result.status in {"ok", "error", "interrupted"}, (number, result.error)
            raised += result.error is not None and "Interrupt" in (
                result.error.type + result.error.message
            )
    assert raised > 0
    assert (await session.execute("blocks", 4)).stdout == f"{len(numbers)}\n"
    assert (await session.execute("llm_query('whole')", 5)).stdout == "'echo: whole'\n"


@pytest.mark.parametrize(
    "code",
    [
        "llm_query('x' * 4_000_000)",
        "llm_batch(['x' * 2_000] * 500)",
        "i = 0\nwhile True: i += 1",
        "print('x' * 70_000)",
    ],
)
async def test_many_interrupts_from_outside_lose_nothing(open_session: Any, code: str) -> None:
    """After interrupts at arbitrary moments, even before the code has started and while it ends,
    each block ends and the variables stay.
    """
    session = await open_session(limits=PATIENT)
    await session.execute("blocks = 0", 0)
    delays = random.Random(0)
    for number in range(40):
        work = (
            f"blocks += 1\nfor _ in range({1 if 'while' in code else 1_000_000}):\n"
            + textwrap.indent(code, "    ")
        )
        task = asyncio.ensure_future(session.execute(work, 1 + number))
        result = await interrupt_at(
            session, task, delays.choice([0, 0, 0.001, 0.003, 0.01, 0.03]) * delays.random()
        )
        assert result.status == "interrupted", result.error
    assert 0 <= int((await session.execute("blocks", 100)).stdout) <= 40
    assert (await session.execute("llm_query('whole')", 101)).stdout == "'echo: whole'\n"


async def test_threads_that_wait_for_the_host_end_with_an_interrupt(
    open_session: Any, gate: Any
) -> None:
    """An interrupt ends a thread pool with open and queued calls at once: open calls are cancelled,
    the others are refused.
    """
    session = await open_session(limits=PATIENT)
    code = """
        kept = 1
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(slow, [3600] * 100))
    """
    task = asyncio.ensure_future(session.execute(code, 1))
    while gate.most_open < 4:
        await asyncio.sleep(0.001)
    await session.interrupt()
    assert (await task).status == "interrupted"
    assert (gate.cancelled, len(gate.calls)) == (4, 4)
    assert (await session.execute("kept", 2)).stdout == "1\n"


async def test_code_that_swallows_an_interrupt_gets_another(open_session: Any) -> None:
    """The interrupt is sent repeatedly until the block has ended, even if a bare `except` in a loop
    catches each one.
    """
    session = await open_session(limits=PATIENT)
    await session.execute("swallowed = 0", 0)
    code = """
        llm_query("begun")
        for _ in range(3):
            try:
                while True: pass
            except:
                swallowed += 1
    """
    task = asyncio.ensure_future(session.execute(code, 1))
    result = await interrupt_at(session, task, 0)
    assert result.status == "interrupted"
    # 0 if it arrived before the code had started
    assert int((await session.execute("swallowed", 2)).stdout) in {0, 3}


@pytest.mark.filterwarnings("ignore:sandbox='inprocess':RuntimeWarning")
async def test_a_block_that_ends_before_its_interrupt_keeps_its_result(
    gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the host's own process a block may end while the interrupt looks up its thread."""
    with Corpus.build("x") as corpus:
        session: Any = await sandbox_named("inprocess").open(Opening(corpus, [], gate, PATIENT))
        go = session._repl.namespace["go"] = threading.Event()
        task = asyncio.ensure_future(session.execute("_ = go.wait()\n5", 1))
        while not session._repl.running:
            await asyncio.sleep(0)
        c_ulong = inprocess.ctypes.c_ulong

        def after_its_end(number: int) -> Any:
            go.set()
            while session._repl.running:
                time.sleep(0)
            return c_ulong(number)

        with monkeypatch.context() as patch:
            patch.setattr(inprocess.ctypes, "c_ulong", after_its_end)
            await session.interrupt()
        result = await task
        assert (result.status, result.stdout) == ("ok", "5\n")
        await session.close()


def test_a_host_that_blocks_the_signal_loses_nothing() -> None:
    """A time limit works in a host that blocks signals, as with sigwait, although children inherit
    the signal mask.
    """
    code = """
import asyncio, signal
from rlm_integrations.corpus import Corpus
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import Opening
from rlm_integrations.sandbox.process import ProcessSandbox

async def gate(*_): pass

async def main():
    with Corpus.build("x") as corpus:
        session = await ProcessSandbox().open(Opening(corpus, [], gate, Limits(block_seconds=0.1, grace_seconds=30)))
        result = await session.execute("kept = 5\\nwhile True: pass", 1)
        print(result.status, (await session.execute("kept", 2)).stdout)
        await session.close()

signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
asyncio.run(main())
"""
    done = run_script(code)
    assert (done.stdout.split(), done.stderr) == (["interrupted", "5"], "")
