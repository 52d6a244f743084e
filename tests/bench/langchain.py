"""The cost that the LangChain face adds to a call: CPU time compared with plain `abatch` on the
same ChatOpenAI, c=50, medians of seven runs in turn.

Once for a batch, and once for the sub-calls of a run's code, with the cost of the run itself.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rlm_integrations.langchain import LLMBatchRunnable, RLMRunnable, fast_chat_openai
from rlm_integrations.records import Completion, Request
from tests.bench._peers import (
    KEY,
    MODEL,
    Fan,
    interleaved,
    median_cpu,
    median_cpu_ratio,
    median_wall,
)
from tests.bench.table import Row
from tests.standin import serve_in_process

COUNT, CONCURRENCY, TIMES, LATENCY = 1_000, 50, 7, 0.05
GOAL = 1.10


class Root:
    """The root of a run, in this process: its program sends as many prompts at once as the question
    says.
    """

    name = "root"
    context_window = None

    async def complete(self, request: Request) -> Completion:
        return Completion(
            f'```repl\nFINAL(llm_batch([f"prompt {{n}}" for n in range({request.query})], max_concurrent={CONCURRENCY}))\n```'
        )


async def run() -> list[Row]:
    """CPU per call compared with plain `abatch`, and the cost of each way alone."""
    with serve_in_process(latency=LATENCY) as server:
        import openai

        async with openai.DefaultAioHttpClient() as client:
            from langchain_openai import ChatOpenAI

            plain = ChatOpenAI(
                model=MODEL,
                base_url=server.base_url,
                api_key=KEY,
                max_retries=0,
                http_async_client=client,
            )
            rows = await beside("aiohttp", plain, server.base_url)
        fast = fast_chat_openai(MODEL, base_url=server.base_url, api_key=KEY, max_retries=0)
        return rows + await beside("fast_chat_openai", fast, server.base_url)


async def beside(transport: str, chat: Any, base_url: str) -> list[Row]:
    """All three ways over one model object."""
    config = {"max_concurrency": CONCURRENCY}
    batch = LLMBatchRunnable(chat, max_concurrent=CONCURRENCY)
    runnable = RLMRunnable(
        Root(), chat, context="A document.", max_parallel_calls=CONCURRENCY, output_type=list[str]
    )

    async def abatch(prompts: Sequence[str], concurrency: int) -> list[str]:
        return [reply.content for reply in await chat.abatch(list(prompts), config)]

    async def face(prompts: Sequence[str], concurrency: int) -> list[str]:
        return await batch.ainvoke(list(prompts))

    async def sub_calls(prompts: Sequence[str], concurrency: int) -> list[str]:
        return (await runnable.ainvoke(str(len(prompts))))["answer"]

    makers = {
        "abatch": _always(abatch),
        "LLMBatchRunnable": _always(face),
        "sub-calls of RLMRunnable": _always(sub_calls),
    }
    found = await interleaved(makers, base_url, COUNT, CONCURRENCY, LATENCY, TIMES)
    rows = [
        Row(f"CPU per call, {name}, {transport}", median_cpu(runs), None, "ms")
        for name, runs in found.items()
    ]
    rows += [
        Row(f"wall over ideal, {name}, {transport}", median_wall(runs), None, "x")
        for name, runs in found.items()
    ]
    plain = found.pop("abatch")
    return rows + [
        Row(
            f"CPU per call over plain abatch's, {name}, {transport}",
            median_cpu_ratio(runs, plain),
            GOAL,
            "x",
        )
        for name, runs in found.items()
    ]


def _always(fan: Fan) -> Any:
    @asynccontextmanager
    async def maker(_base_url: str) -> AsyncIterator[Fan]:
        yield fan

    return maker
