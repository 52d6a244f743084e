"""Cancels work at a chosen await, instead of after a time."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from itertools import count
from typing import Any, Literal

Moment = Literal["begins", "is over"]


async def at_every_wait(
    work: Callable[[], Coroutine[Any, Any, Any]], *, again: int = 0
) -> AsyncGenerator[asyncio.Task[Any], None]:
    """Repeat the work for each of its awaits and cancel it there; yields each cancelled task once
    it is done.

    An await is one of the task itself or of any task that it creates. In one run the work is
    cancelled when the await begins and, in another, when it is over: the result is available, and
    the task has not continued yet.

    Args:
        work: Starts the work.
        again: Cancel it a second time, after this number of further awaits.
    """
    for number in count(1):
        came = False
        for moment in ("begins", "is over"):
            waits = _Waits(number, moment, number + again if again else 0)
            task = await waits.run(work())
            if waits.came:
                came = True
                yield task
            del task
        if not came:
            return


class _Waits:
    """Counts the awaits of one run of the work."""

    def __init__(self, number: int, moment: Moment, again: int) -> None:
        self.came = False
        self._number = number
        self._moment = moment
        self._again = again
        self._waits = 0
        self._task: asyncio.Task[Any] | None = None

    async def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._make)
        try:
            task = self._task = loop.create_task(work)
            await asyncio.wait({task})
        finally:
            self._task = None
            loop.set_task_factory(None)
        return task

    def _make(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        async def counted() -> Any:
            return await _Counted(coroutine, self._wait)

        task = asyncio.Task(counted(), loop=loop, **options)
        task.add_done_callback(lambda _: coroutine.close())  # it may never have started
        return task

    def _wait(self, future: asyncio.Future[Any] | None) -> None:
        self._waits += 1
        if self._waits == self._number:
            self.came = True
            if self._moment == "begins" or future is None:
                self._cancel()
            else:
                future.add_done_callback(self._cancel)  # before the task itself notices
        elif self._waits == self._again:
            self._cancel()

    def _cancel(self, _: object = None) -> None:
        if self._task is not None:
            self._task.cancel()


class _Counted:
    """A coroutine that reports each of its awaits."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        tell: Callable[[asyncio.Future[Any] | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._tell = tell

    def __await__(self) -> Generator[Any, None, Any]:
        error: BaseException | None = None
        while True:
            try:
                future = (
                    self._coroutine.send(None) if error is None else self._coroutine.throw(error)
                )
            except StopIteration as stop:
                return stop.value
            error = None
            self._tell(future)
            try:
                yield future
            except BaseException as raised:  # noqa: BLE001 - it is thrown into the coroutine
                error = raised
