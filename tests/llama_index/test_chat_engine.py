"""The chat engine: LlamaIndex's contract over one REPL, and new sessions where the old one cannot
continue.
"""

import asyncio
import gc
from typing import Any

import pytest

from tests.llama_index._world import (
    ANSWER,
    AT,
    NEEDLE,
    NO_LLAMA_INDEX,
    QUESTION,
    TEXT,
    finder,
    splitter,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, SummaryIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine.types import BaseChatEngine

from rlm_integrations import RLM
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import RLMChatEngine, RLMProgressEvent, RLMQueryEngine, result_of
from tests.engine.conftest import Scripted, children, code, documents_held, final, soon
from tests.llama_index.test_traces import told  # noqa: F401 - a fixture

APIS = pytest.mark.parametrize("api", ["sync", "async"])
DOCUMENT = Document(text=TEXT, id_="doc-1")
KEEPS = code("kept = 20", f"FINAL('first', evidence=[cite({NEEDLE!r})])")
USES = final("str(globals().get('kept'))")


def chat_of(*script: str, **options: Any) -> tuple[RLMChatEngine, Scripted]:
    root = Scripted([*(script or [KEEPS, USES, USES])])
    return RLMChatEngine.from_defaults(DOCUMENT, llm=root, **options), root


async def say(engine: RLMChatEngine, api: str, message: str, *history: Any) -> Any:
    return (
        engine.chat(message, *history) if api == "sync" else await engine.achat(message, *history)
    )


async def close(engine: RLMChatEngine, api: str) -> None:
    engine.close() if api == "sync" else await engine.aclose()  # type: ignore[func-returns-value] # one of the two


def roles(engine: RLMChatEngine) -> list[tuple[str, str]]:
    return [(message.role.value, message.content) for message in engine.chat_history]


@APIS
async def test_variables_and_messages_stay(api: str) -> None:
    """A second message is answered in the same REPL, by a model that sees the first; sources,
    metadata and history have LlamaIndex's form.
    """
    engine, root = chat_of()
    first = await say(engine, api, QUESTION)
    second = await say(engine, api, "And then?")
    await close(engine, api)
    assert isinstance(engine, BaseChatEngine)
    assert (str(first), str(second)) == ("first", "20")
    (cited,) = first.source_nodes
    assert (cited.node.ref_doc_id, cited.node.start_char_idx) == ("doc-1", AT)
    assert (second.source_nodes, second.metadata["stop_reason"]) == ([], "final")
    assert result_of(first).answer == "first"
    assert result_of(second) is engine.last_result
    assert QUESTION in str(root.requests[-1].messages)
    assert roles(engine) == [
        ("user", QUESTION),
        ("assistant", "first"),
        ("user", "And then?"),
        ("assistant", "20"),
    ]
    assert children() == []


@APIS
async def test_streams(api: str) -> None:
    """A stream yields the answer word by word, with LlamaIndex's own methods; history has it at
    once, and no thread or task is left.
    """
    engine, _ = chat_of(final("'one two three'"))
    if api == "sync":
        response = engine.stream_chat(QUESTION)
        pieces = list(response.response_gen)
    else:
        response = await engine.astream_chat(QUESTION)
        pieces = [piece async for piece in response.async_response_gen()]
    assert pieces == ["one ", "two ", "three"]
    assert (str(response), roles(engine)[1]) == ("one two three", ("assistant", "one two three"))
    assert result_of(response).answer == "one two three"
    await close(engine, api)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@APIS
async def test_reset(api: str) -> None:
    """After a reset there is neither history nor any variable."""
    engine, root = chat_of()
    await say(engine, api, QUESTION)
    engine.reset()
    assert engine.chat_history == []
    assert str(await say(engine, api, "And then?")) == "first"
    assert QUESTION not in str(root.requests[-1].messages)
    await close(engine, api)


@APIS
async def test_a_closed_engine_keeps_no_document(api: str) -> None:
    """Its event loop, which is the process's own for the sync methods, holds nothing of the
    session.
    """
    before = len(documents_held())
    engine, _ = chat_of()
    await say(engine, api, QUESTION)
    await close(engine, api)
    del engine
    assert soon(lambda: len(documents_held()) <= before)


@APIS
async def test_a_given_history(api: str) -> None:
    """The same history continues the session; another one starts a new session that receives it."""
    engine, root = chat_of()
    await say(engine, api, QUESTION)
    assert str(await say(engine, api, "And then?", engine.chat_history)) == "20"
    other = [
        ChatMessage("My name is Ada.", role="user"),
        ChatMessage("Hello Ada.", role="assistant"),
    ]
    assert str(await say(engine, api, "Who am I?", other)) == "first"
    asked = root.requests[-1].messages[-1].content
    assert "User: My name is Ada.\nAssistant: Hello Ada.\n\nThe question now: Who am I?" in asked
    assert QUESTION not in asked
    assert roles(engine)[:3] == [
        ("user", "My name is Ada."),
        ("assistant", "Hello Ada."),
        ("user", "Who am I?"),
    ]
    await close(engine, api)


def test_messages_from_several_loops() -> None:
    """A message from another event loop closes the session and starts a new one that receives the
    conversation.
    """
    engine, root = chat_of()

    async def ask() -> str:
        return str(await engine.achat("Again?"))

    assert str(engine.chat(QUESTION)) == "first"
    assert asyncio.run(ask()) == "first"
    assert f"User: {QUESTION}\nAssistant: first" in root.requests[-1].messages[-1].content
    gc.collect()
    assert str(engine.chat("And now?")) == "first"
    assert str(engine.chat("And now?")) == "20"
    engine.close()


async def test_an_index_that_changes() -> None:
    """If the text of an index changes between two messages, the next answer is over the new
    text.
    """
    index = SummaryIndex.from_documents([Document(text="Nothing.")], transformations=[splitter()])
    root = Scripted([final("str(len(context))")])
    async with RLMChatEngine.from_defaults(index=index, llm=root) as engine:
        assert str(await engine.achat("How many?")) == "1"
        index.insert(DOCUMENT)
        assert int(str(await engine.achat("How many?"))) > 1
        assert "The conversation so far" in root.requests[-1].messages[-1].content


async def test_nothing_to_read() -> None:
    """Blank documents result in LlamaIndex's empty response, without a call."""
    root = finder()
    engine = RLMChatEngine.from_defaults(Document(text=" "), llm=root)
    response = await engine.achat(QUESTION)
    assert (str(response), response.source_nodes, root.requests) == ("Empty Response", [], [])
    assert roles(engine)[-1] == ("assistant", "Empty Response")


async def test_other_constructors() -> None:
    """A chat engine can be created from an engine with documents and from an RLM; an engine over a
    retriever, and wrong arguments, are refused.
    """
    engine = RLMQueryEngine.from_defaults(DOCUMENT, llm=finder())
    for chat in (engine.as_chat_engine(), RLMChatEngine.from_rlm(RLM(finder()), DOCUMENT)):
        async with chat:
            assert str(await chat.achat(QUESTION)) == ANSWER
    retriever = SummaryIndex.from_documents([DOCUMENT]).as_retriever()
    with pytest.raises(InputError, match="documents that stay"):
        RLMQueryEngine.from_defaults(retriever=retriever, llm=finder()).as_chat_engine()
    with pytest.raises(InputError, match="one of documents, nodes, index"):
        RLMChatEngine.from_defaults(llm=finder())
    with pytest.raises(
        InputError, match="no option 'memory'; there are documents, nodes, index, chat_history"
    ):
        RLMChatEngine.from_defaults(DOCUMENT, llm=finder(), memory=None)
    with pytest.raises(InputError, match="a non-empty string"):
        await RLMChatEngine.from_defaults(DOCUMENT, llm=finder()).achat(" ")


async def test_a_message_that_is_cancelled_is_not_in_the_history() -> None:
    """Cancelling a message ends its run; the next one continues in the same REPL."""
    engine, root = chat_of(KEEPS, code("print(llm_query('wait'))"), USES)
    waits = asyncio.Event()

    async def never(_request: Any) -> str:
        waits.set()
        await asyncio.Event().wait()
        return ""

    root._answer = never
    turns = iter(range(3))
    root._next = lambda request: root._script[next(turns)]  # type: ignore[method-assign] # a cancelled question leaves no reply
    await engine.achat(QUESTION)
    asked = asyncio.create_task(engine.achat("Wait?"))
    await waits.wait()
    asked.cancel()
    await asyncio.wait({asked})
    assert (root.open, len(engine.chat_history)) == (0, 2)
    assert str(await engine.achat("And then?")) == "20"
    await engine.aclose()


async def test_progress(told: list[Any]) -> None:  # noqa: F811 - the fixture
    """Each message reports its progress like a query."""
    engine, _ = chat_of()
    async with engine:
        await engine.achat(QUESTION)
        await engine.achat("And then?")
    kinds = [event.progress["kind"] for event in told if isinstance(event, RLMProgressEvent)]
    assert kinds.count("run_started") == 2
    assert kinds[-1] == "turn_finished"
