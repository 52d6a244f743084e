"""The calls of a batch: failures and further tries, identical prompts, and the record of each."""

import asyncio
from typing import Any

import pytest

from rlm_integrations import LLMError, llm_batch
from rlm_integrations.errors import InputError, ModelError
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.batch import allm_batch_records, llm_batch_records
from rlm_integrations.records import CallRecord, Completion, Message, Usage
from tests.lm._local import DOORS, QUICK, Batch, Local, failing


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
def batch(request: pytest.FixtureRequest) -> Batch:
    """Every door in turn."""
    return request.param  # type: ignore[no-any-return]


def test_a_model_with_mistakes_fails_slot_by_slot() -> None:
    """An exception that is no ModelError, or an answer that is no Completion, is that slot's error,
    not the batch's.
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
    """A CancelledError that nobody asked for, as broken clients raise it, is a failure like others:
    it ends neither worker nor batch.
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
def test_tries_are_bounded(kind: dict[str, Any], tries: int) -> None:
    """What may pass is tried again, so many times for its kind and no more; the error counts the
    further tries.
    """
    retry = Retry(first_delay=0.0001, longest_delay=0.001)
    lm = Local(act=failing(tries, **kind))
    [reply] = llm_batch(["a"], lm, retry=retry)
    assert reply == LLMError(kind["type"], "try later", tries - 1)
    assert (reply.type, reply.retries, len(lm.requests)) == (kind["type"], tries - 1, tries)  # type: ignore[attr-defined]
    if tries > 1:
        assert llm_batch(["a"], Local(act=failing(tries - 1, **kind)), retry=retry) == ["a"]


def test_tries_are_bounded_in_time() -> None:
    """No further try begins after the time that one call may take, nor where the provider asks to
    wait beyond it.
    """
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
    """Each wait is 1.6 times the one before, less a random part of up to a half, and never above
    the longest.
    """
    retry = Retry(first_delay=0.1, longest_delay=0.5, failures=9)
    for made, most in enumerate([0.1, 0.16, 0.256, 0.4096, 0.5, 0.5]):
        delays = {retry.delay("failures", made) for _ in range(50)}
        assert len(delays) > 40
        assert all(delay is not None and most / 2.001 <= delay <= most * 1.001 for delay in delays)
    assert retry.delay("failures", 9) is None


def test_identical_prompts_are_separate_calls() -> None:
    """Voting needs several answers to one prompt: only `dedupe` asks once."""
    lm = Local()
    assert llm_batch(["same"] * 5, lm) == ["re: same"] * 5
    assert len(lm.requests) == 5


@pytest.mark.parametrize("concurrent", [1, 3, 50])
def test_dedupe_asks_once(batch: Batch, concurrent: int) -> None:
    """With `dedupe` each different prompt is asked once, however they lie, errors included; every
    slot is filled, in order.
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


def test_dedupe_tells_roles_apart() -> None:
    """Only prompts that are the same message by message count as identical."""
    lm = Local()
    one, other = [Message("user", "a"), Message("user", "b")], [Message("user", "ab")]
    llm_batch([one, other, [Message("system", "ab")], other], lm, dedupe=True)
    assert len(lm.requests) == 3


def test_records_tell_everything() -> None:
    """The detailed form has the reply, tokens, cost, tries and times of each call; what is not
    known is None.
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


def test_records_count_what_was_paid_once() -> None:
    """The record of a prompt that `dedupe` did not ask again counts no tokens and no cost: sums are
    what was paid.
    """
    records = llm_batch_records(["a", "a", "a"], Local(), dedupe=True)
    assert sum((record.usage for record in records if record.usage), Usage()) == Usage(3, 2)
    assert sorted(record.cost for record in records if record.cost is not None)[:2] == [0.0, 0.0]


async def test_records_of_the_async_door() -> None:
    """Both doors give the same records; a call begins when a worker of the batch takes it up."""
    records = await allm_batch_records(["a", "b"], Local(delay=0.01), max_concurrent=1)
    assert [type(record) for record in records] == [CallRecord, CallRecord]
    assert records[1].start >= records[0].end


@pytest.mark.parametrize("wrong", [{"failures": -1}, {"seconds": "long"}, {"longest_delay": -0.1}])
def test_bad_retries_are_clear_errors(wrong: dict[str, Any]) -> None:
    """Negative counts and times that are none are refused where they are written."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        Retry(**wrong)
