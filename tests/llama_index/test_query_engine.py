"""The query engine: answers, sources, streams, types, budgets, prompts and models, with the sync
and the async API.
"""

import asyncio
import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.llama_index._world import (
    ANSWER,
    AT,
    NEEDLE,
    NO_LLAMA_INDEX,
    QUESTION,
    TEXT,
    ask,
    finder,
    questions,
    scripted_llm,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, PromptTemplate, Settings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    ObjectType,
    QueryBundle,
    TextNode,
)
from pydantic import BaseModel

from rlm_integrations import RLM, Budget, Limits
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import BudgetExceededError, ContextError, InputError
from rlm_integrations.llama_index import RLMQueryEngine
from rlm_integrations.storage import Storage
from tests.engine.conftest import Scripted, code, final, overlong

APIS = pytest.mark.parametrize("api", ["sync", "async"])
DOCUMENT = Document(text=TEXT, id_="doc-1", metadata={"file_name": "a.txt"})


def engine_of(root: Any = None, documents: Any = DOCUMENT, **options: Any) -> RLMQueryEngine:
    return RLMQueryEngine.from_defaults(documents, llm=root or finder(), **options)


@APIS
async def test_an_answer_with_its_evidence(api: str) -> None:
    """The response has the answer, the cited slice with verified offsets and the document as
    SOURCE, and few flat metadata.
    """
    engine = engine_of()
    response = await ask(engine, api)
    assert isinstance(response, Response)
    assert str(response) == ANSWER
    (source,) = response.source_nodes
    node = source.node
    assert (node.text, node.start_char_idx, node.end_char_idx) == (NEEDLE, AT, AT + len(NEEDLE))
    assert (node.ref_doc_id, node.source_node.node_type, node.source_node.metadata) == (
        "doc-1",
        ObjectType.DOCUMENT,
        DOCUMENT.metadata,
    )
    assert node.metadata == {"file_name": "a.txt"}
    assert source.score == 1.0
    tokens = sum(
        each.input_tokens + each.output_tokens for each in engine.last_result.usage.values()
    )
    run_id = engine.last_result.run_id
    known = {
        "run_id": run_id,
        "stop_reason": "final",
        "iterations": 1,
        "calls": 1,
        "tokens": tokens,
    }
    assert response.metadata == {**known, "cost": None, "dropped_citations": 0}
    assert tokens > 0
    response.metadata["selector_result"] = "a router writes into it"


async def test_the_same_evidence_has_the_same_id() -> None:
    """Ids are UUIDs derived from document and span, the same in every run and engine."""
    first, again = [(await engine_of().aquery(QUESTION)).source_nodes[0].node for _ in range(2)]
    other = (
        (await engine_of(documents=Document(text=TEXT, id_="doc-2")).aquery(QUESTION))
        .source_nodes[0]
        .node
    )
    assert first.node_id == again.node_id != other.node_id


async def test_an_invented_citation_is_not_a_source() -> None:
    """A citation that is not in the document is not a source node."""
    root = finder(final('"so", evidence=["The needle is 43.", "hay and more hay."]'))
    assert [node.node.text for node in (await engine_of(root).aquery(QUESTION)).source_nodes] == [
        "hay and more hay."
    ]


@APIS
async def test_a_stream_of_the_answer(api: str) -> None:
    """A streaming response has sources and metadata from the start, and its pieces are the
    answer.
    """
    text = "Line one.\n\n  Line two,  with blanks. "
    response = await ask(
        engine_of(finder(final(f"{text!r}, evidence=[cite({NEEDLE!r})]")), streaming=True), api
    )
    assert isinstance(response, StreamingResponse if api == "sync" else AsyncStreamingResponse)
    assert response.metadata["stop_reason"] == "final"
    assert len(response.source_nodes) == 1
    pieces = (
        list(response.response_gen)
        if api == "sync"
        else [piece async for piece in response.async_response_gen()]
    )
    assert len(pieces) > 4
    assert "".join(pieces) == text


class Number(BaseModel):
    value: int


@APIS
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_answer_of_a_class(api: str, streaming: bool) -> None:
    """`output_cls` returns an instance of the class, which is never streamed."""
    response = await ask(
        engine_of(finder(final('{"value": 42}')), output_cls=Number, streaming=streaming), api
    )
    assert isinstance(response, PydanticResponse)
    assert response.response == Number(value=42)
    assert response.value == 42
    assert response.get_response().response == '{"value":42}'


async def test_a_structured_llm_sets_the_class() -> None:
    """A structured LLM works too: its plain model is called, and the answer has its class."""
    llm = scripted_llm()
    llm.response_generator = lambda _: ChatMessage(final('{"value": 42}'), role="assistant")
    response = await RLMQueryEngine.from_defaults(
        DOCUMENT, llm=llm.as_structured_llm(Number)
    ).aquery(QUESTION)
    assert response.response == Number(value=42)


@pytest.mark.parametrize(
    ("value", "text"), [("[1, 2]", "[1,2]"), ("42", "42"), ("{'a': None}", '{"a":null}')]
)
async def test_an_answer_of_another_type_is_its_json(value: str, text: str) -> None:
    """With an `output_type` that is not a pydantic class, the response is text."""
    assert str(await engine_of(finder(final(value)), output_type=Any).aquery(QUESTION)) == text


@APIS
async def test_a_budget_that_ends_first(api: str) -> None:
    """A run stopped by its budget returns the best answer so far with the reason, or raises if that
    is configured.
    """
    script = [code("print(llm_batch(['a', 'b']))"), "I believe it is 42."]
    response = await ask(
        engine_of(finder(*script), budget=Budget(max_calls=2), output_cls=Number), api
    )
    assert isinstance(response, Response)
    assert (str(response), response.metadata["stop_reason"]) == (
        "I believe it is 42.",
        "budget_calls",
    )
    with pytest.raises(BudgetExceededError) as caught:
        await ask(engine_of(finder(*script), budget=Budget(max_calls=2, on_exceeded="raise")), api)
    assert caught.value.result.answer == "I believe it is 42."


async def test_a_run_without_an_answer() -> None:
    """A run without any answer returns the text of LlamaIndex's own synthesizers, not "None"."""
    response = await engine_of(
        finder(code("pass")), max_iterations=1, budget=Budget(max_calls=1)
    ).aquery(QUESTION)
    assert str(response) == "Empty Response"


async def test_small_documents_by_one_call() -> None:
    """With `single_call_below` a small document is answered in one call, with citations."""
    root = Scripted([f"It is 42.\n> {NEEDLE}"])
    response = await engine_of(root, limits=Limits(single_call_below=20_000)).aquery(QUESTION)
    assert (str(response), response.source_nodes[0].node.start_char_idx) == ("It is 42.", AT)
    assert TEXT in root.requests[0].messages[1].content


@APIS
async def test_retrieve_and_synthesize(api: str) -> None:
    """`retrieve` runs and returns the evidence; `synthesize` answers from the given nodes, with
    offsets in the document.
    """
    engine, query = engine_of(), QueryBundle(QUESTION)
    nodes = engine.retrieve(query) if api == "sync" else await engine.aretrieve(query)
    assert [node.node.start_char_idx for node in nodes] == [AT]
    more = [NodeWithScore(node=TextNode(text="besides"), score=0.5)]
    response = (
        engine.synthesize(query, nodes, more)
        if api == "sync"
        else await engine.asynthesize(query, nodes, more)
    )
    assert str(response) == ANSWER
    assert [
        (each.node.ref_doc_id, each.node.start_char_idx) for each in response.source_nodes[:1]
    ] == [("doc-1", AT)]
    assert response.source_nodes[1:] == more


async def test_prompts_can_be_changed() -> None:
    """`get_prompts` shows the template of the question, and an update applies from the next query
    on.
    """
    root = finder()
    engine = engine_of(root)
    assert {name: each.template for name, each in engine.get_prompts().items()} == {
        "question_template": "{query_str}"
    }
    await engine.aquery(QUESTION)
    engine.update_prompts({"question_template": PromptTemplate("{query_str} Answer in French.")})
    await engine.aquery("What about {braces}?")
    assert questions(root) == [QUESTION, "What about {braces}? Answer in French."]
    with pytest.raises(InputError, match=r"must contain \{query_str\}"):
        engine.update_prompts({"question_template": PromptTemplate("Answer in French.")})


async def test_the_default_model_is_looked_up_late() -> None:
    """An engine without a model can be created without a key; each question uses the current
    `Settings.llm`, which is not changed.
    """
    engine = RLMQueryEngine.from_defaults(DOCUMENT)
    with pytest.raises(InputError, match=r"pass llm=…, or set Settings\.llm"):
        await engine.aquery(QUESTION)
    first, second = scripted_llm(), scripted_llm()
    Settings.llm = first
    callbacks = first.callback_manager
    assert str(await engine.aquery(QUESTION)) == ANSWER
    assert engine.last_result.usage.keys() == {"MockFunctionCallingLLM"}
    Settings.llm = second
    assert str(await engine.aquery(QUESTION)) == ANSWER
    assert Settings._llm is second
    assert first.callback_manager is callbacks
    Settings._callback_manager = None
    RLMQueryEngine.from_defaults(DOCUMENT)
    assert Settings._callback_manager is None


async def test_a_sub_model_stays_beside_the_default() -> None:
    """A given sub-model is used with any default root."""
    Settings.llm = scripted_llm()
    sub = finder()
    engine = RLMQueryEngine.from_defaults(DOCUMENT, sub_llm=sub)
    await engine.aquery(QUESTION)
    assert engine._runs.rlm.options["sub_llm"]["root"].traced is sub


def test_strings_name_models() -> None:
    """Models that are not LlamaIndex's work, also by name."""
    response = RLMQueryEngine.from_defaults(DOCUMENT, llm="offline").query(QUESTION)
    assert NEEDLE in str(response)
    assert [node.node.text for node in response.source_nodes] == [NEEDLE]


async def test_documents_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound document is read at the first question and kept, even with concurrent questions."""
    built = []
    build = Corpus.build.__func__

    def counting(cls: Any, context: Any, **options: Any) -> Any:
        built.append(threading.current_thread().name)
        return build(cls, context, **options)

    monkeypatch.setattr(Corpus, "build", classmethod(counting))
    engine = engine_of(documents=(each for each in [DOCUMENT]))
    assert built == []
    assert {
        str(response)
        for response in await asyncio.gather(*(engine.aquery(QUESTION) for _ in range(3)))
    } == {ANSWER}
    assert str(engine.query(QUESTION)) == ANSWER
    assert len(built) == 1
    assert built[0].startswith("rlm-work")


async def test_documents_that_cannot_be_read_yet(tmp_path: Any) -> None:
    """A missing file is a clear error, and the next question reads it again."""
    engine = engine_of(documents=tmp_path / "late.txt")
    with pytest.raises(ContextError, match="cannot be read"):
        await engine.aquery(QUESTION)
    (tmp_path / "late.txt").write_text(TEXT)
    response = await engine.aquery(QUESTION)
    metadata = {"file": "late.txt", "location": "late.txt:1"}
    assert (str(response), response.source_nodes[0].node.metadata) == (ANSWER, metadata)


async def test_an_engine_of_an_rlm() -> None:
    """`from_rlm` takes an RLM with its options, and documents or a corpus."""
    for documents in (DOCUMENT, [DOCUMENT], TEXT, Corpus.build([DOCUMENT])):
        engine = RLMQueryEngine.from_rlm(RLM(finder(), max_iterations=2), documents)
        response = await engine.aquery(QUESTION)
        assert (str(response), response.source_nodes[0].node.start_char_idx) == (ANSWER, AT)


async def test_last_store() -> None:
    """`last_store` has the findings of the latest run; None before the first run."""
    engine = engine_of()
    assert (engine.last_store, engine.last_result) == (None, None)
    await engine.aquery(QUESTION)
    assert [card["description"] for card in engine.last_store.search()] == ["the needle"]


async def test_cancelling_a_query() -> None:
    """Cancelling `aquery` ends its run: the model's call is aborted, and the sandbox is closed (see
    the fixture).
    """
    root = Scripted([code("print(llm_query('wait'))")], overlong(30))
    asked = asyncio.create_task(engine_of(root).aquery(QUESTION))
    while not any(request.role == "sub" for request in root.requests):
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert root.open == 0


def test_two_event_loops_in_turn() -> None:
    """An engine works on several event loops, one after another, and without one."""
    engine = engine_of(scripted_llm())
    assert [str(asyncio.run(engine.aquery(QUESTION))) for _ in range(2)] == [ANSWER, ANSWER]
    assert str(engine.query(QUESTION)) == ANSWER


def test_threads_at_once() -> None:
    """Several threads, as of chat engines, can query one engine concurrently."""
    engine, answers = engine_of(), []
    threads = [
        threading.Thread(target=lambda: answers.append(str(engine.query(QUESTION))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [ANSWER] * 4


async def test_the_callback_manager() -> None:
    """Handlers of the callback manager receive the query, as with any engine; the model's own
    manager is unchanged.
    """
    from llama_index.core.callbacks import LlamaDebugHandler
    from llama_index.core.callbacks.schema import CBEventType

    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = scripted_llm()
    theirs = llm.callback_manager
    engine = engine_of(llm, callback_manager=CallbackManager([debug]))
    await engine.aquery(QUESTION)
    ((start, end),) = debug.get_event_pairs(CBEventType.QUERY)
    assert (start.payload["query_str"], str(end.payload["response"])) == (QUESTION, ANSWER)
    assert llm.callback_manager is theirs
    Settings.callback_manager = CallbackManager([debug])
    assert engine_of(llm).callback_manager is Settings.callback_manager


def test_pickling_is_refused() -> None:
    """Pickling and deepcopy of an engine are refused with what to do instead, because it holds
    models and documents.
    """
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises(InputError, match="create the object again"):
            take(engine_of())


def test_it_is_a_query_engine() -> None:
    """The class is a LlamaIndex query engine; the copy without streaming has the same documents."""
    engine = engine_of(streaming=True)
    assert issubclass(RLMQueryEngine, BaseQueryEngine)
    assert engine.without_streaming()._source is engine._source
    assert engine.without_streaming().without_streaming() is not engine
    assert (
        NodeRelationship.SOURCE
        in engine.without_streaming().query(QUESTION).source_nodes[0].node.relationships
    )
    assert engine.last_store is not None


@APIS
async def test_a_run_is_stored_and_resumed(api: str, tmp_path: Path) -> None:
    """`storage=` stores the run of an engine; `RLM.resume` returns the same answer and evidence
    without asking a model.
    """
    with Storage(tmp_path / "runs") as storage:
        root = finder()
        await ask(engine_of(root, storage=storage), api)
        (info,) = storage.runs()
        asked = len(root.requests)
        result = await RLM(root, storage=storage).aresume(info.run_id)
        assert (result.answer, result.citations[0].quote) == (ANSWER, NEEDLE)
        assert len(root.requests) == asked
