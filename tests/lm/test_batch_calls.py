"""The calls of a batch: failures and retries, identical prompts, and the record of each call."""

import asyncio
from typing import Any

import pytest

from rlm_integrations import LLMError, llm_batch
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.batch import allm_batch_records, llm_batch_records
from rlm_integrations.records import CallRecord, Completion, Message, Usage
from tests.lm._local import APIS, QUICK, Batch, Local, failing


@pytest.fixture(params=APIS, ids=lambda api: api.__name__)
def batch(request: pytest.FixtureRequest) -> Batch:
    """The sync and the async API."""
    return request.param  # type: ignore[no-any-return]


def test_a_model_with_mistakes_fails_slot_by_slot() -> None:
    """An exception other than ModelError, or an answer that is not a Completion, is an error of
    that slot, not of the batch.
    """

    def act(prompt: str) -> Any:
        if prompt == "raise":
            raise KeyError("gone")
        return None if prompt == "none" else prompt

    replies = llm_batch(["raise", "none", "fine"], Local(act=act))
    assert [getattr(reply, "type", None) for reply in replies] == ["error", "error", None]
    assert "local raised KeyError: 'gone'" in replies[0]
    assert "local returned NoneType, not a Completion" in replies[1]


def test_a_model_that_cancels_itself_fails_its_slot() -> None:
    """A CancelledError raised by the model itself is an error of that slot, and does not end the
    batch.
    """

    def act(prompt: str) -> str:
        if prompt == "cancel":
            raise asyncio.CancelledError
        return prompt

    replies = llm_batch(["cancel", "b", "c"], Local(act=act), max_concurrent=1, retry=QUICK)
    assert replies[1:] == ["b", "c"]
    assert isinstance(replies[0], LLMError)
    assert replies[0].retries == QUICK.failures


@pytest.mark.parametrize(
    ("kind", "tries"),
    [
        ({"type": "server", "retryable": True}, 1 + QUICK.failures),
        ({"type": "timeout", "retryable": True}, 1 + QUICK.timeouts),
        ({"type": "rate_limit", "retryable": True}, 1 + QUICK.refusals),
        ({"type": "overloaded", "retryable": True}, 1 + QUICK.refusals),
        ({"type": "auth"}, 1),
    ],
)
def test_retries_are_limited(kind: dict[str, Any], tries: int) -> None:
    """A retryable failure is retried as often as its kind allows; the error counts the retries."""
    retry = Retry(first_delay=0.0001, longest_delay=0.001)
    lm = Local(act=failing(tries, **kind))
    [reply] = llm_batch(["a"], lm, retry=retry)
    assert reply == LLMError(kind["type"], "try later", tries - 1)
    assert (reply.type, reply.retries, len(lm.requests)) == (kind["type"], tries - 1, tries)  # type: ignore[attr-defined]
    if tries > 1:
        assert llm_batch(["a"], Local(act=failing(tries - 1, **kind)), retry=retry) == ["a"]


def test_retries_are_limited_in_time() -> None:
    """No retry begins after `Retry.seconds`, nor if the provider asks to wait beyond it."""
    lm = Local(act=failing(99, type="server", retryable=True), delay=0.05)
    [reply] = llm_batch(["a"], lm, retry=Retry(failures=99, first_delay=0.001, seconds=0.12))
    assert isinstance(reply, LLMError)
    assert len(lm.requests) <= 3
    lm = Local(act=failing(99, type="rate_limit", retryable=True, retry_after=3600.0))
    replies = llm_batch(["a", "b", "c"], lm, max_concurrent=1)
    assert [reply.type for reply in replies if isinstance(reply, LLMError)] == ["rate_limit"] * 3
    assert len(lm.requests) == 1, (
        "during the pause nobody calls, those who cannot wait for its end included"
    )


def test_waits_grow_and_are_spread() -> None:
    """Each wait is 1.6 times the one before, less a random part of up to a half, and at most
    `longest_delay`.
    """
    retry = Retry(first_delay=0.1, longest_delay=0.5, failures=9)
    for made, most in enumerate([0.1, 0.16, 0.256, 0.4096, 0.5, 0.5]):
        delays = {retry.delay("failures", made) for _ in range(50)}
        assert len(delays) > 40
        assert all(delay is not None and most / 2.001 <= delay <= most * 1.001 for delay in delays)
    assert retry.delay("failures", 9) is None


def test_identical_prompts_are_separate_calls() -> None:
    """Identical prompts are separate calls unless `dedupe` is set."""
    lm = Local()
    assert llm_batch(["same"] * 5, lm) == ["re: same"] * 5
    assert len(lm.requests) == 5


@pytest.mark.parametrize("concurrent", [1, 3, 50])
def test_dedupe_sends_once(batch: Batch, concurrent: int) -> None:
    """With `dedupe`, each distinct prompt is sent once, errors included; every slot is filled, in
    order.
    """

    def act(prompt: str) -> str:
        if prompt == "bad":
            raise ModelError("never", type="auth")
        return prompt.upper()

    lm = Local(act=act, delay=0.001)
    prompts = ["a", "b", "a", "bad", "a", "bad", [Message("user", "b")], "c"] * 5
    replies = batch(prompts, lm, dedupe=True, max_concurrent=concurrent)
    assert replies[:8] == [
        "A",
        "B",
        "A",
        LLMError("auth", "never"),
        "A",
        LLMError("auth", "never"),
        "B",
        "C",
    ]
    assert replies == replies[:8] * 5
    assert sorted(request.messages[-1].content for request in lm.requests) == ["a", "b", "bad", "c"]


def test_dedupe_compares_roles() -> None:
    """Prompts are identical only if all their messages are, including roles."""
    lm = Local()
    one, other = [Message("user", "a"), Message("user", "b")], [Message("user", "ab")]
    llm_batch([one, other, [Message("system", "ab")], other], lm, dedupe=True)
    assert len(lm.requests) == 3


def test_records_have_all_fields() -> None:
    """A record has the reply, tokens, cost, retries and times of a call; unknown values are
    None.
    """
    acts = {"a": "fine", "b": Completion("no usage", model="made-up-model")}

    def act(prompt: str) -> Any:
        if prompt == "c":
            raise ModelError("no", type="auth")
        return acts[prompt]

    first, second, third = llm_batch_records(["a", "b", "c"], Local(act=act, delay=0.01))
    assert (first.reply, first.model, first.usage, first.finish_reason) == (
        "fine",
        "gpt-4o-mini",
        Usage(3, 2),
        "stop",
    )
    assert first.cost == pytest.approx(3 * 0.15e-6 + 2 * 0.6e-6)
    assert first.error is None
    assert 0.009 <= first.end - first.start < 5
    assert (second.reply, second.usage, second.cost) == ("no usage", None, None)
    assert third.error is third.reply
    assert (third.model, third.cost, third.retries) == ("local", None, 0)


def test_records_of_repeated_prompts_cost_nothing() -> None:
    """The record of a prompt that `dedupe` did not send again has no tokens and no cost, so sums
    are correct.
    """
    records = llm_batch_records(["a", "a", "a"], Local(), dedupe=True)
    assert sum((record.usage for record in records if record.usage), Usage()) == Usage(3, 2)
    assert sorted(record.cost for record in records if record.cost is not None)[:2] == [0.0, 0.0]


async def test_records_of_the_async_api() -> None:
    """The sync and the async API return the same records; a call begins when a worker of the batch
    takes its prompt.
    """
    records = await allm_batch_records(["a", "b"], Local(delay=0.01), max_concurrent=1)
    assert [type(record) for record in records] == [CallRecord, CallRecord]
    assert records[1].start >= records[0].end


@pytest.mark.parametrize("wrong", [{"failures": -1}, {"seconds": "long"}, {"longest_delay": -0.1}])
def test_bad_retries_are_clear_errors(wrong: dict[str, Any]) -> None:
    """Negative counts and invalid times are refused by the constructor of Retry."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        Retry(**wrong)
