"""One LangChain or LlamaIndex object, called through every API and on many loops: each call is made
once, and nothing stays open.
"""

import asyncio
import contextvars
import gc
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, LLMError, allm_batch, allm_batch_iter, llm_batch, llm_batch_iter
from rlm_integrations._concurrency import per_loop
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.frameworks import base, home_loop
from rlm_integrations.lm.limiter import limiter_of
from rlm_integrations.lm.resolve import resolve
from tests.lm import _foreign
from tests.lm.conftest import request_of
from tests.standin import Fault, StandIn, answer_to, serve_in_thread

ROOT = Path(__file__).resolve().parents[2]
EACH = pytest.mark.parametrize("kind", [*_foreign.KINDS, *_foreign.PROVIDERS])


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with serve_in_thread(scripts=_foreign.SCRIPTS, keep_requests=True) as server:
        yield server


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each call was made: "thread" or "loop"."""
    seen: list[str] = []
    in_thread, is_here = base.in_thread, home_loop.HomeLoop.is_here

    async def watched_thread(*args: Any, **kwargs: Any) -> Any:
        seen.append("thread")
        return await in_thread(*args, **kwargs)

    async def watched_home(self: home_loop.HomeLoop) -> bool:
        if found := await is_here(self):
            seen.append("loop")
        return found

    monkeypatch.setattr(base, "in_thread", watched_thread)
    monkeypatch.setattr(home_loop.HomeLoop, "is_here", watched_home)
    return seen


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


def by_batch(llm: Any) -> int:
    assert llm_batch(_foreign.PROMPTS, llm) == _foreign.ANSWERS
    return len(_foreign.PROMPTS)


def by_iterator(llm: Any) -> int:
    assert dict(llm_batch_iter(_foreign.PROMPTS, llm)) == dict(enumerate(_foreign.ANSWERS))
    return len(_foreign.PROMPTS)


def by_run(llm: Any) -> int:
    assert RLM(llm).completion("What?", "a document").answer == _foreign.ANSWER
    return _foreign.CALLS


async def by_async_batch(llm: Any) -> int:
    assert await allm_batch(_foreign.PROMPTS, llm) == _foreign.ANSWERS
    return len(_foreign.PROMPTS)


async def by_async_iterator(llm: Any) -> int:
    assert {index: reply async for index, reply in allm_batch_iter(_foreign.PROMPTS, llm)} == dict(
        enumerate(_foreign.ANSWERS)
    )
    return len(_foreign.PROMPTS)


async def by_async_run(llm: Any) -> int:
    assert (await RLM(llm).acompletion("What?", "a document")).answer == _foreign.ANSWER
    return _foreign.CALLS


@pytest.mark.exhaustive
@EACH
def test_sync_and_async_apis_in_turn(standin: StandIn, ways: list[str], kind: str) -> None:
    """With alternating sync and async APIs, on two loops one after another and sync inside them, no
    answer is lost and no call is made twice. The sync API calls in threads, the async API on the
    loop, including that of a second `asyncio.run`.
    """
    llm = _foreign.foreign(kind, standin.base_url)

    async def cells() -> int:
        calls = await by_async_batch(llm) + await by_async_run(llm) + await by_async_iterator(llm)
        assert ways == ["loop"] * calls
        ways.clear()
        calls_in_threads = by_batch(llm) + by_run(llm)
        assert ways == ["thread"] * calls_in_threads
        ways.clear()
        return calls + calls_in_threads + await by_async_batch(llm)

    expected = by_batch(llm) + by_iterator(llm)
    for _ in range(2):
        ways.clear()
        expected += asyncio.run(cells())
        expected += by_run(llm)
    assert standin.stats().calls == expected


@EACH
def test_loops_at_the_same_time(
    standin: StandIn, ways: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When six threads with loops and two without share one object, one loop at a time calls it
    directly, the others in threads.
    """
    llm = _foreign.foreign(kind, standin.base_url)
    together = threading.Barrier(8)
    asked: list[asyncio.AbstractEventLoop] = []
    is_here = home_loop.HomeLoop.is_here

    async def noted(self: home_loop.HomeLoop) -> bool:
        if found := await is_here(self):
            asked.append(asyncio.get_running_loop())
        return found

    monkeypatch.setattr(home_loop.HomeLoop, "is_here", noted)

    def use(number: int) -> int:
        together.wait()
        return asyncio.run(by_async_batch(llm)) if number < 6 else by_batch(llm)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(use, range(8))) == standin.stats().calls == 80
    # When one loop has ended, another may use the client, even in the middle of its batch
    assert 10 <= ways.count("loop") <= 60
    assert ways.count("loop") + ways.count("thread") == 80
    tenants = [loop for loop, _ in itertools.groupby(asked)]
    assert len(tenants) == len(set(tenants))  # no loop used the client again after another one


@EACH
async def test_the_second_loop_calls_in_threads(
    standin: StandIn, ways: list[str], kind: str
) -> None:
    """While the client's home loop runs, another loop calls the synchronous method."""
    llm = _foreign.foreign(kind, standin.base_url)
    await by_async_batch(llm)
    await asyncio.to_thread(asyncio.run, by_async_batch(llm))
    await by_async_batch(llm)
    assert ways == ["loop"] * 10 + ["thread"] * 10 + ["loop"] * 10


async def test_models_that_share_a_client_share_its_loop(standin: StandIn, ways: list[str]) -> None:
    """LangChain gives all models of one address the same async client, so two of them are not
    called on two loops at once.
    """
    first, second = (_foreign.foreign("ChatOpenAI", standin.base_url) for _ in range(2))
    assert first.root_async_client._client is second.root_async_client._client
    await by_async_batch(first)
    await asyncio.to_thread(asyncio.run, by_async_batch(second))
    assert ways == ["loop"] * 10 + ["thread"] * 10


def test_a_loop_closed_without_its_shutdown(standin: StandIn, ways: list[str]) -> None:
    """A client whose loop was closed without its shutdown is not used again: the next loop calls in
    threads and gets every answer.
    """
    llm = _foreign.foreign(
        "ChatOpenAI", standin.base_url, http_async_client=_client_that_is_closed_by_hand()
    )
    loop = asyncio.new_event_loop()
    loop.run_until_complete(by_async_batch(llm))
    loop.run_until_complete(llm.root_async_client.close())
    loop.close()
    asyncio.run(by_async_batch(llm))
    assert ways == ["loop"] * 10 + ["thread"] * 10
    assert standin.stats().calls == 20


def _client_that_is_closed_by_hand() -> Any:
    import openai

    return openai.DefaultAsyncHttpxClient()


def test_an_aiohttp_client_stays_with_its_loop(standin: StandIn, ways: list[str]) -> None:
    """A client that cannot be used after its connections are closed is not closed, and the second
    loop calls in threads.
    """
    import openai

    async def first() -> None:
        async with openai.DefaultAioHttpClient() as client:
            llms.append(_foreign.foreign("ChatOpenAI", standin.base_url, http_async_client=client))
            await by_async_batch(llms[0])

    llms: list[Any] = []
    asyncio.run(first())
    asyncio.run(by_async_batch(llms[0]))
    assert ways == ["loop"] * 10 + ["thread"] * 10
    assert standin.stats().calls == 20


async def test_google_sessions_are_closed(standin: StandIn) -> None:
    """Google's SDK has one session per loop from the first call; only that session is closed, and
    the next call opens another.
    """
    llm = _foreign.foreign("ChatGoogleGenerativeAI", standin.base_url)
    client: Any = home_loop.client_of(llm)
    assert home_loop._closers_of(client) is None
    await by_async_batch(llm)
    (close,) = home_loop._closers_of(client)
    await close()
    await by_async_batch(llm)
    assert home_loop._closers_of(client) != [close]
    await home_loop._closers_of(client)[0]()


def test_clients_of_other_sdks_are_found() -> None:
    """The clients of other providers' models are found, whether they are created early or late."""
    from langchain_anthropic import ChatAnthropic

    llm: Any = ChatAnthropic(model="claude-x", api_key="k")
    assert home_loop.client_of(llm) is llm._async_client._client
    assert len(home_loop._closers_of(home_loop.client_of(llm))) == 1
    if _foreign.HAS_LLAMA_INDEX:
        from llama_index.llms.anthropic import Anthropic

        llm = Anthropic(model="claude-sonnet-4-5", api_key="k")
        assert home_loop.client_of(llm) is llm._aclient._client
        llm._client.close()


@EACH
async def test_cancelling_aborts_the_sockets(standin: StandIn, kind: str) -> None:
    """Cancelling async calls closes their connections at once, the server notices, and later calls
    work.
    """
    standin.change(faults=[Fault("hang", match="hang")])
    llm = _foreign.foreign(kind, standin.base_url)
    batch = asyncio.create_task(allm_batch(["hang"] * 5, llm))
    await until(lambda: standin.stats().in_flight == 5)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    await until(lambda: standin.stats().aborted == 5)
    assert await allm_batch(_foreign.PROMPTS, llm) == _foreign.ANSWERS
    assert standin.stats().calls == 15


@pytest.mark.exhaustive
@EACH
async def test_a_timeout_frees_the_slot(standin: StandIn, kind: str) -> None:
    """A hanging call ends at the batch's timeout, and the other prompts are answered."""
    standin.change(faults=[Fault("hang", match="hang")])
    llm = _foreign.foreign(kind, standin.base_url)
    replies = await allm_batch(
        ["a", "hang", "b"], llm, max_concurrent=2, timeout=1, retry=Retry(timeouts=0)
    )
    assert (replies[0], replies[2]) == (answer_to("a"), answer_to("b"))
    assert isinstance(replies[1], LLMError)
    assert replies[1].type == "timeout"
    await until(lambda: standin.stats().aborted == 1)


@pytest.mark.exhaustive
def test_a_timeout_in_a_thread_leaves_the_call_behind(standin: StandIn) -> None:
    """With the sync API, a hanging call cannot be stopped, but it holds no limiter slot after its
    timeout, and the other prompts are answered.
    """
    standin.change(faults=[Fault("hang", match="hang")])
    llm = _foreign.foreign("ChatOpenAI", standin.base_url, timeout=3, max_retries=0)
    replies = llm_batch(["hang", *_foreign.PROMPTS], llm, timeout=1, retry=Retry(timeouts=0))
    assert replies[1:] == _foreign.ANSWERS
    assert isinstance(replies[0], LLMError)
    assert limiter_of(resolve(llm)).state().in_use == 0
    for thread in threading.enumerate():  # it ends at the client's own timeout
        if thread.name == "rlm-invoke":
            thread.join(60)
    assert standin.stats().calls == 11


def test_threads_are_as_many_as_the_batch_allows(standin: StandIn) -> None:
    """The sync API has at most `max_concurrent` calls and threads, and none is left at the end."""
    standin.change(latency=0.02)
    llm = _foreign.foreign("ChatOpenAI", standin.base_url)
    before = threading.active_count()
    most: list[int] = []
    count = lambda *_: most.append(  # noqa: E731
        sum(thread.name == "rlm-invoke" for thread in threading.enumerate())
    )
    assert (
        len(
            llm_batch(
                [str(number) for number in range(60)], llm, max_concurrent=7, on_progress=count
            )
        )
        == 60
    )
    assert max(most) <= 2 * 7  # threads that have delivered their answer may still be ending
    assert standin.stats().most_in_flight <= 7
    # the portal and the pool for the library's own short work
    assert threading.active_count() <= before + 3


def test_adapters_of_one_object_share_a_limiter(standin: StandIn) -> None:
    """All adapters of one object, plain or bound, share one limiter; another object has a separate
    one, even at the same memory address.
    """
    from langchain_core.language_models import FakeListChatModel

    llm = _foreign.foreign("ChatOpenAI", standin.base_url)
    other = _foreign.foreign("ChatOpenAI", standin.base_url)
    shared = limiter_of(resolve(llm))
    assert limiter_of(resolve(llm)) is shared
    assert limiter_of(resolve(llm.bind(temperature=0).with_config(tags=["x"]))) is shared
    assert limiter_of(resolve(other)) is not shared
    keys = set()
    for _ in range(20):  # objects that may reuse each other's memory address
        lm = resolve(FakeListChatModel(responses=["x"]))
        keys.add(lm.limit_key)
        del lm
    assert len(keys) == 20


def test_collected_objects_leave_no_entries(standin: StandIn) -> None:
    """The tables of limiters and home loops keep no collected objects and no entries of them."""
    gc.collect()
    clients = set(per_loop._open_entries().entries)
    before = {
        kind: len(home_loop.shared(("remembered", kind), dict)) for kind in ("limits", "homes")
    }
    llm = _foreign.foreign("ChatOpenAI", standin.base_url, http_async_client=None)
    asyncio.run(by_async_batch(llm))
    assert len(home_loop.shared(("remembered", "limits"), dict)) == before["limits"] + 1
    assert per_loop._open_entries().entries <= clients
    del llm
    _foreign.close_all()
    gc.collect()
    assert len(home_loop.shared(("remembered", "limits"), dict)) == before["limits"]


async def test_context_variables_reach_the_model(standin: StandIn) -> None:
    """The caller's context variables are visible in the model's call, in a thread and on the
    loop.
    """
    from langchain_core.callbacks import BaseCallbackHandler

    seen: list[str] = []
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="lost")

    class Look(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            seen.append(mark.get())

    llm = _foreign.foreign("ChatOpenAI", standin.base_url, callbacks=[Look()])
    mark.set("here")
    await allm_batch(["x"], llm)
    llm_batch(["x"], llm)
    await asyncio.to_thread(asyncio.run, allm_batch(["x"], llm))
    assert seen == ["here"] * 3


async def test_a_model_without_async_calls(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, ways: list[str]
) -> None:
    """If the asynchronous method raises NotImplementedError, the synchronous one is called, then
    and for later calls.
    """

    async def missing(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    llm = _foreign.foreign("ChatOpenAI", standin.base_url)
    monkeypatch.setattr(type(llm), "_agenerate", missing)
    lm = resolve(llm)
    assert (await lm.complete(request_of("x"))).text == answer_to("x")
    assert (await lm.complete(request_of("y"))).text == answer_to("y")
    assert ways == ["loop", "thread", "thread"]


SCRIPT = """
import asyncio, gc, sys, threading
from rlm_integrations import RLM, allm_batch, llm_batch
from rlm_integrations._concurrency import runtime
from tests.lm import _foreign
from tests.standin import serve_in_thread

async def ask(llm):
    assert await allm_batch(_foreign.PROMPTS, llm) == _foreign.ANSWERS
    assert llm_batch(_foreign.PROMPTS, llm) == _foreign.ANSWERS
    assert (await RLM(llm).acompletion("What?", "a document")).answer == _foreign.ANSWER

running = asyncio.new_event_loop()
threading.Thread(target=running.run_forever, daemon=True).start()

with serve_in_thread(scripts=_foreign.SCRIPTS) as server:
    for kind in ["ChatOpenAI", "OpenAILike"] if _foreign.HAS_LLAMA_INDEX else ["ChatOpenAI"]:
        llm = _foreign.foreign(kind, server.base_url)
        asyncio.run(allm_batch([], llm)) or asyncio.run(allm_batch(["x"], llm))
        assert kind != "ChatOpenAI" or runtime.peek("portal") is None  # only the async API starts none
        asyncio.run(ask(llm))
        asyncio.run(ask(llm))
        assert llm_batch(_foreign.PROMPTS, llm) == _foreign.ANSWERS
        assert RLM(llm).completion("What?", "a document").answer == _foreign.ANSWER
        asyncio.run_coroutine_threadsafe(ask(llm), running).result()
        assert server.stats().calls == 91, server.stats()
        server.reset()
    gc.collect()
"""


@pytest.mark.exhaustive
def test_the_interpreter_exits_silently() -> None:
    """After two event loops, sync calls and a loop that never ends, nothing is written at exit
    under `-W error`.
    """
    run = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", SCRIPT]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=250, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
