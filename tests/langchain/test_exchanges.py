"""Messages leave a conversation in whole exchanges, whatever the conversation is."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.utils import count_tokens_approximately as count
from langgraph.graph.message import add_messages

from rlm_integrations.faces.growing import GrowingDocuments
from rlm_integrations.langchain.agents.archive import Archive
from rlm_integrations.langchain.agents.exchanges import MOVED, split_exchanges
from rlm_integrations.langchain.agents.stubs import STUB
from tests.langchain._conversations import broken_pairs

IMAGE = {"type": "image", "base64": "aGVsbG8=", "mime_type": "image/png"}


@st.composite
def conversations(draw: st.DrawFn) -> list[AnyMessage]:
    """Conversations with parallel calls, results in any order, messages between them, calls that
    were never answered, images, and texts of all sizes; every text is unique.
    """
    messages: list[AnyMessage] = []

    def add(kind: type[Any], text: str, **fields: Any) -> None:
        number = len(messages)
        size = draw(st.sampled_from([1, 1, 200, 4_000]))
        content: Any = f"{text} {number}: " + f"word{number} " * size
        if kind is not AIMessage and draw(st.integers(0, 9)) == 0:
            content = [{"type": "text", "text": content}, IMAGE]
        messages.append(kind(content, id=f"m{number}", **fields))

    if draw(st.booleans()):
        add(HumanMessage, "user")
    for turn in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["user", "system", "say", "call", "call", "call"]))
        if kind == "user":
            add(HumanMessage, "user")
        elif kind == "system":
            add(SystemMessage, "system")
        elif kind == "say":
            add(AIMessage, "assistant")
        else:
            ids = [f"c{turn}-{at}" for at in range(draw(st.integers(1, 4)))]
            if draw(st.integers(0, 5)) == 0:
                ids = [f"same-{at}" for at in range(len(ids))]  # as some models repeat them
            add(
                AIMessage,
                "assistant",
                tool_calls=[{"name": "tool", "args": {"of": turn}, "id": each} for each in ids],
            )
            is_answered = draw(st.integers(0, 9)) > 0
            for each in draw(st.permutations(ids if is_answered else ids[1:])):
                if draw(st.integers(0, 9)) == 0:
                    add(HumanMessage, "user between")
                add(ToolMessage, "result", name="tool", tool_call_id=each)
    return messages


@given(conversations())
def test_exchanges_are_the_whole_conversation(messages: list[AnyMessage]) -> None:
    """The exchanges, one after the other, are the conversation; and a movable one is whole."""
    found = split_exchanges(messages)
    assert [each for exchange in found for each in exchange.messages] == messages
    for each in found:
        if each.is_movable:
            assert broken_pairs(each.messages) == []


@pytest.mark.exhaustive
@given(conversations(), st.integers(500, 20_000), st.integers(0, 6), st.integers(1, 3))
def test_moving_breaks_no_pair_and_loses_no_text(
    messages: list[AnyMessage], most: int, keep_recent: int, times: int
) -> None:
    """However often a conversation is made to fit: no call is separated from its result, the state
    becomes what the model was sent, system messages and images stay, every text is in the
    conversation or in the document, and the bound holds unless what must stay is larger.
    """

    async def check() -> None:
        document = GrowingDocuments().of("thread")
        archive = Archive(document, {})
        state: list[Any] = messages
        for _ in range(times):
            if 100 + count(state) <= most:
                break
            sent, changes = await archive.fit(state, state, 100, most, keep_recent, count)
            state = add_messages(state, changes)  # type: ignore[assignment,arg-type]
            assert state == sent
        assert set(broken_pairs(state)) <= set(broken_pairs(messages))
        assert not any(isinstance(each, RemoveMessage) for each in state)
        left = {each.id for each in state}
        assert {each.id for each in messages if isinstance(each, SystemMessage)} <= left
        assert str(messages).count("aGVsbG8=") == str(state).count("aGVsbG8=")
        corpus_text = "".join(
            [
                (await document.read(each.id, 0, each.characters))[1]
                for each in await document.sources()
            ]
        )
        everything = corpus_text + "".join(str(each.text) for each in state)
        for each in messages:
            assert each.text in everything
        if 100 + count(state) > most:
            assert all(
                len(each.text) <= 3_200 or STUB in each.additional_kwargs or not _may_leave(each)
                for each in state
            )

    asyncio.run(check())


def _may_leave(message: AnyMessage) -> bool:
    return (
        isinstance(message, HumanMessage | ToolMessage) and MOVED not in message.additional_kwargs
    )
