"""Ctrl-C in a thread that waits for the portal: the call has ended when it is raised, and no lock
stays locked.
"""

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import LLMError, llm_batch, llm_batch_iter
from rlm_integrations._concurrency.portal import portal
from rlm_integrations.records import Completion, Request
from tests._interrupting import interrupt


class Echo:
    """A model that answers at once."""

    name, context_window = "echo", None

    async def complete(self, request: Request) -> Completion:
        return Completion(request.messages[-1].content)


def test_a_waiting_thread_uses_no_python_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A waiting thread uses no Condition, because an interrupt inside its `__enter__`, which is
    Python code, would leave its lock locked.
    """
    entered: list[str] = []
    enter = threading.Condition.__enter__

    def entering(self: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            entered.append("here")
        return enter(self)

    llm_batch(["warm"], Echo())
    monkeypatch.setattr(threading.Condition, "__enter__", entering)
    assert sorted(llm_batch_iter((str(number) for number in range(20)), Echo())) == [
        (number, str(number)) for number in range(20)
    ]
    assert len(llm_batch(["a", "b"], Echo())) == 2
    assert entered == []


PROGRAM = textwrap.dedent(
    """
    import random, signal, sys
    sys.path.insert(0, {folder!r})
    from rlm_integrations import llm_batch_iter
    from tests.test_interrupts import Echo

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    random.seed(1)
    model, interrupted = Echo(), 0
    for number in range(400):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 4e-3))
            try:
                for reply in llm_batch_iter((str(n) for n in range(50)), model):
                    pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print(len(list(llm_batch_iter((str(n) for n in range(50)), model))), interrupted > 0)
    """
)


def test_interrupts_at_any_moment_of_a_batch_over_a_generator_end_it() -> None:
    """Of four hundred interrupts at arbitrary moments, none leaves the thread or the portal waiting
    forever.
    """
    program = PROGRAM.format(folder=str(Path(__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "50 True\n"), done.stderr[-2_000:]


LOOK = textwrap.dedent(
    """
    import gc, sys, threading
    sys.path.insert(0, {folder!r})
    from rlm_integrations._concurrency.interrupts import is_main_thread_interrupted

    here, done = threading.Barrier(21), threading.Event()

    def wait(depth):
        if depth:
            wait(depth - 1)
        else:
            here.wait()
            done.wait()

    for _ in range(20):
        threading.Thread(target=wait, args=(5,), daemon=True).start()
    here.wait()
    class Cycle:
        pass
    gc.set_threshold(1)
    for _ in range(1000):
        cycle = Cycle()
        cycle.itself, cycle.local = cycle, threading.local()
        cycle.local.value = 1
        del cycle
        assert not is_main_thread_interrupted()
    print("alive", gc.isenabled())
    done.set()
    """
)


def test_an_interrupt_at_any_step_of_an_iteration_leaves_no_coroutine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python would warn of a coroutine that was never awaited; and no task goes on."""
    monkeypatch.setattr("rlm_integrations._concurrency.portal.SECONDS_OF_A_WAIT", 0.0)
    started = portal()

    async def items() -> AsyncGenerator[int, None]:
        await asyncio.Event().wait()
        yield 1

    def iterate() -> None:
        for _ in started.iterate(items()):
            pass

    for step in range(1, 500):
        with pytest.raises(KeyboardInterrupt):
            interrupt(iterate, step)
    gc.collect()
    assert asyncio.all_tasks(started.loop) == set()


def test_inspecting_the_main_thread_starts_no_garbage_collection() -> None:
    """Inspecting the main thread's stack never starts a garbage collection, which could block every
    thread forever in Python 3.11.
    """
    program = LOOK.format(folder=str(Path(__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive True\n"), done.stderr[-2_000:]


def test_an_interrupt_in_the_users_own_generator_ends_the_batch() -> None:
    """It is raised in the generator, in the waiting thread; the calls in flight have ended."""

    def prompts() -> Any:
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(llm_batch_iter(prompts(), Echo()))
    assert llm_batch(["b"], Echo()) == ["b"]


def test_results_and_errors_are_the_same_objects() -> None:
    """The result or exception of a coroutine is returned or raised as the same object."""
    error, value = ValueError("once"), LLMError("a", "b")

    async def fails() -> None:
        raise error

    async def gives() -> LLMError:
        return value

    with pytest.raises(ValueError, match="once") as caught:
        portal().run(fails())
    assert caught.value is error
    assert portal().run(gives()) is value
