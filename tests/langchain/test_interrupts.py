"""Ctrl-C while LangChain and LangGraph wait for worker threads: only the calls in flight are
charged.
"""

import os
import signal
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest

from rlm_integrations import RLM, OpenAILM
from rlm_integrations._concurrency.interrupts import is_main_thread_interrupted, is_worker
from tests._forked import Forked
from tests.engine.conftest import code, soon
from tests.langchain._agents import ASKED
from tests.standin import Fault, StandIn

MANY = 200  # sub-calls of each run, none of which is ever answered
AT_ONCE = 5
PROGRAM = code(f"llm_batch(['hang'] * {MANY}, max_concurrent={AT_ONCE})", "FINAL('over')")

ASKS = """
    import sys
    from langchain.agents import create_agent
    from langchain_core.runnables import RunnableParallel
    from langchain_openai import ChatOpenAI
    from rlm_integrations import OpenAILM
    from rlm_integrations.langchain import RLMRunnable, create_rlm_tool

    _, address, kind, way = sys.argv

    def chat(name):
        return ChatOpenAI(model=name, base_url=address, api_key="x", max_retries=0)

    def own(name):
        return OpenAILM(name, base_url=address, api_key="x")

    model = chat if kind == "chat" else own
    rlm = RLMRunnable(model("root"), model("sub"), context="a document", max_parallel_calls=5)

    def agent():
        return create_agent(chat("agent"), [create_rlm_tool(rlm)])

    asked = {"messages": [("user", "Who?")]}
    try:
        exec(way)
    except KeyboardInterrupt:
        print("interrupted")
"""
WAYS = {  # the called code, and the number of its runs
    "batch": ("rlm.batch(['a', 'b', 'c'])", 3),
    "batch of bounded runs": ("rlm.batch(['a', 'b', 'c'], {'max_concurrency': 2})", 2),
    "batch_as_completed": ("list(rlm.batch_as_completed(['a', 'b', 'c']))", 3),
    "parallel": ("RunnableParallel(a=rlm, b=rlm).invoke('Who?')", 2),
    "agent": ("agent().invoke(asked)", 1),
    "agent's stream": ("list(agent().stream(asked, stream_mode='messages'))", 1),
}


@pytest.mark.parametrize(("way", "model"), [*((way, "chat") for way in WAYS), ("batch", "own")])
def test_ctrl_c_ends_the_spending(standin: StandIn, way: str, model: str) -> None:
    """After Ctrl-C no further call is made, from worker threads or from the main thread; the error
    is KeyboardInterrupt.
    """
    standin.change(
        scripts={"root": [PROGRAM], "agent": [ASKED]}, faults=[Fault("hang", match="hang")]
    )
    lines, runs = WAYS[way]
    most = runs * (2 if way == "batch of bounded runs" else AT_ONCE)
    with Forked("-c", textwrap.dedent(ASKS), standin.base_url, model, lines) as process:
        assert soon(lambda: standin.stats().in_flight == most, 250)
        made = standin.stats().calls
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate() == ("interrupted\n", "")
        assert (process.returncode, standin.stats().calls) == (0, made)
    assert soon(lambda: standin.stats().in_flight == 0, 60)


def test_leaving_a_pool_normally_waits(standin: StandIn) -> None:
    """Leaving a pool's `with` block without an interrupt waits for its runs."""
    standin.change(scripts={"root": [code("FINAL(llm_query('x'))")]}, latency=0.2)

    def model(name: str) -> OpenAILM:
        return OpenAILM(name, base_url=standin.base_url, api_key="x")

    rlm = RLM(model("root"), model("sub"))
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(rlm.completion, "What?", "a document") for _ in range(4)]
    assert [future.result().stop_reason for future in futures] == ["final"] * 4


def test_is_worker() -> None:
    """A worker thread of a pool is a worker; the user's own threads and the main thread are not."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(is_worker).result()
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(is_worker()))
    thread.start()
    thread.join()
    assert [*found, is_worker()] == [False, False]


class Leaving:
    """A `with` block that checks the main thread while it is left."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> bool:
        with ThreadPoolExecutor(1) as pool:
            self.found = pool.submit(is_main_thread_interrupted).result()
        return True


class LeavingInFull(Leaving):
    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return super().__exit__()


@pytest.mark.parametrize(
    ("error", "expected"), [(KeyboardInterrupt, True), (ValueError, False), (None, False)]
)
def test_is_main_thread_interrupted(error: type[BaseException] | None, expected: bool) -> None:
    """The main thread counts as interrupted only while it leaves a block because of Ctrl-C."""
    with LeavingInFull() as leaving:
        if error is not None:
            raise error
    assert leaving.found is expected
