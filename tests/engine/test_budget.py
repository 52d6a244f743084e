"""Budgets are hard limits on calls, tokens, dollars and seconds, for a whole tree, even inside a
batch; the server counts.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rlm_integrations import RLM, Budget, Limits, OpenAILM, Retry, RLMResult
from rlm_integrations.errors import BudgetExceededError, InputError
from rlm_integrations.events import BlockFinished, BlockStarted, CallFailed, Event
from rlm_integrations.lm import pricing
from rlm_integrations.records import Completion, Request, Usage
from tests.engine.conftest import Scripted, code, final, models, overlong, run
from tests.standin import Ask, Fault, Reply, StandIn
from tests.standin.wire_openai import usage_of

DOCUMENT = "In the year of the comet the harvest failed and the bridge was closed. " * 2_000


class Counter:
    """A provider that counts every reply it sends.

    It answers as root with this script, by turn, and as sub-model with `reply`.
    """

    def __init__(self, *script: str, reply: str = "nothing of note") -> None:
        self.script = script
        self.reply = reply
        self.tokens = 0
        self.cost = 0.0

    def __call__(self, ask: Ask) -> Reply:
        is_root = ask.body["messages"][0]["role"] == "system"
        text = (self.script[min(ask.turn, len(self.script) - 1)]) if is_root else self.reply
        most = ask.body.get("max_completion_tokens")
        reply = Reply(text if most is None else text[: 4 * most - 4])
        counted = usage_of(ask, reply)
        self.tokens += counted["total_tokens"]
        usage = Usage(counted["prompt_tokens"], counted["completion_tokens"])
        self.cost += pricing.cost(usage, ask.model) or 0.0
        return reply


def rlm_of(server: StandIn, counter: Counter, *, model: str = "root", **options: object) -> RLM:
    server.change(scripts={model: counter})
    return RLM(OpenAILM(model, base_url=server.base_url, api_key="a-key"), **options)


LOOKS = [
    code(
        f"print('look {turn}', context[{turn} * 500 : {turn} * 500 + 400])",
        "seen = llm_query(context[:3000])",
    )
    for turn in range(30)
]
BATCH = code(
    "replies = llm_batch([f'{n}: ' + context[n * 100 : n * 100 + 2000] for n in range(40)])",
    "print(replies)",
)


# Calls.


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_calls_are_never_exceeded(server: StandIn, limit: int) -> None:
    """The server never gets more calls than the limit; the last one is the closing request, unless
    the limit is one.
    """
    rlm = rlm_of(server, Counter(*LOOKS), budget=Budget(max_calls=limit))
    result = await rlm.acompletion("What happened?", DOCUMENT)
    assert (result.stop_reason, result.total_calls, server.stats().calls) == (
        "budget_calls",
        limit,
        limit,
    )
    last = server.requests()[-1].body["messages"][-1]["content"]
    assert ("This is the last turn" in last) == (limit > 1)


async def test_the_rest_of_a_batch_is_refused_when_the_calls_are_spent(server: StandIn) -> None:
    """Calls in flight are answered, the rest gets an `LLMError` of type "budget" in its slot; order
    and length are kept.
    """
    script = [
        code(
            "replies = llm_batch([f'p{n}' for n in range(10)], max_concurrent=3)",
            "kinds = [getattr(r, 'type', r) for r in replies]",
        )
    ]
    rlm = rlm_of(
        server, Counter(*script, code("FINAL(kinds)"), reply="fine"), budget=Budget(max_calls=6)
    )
    result = await rlm.acompletion("What happened?", DOCUMENT)
    assert result.answer == str(["fine"] * 4 + ["budget"] * 6).replace("'", '"')
    assert (result.stop_reason, server.stats().calls) == ("budget_calls", 6)
    subcalls = result.repl_history[0].subcalls
    assert [call.reply.startswith("Error: budget") for call in subcalls] == [False] * 4 + [True] * 6


async def test_the_closing_turn_makes_no_calls(server: StandIn) -> None:
    """Code of the closing reply runs, and its calls are refused with a reason."""
    script = [
        code("x = 'found'"),
        code("r = llm_query('more?')", "print(recursive_lm('q', 'c'))", "FINAL(f'{x}; {r}')"),
    ]
    rlm = rlm_of(server, Counter(*script), budget=Budget(max_calls=2))
    result = await rlm.acompletion("What happened?", DOCUMENT)
    assert (
        result.answer
        == "found; Error: budget: this is the last turn, and models cannot be called any more"
    )
    assert server.stats().calls == 2


# Tokens and dollars.


@pytest.mark.parametrize("limit", [4_000, 8_000, 20_000, 60_000])
@pytest.mark.parametrize("script", [LOOKS, [BATCH] * 30], ids=["one by one", "batches"])
async def test_tokens_are_never_exceeded(server: StandIn, limit: int, script: list[str]) -> None:
    """The server's own count stays within the limit, and the run still makes calls and closes."""
    counter = Counter(*[f"{block}\nTurn {turn}." for turn, block in enumerate(script)])
    result = await rlm_of(server, counter, budget=Budget(max_tokens=limit)).acompletion(
        "What happened?", DOCUMENT
    )
    assert result.stop_reason == "budget_tokens"
    assert 0 < counter.tokens <= limit
    assert (
        result.spent.total.usage.input_tokens + result.spent.total.usage.output_tokens
        == counter.tokens
    )
    assert result.answer != ""
    if limit >= 20_000:
        assert "This is the last turn" in server.requests()[-1].body["messages"][-1]["content"]
        assert counter.tokens > limit / 3


async def test_dollars_are_never_exceeded(server: StandIn) -> None:
    """The price of the tokens that the server counted stays within the limit; there is no closing
    request.
    """
    counter = Counter(*[f"{BATCH}\nTurn {turn}." for turn in range(30)])
    rlm = rlm_of(server, counter, model="gpt-5-mini", budget=Budget(max_cost=0.02))
    result = await rlm.acompletion("What happened?", DOCUMENT)
    assert (result.stop_reason, result.answer != "") == ("budget_cost", True)
    assert 0.005 < counter.cost <= 0.02
    assert result.cost == pytest.approx(counter.cost)
    assert "This is the last turn" not in server.requests()[-1].body["messages"][-1]["content"]


async def test_a_cost_limit_without_a_price_is_refused_before_the_first_call(
    server: StandIn,
) -> None:
    """A cost limit is refused if any model, even a sub-model, has no price; the message names other
    limits.
    """
    priced, unknown = models(server.base_url, "gpt-5-mini", "my-own-model")
    for rlm in (
        RLM(unknown, budget=Budget(max_cost=1)),
        RLM(priced, {"a": priced, "b": unknown}, budget=Budget(max_cost=1.0)),
    ):
        with pytest.raises(
            InputError, match="no known price of 'my-own-model'; limit max_tokens or max_calls"
        ):
            await rlm.acompletion("What happened?", DOCUMENT)
    assert server.stats().calls == 0


@pytest.mark.parametrize(
    "kind", ["null_content", "no_usage", "rate_limit", "truncated", "empty_choices", "close"]
)
async def test_failed_attempts_count(server: StandIn, kind: str) -> None:
    """Failed attempts count, because a provider may charge for them: with one of five failing, the
    limit holds.
    """
    counter = Counter(*[f"{BATCH}\nTurn {turn}." for turn in range(30)])
    server.change(faults=[Fault(kind, rate=0.2)])
    result = await rlm_of(server, counter, budget=Budget(max_tokens=60_000)).acompletion(
        "What happened?", DOCUMENT
    )
    assert result.stop_reason in {"budget_tokens", "model_error"}
    assert 0 < counter.tokens <= 60_000


async def test_retries_of_unusable_replies_stay_within_the_limit(
    server: StandIn,
) -> None:
    """Retries of unusable replies stop when the budget does not cover another one."""
    counter = Counter(*LOOKS)
    server.change(faults=[Fault("null_content", match="harvest")])
    options = {"limits": Limits(reply_tokens=1_000), "retry": Retry(replies=100, seconds=1e9)}
    rlm = rlm_of(server, counter, budget=Budget(max_tokens=16_000), **options)
    result = await rlm.acompletion("What happened?", DOCUMENT)
    assert counter.tokens <= 16_000
    assert result.stop_reason == "budget_tokens"


async def test_calls_wait_for_reservations_to_be_returned(server: StandIn) -> None:
    """Ten concurrent calls reserve more than the budget but use less: all are answered, with the
    full reply limit.
    """
    counter = Counter(
        code("r = llm_batch(['p'] * 30)", "FINAL(sum(x == 'nothing of note' for x in r))")
    )
    result = await rlm_of(server, counter, budget=Budget(max_tokens=60_000)).acompletion(
        "What happened?", DOCUMENT
    )
    assert (result.answer, result.stop_reason) == ("30", "final")
    assert {kept.body["max_completion_tokens"] for kept in server.requests()} == {8_192}


async def test_replies_are_limited_to_what_is_left(server: StandIn) -> None:
    """With little budget left, replies get a smaller limit instead of being refused."""
    counter = Counter(code("x = 'found'"), code("FINAL(x)"))
    result = await rlm_of(server, counter, budget=Budget(max_tokens=8_000)).acompletion(
        "What happened?", DOCUMENT
    )
    assert (result.answer, result.stop_reason) == ("found", "final")
    assert all(256 <= kept.body["max_completion_tokens"] < 8_192 for kept in server.requests())


async def test_without_a_limit_replies_are_not_bounded(server: StandIn) -> None:
    """Without a limit on tokens or cost, requests have no reply limit."""
    await rlm_of(server, Counter(final("'done'")), budget=Budget(max_calls=5)).acompletion(
        "What happened?", DOCUMENT
    )
    assert "max_completion_tokens" not in server.requests()[0].body


async def test_text_of_many_bytes_is_not_underestimated(server: StandIn) -> None:
    """A Chinese character counts as about one token: a prompt that does not fit is not sent."""
    counter = Counter(code("r = llm_query(context[:6000])", "FINAL(r.type)"), final("'closed'"))
    result = await rlm_of(server, counter, budget=Budget(max_tokens=6_000)).acompletion(
        "What happened?", "彗星之年收成不好桥也关了" * 1_000
    )
    assert result.answer == "budget"
    assert all(len(kept.body["messages"][-1]["content"]) < 6_000 for kept in server.requests())


async def test_children_and_their_tokens_are_counted_together(server: StandIn) -> None:
    """A tree of runs stays within one limit, and children do not use the reserve for the root's
    closing request.
    """
    counter = Counter(
        *[
            code(f"print(recursive_batch([{{'query': 'q{turn}', 'context': context[:9000]}}] * 6))")
            for turn in range(9)
        ]
    )
    rlm = rlm_of(server, counter, max_depth=2, max_iterations=4, budget=Budget(max_tokens=70_000))
    result = await rlm.acompletion("What happened?", DOCUMENT)
    assert 0 < counter.tokens <= 70_000
    assert result.stop_reason == "budget_tokens"
    last = server.requests()[-1].body["messages"]
    assert "What happened?" in last[1]["content"]
    assert "This is the last turn" in last[-1]["content"]


# Seconds.


@pytest.mark.parametrize(
    "block",
    [
        "while True: pass",
        "import time\ntime.sleep(3600)",
        "llm_query('slow')",
        "llm_batch(['slow'] * 5)",
        "recursive_lm('slow', 'x')",
        "try:\n    llm_query('slow')\nexcept BaseException:\n    pass\nwhile True: pass",
        "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    ],
)
async def test_seconds_interrupt_a_running_block_and_its_calls(block: str, time_ends: Any) -> None:
    """At the time limit the run ends with its best answer so far, whatever its code does, and
    nothing stays open.
    """
    root = Scripted([code("print('seen so far')"), code(block)], overlong(3600))
    hook = time_ends(lambda event: isinstance(event, BlockStarted) and event.block == 2)
    result = await run(
        root, budget=Budget(max_seconds=60), limits=Limits(grace_seconds=0.1), on_event=hook
    )
    assert (result.stop_reason, result.answer, root.open) == ("budget_seconds", "seen so far", 0)
    assert result.repl_history[-1].status in {"interrupted", "lost", "error"}


async def test_seconds_abort_calls_at_the_server(server: StandIn, time_ends: Any) -> None:
    """At the time limit, connections of sub-calls are closed, and the record has their outcome."""
    events: list[Event] = []
    server.change(
        scripts={"root": [code("print('seen')"), code("r = llm_batch(['a', 'b', 'c'])")]},
        faults=[Fault("hang", at=(3, 4))],
    )
    root, sub = models(server.base_url, "root", "sub")
    end = time_ends(lambda event: isinstance(event, BlockStarted) and event.block == 2, 1.5)
    rlm = RLM(
        root,
        sub,
        budget=Budget(max_seconds=60),
        on_event=lambda event: (end(event), events.append(event)),
    )
    result = await rlm.acompletion("What happened?", DOCUMENT)
    assert (result.stop_reason, result.answer) == ("budget_seconds", "seen")
    assert [event.record.error.type for event in events if isinstance(event, CallFailed)] == [
        "cancelled",
        "cancelled",
    ]
    replies = [call.reply for call in result.repl_history[1].subcalls]
    assert [reply.startswith(("Error: cancelled", "Error: budget")) for reply in replies] == [
        False,
        True,
        True,
    ]
    await until(lambda: server.stats().in_flight == 0)
    assert server.stats().aborted == 2


async def test_seconds_end_a_root_that_does_not_answer(server: StandIn) -> None:
    """The time limit also ends the root's own call, even in the first turn; without any text the
    answer is empty.
    """
    server.change(faults=[Fault("hang")])
    (root,) = models(server.base_url, "root")
    result = await RLM(root, budget=Budget(max_seconds=0.3)).acompletion("What happened?", DOCUMENT)
    assert (result.stop_reason, result.answer, result.total_calls) == ("budget_seconds", "", 1)


async def test_seconds_over_between_two_blocks_stop_the_second(time_ends: Any) -> None:
    """Code that starts after the time limit is interrupted at once."""
    root = Scripted([code("x = 1") + "\n" + code("while True: pass")])
    hook = time_ends(lambda event: isinstance(event, BlockFinished), 0)
    result = await run(
        root, budget=Budget(max_seconds=60), limits=Limits(grace_seconds=0.2), on_event=hook
    )
    assert result.stop_reason == "budget_seconds"
    assert [execution.status == "ok" for execution in result.repl_history] == [True, False]


# The result of a stop.


SLEEP = code("import time", "time.sleep(3600)")


def sleeps(event: Event) -> bool:
    """Whether this event is the start of the block that only sleeps."""
    return isinstance(event, BlockStarted) and "time.sleep(3600)" in event.code


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ([code("FINAL('half an answer')", "1 / 0")], "half an answer"),
        ([code("print('first')"), code("print('latest')"), code("x = 1")], "latest"),
        (["It seems to be the comet."], "It seems to be the comet."),
        ([], ""),
    ],
)
async def test_a_stop_returns_the_best_partial_answer(
    script: list[str], answer: str, time_ends: Any
) -> None:
    """The partial answer is a refused answer, else the last output or text, else nothing."""
    result = await run(
        Scripted([*script, SLEEP]), budget=Budget(max_seconds=60), on_event=time_ends(sleeps)
    )
    assert (result.stop_reason, result.answer) == ("budget_seconds", answer)


async def test_a_closing_reply_in_prose_is_the_answer() -> None:
    """A closing reply without FINAL is the answer."""
    result = await run(
        Scripted([code("FINAL('a guess')", "1 / 0"), "I believe it was the comet."]),
        max_iterations=1,
    )
    assert (result.stop_reason, result.answer) == ("max_iterations", "I believe it was the comet.")


@pytest.mark.parametrize("budget", [{"max_calls": 2}, {"max_tokens": 5_000}, {"max_seconds": 60}])
async def test_raise_carries_the_partial_result(budget: dict[str, float], time_ends: Any) -> None:
    """`on_exceeded="raise"` raises an error with the complete result: answer, record and
    spending.
    """
    last = SLEEP if "max_seconds" in budget else code("print('turn', llm_query(context * 300))")
    root = Scripted([code("print('seen')"), last, "?"])
    with pytest.raises(BudgetExceededError, match="the error has the partial result") as caught:
        await run(
            root,
            budget=Budget(**budget, on_exceeded="raise"),
            limits=Limits(grace_seconds=0.2),
            on_event=time_ends(sleeps),
        )
    result = caught.value.result
    assert isinstance(result, RLMResult)
    assert result.stop_reason == next(iter(budget)).replace("max", "budget")
    assert result.total_calls == len(root.requests) > 0
    assert result.trajectory[0].executions[0].stdout == "seen\n"


async def test_large_limits_change_nothing() -> None:
    """With large limits the result is the same as without."""
    script = [code("x = llm_query('p')"), code("FINAL(x)")]
    result = await run(
        Scripted(script),
        budget=Budget(max_calls=50, max_tokens=10**6, max_seconds=60.0, on_exceeded="raise"),
    )
    plain = await run(Scripted(script))
    assert (result.answer, result.stop_reason, result.total_calls) == (
        plain.answer,
        "final",
        plain.total_calls,
    )


class Unhelpful:
    """A model that reports no tokens."""

    name, context_window = "uncounted", None

    async def complete(self, request: Request) -> Completion:
        return Completion(
            code("r = llm_batch(['p' * 3000] * 20)") if request.role == "root" else "words"
        )


async def test_without_token_counts_each_call_costs_its_reservation() -> None:
    """Without token counts each call costs its reservation, so a token limit ends the run all the
    same.
    """
    result = await RLM(Unhelpful(), budget=Budget(max_tokens=100_000)).acompletion(
        "What?", DOCUMENT
    )
    assert result.stop_reason == "budget_tokens"
    assert result.total_calls < 20
    assert result.cost is None


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)
