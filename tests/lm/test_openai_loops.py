"""A client belongs to the loop that made it, and is closed with the loop, the model or the
interpreter.
"""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations._concurrency import per_loop
from rlm_integrations._concurrency.per_loop import PerLoop
from rlm_integrations.lm.openai import OpenAILM
from tests._script import run_script
from tests.lm.conftest import request_of
from tests.standin import answer_to, serve_in_thread

ROOT = Path(__file__).parents[2]
TRANSPORTS = pytest.mark.parametrize("transport", ["aiohttp", "sdk"])


async def ask(lm: OpenAILM, count: int) -> None:
    answers = await asyncio.gather(*(lm.complete(request_of(f"p{n}")) for n in range(count)))
    assert [answer.text for answer in answers] == [answer_to(f"p{n}") for n in range(count)]


@TRANSPORTS
def test_one_model_over_several_asyncio_runs(transport: Any) -> None:
    """With batches of one model in several `asyncio.run`, every answer is right, nothing is sent
    twice, and nothing stays open.
    """
    with serve_in_thread() as server:
        lm = OpenAILM("sub", base_url=server.base_url, transport=transport)
        before = set(per_loop._open_entries().entries)  # of other tests, on running loops
        for count in (20, 30, 10):
            asyncio.run(ask(lm, count))
            assert per_loop._open_entries().entries <= before
        assert server.stats().calls == 60


SOMETHING: ContextVar[object] = ContextVar("SOMETHING")


async def test_a_resource_keeps_no_callers_context() -> None:
    """A resource outlives the call that made it, and keeps no reference to that call's context."""

    async def close(_: object) -> None:
        pass

    resources: PerLoop[object] = PerLoop(object, close)

    async def use(thing: object) -> object:
        SOMETHING.set(thing)
        return await resources.get()

    thing = PerLoop(object, close)  # any weakly referenceable object
    gone = weakref.ref(thing)
    made = await asyncio.create_task(use(thing))
    del thing
    await asyncio.sleep(0)  # the loop releases the step that ended
    gc.collect()
    assert gone() is None
    assert await resources.get() is made


KEEPING = """
import gc, weakref
from contextvars import ContextVar, copy_context
from rlm_integrations import llm_batch
class Thing: pass
var, thing = ContextVar("var"), Thing()
gone = weakref.ref(thing)
def call(thing):
    var.set(thing)
    assert llm_batch([], "offline") == []
copy_context().run(call, thing)
del thing
gc.collect()
assert gone() is None
"""


def test_the_portal_keeps_no_callers_context() -> None:
    """The portal's loop keeps no reference to the context of the first synchronous call."""
    done = run_script(KEEPING)
    assert (done.returncode, done.stderr) == (0, "")


@TRANSPORTS
def test_one_model_in_many_threads(transport: Any) -> None:
    """Eight threads with event loops share one model concurrently."""
    with serve_in_thread() as server:
        lm = OpenAILM("sub", base_url=server.base_url, transport=transport)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: asyncio.run(ask(lm, 20)), range(8)))
        assert server.stats().calls == 160


async def test_the_first_calls_share_one_client() -> None:
    """A hundred concurrent first uses make one resource, and cancelling one of them does not affect
    the others.
    """
    made, closed, go = [], [], threading.Event()

    def make() -> object:
        go.wait()
        made.append(object())
        return made[-1]

    async def close(resource: object) -> None:
        closed.append(resource)

    per_loop = PerLoop(make, close)
    tasks = [asyncio.create_task(per_loop.get()) for _ in range(100)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert set(results[1:]) == set(made)
    assert len(made) == 1
    assert closed == []


async def test_a_model_can_be_prepared() -> None:
    """`prepare` creates the client, so that it does not count towards the first call's timeout."""
    with serve_in_thread() as server:
        lm = OpenAILM("sub", base_url=server.base_url, timeout=5)
        await lm.prepare()
        client = await lm._clients.get()
        await ask(lm, 1)
        assert await lm._clients.get() is client


async def test_a_client_that_could_not_be_made_is_made_again() -> None:
    """A failure is raised to those who wait; the next use tries again."""
    tries = []

    def make() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no certificates")
        return "client"

    async def close(resource: str) -> None:
        pass

    per_loop = PerLoop(make, close)
    with pytest.raises(OSError, match="no certificates"):
        await per_loop.get()
    assert await per_loop.get() == "client"


def test_a_loop_that_was_just_closed() -> None:
    """Loops closed without closing their generators cause no lost answers; their resources are
    released at the next use.
    """
    closed: list[int] = []

    async def close(resource: int) -> None:
        closed.append(resource)

    numbers = iter(range(10))
    per_loop = PerLoop(lambda: next(numbers), close)
    for n in range(3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(per_loop.get()) == n
        loop.close()
        assert closed == list(range(n))
    assert asyncio.run(per_loop.get()) == 3
    assert closed == [0, 1, 2, 3]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@TRANSPORTS
async def test_a_dropped_model_closes_its_connections(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is collected before its loop ends, as in a server with one model per request,
    closes its connections.
    """
    monkeypatch.setattr(per_loop, "SECONDS_TO_CLOSE", 0.01)
    with serve_in_thread() as server:
        lm = OpenAILM("sub", base_url=server.base_url, transport=transport)
        before = set(per_loop._open_entries().entries)
        await ask(lm, 5)
        assert server.connections
        del lm
        gc.collect()
        await until(lambda: not server.connections)
        assert per_loop._open_entries().entries <= before


SCRIPT = """
import asyncio, atexit, gc, os, sys, threading
from rlm_integrations._concurrency import runtime
from rlm_integrations.lm.openai import OpenAILM
from rlm_integrations.records import Message, Request
from tests.standin import answer_to, serve_in_process

async def ask(lm):
    answers = await asyncio.gather(*(lm.complete(Request((Message("user", f"p{n}"),))) for n in range(5)))
    assert [answer.text for answer in answers] == [answer_to(f"p{n}") for n in range(5)]

with serve_in_process() as server:
    lm = OpenAILM("sub", base_url=server.base_url, transport=sys.argv[1])
    asyncio.run(ask(lm))
    asyncio.run(ask(lm))

    running = asyncio.new_event_loop()
    threading.Thread(target=running.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(ask(lm), running).result()

    standing = asyncio.new_event_loop()
    standing.run_until_complete(ask(lm))

    child = os.fork()
    if child == 0:
        asyncio.run(ask(lm))
        del lm
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run_coroutine_threadsafe(ask(lm), running).result()
    standing.run_until_complete(ask(lm))
    assert server.stats().calls == 35, server.stats()

    # The loop that stands still is the user's own to close. That comes after us, or there would be
    # nothing left to see.
    atexit.unregister(runtime._close_all)
    atexit.register(standing.close)
    atexit.register(runtime._close_all)
"""


@pytest.mark.exhaustive
@TRANSPORTS
def test_the_interpreter_exits_silently(transport: str) -> None:
    """After several runs, a loop in a daemon thread, a blocked loop and a fork, nothing is written
    at exit under `-X dev -W error`.
    """
    run = [
        sys.executable,
        "-X",
        "dev",
        "-W",
        "error",
        "-W",
        "ignore::DeprecationWarning:__main__",
        "-c",
        SCRIPT,
        transport,
    ]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=250, cwd=ROOT)
    # Debug mode reports slow imports
    noise = [line for line in done.stderr.splitlines() if not line.startswith("Executing ")]
    assert (done.returncode, noise) == (0, [])
