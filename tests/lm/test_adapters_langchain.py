"""LangChain's chat models: what is sent, how replies are parsed, and what traces show."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import BaseChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from rlm_integrations import RLM, Budget, Limits, allm_batch, llm_batch
from rlm_integrations.errors import InputError, MissingExtraError, ModelError
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.frameworks import langchain
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.records import Completion, Message, Request, Usage
from tests.lm._foreign import ANSWER, MODEL, SCRIPTS, foreign
from tests.lm.conftest import request_of
from tests.standin import Fault, Reply, StandIn, answer_to, serve_in_thread
from tests.standin.settings import Usage as Counts


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with serve_in_thread(scripts=SCRIPTS, keep_requests=True) as server:
        yield server


class Replying(BaseChatModel):
    """A model that implements only `_generate`, as many users' models do."""

    reply: Any = None
    given: list[Any] = []  # noqa: RUF012 - a field of pydantic, which copies it

    @property
    def _llm_type(self) -> str:
        return "replying"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.given.append((messages, kwargs))
        message = (
            self.reply if self.reply is not None else AIMessage(answer_to(messages[-1].content))
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


async def test_a_conversation_as_it_is_sent(standin: StandIn) -> None:
    """Roles and texts are sent unchanged, including braces; the request's parameters override the
    object's.
    """
    messages = (
        Message("system", "{s}"),
        Message("user", "u {x}"),
        Message("assistant", "a"),
        Message("user", "{{u}}"),
    )
    await resolve(foreign("ChatOpenAI", standin.base_url, temperature=0.7)).complete(
        Request(messages, {"temperature": 0, "seed": 7})
    )
    body = standin.requests()[0].body
    assert [(each["role"], each["content"]) for each in body["messages"]] == [
        (each.role, each.content) for each in messages
    ]
    assert (body["model"], body["temperature"], body["seed"]) == (MODEL, 0, 7)


async def test_a_completion_has_all_fields(standin: StandIn) -> None:
    """A completion has the text, the tokens, the answering model's name and the provider's finish
    reason.
    """
    standin.change(
        scripts={MODEL: [Reply("so", usage=Counts(input=9, output=5, cached=4, reasoning=3))]}
    )
    assert await resolve(foreign("ChatOpenAI", standin.base_url)).complete(
        request_of("x")
    ) == Completion("so", Usage(9, 5, 4, 3), MODEL, "stop")


async def test_the_bound_of_replies(standin: StandIn) -> None:
    """The reply bound is sent under the name that the class accepts, and overrides the object's
    own, which stays unchanged.
    """
    llm = foreign("ChatOpenAI", standin.base_url, max_tokens=500)
    before = llm.model_dump()
    await resolve(llm).complete(request_of("x", params={"max_completion_tokens": 77}))
    body = standin.requests()[0].body
    assert (body["max_completion_tokens"], "max_tokens" in body) == (77, False)
    assert llm.model_dump() == before

    plain = Replying()
    await resolve(plain).complete(request_of("x", params={"max_completion_tokens": 77}))
    assert plain.given[0][1] == {"max_tokens": 77}

    class Google(Replying):
        max_output_tokens: int = 5

    class Ollama(Replying):
        num_predict: int = 5

    for kind, expected in ((Google, {"max_output_tokens": 77}), (Ollama, {})):
        model = kind(given=[])
        await resolve(model).complete(request_of("x", params={"max_completion_tokens": 77}))
        assert model.given[0][1] == expected


def test_a_budget_of_tokens_bounds_replies(standin: StandIn) -> None:
    """A run with a token budget sends the reply bound with every call of a LangChain model."""
    llm = foreign("ChatOpenAI", standin.base_url)
    result = RLM(
        llm, budget=Budget(max_tokens=100_000), limits=Limits(reply_tokens=999)
    ).completion("What?", "a document")
    assert result.answer == ANSWER
    assert {each.body["max_completion_tokens"] for each in standin.requests()} == {999}


@pytest.mark.parametrize("name", ["model", "n", "stream", "config", "messages"])
async def test_reserved_parameters_are_refused(name: str) -> None:
    """Parameters that would change how the call is made are refused before anything is sent."""
    model = Replying(given=[])
    with pytest.raises(ModelError, match=name) as caught:
        await resolve(model).complete(request_of("x", params={name: 1}))
    assert (caught.value.type, model.given) == ("input", [])


async def test_a_bound_model(standin: StandIn) -> None:
    """Arguments of `bind` and `with_config` are used for every call, overridden by the request's
    own; the bound model's name is used for prices.
    """
    seen: list[Any] = []

    class Look(BaseCallbackHandler):
        def on_chat_model_start(
            self, serialized: Any, messages: Any, *, tags: Any, metadata: Any, **kwargs: Any
        ) -> None:
            seen.append((tags, metadata))

    bound = (
        foreign("ChatOpenAI", standin.base_url)
        .bind(temperature=0.5, seed=1)
        .with_config(tags=["mine"], callbacks=[Look()])
    )
    lm = resolve(bound.bind(model="other"))
    assert (lm.name, resolve(bound).name) == ("other", MODEL)
    assert (await lm.complete(request_of("x", params={"seed": 2}))).text == answer_to("x")
    body = standin.requests()[0].body
    assert (body["model"], body["temperature"], body["seed"]) == ("other", 0.5, 2)
    assert "mine" in seen[0][0]


def test_a_model_with_only_generate() -> None:
    """A model that implements only `_generate` works with every API, and its calls may wait for
    each other, because they use no limited pool.
    """
    import threading

    together = threading.Barrier(70, timeout=60)

    class Waiting(Replying):
        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            together.wait()
            return super()._generate(messages, *args, **kwargs)

    import asyncio

    prompts = [str(number) for number in range(70)]
    expected = [answer_to(prompt) for prompt in prompts]
    assert llm_batch(prompts, Waiting(), max_concurrent=70) == expected
    assert asyncio.run(allm_batch(prompts, Waiting(), max_concurrent=70)) == expected


def test_a_fake_of_langchain_as_root() -> None:
    """LangChain's own fake models work as the root of a run."""
    replies = iter([AIMessage('FINAL("from a fake")')])
    assert (
        RLM(GenericFakeChatModel(messages=replies)).completion("What?", "a document").answer
        == "from a fake"
    )


BLOCKS = [
    ("a text", "a text"),
    (
        [
            "a",
            {"type": "text", "text": "b"},
            {"type": "reasoning", "reasoning": "hm"},
            {"type": "text", "text": "c"},
        ],
        "abc",
    ),
    (
        [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "so"}],
        "so",
    ),
    (
        [
            {"type": "text", "text": "cited", "annotations": []},
            {"type": "tool_call", "id": "1", "name": "f", "args": {}},
        ],
        "cited",
    ),
]


@pytest.mark.parametrize(("content", "text"), BLOCKS)
async def test_content_in_blocks(content: Any, text: str) -> None:
    """The texts of a list of blocks are joined unchanged."""
    assert (
        await resolve(Replying(reply=AIMessage(content))).complete(request_of("x"))
    ).text == text


CALL = {"type": "tool_call", "id": "1", "name": "f", "args": {}}
NO_ANSWER = [
    (AIMessage("", tool_calls=[CALL]), "tool_calls", False),
    (AIMessage("", additional_kwargs={"refusal": "I cannot"}), "refusal", False),
    (AIMessage([{"type": "refusal", "refusal": "I cannot"}]), "refusal", False),
    (AIMessage([], response_metadata={"stop_reason": "refusal"}), "refusal", False),
    (AIMessage("", response_metadata={"finish_reason": "SAFETY"}), "refusal", False),
    (
        AIMessage("", response_metadata={"prompt_feedback": {"block_reason": "OTHER"}}),
        "refusal",
        False,
    ),
    (AIMessage("", response_metadata={"prompt_feedback": {"block_reason": None}}), "empty", True),
    (AIMessage("", response_metadata={"stop_reason": "max_tokens"}), "empty", False),
    (
        AIMessage(
            [{"type": "thinking", "thinking": "hm"}], response_metadata={"stop_reason": "end_turn"}
        ),
        "empty",
        True,
    ),
    (AIMessage(""), "empty", True),
]


@pytest.mark.parametrize(("reply", "kind", "retryable"), NO_ANSWER)
async def test_a_reply_without_an_answer(reply: AIMessage, kind: str, retryable: bool) -> None:
    """Tool calls, refusals and empty content are errors of the same types as with OpenAILM, for
    every provider's field names.
    """
    with pytest.raises(ModelError) as caught:
        await resolve(Replying(reply=reply)).complete(request_of("x"))
    assert (caught.value.type, caught.value.retryable) == (kind, retryable)
    assert "Replying" in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"finish_reason": "length", "model_name": "m"}, ("m", "length")),
        ({"stop_reason": "end_turn", "model": "claude"}, ("claude", "end_turn")),
        ({"finish_reason": "MAX_TOKENS", "model_name": "gemini"}, ("gemini", "MAX_TOKENS")),
        ({"done_reason": "stop", "model": "llama"}, ("llama", "stop")),
        ({}, ("Replying", None)),
    ],
)
async def test_the_providers_model_name_and_finish_reason(
    metadata: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    """The answering model's name and the finish reason are the provider's own, wherever its
    integration stores them.
    """
    completion = await resolve(Replying(reply=AIMessage("x", response_metadata=metadata))).complete(
        request_of("x")
    )
    assert (completion.model, completion.finish_reason) == expected


async def test_tokens_are_whole_or_unknown() -> None:
    """Without token counts, usage is None; details that are missing or None count as zero."""
    assert (await resolve(Replying()).complete(request_of("x"))).usage is None
    counts: Any = {
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
        "input_token_details": {"audio": 1},
    }
    assert (
        await resolve(Replying(reply=AIMessage("x", usage_metadata=counts))).complete(
            request_of("x")
        )
    ).usage == Usage(3, 2)


async def test_an_empty_answer_is_an_answer(standin: StandIn) -> None:
    """An empty text is an answer if the model ended normally."""
    standin.change(scripts={MODEL: [Reply("")]})
    assert (
        await resolve(foreign("ChatOpenAI", standin.base_url)).complete(request_of("x"))
    ).text == ""


async def test_a_model_that_streams(standin: StandIn) -> None:
    """An object that is set to stream is called so, and its pieces are joined to one answer."""
    completion = await resolve(
        foreign("ChatOpenAI", standin.base_url, streaming=True, stream_usage=True)
    ).complete(request_of("x"))
    assert (completion.text, completion.finish_reason) == (answer_to("x"), "stop")
    assert completion.usage is not None
    assert standin.calls()[0].stream


async def test_a_truncated_answer_is_an_answer(standin: StandIn) -> None:
    """A truncated answer is returned, with the finish reason "length"."""
    standin.change(faults=[Fault("length")])
    completion = await resolve(foreign("ChatOpenAI", standin.base_url)).complete(request_of("x"))
    assert (completion.text, completion.finish_reason) == (answer_to("x")[:6], "length")


class Record(BaseCallbackHandler):
    """Records what a tracer receives about model calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.chains: list[Any] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, **kwargs: Any) -> None:
        self.chains.append(run_id)

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.calls.append(kwargs)


def test_what_traces_show(standin: StandIn) -> None:
    """In traces, root and sub calls have different names, a tag with the depth, and their path in
    the run; all have the tag `nostream`.
    """
    record = Record()
    RLM(foreign("ChatOpenAI", standin.base_url, callbacks=[record])).completion(
        "What?", "a document"
    )
    root, *subs = record.calls
    assert (root["name"], {each["name"] for each in subs}) == ("rlm.root", {"rlm.sub"})
    assert set(root["tags"]) == {"rlm:depth=0", "nostream"}
    assert all(set(each["tags"]) == {"rlm:depth=1", "nostream"} for each in subs)
    paths = [each["metadata"]["rlm_path"] for each in record.calls]
    assert len(set(paths)) == len(paths) == 5
    assert all(path.startswith("r") for path in paths)


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_calls_belong_to_the_chain_around_them(standin: StandIn, api: str) -> None:
    """Inside a LangChain run, the calls of a batch and of an RLM run are its children and count
    towards its usage, with the sync and the async API.
    """
    llm = foreign("ChatOpenAI", standin.base_url)
    record, usage = Record(), UsageMetadataCallbackHandler()

    def step(_: Any) -> str:
        llm_batch(["x"], llm)
        return str(RLM(llm).completion("What?", "a document").answer)

    async def astep(_: Any) -> str:
        await allm_batch(["x"], llm)
        return str((await RLM(llm).acompletion("What?", "a document")).answer)

    chain = RunnableLambda(step, astep)
    config: Any = {"callbacks": [record, usage]}
    assert (
        chain.invoke("go", config) if api == "sync" else await chain.ainvoke("go", config)
    ) == ANSWER
    assert len(record.calls) == 6
    assert {each["parent_run_id"] for each in record.calls} == set(record.chains)
    assert usage.usage_metadata[MODEL]["output_tokens"] > 0


async def test_callbacks_from_the_context_variable(standin: StandIn) -> None:
    """If the context variable is set, it selects the callbacks for each call, with the sync and the
    async API.
    """
    record = Record()
    llm = foreign("ChatOpenAI", standin.base_url)
    paths: list[str] = []

    async def config_of(request: Request) -> Any:
        paths.append(request.path)
        return {"callbacks": [record]}

    token = langchain.outer_config.set(config_of)
    await allm_batch(["x"], llm)
    llm_batch(["y"], llm)
    langchain.outer_config.reset(token)
    await allm_batch(["z"], llm)
    assert len(record.calls) == 2
    assert paths == ["b.0", "b.0"]


def test_the_context_window() -> None:
    """The context window is that of the model's profile; without a profile it is None."""
    assert resolve(Replying(profile={"max_input_tokens": 1000})).context_window == 1000
    assert resolve(Replying()).context_window is None
    # LangChain knows this one
    assert resolve(foreign("ChatOpenAI", "http://127.0.0.1:9/v1")).context_window == 128_000


def test_names() -> None:
    """A model's name is that of its object, else of its class."""

    class Named(Replying):
        model: str = "models/gemini-x"

    assert resolve(Named()).name == "gemini-x"
    assert resolve(Replying()).name == "Replying"
    assert repr(resolve(Named())) == "LangChainLM('gemini-x')"
    assert isinstance(resolve(Named()), LM)


NO_MODELS = [
    ChatPromptTemplate.from_template("{x}"),
    Replying() | StrOutputParser(),
    (Replying() | StrOutputParser()).bind(x=1),
    FakeListLLM(responses=[]),
    InMemoryVectorStore(DeterministicFakeEmbedding(size=2)).as_retriever(),
    DeterministicFakeEmbedding(size=2),
]


@pytest.mark.parametrize("wrong", NO_MODELS, ids=[type(each).__name__ for each in NO_MODELS])
def test_other_runnables_are_refused(wrong: Any) -> None:
    """LangChain objects that never return a message are refused at once."""
    with pytest.raises(
        InputError, match="a model is a BaseChatModel or any Runnable that returns an AIMessage"
    ):
        resolve(wrong)


@pytest.mark.parametrize("api", ["sync", "async"])
@pytest.mark.parametrize(
    "wrong",
    [RunnableLambda(len), Replying() | RunnableLambda(lambda _: 5), RunnableLambda(len).bind()],
)
async def test_a_runnable_that_returns_no_message(wrong: Any, api: str) -> None:
    """A Runnable that does not return a message fails at its first call, with an error that names
    the returned type.
    """
    with pytest.raises(ModelError, match="a model must return an AIMessage, not a int"):
        if api == "sync":
            RLM(wrong).completion("What?", "a document")
        else:
            await RLM(wrong).acompletion("What?", "a document")


def test_an_unsuitable_version_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the installed framework lacks something, the error names the extra to install."""
    monkeypatch.setitem(__import__("sys").modules, "rlm_integrations.lm.frameworks.langchain", None)
    with pytest.raises(MissingExtraError, match=r"rlm-integrations\[langchain\]"):
        resolve(Replying())


def test_models_of_both_kinds_in_one_run(standin: StandIn) -> None:
    """A LangChain root calls sub-models by their registered names, one bound, one plain."""
    program = """```repl
FINAL(llm_query("x", model="strong") + "|" + llm_query("y"))
```"""
    standin.change(scripts={MODEL: [program]})
    root = foreign("ChatOpenAI", standin.base_url)
    subs = {
        "fast": foreign("ChatOpenAI", standin.base_url).bind(model="fast"),
        "strong": Replying(),
    }
    result = RLM(root, subs).completion("What?", "a document")
    assert result.answer == f"{answer_to('x')}|{answer_to('y')}"
    assert [call.model for call in standin.calls()] == [MODEL, "fast"]
