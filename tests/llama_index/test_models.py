"""Real LlamaIndex models over real HTTP, as root and as sub-model of an engine, with the sync and
the async API.
"""

import asyncio
import re
from typing import Any

import pytest

from tests.llama_index._world import (
    ASKED,
    ASKS,
    AT,
    NO_LLAMA_INDEX,
    QUESTION,
    TEXT,
    ask,
    root_or_sub,
)

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Document, Settings
from llama_index.core.callbacks import CallbackManager

from rlm_integrations import OpenAILM
from rlm_integrations.errors import ModelError
from rlm_integrations.llama_index import LLMBatch, RLMQueryEngine
from tests.engine.conftest import code
from tests.lm._foreign import GEMINI, KEY, MODEL, NAMES, foreign, needs_anthropic_1
from tests.standin import Ask, Fault, StandIn, answer_to

OPENAI = ["OpenAILike", "OpenAI"]
ALL = [*OPENAI, pytest.param("Anthropic", marks=needs_anthropic_1), "GoogleGenAI"]
APIS = pytest.mark.parametrize("api", ["sync", "async"])


def by_words(ask: Ask) -> str:
    """Root or sub-model, decided by the prompt: each provider has its own place for the system
    message.
    """
    return answer_to(ask.prompt) if re.fullmatch(r"q\d", ask.prompt) else ASKS


def engine_of(llm: Any, **options: Any) -> RLMQueryEngine:
    return RLMQueryEngine.from_defaults(Document(text=TEXT, id_="doc-1"), llm=llm, **options)


@pytest.mark.parametrize("kind", ALL)
@APIS
async def test_each_as_root_and_sub_model(provider: StandIn, kind: str, api: str) -> None:
    """A run with one model: its code makes concurrent calls, replies are in order, the citation is
    valid, the provider's tokens are counted.
    """
    name = NAMES.get(kind, MODEL)
    provider.change(scripts={name: by_words})
    engine = engine_of(foreign(kind, provider.base_url))
    response = await ask(engine, api)
    assert str(response) == ASKED
    assert response.source_nodes[0].node.start_char_idx == AT
    assert provider.stats().calls == response.metadata["calls"] == 5
    assert response.metadata["tokens"] > 0


@pytest.mark.parametrize("kind", ALL)
@APIS
async def test_each_in_a_batch(provider: StandIn, kind: str, api: str) -> None:
    """The same in a batch."""
    batch, prompts = (
        LLMBatch(foreign(kind, provider.base_url)),
        [f"q{number}" for number in range(4)],
    )
    replies = batch.run(prompts) if api == "sync" else await batch.arun(prompts)
    assert "|".join(replies) == ASKED


@APIS
async def test_models_of_different_makers(provider: StandIn, api: str) -> None:
    """Root and sub-models can have different providers, and code chooses among the registered
    names.
    """
    program = code(
        'FINAL("|".join(llm_query(f"q{n}", model=name) for n, name in enumerate(["fast", "strong"])))'
    )
    provider.change(scripts={MODEL: [program]})
    subs = {
        "fast": OpenAILM("sub", base_url=provider.base_url, api_key=KEY),
        "strong": foreign("GoogleGenAI", provider.base_url),
    }
    response = await ask(engine_of(foreign("OpenAI", provider.base_url), sub_llm=subs), api)
    assert str(response) == "|".join(answer_to(f"q{number}") for number in range(2))
    assert [call.model for call in provider.calls()] == [MODEL, "sub", GEMINI]


@pytest.mark.parametrize("kind", OPENAI)
def test_one_object_with_every_api(provider: StandIn, kind: str) -> None:
    """One model works on several event loops in turn and in synchronous calls, also inside a loop,
    and loses no answer.
    """
    provider.change(scripts={MODEL: root_or_sub})
    engine = engine_of(foreign(kind, provider.base_url))

    async def from_within() -> list[str]:
        together = await asyncio.gather(engine.aquery(QUESTION), engine.aquery(QUESTION))
        return [str(engine.query(QUESTION)), *map(str, together)]

    for _ in range(2):
        assert asyncio.run(from_within()) == [ASKED] * 3
    assert str(engine.query(QUESTION)) == ASKED
    assert provider.stats().calls == 7 * 5


@pytest.mark.parametrize("kind", OPENAI)
@APIS
async def test_the_users_object_stays_as_it_is(provider: StandIn, kind: str, api: str) -> None:
    """No field and no callback manager of the model changes, and no setting."""
    provider.change(scripts={MODEL: root_or_sub})
    manager = CallbackManager([])
    llm = foreign(kind, provider.base_url, callback_manager=manager, temperature=0.3)
    before = llm.model_dump()
    assert str(await ask(engine_of(llm), api)) == ASKED
    assert llm.model_dump() == before
    assert llm.callback_manager is manager
    assert (Settings._llm, Settings._callback_manager) == (None, None)
    assert {each.body["temperature"] for each in provider.requests()} == {0.3}


@pytest.mark.parametrize("kind", OPENAI)
@APIS
async def test_a_model_that_fails(provider: StandIn, kind: str, api: str) -> None:
    """A failing root model is an error of this library, without the key; a failing sub-call is a
    value for the code.
    """
    provider.change(faults=[Fault("echo_key")])
    with pytest.raises(ModelError) as caught:
        await ask(engine_of(foreign(kind, provider.base_url)), api)
    assert caught.value.type == "auth"
    assert KEY not in str(caught.value)
    provider.change(scripts={MODEL: root_or_sub}, faults=[Fault("bad_request", match="q2")])
    assert "|Error: bad_request" in str(await ask(engine_of(foreign(kind, provider.base_url)), api))


async def test_a_root_that_fails_later(provider: StandIn) -> None:
    """If the root fails later, the response has the best answer so far, and the reason."""
    provider.change(scripts={MODEL: [code("print(1)")]}, faults=[Fault("auth", at=(1,))])
    response = await engine_of(foreign("OpenAI", provider.base_url)).aquery(QUESTION)
    assert (response.metadata["stop_reason"], response.metadata["calls"]) == ("model_error", 2)
    assert "Error: auth" in response.metadata["error"]


async def test_cancelling_aborts_the_calls(provider: StandIn) -> None:
    """Cancelling `aquery` aborts the calls in flight."""
    provider.change(scripts={MODEL: root_or_sub}, faults=[Fault("hang", match="q")])
    asked = asyncio.create_task(engine_of(foreign("OpenAI", provider.base_url)).aquery(QUESTION))
    while provider.stats().in_flight < 4:
        await asyncio.sleep(0.005)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    while provider.stats().in_flight:
        await asyncio.sleep(0.005)
    assert provider.stats().aborted == 4
