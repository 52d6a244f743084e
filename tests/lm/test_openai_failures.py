"""Each failure of provider or network is a ModelError of a known type; the model sends nothing
twice; the key stays hidden.
"""

import asyncio
import email.utils
import logging
import time
import traceback
from typing import Any

import aiohttp
import openai
import pytest

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._statuses import retry_after, status_error
from rlm_integrations.lm.openai import OpenAILM
from tests.lm.conftest import request_of
from tests.standin import Fault, StandIn, answer_to

KEY = "sk-secret-0123456789"


def model(server: StandIn, **options: Any) -> OpenAILM:
    return OpenAILM("sub", base_url=server.base_url, api_key=KEY, **options)


async def failure_of(lm: OpenAILM, api: str = "complete", prompt: str = "x") -> ModelError:
    with pytest.raises(ModelError) as caught:
        if api == "complete":
            await lm.complete(request_of(prompt))
        else:
            [piece async for piece in lm.astream(request_of(prompt))]
    return caught.value


FAULTS = [
    ("rate_limit", "rate_limit", True, openai.RateLimitError),
    ("quota", "quota", False, openai.RateLimitError),
    ("server", "server", True, openai.InternalServerError),
    ("unavailable", "overloaded", True, openai.InternalServerError),
    ("auth", "auth", False, openai.AuthenticationError),
    ("bad_request", "bad_request", False, openai.BadRequestError),
    ("context_length", "context_length", False, openai.BadRequestError),
    ("not_found", "not_found", False, openai.NotFoundError),
    ("reset", "connection", True, openai.APIConnectionError),
    ("cut", "connection", True, openai.APIConnectionError),
    ("truncated", "bad_response", True, None),
    ("content_type", "bad_response", False, None),
]


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
@pytest.mark.parametrize(("fault", "kind", "retryable", "cause"), FAULTS)
async def test_each_fault_has_its_type(
    server: StandIn, transport: Any, fault: Any, kind: str, retryable: bool, cause: Any
) -> None:
    """The client's error is the cause (aiohttp has none for a status), the message names the model
    and its address, and exactly one request was sent.
    """
    server.change(faults=[Fault(fault)])
    failure = await failure_of(model(server, transport=transport))
    assert (failure.type, failure.retryable) == (kind, retryable)
    if transport == "sdk":
        assert cause is None or type(failure.__cause__) is cause
    else:
        assert isinstance(failure.__cause__, aiohttp.ClientError) == (kind == "connection")
    assert server.base_url in str(failure)
    assert server.stats().calls == 1


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault[0] not in {"truncated", "cut"}], ids=lambda f: f[0]
)
async def test_streams_fail_alike(server: StandIn, fault: Any) -> None:
    """A stream that cannot be opened, or breaks, has the same error types."""
    server.change(faults=[Fault(fault[0])])
    failure = await failure_of(model(server), "astream")
    assert (failure.type, failure.retryable) == (fault[1], fault[2])


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
@pytest.mark.parametrize("api", ["complete", "astream"])
async def test_a_hanging_call_ends_at_its_timeout(
    server: StandIn, transport: Any, api: str
) -> None:
    """A hanging call ends at its timeout, a concurrent call is not delayed, and the server sees the
    first connection close.
    """
    server.change(faults=[Fault("hang", match="hang")])
    lm = model(server, transport=transport, timeout=0.2)
    failure, answer = await asyncio.gather(
        failure_of(lm, api, "hang"), lm.complete(request_of("x"))
    )
    assert (failure.type, failure.retryable) == ("timeout", True)
    assert answer.text == answer_to("x")
    await until(lambda: server.stats().aborted == 1)


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
async def test_cancelling_aborts_the_sockets(server: StandIn, transport: Any) -> None:
    """Cancelled calls close their connections at once, the server notices, and the next call
    works.
    """
    server.change(faults=[Fault("hang", match="hang")])
    lm = model(server, transport=transport)
    tasks = [asyncio.create_task(lm.complete(request_of("hang"))) for _ in range(10)]
    await until(lambda: server.stats().in_flight == 10)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError)
        for each in await asyncio.gather(*tasks, return_exceptions=True)
    )
    await until(lambda: server.stats().aborted == 10)
    assert (await lm.complete(request_of("x"))).text == answer_to("x")


async def test_a_connection_that_the_server_dropped(server: StandIn) -> None:
    """A kept-alive connection that the server closed silently is at most a retryable error: all
    prompts are answered, none is sent twice.
    """
    server.change(faults=[Fault("close")])
    lm = model(server)
    answers = []
    while len(answers) < 20:
        try:
            answers.append((await lm.complete(request_of(str(len(answers))))).text)
        except ModelError as failure:
            assert (failure.type, failure.retryable) == ("connection", True)
    assert answers == [answer_to(str(n)) for n in range(20)]
    assert server.stats().calls == 20


async def test_a_port_without_a_server() -> None:
    """A port without a server is a connection error."""
    failure = await failure_of(OpenAILM("sub", base_url="http://127.0.0.1:9/v1", api_key=KEY))
    assert (failure.type, failure.retryable) == ("connection", True)
    assert "127.0.0.1" in str(failure)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(2, 2.0), (0.25, 0.25), ("-1", 0.0), ("soon", None), ("inf", None), (None, None)],
)
async def test_retry_after_arrives(server: StandIn, sent: Any, expected: float | None) -> None:
    """The error has the seconds of a valid Retry-After header; an invalid one is ignored."""
    server.change(faults=[Fault("rate_limit", retry_after=sent)])
    assert (await failure_of(model(server))).retry_after == expected


def test_retry_after_as_a_date() -> None:
    """A date is compared with the provider's clock if its answer has a date, else with this
    machine's; a past date means no wait.
    """
    date = email.utils.formatdate(1_700_000_060, usegmt=True)
    assert (
        retry_after(
            {"retry-after": date, "date": email.utils.formatdate(1_700_000_000, usegmt=True)}
        )
        == 60
    )
    assert retry_after({"retry-after": date}) == 0
    assert retry_after(
        {"retry-after": email.utils.formatdate(time.time() + 30, usegmt=True)}
    ) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (
            400,
            {"message": "This model's maximum context length is 8192 tokens"},
            "context_length",
            False,
        ),
        (400, {"message": "filtered", "code": "content_filter"}, "refusal", False),
        (403, "no", "auth", False),
        (408, None, "timeout", True),
        (409, None, "server", True),
        (413, "too large", "context_length", False),
        (418, {}, "bad_request", False),
        (422, {"message": "wrong"}, "bad_request", False),
        (429, {"message": "slow down"}, "rate_limit", True),
        (502, "<html>", "server", True),
        (529, {"message": "overloaded"}, "overloaded", True),
        (None, {"message": "upstream", "code": 502}, "server", True),
        (None, {"message": "upstream", "code": 429}, "rate_limit", True),
        (None, "odd", "server", True),
        (400, {"message": {"a": 1}, "code": ["x"]}, "bad_request", False),
    ],
)
def test_statuses_and_codes(status: int | None, body: Any, kind: str, retryable: bool) -> None:
    """Every status has a type, the provider's error code is more specific, and an error without a
    status is classified by its code.
    """
    failure = status_error(status, body, "'m'")
    assert (failure.type, failure.retryable) == (kind, retryable)


def test_the_provider_may_say_whether_to_retry() -> None:
    """`x-should-retry` overrides the status."""
    assert status_error(500, None, "m", {"x-should-retry": "false"}).retryable is False
    assert status_error(400, None, "m", {"x-should-retry": "true"}).retryable is True


@pytest.mark.parametrize(
    ("api", "transport"), [("complete", "aiohttp"), ("complete", "sdk"), ("astream", "aiohttp")]
)
async def test_the_key_is_in_no_error_and_no_log(
    server: StandIn, caplog: pytest.LogCaptureFixture, api: str, transport: Any
) -> None:
    """A key that the provider repeats in its error is in no message, traceback or log of any
    level; only the SDK logs its calls.
    """
    caplog.set_level(logging.DEBUG)
    for fault in ("echo_key", "auth", "reset"):
        server.change(faults=[Fault(fault)])
        failure = await failure_of(model(server, transport=transport), api)
        assert KEY not in "".join(traceback.format_exception(failure))
        assert KEY not in repr(failure)
        assert ("[key]" in str(failure)) == (fault == "echo_key")
    assert bool(caplog.text) == ((api, transport) != ("complete", "aiohttp"))
    assert KEY not in caplog.text
