"""From a response to the result of its run."""

import asyncio
import gc
from typing import Any

import pytest

from tests.llama_index._world import NEEDLE, NO_LLAMA_INDEX, QUESTION, TEXT, finder

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document
from llama_index.core.base.response.schema import Response

from rlm_integrations.errors import InputError
from rlm_integrations.faces.kept_results import MAX_KEPT_RESULTS
from rlm_integrations.llama_index import (
    RLMQueryEngine,
    RLMStoreRetriever,
    RLMSynthesizer,
    result_of,
)
from tests.engine.conftest import Scripted, code, final, overlong


def engine_of(root: Any = None, **options: Any) -> RLMQueryEngine:
    return RLMQueryEngine.from_defaults(
        Document(text=TEXT, id_="doc-1"), llm=root or finder(), **options
    )


async def test_each_of_many_at_once_finds_its_own() -> None:
    """With concurrent questions on one engine, each response leads to the result of its own run."""
    root = Scripted({f"number {number:02}": [final(str(number))] for number in range(20)})
    engine = engine_of(root)

    async def ask(number: int) -> None:
        response = await engine.aquery(f"number {number:02}")
        result = engine.result_of(response)
        assert (result.run_id, result.answer) == (response.metadata["run_id"], str(number))

    await asyncio.gather(*(ask(number) for number in range(20)))


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("api", ["sync", "async"])
async def test_a_response_or_its_run_id_leads_to_the_result(api: str, streaming: bool) -> None:
    """`result_of` works for engines and synthesizers, including streams, and a retriever accepts
    the same as a store.
    """
    synthesizer = RLMSynthesizer(finder(), streaming=streaming)
    engine = engine_of(streaming=streaming)
    response: Any = engine.query(QUESTION) if api == "sync" else await engine.aquery(QUESTION)
    other: Any = (
        synthesizer.synthesize(QUESTION, [TEXT])
        if api == "sync"
        else await synthesizer.asynthesize(QUESTION, [TEXT])
    )
    assert result_of(response) is result_of(response.metadata["run_id"]) is engine.last_result
    assert result_of(other) is synthesizer.last_result
    assert [citation.quote for citation in result_of(response).citations] == [NEEDLE]
    for store in (response, response.metadata["run_id"], result_of(response), engine.last_store):
        assert [each.node.text for each in RLMStoreRetriever(store).retrieve("needle")] == [
            "It is 42."
        ]


async def test_a_cancelled_run_leaves_its_result() -> None:
    """The latest result of an engine can be that of a cancelled query."""
    root = Scripted([code("print(llm_query('wait'))")], overlong(30))
    engine = engine_of(root)
    asked = asyncio.create_task(engine.aquery(QUESTION))
    while not any(request.role == "sub" for request in root.requests):
        await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait({asked})
    assert (engine.last_result.stop_reason, engine.last_result.total_calls) == ("cancelled", 2)
    assert result_of(engine.last_result.run_id) is engine.last_result


async def test_a_users_own_hook_is_called_too() -> None:
    """Keeping results does not replace the user's `on_event`."""
    events: list[Any] = []
    await engine_of(on_event=events.append).aquery(QUESTION)
    assert events


async def test_results_that_are_not_kept() -> None:
    """The error says why there is no result: too many newer ones, a collected engine, or a response
    that is not from a run.
    """
    engine = engine_of()
    first = await engine.aquery(QUESTION)
    for _ in range(MAX_KEPT_RESULTS):
        await engine.aquery(QUESTION)
    with pytest.raises(
        InputError,
        match=rf"no result of run '{first.metadata['run_id']}'.*the last 32 of each engine",
    ):
        result_of(first)
    last = await engine.aquery(QUESTION)
    del engine
    gc.collect()
    with pytest.raises(InputError, match="for the engine's lifetime"):
        result_of(last)
    with pytest.raises(InputError, match="not from a run"):
        result_of(Response("text"))
    with pytest.raises(InputError, match="not int"):
        result_of(5)  # type: ignore[arg-type] # on purpose
    none = await engine_of(store_mode="none").aquery(QUESTION)
    with pytest.raises(InputError):
        RLMStoreRetriever(none)
