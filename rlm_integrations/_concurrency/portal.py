"""The portal: an event loop in a daemon thread that runs the coroutines of synchronous calls."""

import asyncio
import os
import selectors
import stat
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial, wraps
from inspect import CORO_CREATED, getcoroutinestate, signature
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar, cast, get_args

from rlm_integrations._concurrency.interrupts import is_main_thread_interrupted, is_worker
from rlm_integrations._concurrency.runtime import peek, shared
from rlm_integrations.errors import LoopError

T = TypeVar("T")
P = ParamSpec("P")

SECONDS_TO_CLOSE = 2.0
SECONDS_OF_A_WAIT = 1.0
SECONDS_BETWEEN_LOOKS = 0.1  # at the main thread, while a pool's worker waits


def portal() -> "Portal":
    """The process's portal; started at its first use, and again in a forked process."""
    # A loop keeps the context in which it is made forever
    return shared("portal", lambda: Context().run(Portal))


def on_portal() -> bool:
    """Whether the caller runs on the portal, on behalf of a synchronous call. Starts no portal."""
    started = peek("portal")
    return isinstance(started, Portal) and started.is_here()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def blocked_loops() -> set[asyncio.AbstractEventLoop]:
    """The event loops that are blocked by a synchronous call made inside them; their tasks release
    nothing until it returns.
    """
    return shared("blocked loops", set)


class Portal:
    """Runs coroutines for synchronous callers: from any thread, any number at once, also inside a
    running event loop (which is blocked meanwhile).
    """

    def __init__(self) -> None:
        # Our own, because a forked process must close it: see `abandon`
        self._selector = selectors.DefaultSelector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self.closing = False
        self._inherited: list[object] = []
        self._of_workers: set[_PortalCall[Any]] = set()  # touched on the loop only
        self._thread = threading.Thread(target=self._serve, name="rlm-portal", daemon=True)
        self._thread.start()

    def is_here(self) -> bool:
        """Whether the caller runs on the portal's own thread."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return or raise what the coroutine does.

        It sees the caller's context variables. If the wait is interrupted, for example by Ctrl-C,
        the coroutine is cancelled and has ended before the exception propagates; likewise if the
        caller is a pool's worker and the interrupted main thread waits for that pool.

        Raises:
            LoopError: The caller runs on the portal itself, in an async function that a synchronous
                call started.
        """
        try:
            context, caller = copy_context(), _Caller()
            context.run(_CALLER.set, caller)
            return self._run(lambda: coroutine, context, caller)
        except BaseException:
            if getcoroutinestate(coroutine) == CORO_CREATED:
                coroutine.close()  # unstarted: Python would warn
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """The generator's items, each awaited on the portal.

        Closing the iterator early closes the generator and waits for that.
        """
        # One context for all steps, so that variables that the generator sets keep their values
        context, caller = copy_context(), _Caller()
        context.run(_CALLER.set, caller)
        end = object()

        async def step() -> Any:  # T | object would be made at each call
            return await anext(items, end)

        try:
            while (item := self._run(step, context, caller)) is not end:
                yield cast("T", item)
        finally:
            self._end(items, context)

    def _run(
        self, make: Callable[[], Coroutine[Any, Any, T]], context: Context, caller: "_Caller"
    ) -> T:
        """Return or raise what the coroutine does that is made on the loop."""
        if self.is_here():
            raise LoopError(
                "this synchronous call was made on the library's own event loop and would wait "
                "for itself: "
                "await the async form instead (allm_batch, acompletion …), or call it in a thread"
            )
        call = _PortalCall(self, make, context, caller)
        if is_worker():
            self.loop.call_soon_threadsafe(self._follow, call)
        with _blocking():
            try:
                self.loop.call_soon_threadsafe(call.start)
                caller.serve(call)
                return call.result()
            except BaseException:
                # Not done: the wait was interrupted. Done: the coroutine raised.
                if not call.is_done:
                    call.cancel()
                raise
            finally:
                del call  # it holds the exception, whose traceback holds this frame

    def _follow(self, call: "_PortalCall[Any]") -> None:
        """On the loop: cancel this call of a pool's worker once the main thread is interrupted and
        waits for the pool.
        """
        is_first = not self._of_workers
        self._of_workers.add(call)
        if is_first:
            self.loop.call_later(SECONDS_BETWEEN_LOOKS, self._look)

    def _look(self) -> None:
        self._of_workers = {call for call in self._of_workers if not call.is_done}
        if self._of_workers and is_main_thread_interrupted():
            for call in self._of_workers:
                call.cancel_on_loop()
            self._of_workers.clear()  # once is enough: cleanup is not disturbed again
        if self._of_workers:
            self.loop.call_later(SECONDS_BETWEEN_LOOKS, self._look)

    def _end(self, items: AsyncGenerator[Any, None], context: Context) -> None:
        async def close() -> None:
            await items.aclose()

        if self.closing:
            return  # the loop's shutdown closes its generators
        if self.is_here():  # an iterator may be collected on any thread
            self.loop.call_soon(_PortalCall(self, close, context, _Caller()).start)
        else:
            self._run(close, context, _Caller())

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self.closing:
            # A task that raises one of these also stops the loop; the caller gets the exception
            # from the task.
            with suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_forever()
        self.loop.run_until_complete(self._finish())
        self.loop.close()

    async def _finish(self) -> None:
        """Cancel running tasks and close open generators, before `close` stops waiting."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_TO_CLOSE * 0.9):
                tasks = asyncio.all_tasks() - {asyncio.current_task()}
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.loop.shutdown_asyncgens()

    def close(self) -> None:
        """End the loop and its thread. Running tasks are cancelled, and nothing is reported."""
        self.closing = True
        with suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS_TO_CLOSE)

    def abandon(self) -> None:
        """In a forked process: release the parent's connections without sending on them.

        Closing the loop would remove its sockets from the selector that the parent still uses. So
        the selector is closed first, which affects this process only, and the descriptor of each
        inherited socket is redirected to /dev/null: a connection that the parent closes is not held
        open here. The objects are kept forever: finalizers of unfinished tasks would act on the
        parent's resources.
        """
        self.closing = True
        keys = list(self._selector.get_map().values())
        # The frame of the thread, which is gone, also holds `self`
        self._inherited += [*keys, *asyncio.all_tasks(self.loop)]
        self._selector.close()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for key in keys:
            with suppress(OSError):
                if stat.S_ISSOCK(os.fstat(key.fd).st_mode):
                    os.dup2(null, key.fd, inheritable=False)
        os.close(null)


class _Caller:
    """The thread that waits for a coroutine on the portal, and runs functions for it meanwhile.

    The two threads share only a queue that is written in C. The futures, conditions and events of
    `threading` and `concurrent.futures` are written in Python: an interrupt (Ctrl-C) inside their
    `__enter__` leaves a lock locked forever, and the portal, with every run on it, would wait for
    that lock.
    """

    def __init__(self) -> None:
        # None: check whether the call is done
        self._requests: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def do(self, function: Callable[[], T]) -> T:
        """Run the function in that thread, and return its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def request() -> None:
            try:
                end = partial(future.set_result, function())
            except Exception as error:  # noqa: BLE001 - raised in `do`
                end = partial(future.set_exception, error)
            loop.call_soon_threadsafe(lambda: None if future.done() else end())

        self._requests.put(request)
        return await future

    def wake(self) -> None:
        """Have the thread check whether its call is done."""
        self._requests.put(None)

    def serve(self, call: "_PortalCall[Any]") -> None:
        """In that thread: run the requested functions until this call is done."""
        while not call.is_done:
            if (request := self._next()) is not None:
                request()

    def wait(self, call: "_PortalCall[Any]") -> None:
        """In that thread: wait until this call is done, and discard requests."""
        while not call.is_done:
            self._next()

    def _next(self) -> Callable[[], None] | None:
        # With a time: Ctrl-C that arrives just before a wait is seen only after it
        with suppress(Empty):
            return self._requests.get(timeout=SECONDS_OF_A_WAIT)
        return None


_CALLER: ContextVar[_Caller | None] = ContextVar("caller", default=None)


async def pulled_by_caller(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """The items, pulled in the thread that made the synchronous call, or here if there was none.

    A user's iterable may read a database cursor, which belongs to its thread, or make synchronous
    calls of this library.
    """
    caller, iterator, end = _CALLER.get(), iter(items), object()

    def pull() -> T | object:
        return next(iterator, end)

    while (item := pull() if caller is None else await caller.do(pull)) is not end:
        yield cast("T", item)


def synchronous(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The function for synchronous callers, named like the async one without its leading "a"."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return portal().run(function(*args, **kwargs))

    call.__name__ = call.__qualname__ = function.__name__.removeprefix("a")
    return call


def iterating(function: Callable[P, AsyncGenerator[T, None]]) -> Callable[P, Iterator[T]]:
    """The generator function for synchronous callers, named like the async one without its leading
    "a".
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return portal().iterate(function(*args, **kwargs))

    call.__name__ = call.__qualname__ = function.__name__.removeprefix("a")
    returned = call.__annotations__["return"]
    call.__annotations__ = {**call.__annotations__, "return": Iterator[get_args(returned)[0]]}  # type: ignore[misc] # a value, not a type
    call.__signature__ = signature(function).replace(  # type: ignore[attr-defined]
        return_annotation=call.__annotations__["return"]
    )
    return call


class _PortalCall(Generic[T]):
    """One coroutine on its way through the portal."""

    __slots__ = ("_caller", "_context", "_ended", "_make", "_portal", "_task", "is_done")

    def __init__(
        self,
        portal: Portal,
        make: Callable[[], Coroutine[Any, Any, T]],
        context: Context,
        caller: _Caller,
    ) -> None:
        self._portal = portal
        self._make = make
        self._context = context
        self._caller = caller
        self._task: asyncio.Task[T] | None = None
        self._ended: Callable[[], T] | None = None
        self.is_done = False

    def result(self) -> T:
        """In the waiting thread: return or raise what the finished coroutine did."""
        if self._ended is None:
            raise asyncio.CancelledError
        return self._ended()

    def start(self) -> None:
        """On the loop: start the coroutine."""
        if self.is_done:
            return
        self._task = self._portal.loop.create_task(self._make(), context=self._context)
        self._task.add_done_callback(self._deliver)

    def cancel(self) -> None:
        """In the waiting thread: cancel the call, and wait until it has ended."""
        self._portal.loop.call_soon_threadsafe(self.cancel_on_loop)
        self._caller.wait(self)

    def cancel_on_loop(self) -> None:
        """On the loop: cancel the coroutine."""
        if self._task is not None:
            self._task.cancel()
        elif not self.is_done:  # interrupted before the start
            self._end(None)

    def _deliver(self, task: asyncio.Task[T]) -> None:
        if self._portal.closing:
            # Only daemon threads still wait, and end with the interpreter: an exception would be
            # printed.
            return
        # Dropped here: an interrupt while the caller's thread drops it would be lost
        self._task = None
        self._end(None if task.cancelled() else _outcome(task))

    def _end(self, ended: Callable[[], T] | None) -> None:
        self._ended, self.is_done = ended, True
        self._caller.wake()


def _outcome(task: "asyncio.Task[T]") -> Callable[[], T]:
    """A function that returns or raises what the task did, without a reference to the task."""
    error = task.exception()
    if error is None:
        value = task.result()
        return lambda: value

    def fail() -> T:
        nonlocal error
        try:
            raise cast("BaseException", error)
        finally:
            error = None  # its traceback holds this frame

    return fail


@contextmanager
def _blocking() -> Iterator[None]:
    """Mark this thread's running loop, if any, as blocked meanwhile."""
    loop = running_loop()
    if loop is not None:
        blocked_loops().add(loop)
    try:
        yield
    finally:
        if loop is not None:
            blocked_loops().discard(loop)
