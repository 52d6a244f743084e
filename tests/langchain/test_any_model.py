"""Any Runnable that returns an `AIMessage` is a model: fallbacks, configurable models, chains,
names of providers.
"""

import pickle
import sys
from typing import Any

import pytest
from langchain.chat_models import init_chat_model
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import SystemMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda

from rlm_integrations import RLM, Budget, Limits, allm_batch
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.langchain import LLMBatchRunnable, RLMRunnable
from rlm_integrations.lm.providers import PACKAGES
from rlm_integrations.lm.resolve import resolve
from tests.langchain.conftest import Tracer, tree
from tests.langchain.test_trace import APIS, through
from tests.lm._foreign import ANSWER, CALLS, CLAUDE, GEMINI, KEY, MODEL, foreign, root_or_sub
from tests.lm.conftest import request_of
from tests.standin import Fault, StandIn, answer_to

OTHER = "gpt-4o"


@pytest.fixture(autouse=True)
def both_models(standin: StandIn) -> None:
    standin.change(scripts=dict.fromkeys((MODEL, OTHER, CLAUDE, GEMINI), root_or_sub))


def chat(standin: StandIn, model: str = MODEL) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=model, base_url=standin.base_url, api_key=KEY, max_retries=0)


def unreachable() -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="down", base_url="http://127.0.0.1:9/v1", api_key=KEY, max_retries=0)


def with_fallbacks(standin: StandIn) -> Any:
    return unreachable().with_fallbacks([chat(standin)])


def configurable_fields(standin: StandIn) -> Any:
    return chat(standin, "down").configurable_fields(model_name=ConfigurableField(id="model"))


def alternatives(standin: StandIn) -> Any:
    return chat(standin, "down").configurable_alternatives(
        ConfigurableField(id="model"), **{MODEL: chat(standin)}
    )


def initialised(standin: StandIn) -> Any:
    return init_chat_model(
        "openai:down",
        configurable_fields=("model",),
        base_url=standin.base_url,
        api_key=KEY,
        max_retries=0,
    )


def bound_fallbacks(standin: StandIn) -> Any:
    return with_fallbacks(standin).bind(seed=1).with_config(tags=["mine"])


def chain(standin: StandIn) -> Any:
    return RunnableLambda(lambda messages: [*messages[:-1], messages[-1]]) | chat(standin)


KINDS = [with_fallbacks, configurable_fields, alternatives, initialised, bound_fallbacks, chain]
CONFIGURED: dict[str, Any] = {"configurable": {"model": MODEL}}


@APIS
@pytest.mark.parametrize("make", KINDS, ids=[each.__name__ for each in KINDS])
async def test_any_runnable_drives_a_run(standin: StandIn, make: Any, api: str) -> None:
    """Any such Runnable works as root and as sub-model, with every API method; its tokens are
    counted and its calls are in one tree.
    """
    tracer, usage = Tracer(), UsageMetadataCallbackHandler()
    runnable = RLMRunnable(make(standin), context="a document")
    output = await through(api, runnable, "Who?", {"callbacks": [tracer, usage], **CONFIGURED})
    assert output["answer"] == ANSWER
    assert (
        output["usage_metadata"][MODEL]["input_tokens"]
        == usage.usage_metadata[MODEL]["input_tokens"]
        > 0
    )
    assert [call.model for call in standin.calls()] == [MODEL] * CALLS
    (root,) = tracer.roots
    assert {name for name, _ in tree(root)[1]} == {"rlm.root", "rlm.sub"}


@APIS
@pytest.mark.parametrize("make", KINDS, ids=[each.__name__ for each in KINDS])
async def test_any_runnable_answers_a_batch(standin: StandIn, make: Any, api: str) -> None:
    """Any such Runnable works in a batch."""
    standin.change(scripts={})
    prompts = [str(number) for number in range(4)]
    replies = await through(api, LLMBatchRunnable(make(standin)), prompts, CONFIGURED)
    assert replies == [answer_to(prompt) for prompt in prompts]


@APIS
@pytest.mark.parametrize("make", [configurable_fields, alternatives, initialised])
async def test_a_configuration_chooses_for_each_run(standin: StandIn, make: Any, api: str) -> None:
    """With different configurations, one runnable calls the configured model of each run."""
    standin.change(scripts={})
    batch = LLMBatchRunnable(make(standin))
    asked = [MODEL, MODEL] if make is alternatives else [MODEL, OTHER]
    for name in asked:
        assert await through(api, batch, ["x"], {"configurable": {"model": name}}) == [
            answer_to("x")
        ]
    assert await through(api, batch, ["x"]) == [answer_to("x")]
    assert [call.model for call in standin.calls()] == [*asked, "down"]


async def test_a_configuration_that_selects_no_model(standin: StandIn) -> None:
    """A configuration that selects no model is an error of the call that names the
    configuration.
    """
    with pytest.raises(ModelError, match="the configuration selects no model"):
        await RLMRunnable(alternatives(standin), context="x").ainvoke(
            "Who?", {"configurable": {"model": "nowhere"}}
        )


def test_names_windows_and_bounds(standin: StandIn) -> None:
    """The name is that of the first of several models; the window is the smallest; a reply bound is
    sent to all, or to none if their parameters differ.
    """
    mixed = chat(standin).with_fallbacks([foreign("ChatGoogleGenerativeAI", standin.base_url)])
    assert (resolve(mixed).name, resolve(configurable_fields(standin)).name) == (MODEL, "down")
    assert resolve(mixed).context_window == 128_000
    assert resolve(RunnableLambda(lambda _: None)).context_window is None
    assert repr(resolve(initialised(standin))) == "ConfigurableLM('down')"
    budget, limits = Budget(max_tokens=100_000), Limits(reply_tokens=999)
    for model in (with_fallbacks(standin), chat(standin).with_retry(stop_after_attempt=1)):
        standin.reset()
        assert (
            RLM(model, budget=budget, limits=limits).completion("Who?", "a document").answer
            == ANSWER
        )
        bounds = {kept.body["max_completion_tokens"] for kept in standin.requests()}
        assert bounds == {999}
    standin.reset()
    assert (
        RLM(mixed, budget=budget, limits=limits).completion("Who?", "a document").answer == ANSWER
    )
    assert {"max_completion_tokens" in kept.body for kept in standin.requests()} == {False}


async def test_fallbacks_that_fail_too(standin: StandIn) -> None:
    """If all fallbacks fail, the error is the first one's, with a type of this library."""
    standin.change(faults=[Fault("not_found")])
    with pytest.raises(ModelError) as caught:
        await resolve(chat(standin).with_fallbacks([unreachable()])).complete(request_of("x"))
    assert (caught.value.type, KEY in str(caught.value)) == ("not_found", False)


def test_the_answering_model_is_charged(standin: StandIn) -> None:
    """Tokens and cost are those of the model that answered, not of the failed one."""
    result = RLM(with_fallbacks(standin)).completion("Who?", "a document")
    assert (set(result.usage), result.cost) == (
        {MODEL},
        pytest.approx(RLM(chat(standin)).completion("Who?", "a document").cost),
    )


PROVIDERS = [(f"anthropic:{CLAUDE}", "ANTHROPIC"), (f"google_genai:{GEMINI}", "GOOGLE")]


def at_standin(standin: StandIn, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """Have the clients of a provider's models call the stand-in."""
    address = standin.base_url.removesuffix("/v1")
    monkeypatch.setenv(f"{provider}_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_URL", address)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", address)


@APIS
@pytest.mark.parametrize(("name", "provider"), PROVIDERS)
async def test_names_of_providers(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, name: str, provider: str, api: str
) -> None:
    """Names that `create_agent` accepts are accepted, and the model's own retries are off."""
    at_standin(standin, monkeypatch, provider)
    runnable = RLMRunnable(name, {"sub": name}, context="a document")
    assert (await through(api, runnable, "Who?"))["answer"] == ANSWER
    assert runnable.root_llm.max_retries == LLMBatchRunnable(name).llm.max_retries == 0
    assert {call.model for call in standin.calls()} == {name.partition(":")[2]}


@pytest.mark.parametrize(
    ("name", "why"),
    [("google_genai:x", "init_chat_model cannot create 'google_"), ("groq:x", "langchain-groq")],
)
def test_names_that_cannot_be_created(name: str, why: str) -> None:
    """A missing key or package is an error when the name is given."""
    for make in (RLMRunnable, LLMBatchRunnable, RLM, lambda name: RLM("offline", {"a": name})):
        with pytest.raises(InputError, match=why):
            make(name)


def test_langchain_itself_is_needed_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package langchain, or the provider's, the error names both."""
    both = "needs the packages langchain and {0}: pip install langchain {0}"
    with pytest.raises(InputError, match=both.format("langchain-ollama")):
        RLM("ollama:llama3.1:8b")
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    for make in (RLMRunnable, RLM):
        with pytest.raises(InputError, match=both.format("langchain-anthropic")):
            make("anthropic:x")


@pytest.mark.parametrize(("name", "provider"), PROVIDERS)
async def test_names_of_providers_work_wherever_a_model_is_named(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, name: str, provider: str
) -> None:
    """A name for `init_chat_model` works as root, as sub-model, in batches and in a pickled RLM,
    without a face.
    """
    at_standin(standin, monkeypatch, provider)
    rlm = pickle.loads(pickle.dumps(RLM(name, {"sub": name})))
    assert (await rlm.acompletion("Who?", "a document")).answer == ANSWER
    assert await allm_batch(["x"], name) == [answer_to("x")]
    standin_model = name.partition(":")[2]
    assert rlm.options["root_llm"].name == standin_model
    assert {call.model for call in standin.calls()} == {standin_model}


def test_all_providers_of_langchain_are_known() -> None:
    """Every provider of `init_chat_model` is known with its package, but OpenAI, which has a client
    of its own.
    """
    from langchain.chat_models.base import _BUILTIN_PROVIDERS

    module_of = {
        provider: each[0].partition(".")[0] for provider, each in _BUILTIN_PROVIDERS.items()
    }
    assert {name: package.replace("-", "_") for name, package in PACKAGES.items()} == {
        name: module for name, module in module_of.items() if name != "openai"
    }


def test_the_prompt_reaches_a_chain_as_messages() -> None:
    """A user's function before or as the model receives LangChain messages."""
    seen: list[Any] = []

    def model(messages: Any) -> Any:
        from langchain_core.messages import AIMessage

        seen.append(messages)
        return AIMessage('FINAL("own")')

    assert RLMRunnable(RunnableLambda(model), context="x").invoke("Who?")["answer"] == "own"
    assert isinstance(seen[0][0], SystemMessage)
