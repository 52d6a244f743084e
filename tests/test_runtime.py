"""The portal and other process-wide state: synchronous calls, contexts, interrupts, forks, the
interpreter's exit.
"""

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from rlm_integrations._concurrency.portal import Portal, blocked_loops, portal
from rlm_integrations.errors import LoopError
from tests._script import run_script

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")


async def where() -> tuple[asyncio.AbstractEventLoop, int]:
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), threading.get_ident()


def test_all_calls_share_one_loop_in_one_thread() -> None:
    """Calls from all threads use the same loop, in a daemon thread of its own."""
    first = portal().run(where())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(portal().run(where()))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {first}
    assert first[1] != threading.get_ident()
    assert (
        len(
            [
                thread
                for thread in threading.enumerate()
                if thread.name == "rlm-portal" and thread.daemon
            ]
        )
        == 1
    )


def test_calls_from_many_threads_run_at_once() -> None:
    """Calls run concurrently: sixteen of them meet at one barrier."""

    async def body() -> Callable[[], Coroutine[Any, Any, None]]:
        barrier = asyncio.Barrier(16)

        async def meet() -> None:
            async with asyncio.timeout(60):
                await barrier.wait()

        return meet

    meet = portal().run(body())
    threads = [threading.Thread(target=lambda: portal().run(meet())) for _ in range(15)]
    for thread in threads:
        thread.start()
    portal().run(meet())
    for thread in threads:
        thread.join()


async def test_inside_a_running_loop() -> None:
    """A synchronous call inside a running loop, as in Jupyter, works on another loop, and marks
    this one as blocked.
    """

    async def look() -> set[asyncio.AbstractEventLoop]:
        return set(blocked_loops())

    loop, _ = portal().run(where())
    assert loop is not asyncio.get_running_loop()
    assert portal().run(look()) == {asyncio.get_running_loop()}
    assert blocked_loops() == set()


def test_context_variables() -> None:
    """A coroutine sees its caller's context variables, and its own changes stay local."""

    async def read_and_set() -> str:
        seen = NAME.get()
        NAME.set("changed")
        return seen

    NAME.set("caller")
    assert portal().run(read_and_set()) == "caller"
    assert NAME.get() == "caller"


def test_exceptions_are_raised_unchanged() -> None:
    """The caller gets the same exception object, SystemExit included, and the portal keeps
    running.
    """
    for error in (ValueError("v"), SystemExit(3), StopAsyncIteration()):

        async def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            portal().run(fail())
        assert caught.value is error
    assert portal().run(where())


def test_an_exception_is_not_kept() -> None:
    """No reference to a raised exception is kept, because its traceback would keep the caller's
    variables alive.
    """

    class MarkedError(Exception):
        pass

    async def fail() -> None:
        raise MarkedError

    gc.collect()
    gc.disable()
    try:
        try:
            portal().run(fail())
        except MarkedError as error:
            reference = weakref.ref(error)
        portal().run(where())
        assert reference() is None
    finally:
        gc.enable()


def test_a_synchronous_call_on_the_portal_itself_is_refused() -> None:
    """It would wait for itself forever: it raises an error that says what to do."""

    async def nested() -> None:
        portal().run(where())

    with pytest.raises(LoopError, match="await the async form"):
        portal().run(nested())


def test_a_thread_started_on_the_portal_may_call_it() -> None:
    """Synchronous code in a thread that a coroutine on the portal waits for can use the synchronous
    API.
    """

    async def outer() -> object:
        return await asyncio.to_thread(lambda: portal().run(where()))

    assert portal().run(outer()) == portal().run(where())


def test_an_interrupt_cancels_and_waits() -> None:
    """On Ctrl-C the coroutine is cancelled, its cleanup ends, and then KeyboardInterrupt is
    raised.
    """
    code = """
import asyncio, os, signal, threading
from rlm_integrations._concurrency.portal import portal
async def body():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
        print("cleaned up", flush=True)
        raise
try:
    portal().run(body())
except KeyboardInterrupt:
    print("interrupted", flush=True)
async def more(): return "works"
print(portal().run(more()))
"""
    done = run_script(code)
    assert (done.stdout.split("\n"), done.stderr) == (
        ["cleaned up", "interrupted", "works", ""],
        "",
    )


async def count(to: int, log: list[str]) -> AsyncGenerator[int, None]:
    try:
        for n in range(to):
            await asyncio.sleep(0)
            yield n
    finally:
        await asyncio.sleep(0)
        log.append("closed")


def test_iterate_yields_all_items() -> None:
    """An async generator is a plain iterator through the portal, and is closed at its end."""
    log: list[str] = []
    assert list(portal().iterate(count(5, log))) == [0, 1, 2, 3, 4]
    assert log == ["closed"]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_iterate_closes_early(how: str) -> None:
    """Closing or dropping an iterator early closes its generator before the statement ends."""
    log: list[str] = []
    items = portal().iterate(count(5, log))
    assert next(items) == 0
    if how == "close":
        items.close()
    else:
        del items
    assert log == ["closed"]


def test_iterate_passes_exceptions_and_keeps_one_context() -> None:
    """The generator's exception is raised to the caller, and its context variables are kept between
    steps.
    """

    async def body() -> AsyncGenerator[str, None]:
        NAME.set("inside")
        yield "first"
        yield NAME.get()
        raise ValueError("over")

    NAME.set("caller")
    items = portal().iterate(body())
    assert [next(items), next(items)] == ["first", "inside"]
    with pytest.raises(ValueError, match="over"):
        next(items)
    assert NAME.get() == "caller"


def test_an_iterator_collected_on_the_portal() -> None:
    """An iterator collected on the portal's own thread closes its generator without waiting for
    itself.
    """
    log: list[str] = []
    box = [portal().iterate(count(5, log))]
    next(box[0])

    async def drop() -> None:
        box.clear()
        async with asyncio.timeout(60):
            while not log:
                await asyncio.sleep(0)

    portal().run(drop())
    assert log == ["closed"]


def test_after_fork() -> None:
    """A forked process gets a new portal, and does not touch the parent's loop and connections."""
    code = """
import asyncio, os, socket
from rlm_integrations._concurrency.portal import portal
listener = socket.create_server(("127.0.0.1", 0))
async def connect():
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    asyncio.create_task(wait(reader), name="waits")
    return writer
async def wait(reader):
    try: print("read", (await reader.read()).decode(), flush=True)
    finally: print("task over in", "parent" if os.getpid() == parent else "child", flush=True)
async def pid(): return os.getpid()
async def write(writer): writer.write(b"hello"); await writer.drain()
async def close(writer): writer.close(); await writer.wait_closed()
parent = os.getpid()
writer = portal().run(connect())
server = listener.accept()[0]
listener.close()
hold, release = os.pipe()
before = portal()
child = os.fork()
if child == 0:
    os.close(release)
    assert portal() is not before and portal().run(pid()) == os.getpid()
    os.read(hold, 1)   # until the parent is done
    raise SystemExit(7)
assert portal() is before and portal().run(pid()) == parent
portal().run(write(writer))
assert server.recv(100) == b"hello"
server.sendall(b"answer"); server.shutdown(socket.SHUT_WR)
portal().run(asyncio.sleep(0.05))
portal().run(close(writer))
server.settimeout(5)
assert server.recv(100) == b"", "the child holds the connection open"
server.close()
os.write(release, b"x")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    done = run_script(code)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "read answer\ntask over in parent\n",
        "",
    )


def test_fork_in_the_middle_of_calls() -> None:
    """A process forked while other threads use the portal can use its own at once, repeatedly."""
    code = """
import asyncio, os, threading
from rlm_integrations._concurrency.portal import portal
async def nap(): await asyncio.sleep(0.001)
over = False
def work():
    while not over: portal().run(nap())
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        over = True
        for _ in range(3): portal().run(nap())
        os._exit(5)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over = True
for t in threads: t.join()
print(codes)
"""
    done = run_script(code)
    assert (done.stdout, done.stderr) == (f"{[5] * 10}\n", "")


BUSY = """
import asyncio, threading
from rlm_integrations._concurrency.portal import portal
async def hang():
    try: await asyncio.sleep(60)
    finally: print("cancelled", flush=True)
async def numbers():
    try:
        yield 1
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)
        print("closed", flush=True)
started = threading.Event()
async def start():
    globals()["task"] = asyncio.create_task(hang())
    await asyncio.sleep(0)
portal().run(start())
items = portal().iterate(numbers()); next(items)
threading.Thread(target=lambda: portal().run(hang()), daemon=True).start()
async def settle():
    while len(asyncio.all_tasks()) < 3: await asyncio.sleep(0)
portal().run(settle())
"""


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "import sys; sys.exit()"])
def test_the_interpreter_exits_silently(ending: str) -> None:
    """At exit tasks are cancelled, generators closed, the thread joined; nothing is printed, even
    if a daemon thread still waits.
    """
    done = run_script(BUSY + ending)
    assert (sorted(done.stdout.split()), done.stderr, done.returncode) == (
        ["cancelled", "cancelled", "closed"],
        "",
        0,
    )


@pytest.mark.exhaustive
def test_a_task_that_ignores_cancellation_delays_the_exit_briefly() -> None:
    """A task that refuses to be cancelled delays the exit by two seconds at most."""
    code = """
import asyncio
from rlm_integrations._concurrency.portal import portal
async def stubborn():
    while True:
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: pass
async def start():
    globals()["task"] = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
portal().run(start())
"""
    done = run_script(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_closing_leaves_no_thread() -> None:
    """`close` joins the thread."""
    own = Portal()
    assert own.run(where())[0] is own.loop
    own.close()
    assert own.loop.is_closed()
