"""Cleanup runs to its end, even if the waiting task is cancelled."""

import asyncio

import pytest

from rlm_integrations._concurrency.cleanup import acquire, finish_despite_cancel, wait_until_done


async def test_the_outcome_is_returned_or_raised() -> None:
    """Without a cancellation it is an ordinary await: it returns the result, or raises the
    exception.
    """

    async def divided(by: int) -> float:
        await asyncio.sleep(0)
        return 6 / by

    assert await finish_despite_cancel(divided(3)) == 2
    with pytest.raises(ZeroDivisionError):
        await finish_despite_cancel(divided(0))


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_cancellations_are_raised_after_the_end(times: int) -> None:
    """However often the task is cancelled, the work ends first, undisturbed; then the cancellation
    is raised with its message.
    """
    go, order = asyncio.Event(), list[str]()

    async def work() -> None:
        await go.wait()
        order.append("worked")

    async def waits() -> None:
        try:
            await finish_despite_cancel(work())
        finally:
            order.append("left")

    task = asyncio.create_task(waits())
    for number in range(times):
        await asyncio.sleep(0)
        task.cancel(f"for the {number}th time")
    await asyncio.sleep(0)
    assert (task.done(), order) == (False, [])
    go.set()
    with pytest.raises(asyncio.CancelledError, match=f"{times - 1}th"):
        await task
    assert order == ["worked", "left"]
    assert task.cancelling() == times


async def test_a_cancellation_in_the_moment_of_the_end_is_raised_too() -> None:
    """A cancellation that arrives when the work has just ended is raised, and nothing is lost."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    task = asyncio.create_task(wait_until_done(future))
    await asyncio.sleep(0)
    future.add_done_callback(lambda _: task.cancel())
    future.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_around_it_is_a_timeout() -> None:
    """`asyncio.timeout` and task groups recognise the cancellation as theirs."""
    done = False

    async def work() -> None:
        nonlocal done
        await asyncio.sleep(0.01)
        done = True

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await finish_despite_cancel(work())
    assert done
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_failures_of_futures_are_not_logged() -> None:
    """`wait_until_done` waits for several futures, even if some fail or are cancelled; asyncio logs
    none of them as never retrieved.
    """
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: complaints.append(context)
    )

    async def fails() -> None:
        raise ValueError("no matter")

    tasks = [
        asyncio.create_task(fails()),
        asyncio.create_task(asyncio.sleep(60)),
        asyncio.create_task(asyncio.sleep(0)),
    ]
    tasks[1].cancel()
    await wait_until_done(*tasks)
    await wait_until_done()
    assert all(task.done() for task in tasks)
    del tasks
    assert complaints == []


async def test_what_is_acquired_by_a_cancelled_task_is_released() -> None:
    """The work ends undisturbed; its result is released once, and only if nobody receives it."""
    go, released = asyncio.Event(), list[str]()

    async def work() -> str:
        await go.wait()
        return "a thing"

    async def release(thing: str) -> None:
        await asyncio.sleep(0)
        released.append(thing)

    task = asyncio.create_task(acquire(work(), release))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released == ["a thing"]
    assert await acquire(work(), release) == "a thing"
    assert released == ["a thing"]


async def test_work_that_fails_has_nothing_to_release() -> None:
    """Its exception is raised, or the cancellation of the task that waited."""

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no thing")

    async def release(_: None) -> None:
        raise AssertionError("there is nothing")

    with pytest.raises(ValueError, match="no thing"):
        await acquire(fails(), release)
    task = asyncio.create_task(acquire(fails(), release))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
