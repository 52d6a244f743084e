"""A run that is cancelled at any await, even during cleanup, leaks nothing and emits its last
event.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from rlm_integrations import RLM
from rlm_integrations.events import Event
from rlm_integrations.records import Request
from tests._exhaustive import exhaustive
from tests._waits import at_every_wait
from tests.engine.conftest import Scripted, check_ended, children, code, documents_held, final, soon

TEXT = "One fish, two fish, red fish, blue fish. " * 50
SCRIPT = [
    code("replies = llm_batch(['a', 'b'])", "print(replies)"),
    code("FINAL(replies[1], [cite('red fish')])"),
]
TREE = {
    "root": [code("recursive_batch([{'query': 'child', 'context': 'x'}] * 2)"), final("1")],
    "child": SCRIPT,
}


async def by_acompletion(rlm: RLM) -> None:
    await rlm.acompletion("root", TEXT)


async def by_astream(rlm: RLM) -> None:
    async with aclosing(rlm.astream("root", TEXT)) as events:
        async for _ in events:
            pass


async def by_chat(rlm: RLM) -> None:
    async with rlm.session(TEXT) as chat:
        await chat.acompletion("root")


async def answer(_request: Request) -> str:
    await asyncio.sleep(0)
    return "p"


async def check_every_wait(
    api: Callable[[RLM], Awaitable[None]], script: Any, again: int, sandbox: str = "process"
) -> None:
    events: list[Event] = []
    rlm = RLM(Scripted(script, answer), max_depth=2, sandbox=sandbox, on_event=events.append)

    async def work() -> None:
        events.clear()
        await api(rlm)

    await work()
    tasks, cancelled = asyncio.all_tasks(), 0
    async for task in at_every_wait(work, again=again):
        assert task.cancelled()
        assert asyncio.all_tasks() == tasks
        assert children() == []
        if events:  # a stream and a chat may be left when the run is over
            assert check_ended(events) in (
                {"cancelled"} if api is by_acompletion else {"cancelled", "final"}
            )
        cancelled += 1
        del task
    assert cancelled > 20
    assert soon(lambda: not documents_held())


@pytest.mark.parametrize("again", [0, *map(exhaustive, (1, 2))])
@pytest.mark.parametrize("api", [by_acompletion, *map(exhaustive, (by_astream, by_chat))])
async def test_cancelling_in_every_wait(api: Callable[[RLM], Awaitable[None]], again: int) -> None:
    """Cancelled once or twice at any await, an ended run leaves no task, process or document, and
    its last event says that it was cancelled.
    """
    await check_every_wait(api, SCRIPT, again)


@pytest.mark.exhaustive
async def test_cancelling_in_every_wait_of_a_tree() -> None:
    """The same while children open, run and close."""
    await check_every_wait(by_acompletion, TREE, 0)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:sandbox='inprocess':RuntimeWarning")
# The interrupt may meet a callback of the garbage collector, where Python can only report it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("again", [0, 2])
async def test_cancelling_in_every_wait_without_a_process(again: int) -> None:
    """The in-process sandbox too: the calls of its code have ended when it is closed."""
    await check_every_wait(by_acompletion, TREE, again, "inprocess")
