"""What a budget refuses and counts: prompts that are too long, impossible counts, refused
connections.
"""

import asyncio
import base64
import random
import re
import socket

import pytest

from rlm_integrations import RLM, Budget, Limits, OpenAILM, Retry
from rlm_integrations.engine.budget import Purse
from rlm_integrations.engine.prompt_size import bound
from rlm_integrations.events import CallFailed, CallRetried, Event
from rlm_integrations.lm import pricing
from rlm_integrations.records import CallRecord, Completion, Message, Request, Usage
from tests.engine.conftest import Scripted, code, final, models, run
from tests.standin import Ask, Reply, StandIn, serve
from tests.standin.settings import Usage as Counts

# Prompts that do not fit.


async def test_a_prompt_that_is_too_long_fails_alone() -> None:
    """The error in its slot has the prompt's tokens and the limit; the rest of the batch is
    answered, and the run continues.
    """
    root = Scripted(
        [
            code("rs = llm_batch(['a', 'x' * 5_000_000, 'b'])", "print(rs[1])"),
            final("[rs[0], rs[1].type, rs[2]]"),
        ]
    )
    result = await run(root, budget=Budget(max_tokens=100_000))
    assert (result.answer, result.stop_reason) == ('["re: a", "budget", "re: b"]', "final")
    told = (
        r"Error: budget: the prompt and its reply take up to 5,000,265 tokens, "
        r"and \d\d,\d{3} of the run's 100,000 are left: ask with less"
    )
    assert re.search(told, result.repl_history[0].stdout)
    assert root.asked == ["a", "b"]


async def test_a_prompt_that_no_longer_fits_fails_alone() -> None:
    """A prompt that no longer fits does not end the run either, as long as shorter prompts fit."""
    script = [
        code(
            "a = llm_query('w ' * 60_000)", "b = llm_query('y ' * 60_000)", "c = llm_query('short')"
        ),
        final("[a, b.type, c]"),
    ]
    result = await run(Scripted(script, lambda _: "fine"), budget=Budget(max_tokens=100_000))
    assert (result.answer, result.stop_reason) == ('["fine", "budget", "fine"]', "final")


async def test_a_too_long_prompt_in_a_child_fails_alone() -> None:
    """In a child, a prompt that is too long is an error in its slot; child and parent continue."""
    scripts = {
        "child": [code("r = llm_query('x' * 5_000_000)"), final("r.type")],
        "What": [code("r = recursive_lm('child', context)"), final("[r, llm_query('short')]")],
    }
    result = await run(Scripted(scripts), max_depth=2, budget=Budget(max_tokens=100_000))
    assert (result.answer, result.stop_reason) == ('["budget", "re: short"]', "final")


async def test_a_child_whose_own_question_is_too_long_fails_alone() -> None:
    """Such a child run ends without an answer, and its parent with one."""
    root = Scripted(
        [code("r = recursive_lm('x' * 2_000_000, context)"), final("[r.type, llm_query('short')]")]
    )
    result = await run(root, max_depth=2, budget=Budget(max_tokens=100_000))
    assert (result.answer, result.stop_reason) == ('["budget", "re: short"]', "final")


async def test_a_run_is_over_once_no_useful_call_fits() -> None:
    """If hardly any budget is left, a refused call ends the run: the root is asked for its best
    answer.
    """
    root = Scripted(
        [
            code("rs = [llm_query('word ' * 100) for _ in range(200)]"),
            final("sum(r.startswith('re:') for r in rs)"),
        ]
    )
    result = await run(root, budget=Budget(max_tokens=30_000), limits=Limits(reply_tokens=1_000))
    assert result.stop_reason == "budget_tokens"
    assert "This is the last turn: the budget is spent" in root.told[-1]
    assert 5 < int(result.answer) < 200


async def test_a_budget_below_the_first_prompt() -> None:
    """If the budget does not cover the first prompt, nothing is sent, and the result's error has
    both numbers.
    """
    result = await run(Scripted([final("'x'")]), budget=Budget(max_tokens=600))
    assert (result.stop_reason, result.answer, result.total_calls) == ("budget_tokens", "", 0)
    assert re.search(
        r"the prompt and its reply take up to [\d,]+ tokens, and \d+ of the run's 600 are left",
        result.error or "",
    )


async def test_a_document_that_is_too_long_for_one_call_is_a_budget_stop() -> None:
    """The single call without a REPL has the same budget stop as the loop."""
    result = await run(
        Scripted(),
        "x" * 90_000,
        budget=Budget(max_tokens=20_000),
        limits=Limits(single_call_below=100_000),
    )
    assert (result.stop_reason, result.total_calls) == ("budget_tokens", 0)
    assert "the prompt and its reply take up to" in (result.error or "")


async def test_a_prompt_that_costs_too_much_fails_alone(server: StandIn) -> None:
    """The same for cost limits: the message has the remaining cost."""
    script = [
        code("r = llm_query('x' * 4_000_000)", "print(r)"),
        final("[r.type, llm_query('short')]"),
    ]
    server.change(
        scripts={
            "gpt-5-mini": lambda ask: (
                script[ask.turn] if ask.body["messages"][0]["role"] == "system" else "fine"
            )
        }
    )
    (lm,) = models(server.base_url, "gpt-5-mini")
    result = await RLM(lm, budget=Budget(max_cost=0.5)).acompletion("What?", "a text")
    assert (result.answer, result.stop_reason) == ('["budget", "fine"]', "final")
    assert re.search(
        r"may cost more than the \$0\.4\d+ that are left: ask with less text",
        result.repl_history[0].stdout,
    )


async def test_dense_text_does_not_overspend(server: StandIn) -> None:
    """Ten concurrent prompts of base64, counted like a real tokenizer does, stay within the
    limit.
    """
    spent = 0

    def answer(ask: Ask) -> Reply:
        nonlocal spent
        is_root = ask.body["messages"][0]["role"] == "system"
        read = sum(len(message["content"]) for message in ask.body["messages"])
        counts = Counts(input=read // 4 if is_root else int(read * 0.72), output=20)
        spent += counts.input + counts.output
        return Reply(
            code(f"rs = llm_batch([context] * 10)  # {ask.turn}") if is_root else "fine",
            usage=counts,
        )

    server.change(scripts={"root": answer})
    (root,) = models(server.base_url, "root")
    document = base64.b64encode(random.Random(1).randbytes(15_000)).decode()
    result = await RLM(
        root, budget=Budget(max_tokens=60_000), limits=Limits(reply_tokens=500)
    ).acompletion("What?", document)
    assert result.stop_reason == "budget_tokens"
    assert 20_000 < spent <= 60_000


# The last call.


async def test_a_run_that_needs_every_call_is_not_stopped() -> None:
    """A run whose last allowed call returns the final answer is complete, and does not raise."""
    root = Scripted([code("x = llm_query('a')"), final("x")])
    result = await run(root, budget=Budget(max_calls=3, on_exceeded="raise"))
    assert (result.answer, result.stop_reason, result.total_calls) == ("re: a", "final", 3)
    assert "This is the last turn: the budget allows this call and no further one" in root.told[-1]


async def test_a_last_call_that_does_not_finish_is_a_stop() -> None:
    """Without a final, the text of the last call is only the best answer so far."""
    result = await run(
        Scripted([code("x = llm_query('a')"), "It seems to be the comet."]),
        budget=Budget(max_calls=3),
    )
    assert (result.answer, result.stop_reason) == ("It seems to be the comet.", "budget_calls")


@pytest.mark.parametrize(
    "last", [final("llm_query('more')"), final("recursive_lm('more', context)")]
)
async def test_a_final_beside_a_refused_call_is_a_stop(last: str) -> None:
    """A final in a reply whose code made a refused call is not a complete answer."""
    result = await run(Scripted([code("x = llm_query('a')"), last]), budget=Budget(max_calls=3))
    assert (result.stop_reason, result.total_calls) == ("budget_calls", 3)


# Counts.


class Counting(Scripted):
    """Reports these tokens for every call."""

    def __init__(self, script: list[str], usage: Usage | None) -> None:
        super().__init__(script)
        self._usage = usage

    async def complete(self, request: Request) -> Completion:
        completion = await super().complete(request)
        return Completion(completion.text, self._usage, "root", "stop")


@pytest.mark.parametrize("usage", [Usage(0, 0), Usage(3, 1), None])
async def test_impossible_counts_are_ignored(usage: Usage | None) -> None:
    """Zero tokens for long prompts are ignored: each call costs its reservation, and the run ends
    after a few.
    """
    root = Counting([code(f"llm_batch([context] * 20)  # {turn}") for turn in range(20)], usage)
    result = await run(root, "w" * 40_000, budget=Budget(max_tokens=300_000))
    assert result.stop_reason == "budget_tokens"
    read = sum(len(message.content) for request in root.requests for message in request.messages)
    assert read <= 300_000


async def test_uncounted_usage_is_unknown() -> None:
    """Usage and cost are None, not zero, if the provider did not report tokens; the number of such
    calls is reported.
    """
    result = await run(Counting([final("'x'")], Usage(0, 0)))
    assert (result.usage, result.cost) == ({"root": None}, None)
    spent = result.spent.by_model["root"]
    assert (spent.calls, spent.uncounted, spent.usage) == (1, 1, Usage())
    assert result.trajectory[0].usage is None


async def test_cost_follows_the_model_that_answered(server: StandIn) -> None:
    """The cost, and a cost limit, use the price of the answering model, as behind a router."""
    cost = 0.0

    class Router:
        name, context_window = "gpt-5-mini", None

        async def complete(self, request: Request) -> Completion:
            nonlocal cost
            usage = Usage(sum(len(message.content) for message in request.messages) // 4, 100)
            cost += pricing.cost(usage, "gpt-4o") or 0.0
            text = (
                code(f"llm_batch([context] * 20)  # {len(request.messages)}")
                if request.role == "root"
                else "y"
            )
            return Completion(text, usage, "gpt-4o", "stop")

    result = await RLM(Router(), budget=Budget(max_cost=0.2)).acompletion("What?", "w" * 4_000)
    assert result.cost == pytest.approx(cost)
    assert result.stop_reason == "budget_cost"
    assert 0.05 < cost <= 0.2


async def test_a_model_that_answers_under_an_unknown_name_costs_what_was_asked() -> None:
    """If the answering model has no price, that of the requested model is used."""

    class Alias:
        name, context_window = "gpt-5-mini", None

        async def complete(self, request: Request) -> Completion:
            return Completion(final("'x'"), Usage(1_000, 100), "my-alias", "stop")

    result = await RLM(Alias()).acompletion("What?", "a text")
    assert result.cost == pytest.approx(pricing.cost(Usage(1_000, 100), "gpt-5-mini"))


# Connections.


async def test_refused_connections_cost_nothing() -> None:
    """A refused connection sent nothing and is not charged: a run against a server that starts late
    completes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = asyncio.Event()
    refusals: list[Event] = []

    def note(event: Event) -> None:
        if isinstance(event, CallRetried):
            refusals.append(event)
            if len(refusals) == 4:  # more than the budget covers, if each was counted
                refused.set()

    lm = OpenAILM("root", base_url=f"http://127.0.0.1:{port}/v1", api_key="a-key")
    rlm = RLM(lm, budget=Budget(max_tokens=30_000), on_event=note)
    running = asyncio.create_task(rlm.acompletion("What?", "a text"))
    await refused.wait()
    async with serve(scripts={"root": [final("'a'")]}, port=port):
        result = await running
    assert (result.answer, result.stop_reason, result.total_calls) == ("a", "final", 1)


async def test_a_name_that_does_not_resolve_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed look-up is a connection error that is not charged."""

    async def no_such_host(*_: object, **__: object) -> list[object]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", no_such_host)
    monkeypatch.setattr("aiohttp.resolver.AsyncResolver.resolve", no_such_host, raising=False)
    events: list[Event] = []
    lm = OpenAILM("root", base_url="http://no-such-host.test/v1", api_key="a-key")
    root = Scripted([code("r = llm_query('p')"), final("r.type")])
    result = await RLM(
        root, lm, budget=Budget(max_tokens=30_000), retry=Retry(failures=0), on_event=events.append
    ).acompletion("What?", "a text")
    assert (result.answer, result.stop_reason) == ("connection", "final")
    assert [event.record.error.type for event in events if isinstance(event, CallFailed)] == [
        "connection"
    ]


# The parameter of the bound.


class OldServer:
    """A server that knows only `max_tokens`, such as Ollama; it counts its tokens."""

    def __init__(self, name: str = "max_tokens") -> None:
        self.name = name
        self.tokens = 0

    def __call__(self, ask: Ask) -> Reply:
        if ask.body["messages"][0]["role"] == "system":
            text = (
                code("llm_batch(['p%d' % i for i in range(100)])") if not ask.turn else final("'x'")
            )
        else:
            text = "y" * 4 * min(6_000, ask.body.get(self.name, 6_000))
        read = sum(len(message["content"]) for message in ask.body["messages"]) // 4
        self.tokens += read + len(text) // 4
        return Reply(text, usage=Counts(input=read, output=len(text) // 4))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_holds_for_both_names_of_the_reply_bound(server: StandIn, name: str) -> None:
    """Servers other than OpenAI's get both names of the reply bound, so one of them applies."""
    old = OldServer(name)
    server.change(scripts={"root": old})
    (root,) = models(server.base_url, "root")
    result = await RLM(
        root, budget=Budget(max_tokens=20_000), limits=Limits(reply_tokens=500)
    ).acompletion("What?", "a text")
    assert result.stop_reason == "budget_tokens"
    assert 10_000 < old.tokens <= 20_000


async def test_a_server_that_ignores_every_bound_is_noticed() -> None:
    """After its first overlong reply, that length is reserved for each call: only calls then in
    flight may exceed the limit.
    """
    purse = Purse(Budget(max_tokens=100_000), 500, 0.0)
    lm = "ignores"
    first = await purse.reserve(100, lm, 1)
    assert first.tokens == 600
    purse.settle(first, CallRecord(reply="y", model=lm, usage=Usage(100, 6_000)))
    second = await purse.reserve(100, lm, 1)
    assert (second.tokens, second.reply_tokens) == (6_100, 500)


@pytest.mark.parametrize("params", [{"max_tokens": 300}, {"max_completion_tokens": 300}])
async def test_a_models_own_bound_stays_and_is_the_only_one(
    server: StandIn, params: dict[str, int]
) -> None:
    """With a token budget the request has one bound, under the user's name for it, with the smaller
    value.
    """
    server.change(scripts={"root": [code("llm_query('a')"), final("'x'")]})
    root = models(server.base_url, "root")[0]
    sub = OpenAILM("sub", base_url=server.base_url, api_key="a-key", params=params)
    await RLM(root, sub, budget=Budget(max_tokens=100_000)).acompletion("What?", "a text")
    sent = [each.body for each in server.requests() if each.body["model"] == "sub"]
    assert [{name: value for name, value in body.items() if "max" in name} for body in sent] == [
        params
    ]


async def test_a_models_own_bound_is_lowered_where_less_is_left(server: StandIn) -> None:
    """A user's larger bound is lowered to the remaining budget."""
    server.change(scripts={"root": [code("llm_query('a')"), final("'x'")]})
    root = models(server.base_url, "root")[0]
    sub = OpenAILM("sub", base_url=server.base_url, api_key="a-key", params={"max_tokens": 50_000})
    await RLM(root, sub, budget=Budget(max_tokens=40_000)).acompletion("What?", "a text")
    sent = [each.body for each in server.requests() if each.body["model"] == "sub"]
    assert [(body["max_tokens"], "max_completion_tokens" in body) for body in sent] == [
        (8_192, False)
    ]


def test_the_bound_of_messages_covers_each() -> None:
    """The overhead per message is counted for each message."""
    assert bound([Message("user", "a"), Message("user", "")]) >= 2 * 4 + 1
