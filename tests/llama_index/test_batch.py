"""Batches over LlamaIndex models."""

import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.llama_index._world import NO_LLAMA_INDEX, scripted_llm

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.llms import MockLLM

from rlm_integrations import LLMError
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index import LLMBatch
from tests.lm._foreign import ANSWERS, PROMPTS, foreign
from tests.standin import Fault, StandIn, answer_to

APIS = pytest.mark.parametrize("api", ["sync", "async"])
KINDS = pytest.mark.parametrize("kind", ["OpenAI", "OpenAILike"])


async def run(batch: LLMBatch, api: str, prompts: Any, **options: Any) -> list[str]:
    return batch.run(prompts, **options) if api == "sync" else await batch.arun(prompts, **options)


@KINDS
@APIS
async def test_order_and_concurrency(provider: StandIn, kind: str, api: str) -> None:
    """Replies are in the order of the prompts, with at most `max_concurrent` calls at a time."""
    provider.change(latency=0.05)
    assert (
        await run(LLMBatch(foreign(kind, provider.base_url), max_concurrent=5), api, PROMPTS)
        == ANSWERS
    )
    assert provider.stats().most_in_flight == 5


@KINDS
@APIS
async def test_failures_are_values(provider: StandIn, kind: str, api: str) -> None:
    """A permanent failure is an error in its slot; a temporary refusal is retried."""
    provider.change(
        faults=[Fault("bad_request", match="p3"), Fault("rate_limit", match="p4", times=1)]
    )
    replies = await run(LLMBatch(foreign(kind, provider.base_url, max_retries=0)), api, PROMPTS)
    assert [type(reply) for reply in replies].count(LLMError) == 1
    assert isinstance(replies[3], LLMError)
    assert replies[4:] == ANSWERS[4:]


@APIS
async def test_as_they_complete(provider: StandIn, api: str) -> None:
    """Numbered replies are yielded as they arrive; closing the iterator cancels the calls in
    flight.
    """
    batch = LLMBatch(foreign("OpenAI", provider.base_url))
    if api == "sync":
        assert dict(batch.run_as_completed(PROMPTS)) == dict(enumerate(ANSWERS))
    else:
        assert {number: reply async for number, reply in batch.arun_as_completed(PROMPTS)} == dict(
            enumerate(ANSWERS)
        )


@APIS
async def test_messages_of_llama_index(provider: StandIn, api: str) -> None:
    """A prompt can be a list of chat messages; one with an image is refused in its slot, not sent
    without it.
    """
    talk = [
        ChatMessage("Be brief.", role=MessageRole.SYSTEM),
        ChatMessage(blocks=[TextBlock(text="a"), TextBlock(text="b")]),
    ]
    seen = [ChatMessage(blocks=[TextBlock(text="a"), ImageBlock(url="http://127.0.0.1/x.png")])]
    tool = [ChatMessage("x", role=MessageRole.TOOL)]
    replies = await run(
        LLMBatch(foreign("OpenAI", provider.base_url)), api, [talk, seen, tool, "plain"]
    )
    assert replies[0] == answer_to("ab")
    assert [reply.type for reply in replies[1:3]] == ["input", "input"]
    assert replies[3] == answer_to("plain")
    sent = next(
        each.body["messages"] for each in provider.requests() if len(each.body["messages"]) == 2
    )
    assert [(each["role"], each["content"]) for each in sent] == [
        ("system", "Be brief."),
        ("user", "ab"),
    ]


async def test_prompts_from_anywhere() -> None:
    """Prompts can be pulled from a generator or an async generator."""

    async def arriving() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    batch = LLMBatch(scripted_llm(str.upper))
    assert await batch.arun(arriving()) == ["A", "B"]
    assert batch.run(prompt for prompt in "ab") == ["A", "B"]


async def test_options() -> None:
    """Options of the batch apply to each call, which can override them; the user's hooks are called
    too.
    """
    told, seen = [], []
    batch = LLMBatch(
        scripted_llm(str.upper),
        on_progress=lambda *done: told.append(done),
        on_event=seen.append,
        dedupe=True,
    )
    assert await batch.arun(["a", "a"]) == ["A", "A"]
    assert told[-1] == (2, 2, 0)
    assert sum(type(event).__name__ == "CallStarted" for event in seen) == 1
    assert await batch.arun(["a", "a"], dedupe=False) == ["A", "A"]
    assert sum(type(event).__name__ == "CallStarted" for event in seen) == 3


def test_bad_arguments_and_pickling() -> None:
    """Unknown options and a single string are refused; the default model is looked up late; a batch
    can be pickled if its model can.
    """
    with pytest.raises(InputError, match="a batch has no option workers; there are max_concurrent"):
        LLMBatch(MockLLM(), workers=3)
    with pytest.raises(InputError, match=r"write \[prompt\]"):
        LLMBatch(MockLLM()).run("one")
    with pytest.raises(InputError, match="not 5"):
        LLMBatch(MockLLM()).run(5)
    late = LLMBatch()
    with pytest.raises(InputError, match=r"set Settings\.llm"):
        late.run(["x"])
    Settings.llm = scripted_llm(str.upper)
    assert late.run(["x"]) == ["X"]
    assert pickle.loads(pickle.dumps(LLMBatch("offline", max_concurrent=3)))._options == {
        "max_concurrent": 3
    }
