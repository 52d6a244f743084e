"""The cost that the LlamaIndex face adds to plain `run_jobs` on the same LLM: 1,000 calls, c=50,
over aiohttp; medians of seven runs in turn.

And the cost of a further question over an index of 50,000 nodes, with a root of one turn that
cites: the median of its CPU time, and the longest blocking of the event loop (the minimum over five
questions, because other processes delay it too).
"""

import asyncio
import json
import re
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from rlm_integrations.records import Completion, Request
from tests.bench._peers import (
    KEY,
    MODEL,
    Fan,
    http_client,
    interleaved,
    median_cpu,
    median_cpu_ratio,
    median_wall,
)
from tests.bench.table import Row
from tests.standin import Ask, serve_in_process

LATENCY = 0.05
COUNT, CONCURRENCY, TIMES = 1_000, 50, 7
GOAL = 1.10  # CPU per call minus that of `run_jobs`
ROOT = "root"
NODES = 50_000
PERIOD = 0.0005  # seconds between two checks of the loop


def program(ask: Ask) -> str:
    """The root's only reply: as many prompts as the question says, in one batch."""
    count = re.search(r"Ask (\d+) prompts", ask.body["messages"][-1]["content"])
    assert count is not None
    prompts = f'[f"prompt {{number}}" for number in range({count[1]})]'
    return f"```repl\nimport json\nFINAL(json.dumps(llm_batch({prompts}, max_concurrent={CONCURRENCY})))\n```"


@asynccontextmanager
async def model(base_url: str, name: str) -> AsyncIterator[Any]:
    """LlamaIndex's OpenAI-compatible class over aiohttp."""
    from llama_index.llms.openai_like import OpenAILike

    async with http_client("aiohttp") as http:
        yield OpenAILike(
            model=name,
            api_base=base_url,
            api_key=KEY,
            max_retries=0,
            is_chat_model=True,
            async_http_client=http,
        )


@asynccontextmanager
async def plain(base_url: str) -> AsyncIterator[Fan]:
    """LlamaIndex alone."""
    from llama_index.core.async_utils import run_jobs
    from llama_index.core.llms import ChatMessage

    async with model(base_url, MODEL) as llm:

        async def fan(prompts: Sequence[str], concurrency: int) -> list[str]:
            jobs = [llm.achat([ChatMessage(prompt)]) for prompt in prompts]
            return [reply.message.content for reply in await run_jobs(jobs, workers=concurrency)]

        yield fan


@asynccontextmanager
async def batch(base_url: str) -> AsyncIterator[Fan]:
    """`LLMBatch`."""
    from rlm_integrations.llama_index import LLMBatch

    async with model(base_url, MODEL) as llm:

        async def fan(prompts: Sequence[str], concurrency: int) -> list[str]:
            return await LLMBatch(llm, max_concurrent=concurrency).arun(prompts)

        yield fan


@asynccontextmanager
async def engine(base_url: str) -> AsyncIterator[Fan]:
    """A whole query: the sandbox, the root's call, and the batch of its code."""
    from rlm_integrations.llama_index import RLMQueryEngine

    async with model(base_url, ROOT) as root, model(base_url, MODEL) as sub:
        asked = RLMQueryEngine.from_defaults(
            "A small document.", llm=root, sub_llm=sub, max_parallel_calls=CONCURRENCY
        )

        async def fan(prompts: Sequence[str], concurrency: int) -> list[str]:
            response = await asked.aquery(f"Ask {len(prompts)} prompts.")
            replies: list[str] = json.loads(str(response))
            return replies

        yield fan


class Root:
    """The root of a run, in this process: it cites a place and finishes."""

    name = "root"
    context_window = None

    async def complete(self, request: Request) -> Completion:
        return Completion("```repl\nFINAL(len(context), evidence=[cite('Node 77 says')])\n```")


async def longest_hold(stop: asyncio.Event) -> float:
    """The longest delay of the loop, in seconds, until this is stopped."""
    worst = 0.0
    while not stop.is_set():
        begun = time.perf_counter()
        await asyncio.sleep(PERIOD)
        worst = max(worst, time.perf_counter() - begun - PERIOD)
    return worst


async def many_nodes() -> list[Row]:
    """A further question over an index of many nodes."""
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    from rlm_integrations.llama_index import RLMQueryEngine

    nodes = [
        TextNode(
            text=f"Node {number} says something of forty characters.",
            id_=f"node-{number}",
            metadata={"page": number},
            relationships={
                NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document-{number // 100}")
            },
        )
        for number in range(NODES)
    ]
    engine = RLMQueryEngine.from_defaults(
        index=VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=2)), llm=Root()
    )
    await engine.aquery("How many?")
    spent, held = [], []
    for _ in range(5):
        begun = time.process_time()
        assert str(await engine.aquery("How many?")) == str(NODES)
        spent.append(time.process_time() - begun)
        stop = asyncio.Event()
        watching = asyncio.ensure_future(longest_hold(stop))
        await engine.aquery("How many?")
        stop.set()
        held.append(1_000 * await watching)
    return [
        Row(f"CPU of a further question over {NODES:,} nodes", statistics.median(spent), 0.15, "s"),
        Row(f"longest hold of the loop in a question over {NODES:,} nodes", min(held), 20, "ms"),
    ]


async def run() -> list[Row]:
    """CPU compared with `run_jobs`; nothing without LlamaIndex's openai package, which needs openai
    2.
    """
    if not find_spec("llama_index"):
        return []
    makers = {"run_jobs": plain, "LLMBatch": batch, "RLMQueryEngine": engine}
    with serve_in_process(latency=LATENCY, scripts={ROOT: f"{__name__}:program"}) as server:
        found = await interleaved(makers, server.base_url, COUNT, CONCURRENCY, LATENCY, times=TIMES)
    rows = [
        Row(
            f"CPU per call over run_jobs, {name}",
            median_cpu_ratio(found[name], found["run_jobs"]),
            GOAL,
            "x",
        )
        for name in ("LLMBatch", "RLMQueryEngine")
    ]
    rows += await many_nodes()
    rows += [
        Row(f"CPU per call, {name}", median_cpu(runs), None, "ms") for name, runs in found.items()
    ]
    return rows + [
        Row(f"wall over ideal, {name}", median_wall(runs), None, "x")
        for name, runs in found.items()
    ]
