"""Foreign synchronous code runs in new threads."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from rlm_integrations._concurrency import threads
from rlm_integrations._concurrency.threads import in_thread

MARK = ContextVar("mark", default="lost")


async def test_results_and_failures() -> None:
    """The function's result or exception is returned or raised; it runs in another thread, with the
    caller's context variables.
    """
    MARK.set("here")
    assert await in_thread(
        lambda: (MARK.get(), threading.current_thread() is threading.main_thread())
    ) == ("here", False)
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(next, iter(()))


async def test_hundreds_wait_for_each_other() -> None:
    """Hundreds of calls that wait for each other complete, because there is no limited pool."""
    together = threading.Barrier(300, timeout=60)
    assert sorted(await asyncio.gather(*(in_thread(together.wait) for _ in range(300)))) == list(
        range(300)
    )


async def test_a_call_cancelled_early_never_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that is cancelled before its thread starts never runs."""
    late: list[threading.Thread] = []
    made: list[int] = []
    monkeypatch.setattr(threads.threading.Thread, "start", lambda thread: late.append(thread))  # noqa: PLW0108 - a method
    task = asyncio.create_task(in_thread(made.append, 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    late[0].start()
    late[0].join()
    assert made == []


async def test_a_running_call_finishes_by_itself() -> None:
    """A cancelled wait ends at once, and the code finishes by itself, silently."""
    began, go = threading.Event(), threading.Event()
    task = asyncio.create_task(in_thread(lambda: began.set() or go.wait(10)))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()


def test_a_loop_that_ended_first() -> None:
    """A function that returns after its loop was closed is ignored silently."""
    go, threads = threading.Event(), []

    async def leave() -> None:
        task = asyncio.create_task(
            in_thread(lambda: threads.append(threading.current_thread()) or go.wait(10))
        )
        while not threads:
            await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(leave())
    go.set()
    threads[0].join(10)
    assert not threads[0].is_alive()
