"""Batches: prompts in every form, replies in order, errors in their slots."""

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda

from rlm_integrations import LLMError
from rlm_integrations.errors import InputError
from rlm_integrations.langchain import LLMBatchRunnable
from tests.langchain.conftest import Together, Tracer
from tests.langchain.test_trace import APIS, through, until
from tests.lm._foreign import MODEL, foreign
from tests.standin import Fault, StandIn, answer_to

IMAGE = HumanMessage(
    [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:,"}},
    ]
)


@pytest.fixture
def batch(standin: StandIn) -> LLMBatchRunnable:
    standin.change(scripts={})
    return LLMBatchRunnable(
        foreign("ChatOpenAI", standin.base_url, max_retries=0), max_concurrent=5
    )


@APIS
async def test_replies_in_order(standin: StandIn, batch: LLMBatchRunnable, api: str) -> None:
    """There is one reply per prompt, in the order of the prompts; identical prompts are separate
    calls.
    """
    standin.change(latency=0.02, jitter=0.02)
    prompts = [f"p{number % 20}" for number in range(60)]
    assert await through(api, batch, prompts) == [answer_to(prompt) for prompt in prompts]
    assert standin.stats().calls == 60
    assert standin.stats().most_in_flight <= 5


@APIS
async def test_errors_in_their_slots(standin: StandIn, batch: LLMBatchRunnable, api: str) -> None:
    """An invalid prompt, a permanent failure and a temporary one do not affect the other
    prompts.
    """
    standin.change(
        faults=[Fault("bad_request", match="bad"), Fault("server", match="later", times=1)]
    )
    replies = await through(api, batch, ["a", None, "bad", "later", IMAGE])
    assert [replies[0], replies[3]] == [answer_to("a"), answer_to("later")]
    errors = [replies[1], replies[2], replies[4]]
    assert all(isinstance(reply, LLMError) for reply in errors)
    assert [reply.type for reply in errors] == ["input", "bad_request", "input"]
    assert "image_url" in errors[2].message


@APIS
async def test_an_empty_batch(batch: LLMBatchRunnable, api: str) -> None:
    """An empty batch makes no calls and returns an empty list."""
    if api in {"invoke", "ainvoke"}:
        assert await through(api, batch, []) == []
    else:
        assert [part async for part in batch.astream([])] == []


def test_prompts_in_every_form(standin: StandIn, batch: LLMBatchRunnable) -> None:
    """A prompt is a string, a message, a tuple or a prompt value, alone or as a conversation."""
    chat = ChatPromptTemplate.from_messages([("system", "be brief"), ("human", "{x}")])
    prompts = [
        "a",
        HumanMessage("b"),
        [
            SystemMessage("s"),
            HumanMessage("c"),
            AIMessage("so"),
            HumanMessage([{"type": "text", "text": "d"}]),
        ],
        [("system", "s"), ("human", "e")],
        PromptTemplate.from_template("{x}").invoke({"x": "f"}),
        chat.invoke({"x": "g"}),
        LLMError("timeout", "from an earlier batch"),
    ]
    replies = batch.invoke(prompts)
    assert replies[:6] == [answer_to(prompt) for prompt in "abdefg"]
    assert replies[6] == prompts[6]
    sent = sorted([each["role"] for each in kept.body["messages"]] for kept in standin.requests())
    assert sent == sorted(
        [
            ["user"],
            ["user"],
            ["system", "user", "assistant", "user"],
            ["system", "user"],
            ["user"],
            ["system", "user"],
        ]
    )


def test_in_a_chain(batch: LLMBatchRunnable) -> None:
    """A batch works in a chain, between a template's batch and a parser."""
    template = PromptTemplate.from_template("About {x}?")
    chain = (
        RunnableLambda(lambda words: template.batch([{"x": word} for word in words]))
        | batch
        | RunnableLambda(len)
    )
    assert chain.invoke(["a", "b", "c"]) == 3


@APIS
async def test_bounds_of_a_configuration(api: str) -> None:
    """`max_concurrency` lowers the fan-out and never raises it."""
    for config, most in (({"max_concurrency": 2}, 2), ({"max_concurrency": 50}, 5)):
        model = Together(most)
        await through(
            api,
            LLMBatchRunnable(model, max_concurrent=5),
            [str(number) for number in range(20)],
            config,
        )
        assert model.most == most


def test_options(standin: StandIn) -> None:
    """Parameters are sent with every call, and `dedupe` sends identical prompts once."""
    llm = foreign("ChatOpenAI", standin.base_url)
    assert LLMBatchRunnable(llm, dedupe=True, params={"temperature": 0}).invoke(
        ["a", "b", "a"]
    ) == [answer_to(each) for each in "aba"]
    assert [kept.body["temperature"] for kept in standin.requests()] == [0, 0]


@pytest.mark.parametrize("wrong", ["a", {"a": 1}, None, HumanMessage("a")])
def test_a_single_string_is_refused(batch: LLMBatchRunnable, wrong: Any) -> None:
    """A single string is an error, not a list of characters."""
    with pytest.raises(InputError, match="list of prompts"):
        batch.invoke(wrong)


async def test_replies_are_streamed(standin: StandIn, batch: LLMBatchRunnable) -> None:
    """A stream yields replies as soon as they and all earlier ones have arrived. Closing it aborts
    the rest.
    """
    standin.change(faults=[Fault("hang", match="hang")])
    parts = batch.astream(["a", "b", "hang", "c"])
    found: list[str] = []
    while len(found) < 2:
        found += await anext(parts)
    assert found == [answer_to("a"), answer_to("b")]
    await parts.aclose()
    await until(lambda: standin.stats().aborted == 1)


async def test_cancelling(standin: StandIn, batch: LLMBatchRunnable) -> None:
    """Cancelling aborts all calls, and tracers receive the end of the run."""
    standin.change(faults=[Fault("hang")])
    tracer = Tracer()
    run = asyncio.ensure_future(batch.ainvoke(["x"] * 9, {"callbacks": [tracer]}))
    await until(lambda: standin.stats().in_flight == 5)
    run.cancel()
    await asyncio.wait({run})
    assert run.cancelled()
    await until(lambda: standin.stats().aborted == 5)
    assert "Cancelled" in str(tracer.roots[0].error)
    assert standin.stats().calls == 5


@APIS
async def test_tokens_and_progress(batch: LLMBatchRunnable, api: str) -> None:
    """LangChain's usage callback counts every call, and the steps are custom events."""
    usage, tracer = UsageMetadataCallbackHandler(), Tracer()
    await through(
        api, batch, [f"p{number}" for number in range(50)], {"callbacks": [usage, tracer]}
    )
    assert usage.usage_metadata[MODEL]["output_tokens"] == 50 * (len(answer_to("p")) // 4 + 1)
    names = [name for name, _ in tracer.events]
    assert (names[0], names[-1]) == ("rlm.batch_started", "rlm.batch_finished")
    assert [data["done"] for name, data in tracer.events if name == "rlm.batch_progress"][-1] == 50
    assert len(names) <= 2 + 26


@pytest.mark.parametrize("model", ["offline", "openai:m@http://127.0.0.1:9/v1"])
def test_any_model(model: str) -> None:
    """A model's name is accepted, and resolved once."""
    runnable = LLMBatchRunnable(model)
    assert not isinstance(runnable.llm, str)
