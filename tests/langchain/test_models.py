"""All chat models are called through LangChain's own API, with everything that LangChain and the
user add to it.
"""

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter

from rlm_integrations.langchain import RLMRunnable
from tests.langchain.conftest import Tracer, tree
from tests.langchain.test_trace import APIS, through
from tests.lm._foreign import ANSWER, CALLS, MODEL, NAMES, foreign
from tests.standin import StandIn

PROVIDERS = pytest.mark.parametrize(
    "kind", ["ChatOpenAI", "ChatAnthropic", "ChatGoogleGenerativeAI"]
)
RUN = ("RLMRunnable", [("rlm.root", []), *[("rlm.sub", [])] * (CALLS - 1)])


@APIS
@PROVIDERS
async def test_real_objects_of_providers(standin: StandIn, kind: str, api: str) -> None:
    """Objects of OpenAI's, Anthropic's and Google's integrations work in a whole run, with one tree
    and every token counted.
    """
    tracer, usage = Tracer(), UsageMetadataCallbackHandler()
    runnable = RLMRunnable(foreign(kind, standin.base_url), context="a document")
    output = await through(api, runnable, "Who?", {"callbacks": [tracer, usage]})
    assert output["answer"] == ANSWER
    assert tree(tracer.roots[0]) == RUN
    assert standin.stats().calls == CALLS
    (name,) = output["usage_metadata"]
    assert name == NAMES.get(kind, MODEL)
    for count in ("input_tokens", "output_tokens", "total_tokens"):
        assert output["usage_metadata"][name][count] == usage.usage_metadata[name][count] > 0


def test_a_cache_of_langchain(standin: StandIn) -> None:
    """A model's own cache answers the second run."""
    runnable = RLMRunnable(
        foreign("ChatOpenAI", standin.base_url, cache=InMemoryCache()), context="a document"
    )
    assert [runnable.invoke("Who?")["answer"] for _ in range(2)] == [ANSWER] * 2
    assert standin.stats().calls == CALLS


class Turnstile(BaseRateLimiter):
    """Counts the calls that pass."""

    def __init__(self) -> None:
        self.passed = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.passed += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


@APIS
async def test_a_rate_limiter_of_langchain(standin: StandIn, api: str) -> None:
    """A model's own rate limiter is called for every call."""
    turnstile = Turnstile()
    runnable = RLMRunnable(
        foreign("ChatOpenAI", standin.base_url, rate_limiter=turnstile), context="a document"
    )
    await through(api, runnable, "Who?")
    assert turnstile.passed == CALLS


class Plain(BaseChatModel):
    """A model with only synchronous methods, whose content is a list of blocks."""

    calls: list[Any] = []  # noqa: RUF012 - a field of pydantic, which copies it

    @property
    def _llm_type(self) -> str:
        return "plain"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.calls.append(kwargs)
        said = '```repl\nFINAL("said")\n```' if messages[0].type == "system" else "never"
        content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": said}]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content))])


@APIS
async def test_a_custom_model(api: str) -> None:
    """A model with only `_generate` and content blocks works with every API method, also bound, and
    makes one tree.
    """
    tracer = Tracer()
    bound = Plain(calls=[]).bind(stop=["x"], top_k=3).with_config(tags=["mine"])
    output = await through(
        api, RLMRunnable(bound, context="a document"), "Who?", {"callbacks": [tracer]}
    )
    assert output["answer"] == "said"
    assert bound.bound.calls == [{"top_k": 3}]
    assert tree(tracer.roots[0]) == ("RLMRunnable", [("rlm.root", [])])
    assert "mine" in tracer.roots[0].child_runs[0].tags
