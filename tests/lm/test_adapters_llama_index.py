"""LlamaIndex's models: what is sent, how responses are parsed, and what callbacks and spans
receive.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="LlamaIndex's openai package needs openai 2")

import llama_index.core.instrumentation as instrument
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    LLMMetadata,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms import CustomLLM, MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from pydantic import PrivateAttr

from rlm_integrations import RLM, Budget, Limits, allm_batch, llm_batch
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.base import LM
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.records import Completion, Message, Request, Usage
from tests.lm._foreign import ANSWER, CALLS, MODEL, PROGRAM, SCRIPTS, foreign
from tests.lm.conftest import request_of
from tests.standin import Fault, Reply, StandIn, answer_to, serve_in_thread
from tests.standin.settings import Usage as Counts

EACH = pytest.mark.parametrize("kind", ["OpenAILike", "OpenAI"])


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with serve_in_thread(scripts=SCRIPTS, keep_requests=True) as server:
        yield server


class Replying(CustomLLM):
    """A model with only synchronous methods."""

    reply: Any = None

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return (
            self.reply
            if self.reply is not None
            else ChatResponse(message=ChatMessage(answer_to(messages[-1].content)))
        )


def response(*blocks: Any, raw: Any = None, more: Any = None) -> ChatResponse:
    return ChatResponse(
        message=ChatMessage(role="assistant", blocks=list(blocks)),
        raw=raw,
        additional_kwargs=more or {},
    )


async def read(reply: ChatResponse) -> Completion:
    return await resolve(Replying(reply=reply)).complete(request_of("x"))


@EACH
async def test_a_conversation_as_it_is_sent(standin: StandIn, kind: str) -> None:
    """Roles and texts are sent unchanged; the request's parameters override the object's."""
    messages = (
        Message("system", "{s}"),
        Message("user", "u {x}"),
        Message("assistant", "a"),
        Message("user", "{{u}}"),
    )
    await resolve(foreign(kind, standin.base_url, temperature=0.7)).complete(
        Request(messages, {"temperature": 0, "seed": 7})
    )
    body = standin.requests()[0].body
    assert [(each["role"], each["content"]) for each in body["messages"]] == [
        (each.role, each.content) for each in messages
    ]
    assert (body["model"], body["temperature"], body["seed"]) == (MODEL, 0, 7)


@EACH
async def test_a_completion_has_all_fields(standin: StandIn, kind: str) -> None:
    """A completion has the text, the tokens, the answering model's name and the provider's finish
    reason.
    """
    standin.change(
        scripts={MODEL: [Reply("so", usage=Counts(input=9, output=5, cached=4, reasoning=3))]}
    )
    assert await resolve(foreign(kind, standin.base_url)).complete(request_of("x")) == Completion(
        "so", Usage(9, 5, 4, 3), MODEL, "stop"
    )


@EACH
def test_a_budget_of_tokens_bounds_replies(standin: StandIn, kind: str) -> None:
    """A run with a token budget sends the reply bound with every call, and the object is
    unchanged.
    """
    llm = foreign(kind, standin.base_url)
    result = RLM(
        llm, budget=Budget(max_tokens=100_000), limits=Limits(reply_tokens=999)
    ).completion("What?", "a document")
    assert result.answer == ANSWER
    assert {each.body["max_tokens"] for each in standin.requests()} == {999}
    assert llm.max_tokens is None


async def test_where_google_takes_the_bound() -> None:
    """Google's integration gets parameters in its configuration."""

    class Google(Replying):
        _generation_config: Any = PrivateAttr(default_factory=dict)

    lm = resolve(Google())
    assert (await lm.arguments(request_of("x", params={"max_completion_tokens": 9})))[
        "generation_config"
    ] == {"max_output_tokens": 9}
    both = await lm.arguments(
        request_of("x", params={"max_completion_tokens": 9, "generation_config": {"top_k": 1}})
    )
    assert both["generation_config"] == {"max_output_tokens": 9, "top_k": 1}


ODD = [
    ("refusal", "refusal", "I cannot help"),
    ("content_filter", "refusal", "filter"),
    ("tool_calls", "tool_calls", "tools"),
    ("null_content", "empty", "no content"),
]


@EACH
@pytest.mark.parametrize(("fault", "expected", "hint"), ODD)
async def test_a_reply_without_an_answer(
    standin: StandIn, kind: str, fault: Any, expected: str, hint: str
) -> None:
    """Refusals, tool calls and empty content are errors of the same types as with OpenAILM."""
    standin.change(faults=[Fault(fault)])
    with pytest.raises(ModelError, match=hint) as caught:
        await resolve(foreign(kind, standin.base_url)).complete(request_of("x"))
    assert caught.value.type == expected


@EACH
async def test_an_empty_answer_is_an_answer(standin: StandIn, kind: str) -> None:
    """LlamaIndex drops an empty text; the provider's body distinguishes it from no content."""
    standin.change(scripts={MODEL: [Reply("")]})
    assert (await resolve(foreign(kind, standin.base_url)).complete(request_of("x"))).text == ""


async def test_blocks_by_hand() -> None:
    """The texts of blocks are joined unchanged; thinking is not part of the answer, and tool calls
    next to text are ignored.
    """
    call = ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={})
    assert (
        await read(response(ThinkingBlock(content="hm"), TextBlock(text="a"), TextBlock(text="b")))
    ).text == "ab"
    assert (await read(response(TextBlock(text="a"), call))).text == "a"
    with pytest.raises(ModelError, match="called tools"):
        await read(response(call))
    with pytest.raises(ModelError, match="no content"):
        await read(response(ThinkingBlock(content="hm")))


RAW = [
    (
        {
            "usage": SimpleNamespace(
                model_dump=lambda **_: {
                    "input_tokens": 3,
                    "output_tokens": 2,
                    "cache_read_input_tokens": 4,
                }
            )
        },
        Usage(7, 2, 4),
    ),
    (
        {"usage": {"input_tokens": 3, "output_tokens": 2, "cache_creation_input_tokens": 5}},
        Usage(8, 2, 0, 0, 5),
    ),
    (
        {
            "usage": {
                "input_tokens": 3,
                "output_tokens": 2,
                "output_tokens_details": {"thinking_tokens": 1},
            }
        },
        Usage(3, 2, 0, 1),
    ),
    (
        {
            "usage_metadata": {
                "prompt_token_count": 3,
                "candidates_token_count": 2,
                "thoughts_token_count": 1,
            }
        },
        Usage(3, 3, 0, 1),
    ),
    (
        {
            "usage_metadata": {
                "prompt_token_count": 3,
                "candidates_token_count": None,
                "cached_content_token_count": 2,
            }
        },
        Usage(3, 0, 2),
    ),
    ({"prompt_eval_count": 3, "eval_count": 2}, Usage(3, 2)),
    ({"usage": "many"}, None),
    ({"usage": {"input_tokens": None, "output_tokens": 2}}, None),
    (None, None),
    ("text", None),
]


@pytest.mark.parametrize(("raw", "expected"), RAW)
async def test_tokens_as_providers_write_them(raw: Any, expected: Usage | None) -> None:
    """The token counts of Anthropic, Google and Ollama are read from their own fields; incomplete
    counts are unknown.
    """
    assert (await read(response(TextBlock(text="x"), raw=raw))).usage == expected


async def test_tokens_that_the_integration_repeats() -> None:
    """Without counts in the provider's body, those of the integration are used."""
    assert (
        await read(response(TextBlock(text="x"), more={"prompt_tokens": 3, "completion_tokens": 2}))
    ).usage == Usage(3, 2)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"stop_reason": "max_tokens", "model": "claude"}, ("claude", "max_tokens")),
        (
            {"candidates": [{"finish_reason": SimpleNamespace(value="MAX_TOKENS")}]},
            ("Replying", "MAX_TOKENS"),
        ),
        ({"finish_reason": SimpleNamespace(value="STOP")}, ("Replying", "STOP")),
        ({"done_reason": "stop", "model": "llama"}, ("llama", "stop")),
        ({"choices": [], "candidates": None}, ("Replying", None)),
    ],
)
async def test_the_providers_model_name_and_finish_reason(
    raw: Any, expected: tuple[str, str | None]
) -> None:
    """The answering model's name and the finish reason are the provider's own."""
    completion = await read(response(TextBlock(text="x"), raw=raw))
    assert (completion.model, completion.finish_reason) == expected


@pytest.mark.parametrize(
    "raw",
    [
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{"message": {"content": ["x"]}}]},
        {"usage": [1]},
    ],
)
async def test_any_body_is_an_answer_or_a_typed_error(raw: Any) -> None:
    """Any response body results in a completion or a ModelError."""
    for blocks in ([], [TextBlock(text="x")]):
        try:
            assert (await read(response(*blocks, raw=raw))).text == "x"
        except ModelError as error:
            assert error.type in {"empty", "error"}


def test_a_model_with_only_synchronous_methods() -> None:
    """A model with only synchronous methods works with every API, and does not block the loop of
    the async one.
    """
    together = threading.Barrier(40, timeout=60)

    class Waiting(Replying):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            together.wait()
            return super().chat(messages, **kwargs)

    prompts = [str(number) for number in range(40)]
    expected = [answer_to(prompt) for prompt in prompts]
    assert llm_batch(prompts, Waiting(), max_concurrent=40) == expected
    assert asyncio.run(allm_batch(prompts, Waiting(), max_concurrent=40)) == expected


async def test_the_frameworks_own_fakes() -> None:
    """MockLLM repeats its prompt; a scripted model works as the root of a run, with the sync and
    the async API.
    """
    assert "x y" in (await allm_batch(["x y"], MockLLM()))[0]
    scripted = MockFunctionCallingLLM(
        response_generator=lambda _: ChatMessage('FINAL("from a mock")', role="assistant")
    )
    assert (await RLM(scripted).acompletion("What?", "a document")).answer == "from a mock"
    assert RLM(scripted).completion("What?", "a document").answer == "from a mock"


class Ends(BaseEventHandler):
    """Records the spans in which models answered."""

    spans: list[Any] = []  # noqa: RUF012 - a field of pydantic, which copies it

    @classmethod
    def class_name(cls) -> str:
        return "Ends"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, LLMChatEndEvent):
            self.spans.append(event.span_id)


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_events_and_token_counts(standin: StandIn, api: str) -> None:
    """Each call emits LlamaIndex's own events, and the object's callback manager counts its tokens,
    with the sync and the async API.
    """
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = foreign("OpenAI", standin.base_url, callback_manager=CallbackManager([counter]))
    ends = Ends(spans=[])
    dispatcher = instrument.get_dispatcher()
    dispatcher.add_event_handler(ends)
    try:
        rlm = RLM(llm)
        result = (
            rlm.completion("What?", "a document")
            if api == "sync"
            else await rlm.acompletion("What?", "a document")
        )
    finally:
        dispatcher.event_handlers.remove(ends)
    assert result.answer == ANSWER
    assert len(set(ends.spans)) == CALLS
    usage = result.usage[MODEL]
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (
        usage.input_tokens,
        usage.output_tokens,
    )


@EACH
def test_a_client_is_created_once(
    standin: StandIn, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When many threads make the first call at once, one client is created, because lost ones would
    leave connections open.
    """
    from llama_index.llms.openai import base

    made: list[Any] = []
    together = threading.Barrier(2)
    openai = base.SyncOpenAI

    def slowly(**options: Any) -> Any:
        made.append(options)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)  # a second thread comes in this time, if any does
        return openai(**options)

    monkeypatch.setattr(base, "SyncOpenAI", slowly)
    llm = foreign(kind, standin.base_url)
    assert llm_batch(["a", "b", "c"], llm) == [answer_to(each) for each in "abc"]
    assert len(made) == 1


def test_the_context_window(standin: StandIn) -> None:
    """The user's context window is used; the framework's guess is not."""
    assert resolve(foreign("OpenAILike", standin.base_url)).context_window is None
    assert (
        resolve(foreign("OpenAILike", standin.base_url, context_window=9000)).context_window == 9000
    )
    assert resolve(foreign("OpenAI", standin.base_url)).context_window is None
    assert resolve(MockLLM()).context_window is None


def test_names() -> None:
    """A model's name is that of its object, else of its class."""
    assert resolve(foreign("OpenAILike", "http://127.0.0.1:9/v1")).name == MODEL
    assert resolve(MockLLM()).name == "MockLLM"
    assert isinstance(resolve(MockLLM()), LM)
    assert repr(resolve(MockLLM())) == "LlamaIndexLM('MockLLM')"


def test_other_objects_are_refused() -> None:
    """Other LlamaIndex objects are refused at once."""
    with pytest.raises(InputError, match="only an LLM is a model, not a MockEmbedding"):
        resolve(MockEmbedding(embed_dim=2))


async def test_a_completions_model(standin: StandIn) -> None:
    """OpenAILike without `is_chat_model` uses the completions API, as in LlamaIndex itself; a
    server without it is an error.
    """
    with pytest.raises(ModelError) as caught:
        await resolve(foreign("OpenAILike", standin.base_url, is_chat_model=False)).complete(
            request_of("x")
        )
    assert caught.value.type == "not_found"
    assert standin.stats().calls == 0


@pytest.mark.parametrize("api", ["sync", "async"])
async def test_the_users_system_prompt_is_sent(standin: StandIn, api: str) -> None:
    """The object's `system_prompt` precedes the root's instructions in one message, and the prompt
    of a sub-call.
    """
    standin.change(
        scripts={
            MODEL: lambda ask: PROGRAM if "REPL" in ask.body["messages"][0]["content"] else "yes"
        }
    )
    llm = foreign("OpenAILike", standin.base_url, system_prompt="Answer in Latin.")
    rlm = RLM(llm)
    _ = rlm.completion("Who?", "text") if api == "sync" else await rlm.acompletion("Who?", "text")
    sent = [kept.body["messages"] for kept in standin.requests()]
    assert [[message["role"] for message in messages] for messages in sent] == [
        ["system", "user"]
    ] * 5
    assert sent[0][0]["content"].startswith("Answer in Latin.\n\n")
    assert "REPL" in sent[0][0]["content"]
    assert all(messages[0]["content"] == "Answer in Latin." for messages in sent[1:])
