"""Ways to send a thousand prompts to one provider, with this library and with others, in one form,
and their measurement side by side.

A `Fan` sends all prompts with this many in flight and returns the answers in order. Each maker here
is an async context manager over the provider's base_url: `async with sdk(url) as fan: answers =
await fan(prompts, 100)`.
"""

import asyncio
import contextlib
import gc
import math
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

from tests.standin import answer_to

Fan = Callable[[Sequence[str], int], Awaitable[list[str]]]
Maker = Callable[[str], AbstractAsyncContextManager[Fan]]
Transport = Literal["aiohttp", "default"]

MODEL = "sub"
KEY = "sk-bench"


async def gather(
    ask: Callable[[str], Awaitable[str]], prompts: Sequence[str], concurrency: int
) -> list[str]:
    """Hand-written code: a task per prompt, a semaphore, gather."""
    free = asyncio.Semaphore(concurrency)

    async def one(prompt: str) -> str:
        async with free:
            return await ask(prompt)

    return await asyncio.gather(*(one(prompt) for prompt in prompts))


@asynccontextmanager
async def aiohttp_alone(base_url: str) -> AsyncIterator[Fan]:
    """The lower bound: no SDK."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(prompt: str) -> str:
            body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        yield partial(gather, ask)


@asynccontextmanager
async def http_client(transport: Transport) -> AsyncIterator[Any]:
    """The SDK's client over aiohttp, or None for its default."""
    import openai

    if transport == "default":
        yield None
        return
    client = openai.DefaultAioHttpClient()
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def sdk(base_url: str, transport: Transport = "aiohttp") -> AsyncIterator[Fan]:
    """Plain AsyncOpenAI."""
    import openai

    async with (
        http_client(transport) as http,
        openai.AsyncOpenAI(
            base_url=base_url, api_key=KEY, max_retries=0, http_client=http
        ) as client,
    ):

        async def ask(prompt: str) -> str:
            reply = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": prompt}]
            )
            return reply.choices[0].message.content or ""

        yield partial(gather, ask)


@asynccontextmanager
async def ours(base_url: str) -> AsyncIterator[Fan]:
    """OpenAILM alone, without limiter and batch."""
    from rlm_integrations.lm.openai import OpenAILM
    from rlm_integrations.records import Message, Request

    lm = OpenAILM(MODEL, base_url=base_url, api_key=KEY)

    async def ask(prompt: str) -> str:
        return (await lm.complete(Request((Message("user", prompt),)))).text

    yield partial(gather, ask)


@asynccontextmanager
async def langchain(base_url: str, transport: Transport = "aiohttp") -> AsyncIterator[Fan]:
    """ChatOpenAI's `abatch`."""
    from langchain_openai import ChatOpenAI

    async with http_client(transport) as http:
        chat = ChatOpenAI(
            model=MODEL, base_url=base_url, api_key=KEY, max_retries=0, http_async_client=http
        )

        async def fan(prompts: Sequence[str], concurrency: int) -> list[str]:
            return [
                reply.content
                for reply in await chat.abatch(list(prompts), {"max_concurrency": concurrency})
            ]

        yield fan


@asynccontextmanager
async def llama_index(base_url: str, transport: Transport = "aiohttp") -> AsyncIterator[Fan]:
    """LlamaIndex's `run_jobs` over its OpenAI-compatible class."""
    from llama_index.core.async_utils import run_jobs
    from llama_index.llms.openai_like import OpenAILike

    async with http_client(transport) as http:
        llm = OpenAILike(
            model=MODEL,
            api_base=base_url,
            api_key=KEY,
            max_retries=0,
            is_chat_model=True,
            async_http_client=http,
        )

        async def fan(prompts: Sequence[str], concurrency: int) -> list[str]:
            return [
                reply.text
                for reply in await run_jobs(
                    [llm.acomplete(prompt) for prompt in prompts], workers=concurrency
                )
            ]

        yield fan


def peers() -> dict[str, Maker]:
    """The installed ones, by the names in the rows; LlamaIndex's OpenAI classes need openai 2."""
    found: dict[str, Maker] = {
        "AsyncOpenAI, aiohttp": sdk,
        "AsyncOpenAI, default": partial(sdk, transport="default"),
    }
    if find_spec("langchain_openai"):
        found |= {
            "LangChain abatch, aiohttp": langchain,
            "LangChain abatch, default": partial(langchain, transport="default"),
        }
    if (
        find_spec("llama_index")
        and find_spec("llama_index.llms")
        and find_spec("llama_index.llms.openai_like")
    ):
        found |= {
            "LlamaIndex run_jobs, aiohttp": llama_index,
            "LlamaIndex run_jobs, default": partial(llama_index, transport="default"),
        }
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """One run.

    Attributes:
        wall: Seconds divided by the ideal, which is ceil(prompts / concurrency) times the latency.
        cpu: Milliseconds of this process's CPU per call.
    """

    wall: float
    cpu: float


async def measure(fan: Fan, count: int, concurrency: int, latency: float) -> Measured:
    """Send this many different prompts, and check that every answer is right."""
    prompts = [f"prompt {number}" for number in range(count)]
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    answers = await fan(prompts, concurrency)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert answers == [answer_to(prompt) for prompt in prompts]
    return Measured(wall / (math.ceil(count / concurrency) * latency), cpu / count * 1000)


async def interleaved(
    makers: Mapping[str, Maker],
    base_url: str,
    count: int,
    concurrency: int,
    latency: float,
    times: int = 5,
) -> dict[str, list[Measured]]:
    """Several runs of each, in turn, after a warm-up run, so that other load affects all
    equally.
    """
    async with contextlib.AsyncExitStack() as stack:
        fans = {
            name: await stack.enter_async_context(make(base_url)) for name, make in makers.items()
        }
        for fan in fans.values():
            await measure(fan, concurrency, concurrency, latency)
        found: dict[str, list[Measured]] = {name: [] for name in fans}
        for _ in range(times):
            for name, fan in fans.items():
                found[name].append(await measure(fan, count, concurrency, latency))
        return found


def median_wall(runs: Sequence[Measured]) -> float:
    """The median of wall over ideal."""
    return statistics.median(run.wall for run in runs)


def median_cpu(runs: Sequence[Measured]) -> float:
    """The median of CPU per call."""
    return statistics.median(run.cpu for run in runs)


def median_wall_ratio(runs: Sequence[Measured], others: Sequence[Measured]) -> float:
    """The median of the ratios of neighbouring runs."""
    return statistics.median(run.wall / other.wall for run, other in zip(runs, others, strict=True))


def median_cpu_ratio(runs: Sequence[Measured], others: Sequence[Measured]) -> float:
    """The same for the CPU."""
    return statistics.median(run.cpu / other.cpu for run, other in zip(runs, others, strict=True))
