"""Real Anthropic and Google integrations, with their own APIs, against the stand-in."""

import asyncio
import gc
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rlm_integrations import RLM, Budget, Limits, LLMError, allm_batch, llm_batch
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.frameworks.home_loop import home_of
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.records import Completion, Message, Request, Usage
from tests.lm._foreign import (
    ANSWER,
    ANSWERS,
    CALLS,
    CLAUDE,
    GEMINI,
    KEY,
    NAMES,
    PROGRAM,
    PROMPTS,
    PROVIDERS,
    SCRIPTS,
    foreign,
    needs_llama_index,
    root_or_sub,
)
from tests.lm.conftest import request_of
from tests.standin import Ask, Fault, Reply, StandIn, answer_to, serve_in_thread
from tests.standin.settings import Usage as Counts

EACH = pytest.mark.parametrize("kind", PROVIDERS)
OF_GOOGLE = pytest.mark.parametrize(
    "kind", ["ChatGoogleGenerativeAI", pytest.param("GoogleGenAI", marks=needs_llama_index)]
)
PATHS = {CLAUDE: "/v1/messages", GEMINI: f"/v1beta/models/{GEMINI}:generateContent"}
ENDS = {CLAUDE: "end_turn", GEMINI: "STOP"}


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with serve_in_thread(scripts=SCRIPTS, keep_requests=True) as server:
        yield server


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


def model_of(kind: str, server: StandIn, api: str = "async", **options: Any) -> Any:
    """The object as a model that is called with its asynchronous or, as on the portal, its
    synchronous method.
    """
    lm: Any = resolve(foreign(kind, server.base_url, **options))
    if api == "sync":
        lm._call_async = None
    return lm


@EACH
@pytest.mark.parametrize("api", ["async", "sync"])
async def test_a_completion_has_all_fields(standin: StandIn, kind: str, api: str) -> None:
    """A completion has the text, the tokens with cached and thinking ones, the model's name and the
    provider's finish reason.
    """
    name = NAMES[kind]
    standin.change(
        scripts={name: [Reply("so", usage=Counts(input=9, output=5, cached=4, reasoning=3))]}
    )
    assert await model_of(kind, standin, api).complete(request_of("x")) == Completion(
        "so", Usage(9, 5, 4, 3), name, ENDS[name]
    )
    assert [each.path for each in standin.requests()] == [PATHS[name]]


@EACH
async def test_a_conversation_as_it_is_sent(standin: StandIn, kind: str) -> None:
    """Roles and texts are sent unchanged, including braces; the request's parameters override the
    object's.
    """
    seen: list[Ask] = []

    def note(ask: Ask) -> str:
        seen.append(ask)
        return "noted"

    standin.change(scripts={NAMES[kind]: note})
    messages = (
        Message("system", "{s}"),
        Message("user", "u {x}"),
        Message("assistant", "a"),
        Message("user", "{{u}}"),
    )
    await model_of(kind, standin).complete(Request(messages, {"max_completion_tokens": 77}))
    (ask,) = seen
    assert [(each["role"], each["content"]) for each in ask.body["messages"]] == [
        (each.role, each.content) for each in messages
    ]
    assert (ask.model, ask.turn, ask.prompt, ask.body["max_completion_tokens"]) == (
        NAMES[kind],
        1,
        "{{u}}",
        77,
    )


@EACH
def test_a_run_with_the_sync_api(standin: StandIn, kind: str) -> None:
    """Root and sub calls of a run use this object, and the result has their tokens."""
    result = RLM(foreign(kind, standin.base_url)).completion("What?", "a document")
    assert (result.answer, result.total_calls, standin.stats().calls) == (ANSWER, CALLS, CALLS)
    assert result.usage[NAMES[kind]].input_tokens > 0
    assert {each.path for each in standin.requests()} == {PATHS[NAMES[kind]]}


@EACH
async def test_a_run_with_the_async_api(standin: StandIn, kind: str) -> None:
    """The same with the async API, where the sub calls run concurrently."""
    standin.change(latency=0.05)
    result = await RLM(foreign(kind, standin.base_url)).acompletion("What?", "a document")
    assert (result.answer, result.total_calls, standin.stats().calls) == (ANSWER, CALLS, CALLS)
    assert standin.stats().most_in_flight > 1


@EACH
async def test_a_run_of_several_turns(standin: StandIn, kind: str) -> None:
    """The root's conversation grows by its replies and their output, in an order that the provider
    accepts.
    """
    standin.change(
        scripts={
            NAMES[kind]: [
                "```repl\nprint(len(context))\n```",
                "```repl\nprint('second')\n```",
                'FINAL("third")',
            ]
        }
    )
    result = await RLM(foreign(kind, standin.base_url)).acompletion("What?", "a document")
    assert (result.answer, result.iterations) == ("third", 3)
    assert standin.stats().calls == 3


@EACH
def test_a_budget_of_tokens_bounds_replies(standin: StandIn, kind: str) -> None:
    """A run with a token budget sends the reply bound with every call, under the provider's own
    name for it.
    """
    bounds: list[Any] = []

    def note(ask: Ask) -> str:
        bounds.append(ask.body["max_completion_tokens"])
        return root_or_sub(ask)

    standin.change(scripts={NAMES[kind]: note})
    budget = Budget(max_tokens=100_000)
    assert (
        RLM(foreign(kind, standin.base_url), budget=budget, limits=Limits(reply_tokens=999))
        .completion("What?", "a text")
        .answer
        == ANSWER
    )
    assert bounds == [999] * CALLS


FAULTS = [
    ("rate_limit", "rate_limit", True),
    ("server", "server", True),
    ("unavailable", "overloaded", True),
    ("auth", "auth", False),
    ("bad_request", "bad_request", False),
    ("context_length", "context_length", False),
    ("not_found", "not_found", False),
    ("reset", "connection", True),
    ("cut", "connection", True),
    ("truncated", "bad_response", True),
    ("content_type", "bad_response", True),
    ("refusal", "refusal", False),
    ("tool_calls", "tool_calls", False),
]
# For a blocked prompt, LlamaIndex's class reports only that there are no candidates.
OTHERWISE = {("GoogleGenAI", "refusal"): ("bad_response", True)}


async def failure_at(
    server: StandIn, kind: str, fault: Fault, api: str = "async", **options: Any
) -> ModelError:
    """The failure of one call of an object without its own retries."""
    server.change(faults=[fault])
    with pytest.raises(ModelError) as caught:
        await model_of(kind, server, api, max_retries=0, **options).complete(request_of("x"))
    assert server.stats().calls == 1
    return caught.value


@EACH
@pytest.mark.parametrize("api", ["async", "sync"])
@pytest.mark.parametrize(("fault", "expected", "retryable"), FAULTS)
async def test_each_fault_has_its_type(
    standin: StandIn, kind: str, api: str, fault: Any, expected: str, retryable: bool
) -> None:
    """Each fault has the same type as with OpenAILM, for both methods, and the message names the
    model.
    """
    failure = await failure_at(standin, kind, Fault(fault), api)
    assert (failure.type, failure.retryable) == OTHERWISE.get((kind, fault), (expected, retryable))
    assert NAMES[kind] in str(failure)


@EACH
@pytest.mark.parametrize("api", ["async", "sync"])
async def test_the_time_to_wait_arrives(standin: StandIn, kind: str, api: str) -> None:
    """The error has the seconds that the provider asked to wait, from a header or from the error's
    details.
    """
    assert (
        await failure_at(standin, kind, Fault("rate_limit", retry_after=2), api)
    ).retry_after == 2


@EACH
async def test_the_key_is_in_no_error(standin: StandIn, kind: str) -> None:
    """A key that the provider repeats is in no message or traceback, wherever the object stores
    it.
    """
    failure = await failure_at(standin, kind, Fault("echo_key"))
    assert failure.type == "auth"
    assert "[key]" in str(failure)
    assert KEY not in "".join(traceback.format_exception(failure))


@pytest.mark.exhaustive
@EACH
async def test_the_objects_own_timeout(standin: StandIn, kind: str) -> None:
    """The object's own timeout is a retryable timeout."""
    failure = await failure_at(standin, kind, Fault("hang"), timeout=1)
    assert (failure.type, failure.retryable) == ("timeout", True)


@pytest.mark.parametrize("kind", PROVIDERS[:1])
async def test_an_unpaid_bill_is_not_a_rate_limit(standin: StandIn, kind: str) -> None:
    """Anthropic's 402 is not retried."""
    failure = await failure_at(standin, kind, Fault("quota"))
    assert (failure.type, failure.retryable) == ("quota", False)


@EACH
async def test_an_empty_answer_is_an_answer(standin: StandIn, kind: str) -> None:
    """An empty text is an answer if the model ended normally."""
    standin.change(scripts={NAMES[kind]: [Reply("")]})
    assert (await model_of(kind, standin).complete(request_of("x"))).text == ""


@EACH
async def test_a_truncated_answer(standin: StandIn, kind: str) -> None:
    """A truncated answer is returned, except by LlamaIndex's class for Google, which raises and
    loses the text.
    """
    if kind == "GoogleGenAI":
        failure = await failure_at(standin, kind, Fault("length"))
        assert (failure.type, failure.retryable) == ("empty", False)
        return
    standin.change(faults=[Fault("length")])
    completion = await model_of(kind, standin).complete(request_of("x"))
    word = "MAX_TOKENS" if kind == "ChatGoogleGenerativeAI" else "max_tokens"
    assert (completion.text, completion.finish_reason) == (answer_to("x")[:6], word)


@OF_GOOGLE
@pytest.mark.parametrize(
    ("fault", "expected"),
    [("content_filter", "refusal"), ("empty_choices", None), ("null_content", None)],
)
async def test_incomplete_google_answers(
    standin: StandIn, kind: str, fault: Any, expected: str | None
) -> None:
    """A candidate emptied by a filter is a refusal; a missing candidate, or one without content, is
    an answer or a retryable error.
    """
    standin.change(faults=[Fault(fault)])
    try:
        assert (await model_of(kind, standin, max_retries=0).complete(request_of("x"))).text == ""
    except ModelError as failure:
        assert failure.type in ({expected} if expected else {"empty", "bad_response"})
        assert failure.retryable == (expected is None)
    else:
        # For LangChain it is an empty text
        assert (kind, fault) == ("ChatGoogleGenerativeAI", "null_content")


@pytest.mark.exhaustive
@EACH
def test_one_object_on_two_loops_and_without_one(standin: StandIn, kind: str) -> None:
    """With two `asyncio.run` and alternating sync and async calls, every call is answered, none is
    made twice, and nothing stays open.
    """
    llm = foreign(kind, standin.base_url)

    async def ask() -> None:
        assert await allm_batch(PROMPTS, llm) == ANSWERS
        assert (await RLM(llm).acompletion("What?", "a document")).answer == ANSWER

    gc.collect()  # left by other tests
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            asyncio.run(ask())
            assert llm_batch(PROMPTS, llm) == ANSWERS
            assert RLM(llm).completion("What?", "a document").answer == ANSWER
        gc.collect()
    assert [
        str(each.message) for each in caught if issubclass(each.category, ResourceWarning)
    ] == []
    assert standin.stats().calls == 4 * (len(PROMPTS) + CALLS)


@needs_llama_index
def test_google_over_a_client_of_the_users(standin: StandIn) -> None:
    """The connections of an httpx client that is passed to Google's SDK are closed at the end of a
    loop, and the next loop can use it.
    """
    import httpx

    options = {
        "base_url": standin.base_url.removesuffix("/v1"),
        "httpx_async_client": httpx.AsyncClient(),
    }
    llm = foreign("GoogleGenAI", standin.base_url, http_options=options)
    for _ in range(2):
        assert asyncio.run(allm_batch(PROMPTS, llm)) == ANSWERS
    assert home_of(llm)._owner._loop is None


@EACH
async def test_cancelling_a_run_aborts_the_sockets(standin: StandIn, kind: str) -> None:
    """Cancelling a run in its batch closes the connection of each call at once."""
    standin.change(
        faults=[Fault("hang", match="q")],
        scripts={NAMES[kind]: lambda ask: PROGRAM if ask.turn == 0 else "x"},
    )
    run = asyncio.create_task(
        RLM(foreign(kind, standin.base_url)).acompletion("What?", "a document")
    )
    await until(lambda: standin.stats().in_flight == CALLS - 1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await until(lambda: standin.stats().aborted == CALLS - 1)


@EACH
def test_retries_are_ours(kind: str) -> None:
    """Without the object's own retries, this library retries refused and failed calls of a batch:
    every prompt is answered, with few extra calls.
    """
    with serve_in_thread(
        faults=[Fault("rate_limit", times=3), Fault("unavailable", times=3)]
    ) as server:
        llm = foreign(kind, server.base_url, max_retries=0)
        assert llm_batch(PROMPTS, llm, retry=Retry(first_delay=0.01)) == ANSWERS
        assert server.stats().calls == len(PROMPTS) + 6


@EACH
async def test_one_failure_is_one_slot(standin: StandIn, kind: str) -> None:
    """A prompt that is too long is a typed error in its own slot."""
    standin.change(faults=[Fault("context_length", match="bad")])
    replies = await allm_batch(["a", "bad", "b"], foreign(kind, standin.base_url, max_retries=0))
    assert (replies[0], replies[2]) == (answer_to("a"), answer_to("b"))
    assert isinstance(replies[1], LLMError)
    assert replies[1].type == "context_length"


@pytest.mark.parametrize("kind", PROVIDERS[:2])
async def test_a_model_that_streams(standin: StandIn, kind: str) -> None:
    """A LangChain object that is set to stream is called so, and its pieces are joined to one
    complete completion.
    """
    standin.change(
        piece=3,
        scripts={NAMES[kind]: [Reply("one, two", usage=Counts(input=9, output=5, cached=4))]},
    )
    completion = await model_of(kind, standin, streaming=True).complete(request_of("x"))
    assert completion == Completion("one, two", Usage(9, 5, 4), NAMES[kind], ENDS[NAMES[kind]])
    assert standin.calls()[0].stream


@pytest.mark.parametrize("kind", PROVIDERS[2:])
def test_a_stream_of_llama_index(standin: StandIn, kind: str) -> None:
    """LlamaIndex's classes read the stand-in's streams piece by piece."""
    from llama_index.core.base.llms.types import ChatMessage

    standin.change(piece=3, scripts={NAMES[kind]: [Reply("one, two")]})
    pieces = [
        each.delta for each in foreign(kind, standin.base_url).stream_chat([ChatMessage("x")])
    ]
    assert [each for each in pieces if each] == ["one", ", t", "wo"]
    assert standin.calls()[0].stream


async def test_content_of_newer_gemini_models(standin: StandIn) -> None:
    """With LangChain, the answers of newer Gemini models are blocks; their text is the answer."""
    assert (
        await model_of("ChatGoogleGenerativeAI", standin, model="gemini-3-pro-preview").complete(
            request_of("x")
        )
    ).text == answer_to("x")
