"""Foreign synchronous code runs in threads of its own."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from rlm_integrations._concurrency import threads
from rlm_integrations._concurrency.threads import in_thread

MARK = ContextVar("mark", default="lost")


async def test_results_and_failures_come_back() -> None:
    """What the function returns or raises, its awaiter gets; it ran elsewhere, with the caller's
    context variables.
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
    """Calls that can only end together do: there is no pool that they could fill."""
    together = threading.Barrier(300, timeout=60)
    assert sorted(await asyncio.gather(*(in_thread(together.wait) for _ in range(300)))) == list(
        range(300)
    )


async def test_what_was_cancelled_before_it_began_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that gets its turn after the cancellation leaves the function alone."""
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


async def test_what_has_begun_is_left_behind() -> None:
    """A cancelled wait ends at once, and the code that nothing can stop ends when it likes, without
    a word.
    """
    began, go = threading.Event(), threading.Event()
    task = asyncio.create_task(in_thread(lambda: began.set() or go.wait(10)))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()


def test_a_loop_that_ended_first() -> None:
    """A function that returns after its loop was closed finds nobody to tell, and says nothing."""
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
