"""A model in this process, and the sync and async API of a batch: for tests of everything except
the calls.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rlm_integrations import allm_batch, allm_batch_iter, llm_batch, llm_batch_iter
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.asker import Retry
from rlm_integrations.records import Completion, Request, Usage

QUICK = Retry(first_delay=0.001)


@dataclass
class Local:
    """A model in this process: repeats the last message, or runs `act`."""

    name: str = "local"
    context_window: int | None = None
    act: Callable[[str], Any] = "re: {}".format
    delay: float = 0.0
    requests: list[Request] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
            found = self.act(request.messages[-1].content)
            return (
                Completion(found, Usage(3, 2), "gpt-4o-mini", "stop")
                if isinstance(found, str)
                else found
            )
        finally:
            self.in_flight -= 1


def asynchronous(*args: Any, **options: Any) -> list[str]:
    return asyncio.run(allm_batch(*args, **options))


def inside_a_loop(*args: Any, **options: Any) -> list[str]:
    async def cell() -> list[str]:
        return llm_batch(*args, **options)

    return asyncio.run(cell())


def by_iteration(*args: Any, **options: Any) -> list[str]:
    found = dict(llm_batch_iter(*args, **options))
    return [found[index] for index in range(len(found))]


def by_async_iteration(*args: Any, **options: Any) -> list[str]:
    async def collect() -> dict[int, str]:
        return {index: reply async for index, reply in allm_batch_iter(*args, **options)}

    found = asyncio.run(collect())
    return [found[index] for index in range(len(found))]


Batch = Callable[..., list[str]]
APIS: list[Batch] = [asynchronous, llm_batch, inside_a_loop, by_iteration, by_async_iteration]


def failing(times: int, **kind: Any) -> Callable[[str], str]:
    """Fail this many times, then answer."""
    left = [times]

    def act(prompt: str) -> str:
        if left[0]:
            left[0] -= 1
            raise ModelError("try later", **kind)
        return prompt

    return act
