"""Exceptions of frameworks' models as typed errors: over real sockets, and with fake exceptions for
other providers.
"""

import http
import traceback
from types import SimpleNamespace
from typing import Any

import pytest

from rlm_integrations import LLMError, allm_batch, llm_batch
from rlm_integrations.errors import ModelError
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.frameworks.errors import failure_of
from rlm_integrations.lm.resolve import resolve
from tests.lm._foreign import ANSWERS, KEY, MODEL, PAIR, PROMPTS, foreign
from tests.lm.conftest import request_of
from tests.standin import Fault, StandIn, answer_to, serve_in_thread

EACH = pytest.mark.parametrize("kind", PAIR)


async def failure_at(
    server: StandIn, kind: str, fault: Fault, *, api: str = "async", **options: Any
) -> ModelError:
    """The failure of one call of an object without its own retries."""
    server.change(faults=[fault])
    lm = resolve(foreign(kind, server.base_url, max_retries=0, **options))
    if api == "sync":
        lm._call_async = None  # as on the portal: with the synchronous method
    with pytest.raises(ModelError) as caught:
        await lm.complete(request_of("x"))
    assert server.stats().calls == 1
    return caught.value


FAULTS = [
    ("rate_limit", "rate_limit", True),
    ("quota", "quota", False),
    ("server", "server", True),
    ("unavailable", "overloaded", True),
    ("auth", "auth", False),
    ("bad_request", "bad_request", False),
    ("context_length", "context_length", False),
    ("not_found", "not_found", False),
    ("reset", "connection", True),
    ("cut", "connection", True),
    ("empty_choices", "bad_response", True),
    ("truncated", "bad_response", True),
]


@EACH
@pytest.mark.parametrize("api", ["async", "sync"])
@pytest.mark.parametrize(("fault", "expected", "retryable"), FAULTS)
async def test_each_fault_has_its_type(
    server: StandIn, kind: str, api: str, fault: Any, expected: str, retryable: bool
) -> None:
    """Each fault has the same type as with OpenAILM, for both methods; the message names the model,
    and the framework's exception is the cause.
    """
    failure = await failure_at(server, kind, Fault(fault), api=api)
    assert (failure.type, failure.retryable) == (expected, retryable)
    assert MODEL in str(failure)
    assert failure.__cause__ is not None


@EACH
@pytest.mark.parametrize("fault", ["content_type", "error_body"])
async def test_a_body_that_is_not_a_completion(server: StandIn, kind: str, fault: Any) -> None:
    """A page instead of JSON, and an error object with status 200, are errors, however each
    framework handles them.
    """
    failure = await failure_at(server, kind, Fault(fault))
    assert failure.type in {"server", "bad_response", "error"}


@EACH
async def test_the_time_to_wait_arrives(server: StandIn, kind: str) -> None:
    """The error has the seconds that the provider asked to wait."""
    assert (await failure_at(server, kind, Fault("rate_limit", retry_after=2))).retry_after == 2


@EACH
async def test_the_objects_own_timeout(server: StandIn, kind: str) -> None:
    """The object's own timeout is a retryable timeout."""
    failure = await failure_at(server, kind, Fault("hang"), timeout=0.1)
    assert (failure.type, failure.retryable) == ("timeout", True)


@EACH
async def test_a_port_without_a_server(kind: str) -> None:
    """A port without a server is a connection error."""
    with pytest.raises(ModelError) as caught:
        await resolve(foreign(kind, "http://127.0.0.1:9/v1", max_retries=0)).complete(
            request_of("x")
        )
    assert (caught.value.type, caught.value.retryable) == ("connection", True)


@EACH
async def test_the_key_is_in_no_error(server: StandIn, kind: str) -> None:
    """A key that the provider repeats in its error is in no message or traceback."""
    failure = await failure_at(server, kind, Fault("echo_key"))
    assert failure.type == "auth"
    assert "[key]" in str(failure)
    assert KEY not in "".join(traceback.format_exception(failure))


@EACH
def test_retries_are_ours(kind: str) -> None:
    """Without the object's own retries, this library retries refused and failed calls of a batch:
    every prompt is answered, with few extra calls.
    """
    with serve_in_thread(faults=[Fault("rate_limit", times=3), Fault("server", times=3)]) as server:
        llm = foreign(kind, server.base_url, max_retries=0)
        assert llm_batch(PROMPTS, llm, retry=Retry(first_delay=0.01)) == ANSWERS
        assert server.stats().calls == len(PROMPTS) + 6


async def test_a_pause_holds_for_all_adapters(server: StandIn) -> None:
    """A Retry-After delays all other calls of the same object, through any adapter."""
    server.change(faults=[Fault("rate_limit", at=(0,), retry_after=0.3)])
    llm = foreign("ChatOpenAI", server.base_url, max_retries=0)
    assert await allm_batch(["x"], llm) == [answer_to("x")]
    assert await allm_batch(PROMPTS, llm) == ANSWERS
    first, *others = server.calls()
    assert min(call.arrived for call in others) - first.arrived >= 0.3


async def test_the_objects_own_retries_are_kept(server: StandIn) -> None:
    """The object's `max_retries` is unchanged: its retries add to those of this library."""
    server.change(faults=[Fault("server", times=2)])
    llm = foreign("ChatOpenAI", server.base_url, max_retries=2)
    assert await allm_batch(["x"], llm) == [answer_to("x")]
    assert (server.stats().calls, llm.max_retries) == (3, 2)


async def test_one_failure_is_one_slot(server: StandIn) -> None:
    """A refused prompt is a typed error in its own slot."""
    server.change(faults=[Fault("refusal", match="bad")])
    replies = await allm_batch(["a", "bad", "b"], foreign("ChatOpenAI", server.base_url))
    assert (replies[0], replies[2]) == (answer_to("a"), answer_to("b"))
    assert isinstance(replies[1], LLMError)
    assert replies[1].type == "refusal"


class SomeError(Exception):
    """An error of some SDK."""

    def __init__(self, message: str = "said", **fields: Any) -> None:
        super().__init__(message)
        vars(self).update(fields)


def named(name: str, base: type[Exception] = Exception, **fields: Any) -> Exception:
    error = type(name, (base,), {})("said")
    vars(error).update(fields)
    return error


def wrapped(cause: Exception) -> Exception:
    error = named("SomeIntegrationError")
    error.__cause__ = cause
    return error


QUOTA = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "slow down",
        "details": [{"retryDelay": "32.5s"}],
    }
}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
WRONG_KEY = {
    "error": {
        "code": 400,
        "status": "INVALID_ARGUMENT",
        "message": "not valid",
        "details": [{"reason": "API_KEY_INVALID"}],
    }
}
TOO_LONG = {
    "error": {
        "code": 400,
        "message": "The input token count (9) exceeds the maximum number of tokens allowed (8).",
    }
}
BY_HAND = [
    (SomeError(status_code=529, body=OVERLOADED), "overloaded", True, None),  # Anthropic
    (
        SomeError(status_code=429, response=SimpleNamespace(headers={"retry-after": "7"})),
        "rate_limit",
        True,
        7,
    ),
    (SomeError(code=429, details=QUOTA), "rate_limit", True, 32.5),  # Google
    (wrapped(SomeError(code=429, details=QUOTA)), "rate_limit", True, 32.5),
    # Google.api_core
    (SomeError(code=http.HTTPStatus.SERVICE_UNAVAILABLE), "overloaded", True, None),
    (named("ResourceExhausted"), "rate_limit", True, None),
    (named("DeadlineExceeded"), "timeout", True, None),
    # Botocore
    (SomeError(response={"ResponseMetadata": {"HTTPStatusCode": 400}}), "bad_request", False, None),
    # Httpx
    (SomeError(response=SimpleNamespace(status_code=404, headers={})), "not_found", False, None),
    (SomeError(code="rate_limit_exceeded", status_code=None), "error", False, None),
    (
        named(
            "AnthropicContextOverflowError",
            named("ContextOverflowError").__class__,
            status_code=400,
        ),
        "context_length",
        False,
        None,
    ),
    (
        named("ReadTimeout", named("TimeoutException", type(named("TransportError"))).__class__),
        "timeout",
        True,
        None,
    ),
    (named("ConnectError", type(named("TransportError"))), "connection", True, None),
    (wrapped(ConnectionResetError("reset by peer")), "connection", True, None),
    (TimeoutError(), "timeout", True, None),
    (ValueError({"message": "upstream", "code": 502}), "server", True, None),
    (ValueError({"message": "slow down", "code": 429}), "rate_limit", True, None),
    # Google reports it only in a reason
    (SomeError(code=400, details=WRONG_KEY), "auth", False, None),
    (SomeError(code=400, details=TOO_LONG), "context_length", False, None),
    (
        SomeError(
            status_code=400, body={"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}
        ),
        "context_length",
        False,
        None,
    ),
    (SomeError(status_code=402), "quota", False, None),
    (
        wrapped(named("ContentLengthError", type(named("HttpProcessingError")), code=400)),
        "error",
        False,
        None,
    ),
    # Aiohttp: its cause has a code that no server sent
    (named("ClientPayloadError"), "connection", True, None),
    # LlamaIndex for Google
    (RuntimeError("Response was terminated early: SAFETY [...]"), "refusal", False, None),
    (RuntimeError("Response was terminated early: MAX_TOKENS"), "empty", False, None),
    (ValueError("Response has no candidates"), "bad_response", True, None),
    (AttributeError("'NoneType' object has no attribute 'role'"), "bad_response", True, None),
    (
        SomeError(code=400, details={"error": {"details": ["x", {"reason": ["y"]}]}}),
        "bad_request",
        False,
        None,
    ),
    (ValueError("plain"), "error", False, None),
    (KeyError("choices"), "bad_response", True, None),
    (TypeError("unexpected keyword"), "error", False, None),
    (SomeError(status_code=True), "error", False, None),
    (SomeError(status_code=200), "error", False, None),
    (ModelError("ours", type="refusal"), "refusal", False, None),
]


@pytest.mark.parametrize(("error", "kind", "retryable", "retry_after"), BY_HAND)
def test_failures_by_hand(
    error: Exception, kind: str, retryable: bool, retry_after: float | None
) -> None:
    """The type is determined by status codes, wherever an SDK stores them, then by class names,
    including those of wrapped exceptions.
    """
    failure = failure_of(error, "'m'")
    assert (failure.type, failure.retryable, failure.retry_after) == (kind, retryable, retry_after)


def test_circular_causes() -> None:
    """Errors that are each other's cause do not cause an endless loop."""
    first, second = SomeError("a"), SomeError("b")
    first.__cause__, second.__cause__ = second, first
    assert failure_of(first, "'m'").type == "error"


def test_keys_by_hand() -> None:
    """A key anywhere in the chain removes the cause; very short keys are ignored, because hiding
    them would garble messages.
    """
    hidden = failure_of(
        wrapped(SomeError("no such key: secret-key")), "'m'", secrets=["secret-key", "said"]
    )
    assert (str(hidden), hidden.__cause__) == ("'m' raised SomeIntegrationError: said", None)
    shown = failure_of(SomeError("said"), "'m'", secrets=["said"])
    assert "said" in str(shown)
    assert shown.__cause__ is not None


@pytest.mark.parametrize(
    ("name", "sent", "retryable"),
    [("ConnectError", False, True), ("ReadError", True, True), ("TooManyRedirects", True, False)],
)
def test_whether_anything_was_sent(name: str, sent: bool, retryable: bool) -> None:
    """A failed connection is not charged to the budget; a broken one may be. A redirect loop is not
    retried.
    """
    cause = type(name, (type("TransportError", (Exception,), {}),), {})("broken")
    error = RuntimeError("wrapped")
    error.__cause__ = cause
    failure = failure_of(error, "'m'")
    assert (failure.type, failure.sent, failure.retryable) == ("connection", sent, retryable)
