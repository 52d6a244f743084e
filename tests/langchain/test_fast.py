"""The fast transport, and a warning if many concurrent calls use a slow one."""

import asyncio
import sys
import threading
import warnings
from collections.abc import Iterator

import openai
import pytest

from rlm_integrations import RLM, Retry, llm_batch
from rlm_integrations.errors import MissingExtraError
from rlm_integrations.langchain import LLMBatchRunnable, RLMRunnable, fast_chat_openai
from rlm_integrations.lm.frameworks import base as adapters
from rlm_integrations.lm.frameworks.slow_transport import SlowTransportWarning
from tests._script import run_script
from tests.langchain.test_trace import until
from tests.lm._foreign import ANSWER, ANSWERS, KEY, MODEL, PROMPTS, foreign
from tests.standin import Fault, StandIn

HTTPX = pytest.mark.skipif(
    not openai.__version__.startswith("2."), reason="openai 3 has a quick transport of its own"
)


@pytest.fixture
def quick(standin: StandIn) -> Iterator[LLMBatchRunnable]:
    yield LLMBatchRunnable(
        fast_chat_openai(MODEL, base_url=standin.base_url, api_key=KEY, max_retries=0)
    )


def test_on_any_loop(
    standin: StandIn, quick: LLMBatchRunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object works on several loops, one after another and at the same time, and with the sync
    API: no answer is lost, and no call needs a thread.
    """
    used: list[object] = []

    async def in_thread(*args: object) -> None:
        used.append(args)

    monkeypatch.setattr(adapters, "in_thread", in_thread)
    assert quick.invoke(PROMPTS) == ANSWERS
    for _ in range(2):
        assert asyncio.run(quick.ainvoke(PROMPTS)) == ANSWERS
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(quick.ainvoke(PROMPTS))))
        for _ in range(4)
    ]
    threads += [
        threading.Thread(target=lambda: found.append(quick.invoke(PROMPTS))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ANSWERS] * 8
    assert llm_batch(PROMPTS, quick.llm) == ANSWERS
    assert standin.stats().calls == 12 * len(PROMPTS)
    assert used == []


async def test_streams_and_runs(standin: StandIn) -> None:
    """The object streams, and works in runs, like any ChatOpenAI."""
    llm = fast_chat_openai(MODEL, base_url=standin.base_url, api_key=KEY, streaming=True)
    assert (await RLM(llm).acompletion("Who?", "text")).answer == ANSWER
    assert {call.stream for call in standin.calls()} == {True}


async def test_cancelling_aborts(standin: StandIn, quick: LLMBatchRunnable) -> None:
    """Cancelling a call closes its connection."""
    standin.change(faults=[Fault("hang")])
    call = asyncio.ensure_future(quick.ainvoke(["x"] * 3))
    await until(lambda: standin.stats().in_flight == 3)
    call.cancel()
    await asyncio.wait({call})
    await until(lambda: standin.stats().aborted == 3)


SCRIPT = """
import asyncio
from rlm_integrations.langchain import LLMBatchRunnable, fast_chat_openai
from tests.lm._foreign import ANSWERS, KEY, MODEL, PROMPTS
from tests.standin import serve_in_thread
with serve_in_thread() as server:
    batch = LLMBatchRunnable(fast_chat_openai(MODEL, base_url=server.base_url, api_key=KEY))
    assert asyncio.run(batch.ainvoke(PROMPTS)) == ANSWERS
    assert batch.invoke(PROMPTS) == ANSWERS
    asyncio.run(batch.ainvoke(PROMPTS))
"""


@pytest.mark.exhaustive
def test_nothing_is_left_open() -> None:
    """Connections are closed when their loops end and at exit, without output."""
    done = run_script(SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")


@HTTPX
def test_a_slow_transport_warns(standin: StandIn) -> None:
    """With openai 2's default transport and many concurrent calls, a warning names the helper; a
    low concurrency does not warn.
    """
    llm = foreign("ChatOpenAI", standin.base_url)
    with pytest.warns(
        SlowTransportWarning, match=rf"ChatOpenAI\('{MODEL}'\).*40 calls at once.*fast_chat_openai"
    ):
        LLMBatchRunnable(llm, max_concurrent=40).invoke(["x"] * 40)
    with pytest.warns(SlowTransportWarning, match="fast_chat_openai"):
        RLMRunnable(llm, context="text", max_parallel_calls=50).invoke("Who?")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LLMBatchRunnable(llm, max_concurrent=40).invoke(["x"] * 9)
        RLMRunnable(llm, context="text", max_parallel_calls=50).invoke(
            "Who?", {"max_concurrency": 10}
        )
        RLMRunnable(llm, context="text").invoke("Who?")


def test_a_fast_transport_does_not_warn(standin: StandIn) -> None:
    """Models of the helper, other models over aiohttp, and models of this library do not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick = fast_chat_openai(MODEL, base_url=standin.base_url, api_key=KEY)
        assert (
            RLMRunnable(quick, context="text", max_parallel_calls=50).invoke("Who?")["answer"]
            == ANSWER
        )
        LLMBatchRunnable(f"openai:{MODEL}@{standin.base_url}", max_concurrent=50)._lm().complete  # noqa: B018 - made without a word

        async def over_aiohttp() -> list[str]:
            async with openai.DefaultAioHttpClient() as client:
                llm = foreign("ChatOpenAI", standin.base_url, http_async_client=client)
                return await LLMBatchRunnable(llm, max_concurrent=50).ainvoke(["x"] * 50)

        assert len(asyncio.run(over_aiohttp())) == 50


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without langchain-openai, the error names the extra."""
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(MissingExtraError, match=r"rlm-integrations\[langchain-openai\]"):
        fast_chat_openai("m")


def test_the_face_without_langchain() -> None:
    """Importing the face without LangChain names the extra; with LangChain, it loads no SDK and no
    other framework.
    """
    block = "import sys; sys.modules['langchain_core'] = None\n"
    done = run_script(block + "import rlm_integrations.langchain")
    assert "rlm-integrations[langchain]" in done.stderr
    heavy = ["openai", "langgraph", "langchain", "langchain_openai", "llama_index"]
    done = run_script(
        f"import sys, rlm_integrations.langchain; print([each for each in {heavy} if each in sys.modules])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_defaults_of_the_helper(standin: StandIn) -> None:
    """By default the SDK's own retries are off and the tokens of streamed calls are counted; the
    user can change both.
    """
    ours = fast_chat_openai(MODEL, base_url=standin.base_url, api_key=KEY)
    assert (ours.max_retries, ours.stream_usage) == (0, True)
    own = fast_chat_openai(
        MODEL, base_url=standin.base_url, api_key=KEY, max_retries=3, stream_usage=False
    )
    assert (own.max_retries, own.stream_usage) == (3, False)
    standin.change(faults=[Fault("server")])
    assert (
        LLMBatchRunnable(ours, retry=Retry(first_delay=0.01)).invoke(["x"])[0].retries
        == standin.stats().calls - 1
    )
