"""`query`, `aquery` and `query_async`: one prompt to one model."""

import pytest

from rlm_integrations import InputError, Message, ModelError, OpenAILM, Retry
from rlm_integrations.lm.offline import OfflineLM
from tests.standin import Ask, Fault, serve

PROMPT = "Who approved the dam?\n\nThe dam was approved by Rossi. Rain fell."


def test_a_plain_call_from_a_script() -> None:
    """The reply is a string; messages may be given instead of one."""
    assert OfflineLM().query(PROMPT) == "- The dam was approved by Rossi."
    assert OfflineLM().query([Message("user", PROMPT)]) == OfflineLM().query(
        [{"role": "user", "content": PROMPT}]
    )


async def test_the_async_form_and_the_originals_name_for_it() -> None:
    """Both give what the plain form gives, and the plain form works inside a running loop."""
    llm = OfflineLM()
    assert await llm.aquery(PROMPT) == await llm.query_async(PROMPT) == llm.query(PROMPT)


async def test_parameters_reach_the_provider() -> None:
    """`params` are the call's own, in the provider's names."""
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
    """A prompt that cannot be sent is an `InputError`; a model that fails for good a `ModelError`
    with its type, after its retries.
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
