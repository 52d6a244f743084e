"""LlamaIndex's OpenAI classes over the fast transport, and the warning about the slow one."""

import asyncio
import sys
import threading
import warnings
from typing import Any

import pytest

from tests.llama_index._world import NO_LLAMA_INDEX, QUESTION

pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)

from rlm_integrations.errors import MissingExtraError
from rlm_integrations.llama_index import (
    LLMBatch,
    RLMQueryEngine,
    SlowTransportWarning,
    fast_openai,
    fast_openai_like,
)
from rlm_integrations.lm.frameworks import base as adapters
from rlm_integrations.lm.frameworks.slow_transport import SlowTransportWarning as LangChains
from tests.lm._foreign import ANSWER, ANSWERS, KEY, MODEL, PROMPTS, foreign, root_or_sub
from tests.standin import StandIn

KINDS = pytest.mark.parametrize("make", [fast_openai, fast_openai_like])


def quick(make: Any, provider: StandIn, **options: Any) -> Any:
    return make(MODEL, api_base=provider.base_url, api_key=KEY, **options)


@KINDS
def test_one_object_serves_every_loop(
    provider: StandIn, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object works on several loops, one after another and at the same time, and with the sync
    API: no answer is lost, and no call needs a thread.
    """
    used: list[object] = []

    async def in_thread(*args: object) -> None:
        used.append(args)

    monkeypatch.setattr(adapters, "in_thread", in_thread)
    batch, found = LLMBatch(quick(make, provider)), []
    assert [
        batch.run(PROMPTS),
        asyncio.run(batch.arun(PROMPTS)),
        asyncio.run(batch.arun(PROMPTS)),
    ] == [ANSWERS] * 3
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(batch.arun(PROMPTS))))
        for _ in range(3)
    ]
    threads += [threading.Thread(target=lambda: found.append(batch.run(PROMPTS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, used) == ([ANSWERS] * 6, [])
    assert provider.stats().calls == 9 * len(PROMPTS)


@KINDS
def test_sdk_retries_are_off_by_default(provider: StandIn, make: Any) -> None:
    """The SDK's own retries are off by default, because they would add to this library's; the user
    can set them.
    """
    assert quick(make, provider).max_retries == 0
    assert quick(make, provider, max_retries=2).max_retries == 2


def test_openai_like_is_a_chat_model(provider: StandIn) -> None:
    """`fast_openai_like` is a chat model by default, unlike OpenAILike, because runs need one."""
    assert fast_openai_like(MODEL, api_base=provider.base_url, api_key=KEY).metadata.is_chat_model


async def test_a_slow_transport_warns(provider: StandIn) -> None:
    """An engine or a batch that may make many concurrent calls over httpx's transport warns and
    names the helper for the class.
    """
    provider.change(scripts={MODEL: root_or_sub})
    slow = foreign("OpenAILike", provider.base_url)
    with pytest.warns(
        SlowTransportWarning, match=rf"OpenAILike\('{MODEL}'\).*40 calls at once.*fast_openai_like"
    ):
        await LLMBatch(slow, max_concurrent=40).arun(["x"])
    with pytest.warns(SlowTransportWarning, match=r"llama_index\.fast_openai\("):
        await RLMQueryEngine.from_defaults(
            "text", llm=foreign("OpenAI", provider.base_url), max_parallel_calls=50
        ).aquery(QUESTION)
    assert SlowTransportWarning is LangChains


async def test_others_do_not_warn(provider: StandIn) -> None:
    """A fast transport, few calls, synchronous methods and models given by name do not warn."""
    provider.change(scripts={MODEL: root_or_sub})
    slow = foreign("OpenAILike", provider.base_url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = RLMQueryEngine.from_defaults(
            "text", llm=quick(fast_openai, provider), max_parallel_calls=50
        )
        assert str(await engine.aquery(QUESTION)) == ANSWER
        await LLMBatch(slow).arun(["x"])
        LLMBatch(slow, max_concurrent=50).run(["x"])
        await LLMBatch(f"openai:{MODEL}@{provider.base_url}", max_concurrent=50).arun(["x"])


@pytest.mark.parametrize(
    ("make", "module"),
    [(fast_openai, "llama_index.llms.openai"), (fast_openai_like, "llama_index.llms.openai_like")],
)
def test_a_missing_package_names_the_extra(
    make: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without LlamaIndex's package for the class, the error names the extra."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"rlm-integrations\[llama-index-openai\]"):
        make("m")
