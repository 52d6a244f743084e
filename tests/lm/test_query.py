"""`query`, `aquery` and `query_async`: one prompt to one model."""

import pytest

from rlm_integrations import InputError, Message, ModelError, OpenAILM, Retry
from rlm_integrations.lm.offline import OfflineLM
from tests.standin import Ask, Fault, serve

PROMPT = "Who approved the dam?\n\nThe dam was approved by Rossi. Rain fell."


def test_a_plain_call_from_a_script() -> None:
    """The reply is a string; the prompt can be messages."""
    assert OfflineLM().query(PROMPT) == "- The dam was approved by Rossi."
    assert OfflineLM().query([Message("user", PROMPT)]) == OfflineLM().query(
        [{"role": "user", "content": PROMPT}]
    )


async def test_the_async_forms() -> None:
    """`aquery` and `query_async` return the same as `query`, and `query` works inside a running
    loop.
    """
    llm = OfflineLM()
    assert await llm.aquery(PROMPT) == await llm.query_async(PROMPT) == llm.query(PROMPT)


async def test_parameters_reach_the_provider() -> None:
    """`params` are sent with the call, under the provider's names."""
    asked: list[Ask] = []

    def answer(ask: Ask) -> str:
        asked.append(ask)
        return "hello"

    async with serve(scripts={"m": answer}) as provider:
        llm = OpenAILM("m", base_url=provider.base_url, api_key="k")
        assert await llm.aquery("hi", params={"temperature": 0}) == "hello"
    assert asked[0].body["temperature"] == 0
    assert asked[0].prompt == "hi"


async def test_failures_raise() -> None:
    """An invalid prompt is an `InputError`; a failed call is a `ModelError` with its type, after
    its retries.
    """
    async with serve(faults=[Fault("server")]) as provider:
        llm = OpenAILM("m", base_url=provider.base_url, api_key="k")
        with pytest.raises(ModelError) as caught:
            await llm.aquery("hi", retry=Retry(failures=2, first_delay=0.001))
        assert caught.value.type == "server"
        assert provider.stats().calls == 3
        for prompt in ([], "\ud800", 5):
            with pytest.raises(InputError):
                await llm.aquery(prompt)  # type: ignore[arg-type] # on purpose
