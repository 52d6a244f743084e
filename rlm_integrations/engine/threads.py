"""The threads in which one tree of runs reads its document and its store, separate from those of
other trees.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.work import Work
from rlm_integrations.corpus import Corpus

T = TypeVar("T")
P = ParamSpec("P")

THREADS = 2  # endless queries of one tree block only its two threads, not those of other trees


class TreeThreads:
    """Two threads for reading. Work stops soon after its caller is cancelled.

    Args:
        query_chars: The maximum of characters that one query may read.
    """

    def __init__(self, query_chars: int) -> None:
        self._query_chars = query_chars
        self._threads = ThreadPoolExecutor(THREADS, "rlm-tree")
        self._under_way: set[Work] = set()

    async def query(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, within the limit of one query.

        Raises:
            WorkSpentError: It would read more.
        """
        return await self.run(Work(self._query_chars), function, *args, **kwargs)

    async def free(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, without a limit.

        If the wait is cancelled, the function stops at its next step.
        """
        return await self.run(Work(), function, *args, **kwargs)

    async def run(
        self, work: Work, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function in a thread, within the limit of the work.

        If the wait is cancelled, the function stops at its next step.
        """
        try:
            return await asyncio.wrap_future(self._submit(work, function, *args, **kwargs))
        except asyncio.CancelledError:
            work.stop()
            raise
        finally:
            self._under_way.discard(work)

    async def make(self, make: Callable[P, Corpus], *args: P.args, **kwargs: P.kwargs) -> Corpus:
        """Build a corpus in a thread. If the wait is cancelled, it is closed: it may be large."""
        work = Work()
        making = self._submit(work, make, *args, **kwargs)
        try:
            return await asyncio.wrap_future(making)
        except asyncio.CancelledError:
            work.stop()
            making.add_done_callback(close_made)
            raise
        finally:
            self._under_way.discard(work)

    def close(self) -> None:
        """Stop all work at its next step, without waiting for it."""
        for work in self._under_way:
            work.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _submit(
        self, work: Work, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        def within() -> T:
            with work.under_way():
                return function(*args, **kwargs)

        self._under_way.add(work)
        return self._threads.submit(within)


async def build_corpus(make: Callable[P, Corpus], *args: P.args, **kwargs: P.kwargs) -> Corpus:
    """Build the corpus of a user's context, off the event loop.

    If the wait is cancelled, the work stops at its next step; a corpus that is built all the same
    is closed.
    """
    work = Work()

    def within() -> Corpus:
        with work.under_way():
            return make(*args, **kwargs)

    making = runtime.threads("opening", 4).submit(within)
    try:
        return await asyncio.wrap_future(making)
    except asyncio.CancelledError:
        work.stop()
        making.add_done_callback(close_made)
        raise


def close_made(making: Future[Corpus]) -> None:
    """Close a corpus after its caller was cancelled."""
    if not making.cancelled() and making.exception() is None:
        making.result().close()
