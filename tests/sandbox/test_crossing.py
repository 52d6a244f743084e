"""Values that code passes by mistake, or leaves behind, are reported to the code or refused; the
session and its variables stay.
"""

import asyncio
import dataclasses
from typing import Any

import pytest

from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import Sandbox
from rlm_integrations.sandbox.process import ProcessSandbox


@pytest.fixture
def sandbox() -> Sandbox:
    return ProcessSandbox()


CLASSES = """
class NoClass:
    @property
    def __class__(self): raise KeyError("no class")

class NoText:
    def __str__(self): raise KeyError("no text")

class NoLength(str):
    __len__ = []

class NoItems(dict):
    def items(self): raise KeyError("no items")

import weakref
class Gone: pass
kept = 1
"""
SLIPS = {
    "SpanRef('context_0', 1.0, 9.0)": "the start of SpanRef must be int, not float",
    "SpanRef('context_0', None, 9)": "the start of SpanRef must be int, not NoneType",
    "SpanRef('context_0', 1, True)": "the end of SpanRef must be int, not bool",
    "SpanRef(['context_0'], 1, 9)": "the source of SpanRef must be str, not list",
    "LLMError('a', 'b', None)": "the retries of LLMError must be int, not NoneType",
    "NoClass()": "no class",
    "NoItems()": "no items",
    "weakref.proxy(Gone())": "no longer exists",
}


@pytest.mark.parametrize("value", SLIPS)
async def test_a_value_that_is_not_valid_is_an_error_of_its_block(
    open_session: Any, gate: Any, value: str
) -> None:
    """An invalid value in an argument, an answer or its evidence is an error of the block: the code
    gets the reason, nothing reaches the host, and variables stay.
    """
    session = await open_session()
    await session.execute(CLASSES, 1)
    for code in (
        f"llm_batch([{value}])",
        f"llm_query({{'a': {value}}})",
        f"FINAL([{value}])",
        f"FINAL('x', evidence=[{value}])",
    ):
        result = await session.execute(code, 2)
        assert (result.status, result.final) == ("error", None), code
        assert SLIPS[value] in result.error.message, (code, result.error)
    assert gate.calls == []
    assert (await session.execute("kept", 3)).stdout == "1\n"


@pytest.mark.parametrize("value", ["NoText()", "NoLength('text')"])
async def test_odd_values_cross_as_what_they_are(open_session: Any, value: str) -> None:
    """A string is sent by its real length, whatever its class reports, and an object whose
    `__str__` raises is sent without a string.
    """
    session = await open_session()
    await session.execute(CLASSES, 1)
    result = await session.execute(f"FINAL([{value}])", 2)
    assert result.status == "ok", result.error
    assert result.final is not None


async def test_parts_without_a_message_are_discarded_after_the_block(open_session: Any) -> None:
    """Parts of a message that failed halfway no longer count after the end of the block."""
    session = await open_session(limits=Limits(message_bytes=4 << 20))
    code = "try:\n    llm_batch(['x' * 5_000] * 600 + [SpanRef('context_0', None, 1)])\nexcept ValueError:\n    kept = 1"
    for number in range(5):
        assert (await session.execute(code, number)).status == "ok"
        assert session.channel.held_weight == 0
    assert (await session.execute("kept", 9)).stdout == "1\n"


async def test_a_call_begun_in_an_earlier_block_is_refused(open_session: Any, gate: Any) -> None:
    """A large call of a thread that was stopped at the end of its block and continues in the next
    block is refused; the session stays.
    """
    session = await open_session()
    code = """
        import threading
        ahead, go_on, said = threading.Event(), threading.Event(), []
        class Late:
            def __str__(self):
                ahead.set()  # what comes before it in the list is on its way
                go_on.wait()
                return "late"
        def call():
            try:
                llm_batch(["x" * 5_000] * 900 + [Late()])
            except RuntimeError as error:
                said.append(str(error))
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        ahead.wait()
    """
    assert (await session.execute(code, 1)).status == "ok"
    assert session.channel.held_weight == 0
    result = await session.execute("go_on.set(); thread.join(); said", 2)
    assert result.stdout == "['block 1, which makes this call, has ended']\n"
    assert gate.calls == []
    assert (await session.execute("llm_query('whole')", 3)).stdout == "'echo: whole'\n"


async def test_open_calls_and_parts_keep_within_one_bound(open_session: Any, gate: Any) -> None:
    """While a large call is open, another is read only as far as the common size limit allows."""
    session = await open_session(limits=dataclasses.replace(Limits(), message_bytes=20 << 20))
    weights: list[int] = []
    one_is_open, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_block: int, function: str, *_: Any) -> str:
        if function == "llm_query":
            await one_is_open.wait()
            return "one is open"
        weights.append(session.channel.received_weight)
        one_is_open.set()
        await go_on.wait()
        return "done"

    session._gate = answer
    code = """
        import threading
        first = threading.Thread(target=llm_batch, args=(["x" * 1_000_000] * 12,))
        first.start()
        llm_query("is it open?")
        print(llm_batch(["x" * 1_000_000] * 12))
    """
    task = asyncio.ensure_future(session.execute(code, 1))
    # Until the host no longer reads
    while not task.done() and (session._running is None or session._running._slot is None):
        await asyncio.sleep(0.001)
    assert len(weights) == 1
    assert weights[0] + session.channel.held_weight < 24 << 20
    go_on.set()
    result = await task
    assert (result.stdout, len(weights)) == ("done\n", 2), result.error
