"""What a session keeps from one question to the next, however the previous one ended."""

import asyncio

import pytest

from rlm_integrations import RLM, Budget, Limits
from rlm_integrations.engine.chat import Chat
from rlm_integrations.errors import BudgetExceededError
from rlm_integrations.events import BlockStarted, Event, RunFinished
from rlm_integrations.records import Completion, Request
from tests.engine.conftest import Scripted, children, code, documents_held, final, soon

BIND = code("kept = llm_query('expensive')", "FINAL('bound')")
SLOW = code("late = llm_query('slow')")
USE = code("FINAL(['kept' in globals() and kept, 'late' in globals()])")


class Hangs:
    """A sub-model that answers every prompt except "slow"; `begun` is set when that is sent."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = 0

    async def __call__(self, request: Request) -> str:
        if request.messages[-1].content != "slow":
            return f"re: {request.messages[-1].content}"
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
        return ""


class Thinks(Scripted):
    """A root that never answers the second question."""

    def __init__(self, script: list[str], begun: asyncio.Event) -> None:
        super().__init__(script)
        self._begun = begun

    async def complete(self, request: Request) -> Completion:
        if request.query == "Second?":
            self._begun.set()
            await asyncio.Event().wait()
        return await super().complete(request)


def said(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


async def cancelled(chat: Chat, question: str, begun: asyncio.Event) -> None:
    task = asyncio.create_task(chat.acompletion(question))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_variables_survive_a_question_that_is_cancelled_in_its_block() -> None:
    """The block and its calls end; earlier variables are kept, and the model is told that the
    question was cancelled.
    """
    root = Scripted([BIND, SLOW, USE], hangs := Hangs())
    async with RLM(root).session("a document") as chat:
        await chat.acompletion("First?")
        await cancelled(chat, "Second?", hangs.begun)
        assert hangs.ended == 1
        result = await chat.acompletion("Third?")
    assert result.answer == '["re: expensive", false]'
    assert root.asked == ["expensive", "slow"]
    assert "This question was cancelled before it was answered" in root.told[-1]
    assert "The REPL is a new one" not in root.told[-1]


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
async def test_variables_survive_a_block_that_is_cancelled_as_it_begins(steps: int) -> None:
    """Whether the process has received the code or not, the block ends at once, and the process
    stays.
    """
    root, begun = Scripted([BIND, code("while True: pass"), USE]), asyncio.Event()

    def hook(event: Event) -> None:
        if isinstance(event, BlockStarted) and "while" in event.code:
            begun.set()

    async with RLM(root, on_event=hook).session("a document") as chat:
        await chat.acompletion("First?")
        task = asyncio.create_task(chat.acompletion("Second?"))
        await begun.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await chat.acompletion("Third?")).answer == '["re: expensive", false]'


async def test_variables_survive_a_question_that_is_cancelled_while_the_root_thinks() -> None:
    """No block is running: nothing is lost, and the conversation has nothing of that question."""
    root = Thinks([BIND, USE], begun := asyncio.Event())
    async with RLM(root).session("a document") as chat:
        await chat.acompletion("First?")
        await cancelled(chat, "Second?", begun)
        assert (await chat.acompletion("Third?")).answer == '["re: expensive", false]'
    assert "Second?" not in said(root.requests[-1])


async def test_the_model_is_told_that_variables_are_lost() -> None:
    """Code that does not end costs the session its process; the next question says so."""
    # An interrupt between the end of one `try` and the beginning of the next is caught further out
    lines = ["llm_query('slow')"]
    for _ in range(4):
        inner = [f"        {line}" for line in lines]
        lines = ["while True:", "    try:", *inner, "    except BaseException:", "        pass"]
    stubborn = code("kept = 1", *lines)
    root = Scripted([BIND, stubborn, USE], hangs := Hangs())
    async with RLM(root, limits=Limits(grace_seconds=0.05)).session("a document") as chat:
        await chat.acompletion("First?")
        await cancelled(chat, "Second?", hangs.begun)
        assert (await chat.acompletion("Third?")).answer == "[false, false]"
    assert "The REPL is a new one: variables of earlier questions are gone." in root.told[-1]
    # nothing more is charged while the code is being ended
    assert root.asked == ["expensive", "slow"]


@pytest.mark.filterwarnings("ignore:sandbox='inprocess':RuntimeWarning")
async def test_a_sandbox_that_cannot_interrupt_is_replaced() -> None:
    """Without interrupts the session is replaced, and the next question says that variables are
    lost.
    """
    root = Scripted([BIND, SLOW, USE], hangs := Hangs())
    async with RLM(root, sandbox="inprocess").session("a document") as chat:
        await chat.acompletion("First?")
        await cancelled(chat, "Second?", hangs.begun)
        assert (await chat.acompletion("Third?")).answer == "[false, false]"
    assert "The REPL is a new one" in root.told[-1]


async def test_a_session_that_is_closed_keeps_nothing() -> None:
    """Closing it while a question is answered ends its block at once: nothing is waited for,
    nothing is left.
    """
    root = Scripted([SLOW], hangs := Hangs())
    chat = RLM(root).session("a document")
    task = asyncio.create_task(chat.acompletion("First?"))
    await hangs.begun.wait()
    await chat.aclose()
    await asyncio.wait([task])
    assert (children(), hangs.ended) == ([], 1)
    del task
    assert soon(lambda: not documents_held())


async def test_the_notice_of_a_limit_is_not_in_the_next_question() -> None:
    """The closing request is removed for the next question; the answer to it, and the rest,
    stay.
    """
    root = Scripted([code("print('seen')"), final("'best'"), final("'second'")])
    async with RLM(root, max_iterations=1).session("a document") as chat:
        first = await chat.acompletion("First?")
        second = await chat.acompletion("Second?")
    assert (first.stop_reason, second.answer) == ("max_iterations", "second")
    assert "No model can be asked any more" in root.told[1]
    assert "No model can be asked any more" not in said(root.requests[2])
    assert "REPL output:\nseen" in said(root.requests[2])
    assert [message.role for message in root.requests[2].messages] == [
        "system",
        *["user", "assistant"] * 2,
        "user",
    ]
    # The record of the first question has its messages
    assert "No model can be asked any more" in first.messages[-2].content


async def test_a_conversation_outlives_a_spent_budget() -> None:
    """With "raise", the next question has the messages, code, outputs and variables of the last
    one; a budget is per question.
    """
    root = Scripted(
        [
            code("kept = llm_query('expensive')", "print(kept)"),
            code("llm_batch(['a'] * 9)"),
            final("'best'"),
            USE,
        ]
    )
    async with RLM(root, budget=Budget(max_calls=5, on_exceeded="raise")).session(
        "a document"
    ) as chat:
        with pytest.raises(BudgetExceededError):
            await chat.acompletion("First?")
        assert (await chat.acompletion("Second?")).answer == '["re: expensive", false]'
    assert len(root.requests) == 6
    assert "Question: First?" in said(root.requests[-1])
    assert "REPL output:\nre: expensive" in said(root.requests[-1])


async def test_a_session_streams() -> None:
    """A stream yields the events of one question, the last with its result; variables are kept as
    without a stream.
    """
    root = Scripted([BIND, USE])
    async with RLM(root).session("a document") as chat:
        events = [event async for event in chat.astream("First?")]
        only = [event async for event in chat.astream("Second?", only=lambda _: False)]
    assert isinstance(events[-1], RunFinished)
    assert [type(event) for event in only] == [RunFinished]
    assert isinstance(only[0], RunFinished)
    assert only[0].result.answer == '["re: expensive", false]'


def test_query_of_a_session() -> None:
    """`query` of a session works like that of an RLM."""
    with RLM(Scripted([BIND, USE])).session("a document") as chat:
        answer, steps = chat.query("First?")
        assert (answer, [step["subcalls"] for step in steps]) == ("bound", [1])
        assert chat.query("Second?")[0] == '["re: expensive", false]'


def test_a_session_streams_to_synchronous_callers() -> None:
    """The same with the sync API; closing a stream early cancels its question, and the session
    continues.
    """
    root = Thinks([BIND, USE], asyncio.Event())
    with RLM(root).session("a document") as chat:
        assert isinstance(list(chat.stream("First?"))[-1], RunFinished)
        for _ in chat.stream("Second?"):
            break
        assert chat.completion("Third?").answer == '["re: expensive", false]'
