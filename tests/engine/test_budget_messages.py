"""What the root and code learn about the budget, what is left of it, and truncated replies."""

import itertools
import json
import pickle

import pytest

from rlm_integrations import RLM, Budget, LLMError, LLMReply, RLMResult, llm_batch, llm_batch_iter
from rlm_integrations.records import Completion, Request, Usage
from rlm_integrations.sandbox.decoder import Decoder
from rlm_integrations.sandbox.encoder import Encoder
from tests.engine.conftest import Scripted, code, final, models, run
from tests.standin import Reply, StandIn

# The budget.


async def test_the_root_is_told_what_it_may_spend() -> None:
    """The question is followed by one line with every limit; without limits there is no line."""
    budget = Budget(max_calls=200, max_tokens=1_000_000, max_seconds=600)
    root = Scripted([final("'x'")])
    await run(root, budget=budget)
    told = (
        "Left of the budget, your own replies included: 200 calls, 1,000,000 tokens, 600 seconds."
    )
    assert root.told[0].endswith(told)
    without = Scripted([final("'x'")])
    await run(without)
    assert "budget" not in without.told[0]


async def test_the_root_is_told_what_is_left_when_that_is_much_less() -> None:
    """The remaining budget is told at a half, a quarter and a tenth, at the end of an observation,
    not in every turn.
    """
    root = Scripted(
        [code(f"r = llm_batch(['p'] * 10)  # {turn}") for turn in range(9)] + [final("'x'")]
    )
    result = await run(root, budget=Budget(max_calls=120))
    assert result.stop_reason == "final"
    lines = [
        [line for line in told.splitlines() if line.startswith("Left of the budget")]
        for told in root.told
    ]
    assert [len(each) for each in lines] == [1, 0, 0, 0, 0, 0, 1, 0, 0, 1]
    assert lines[6] == ["Left of the budget, your own replies included: 54 calls."]
    assert lines[9] == ["Left of the budget, your own replies included: 21 calls."]


async def test_the_conversation_is_only_appended_to() -> None:
    """Earlier messages stay unchanged, so that a provider's prefix cache works."""
    root = Scripted(
        [code(f"r = llm_batch(['p'] * 10)  # {turn}") for turn in range(5)] + [final("'x'")]
    )
    await run(root, budget=Budget(max_calls=70, max_tokens=10**6))
    asked = [request.messages for request in root.requests if request.role == "root"]
    assert all(later[: len(earlier)] == earlier for earlier, later in itertools.pairwise(asked))


async def test_a_child_is_told_what_is_left_for_all() -> None:
    """The budget is shared by the tree: a child's line has what is left for all."""
    scripts = {
        "child": [final("'c'")],
        "What": [code("llm_batch(['p'] * 4)", "r = recursive_lm('child', context)"), final("r")],
    }
    root = Scripted(scripts)
    await run(root, max_depth=2, budget=Budget(max_calls=50))
    asked = [
        request.messages[-1].content
        for request in root.requests
        if request.role == "root" and request.depth == 1
    ]
    assert [told.splitlines()[-1] for told in asked] == [
        "Left of the budget, your own replies included: 45 calls."
    ]


# Truncated replies.


class Cutting:
    """As root it follows its script; as sub-model its reply is truncated if a prompt says so."""

    name, context_window = "root", None

    def __init__(self, *script: str, reason: str = "length") -> None:
        self.scripted = Scripted(script)
        self.reason = reason

    async def complete(self, request: Request) -> Completion:
        if request.role == "root":
            return await self.scripted.complete(request)
        is_cut = request.messages[-1].content.startswith("long")
        return Completion(
            "half a li" if is_cut else "whole",
            Usage(9, 3),
            "root",
            self.reason if is_cut else "stop",
        )


@pytest.mark.parametrize("sandbox", ["process", "inprocess"])
@pytest.mark.filterwarnings("ignore:.*inprocess.*")
async def test_code_can_detect_a_truncated_reply(sandbox: str) -> None:
    """Every reply in the REPL shows whether it was truncated, an error too, and also after
    await.
    """
    block = code(
        "rs = llm_batch(['long', 'short', 7, 'long again'])",
        "one = await llm_query('long')",
        "print([r.truncated for r in rs], rs[0].finish_reason, one.truncated, isinstance(one, str), rs[1] == 'whole')",
    )
    model = Cutting(block, final("rs[0]"))
    result = await RLM(model, sandbox=sandbox).acompletion("What?", "a text")
    assert result.repl_history[0].stdout == "[True, False, False, True] length True True True\n"
    assert result.answer == "half a li"


async def test_truncated_replies_are_reported_to_the_root() -> None:
    """Truncated replies are reported once per block, with their number; otherwise nothing is
    reported.
    """
    model = Cutting(
        code("llm_batch(['long', 'short', 'long'])"),
        code("llm_query('long')"),
        code("llm_query('short')"),
        final("'x'"),
    )
    result = await RLM(model).acompletion("What?", "a text")
    told = model.scripted.told
    assert "2 replies of models were cut before the end (`reply.truncated` is True)." in told[1]
    assert "One reply of a model was cut before the end" in told[2]
    assert "cut before the end" not in told[3]
    assert "cut before the end" in result.trajectory[0].note


async def test_the_record_says_why_a_model_stopped(server: StandIn) -> None:
    """The finish reason is recorded for sub-calls and the root's replies, also through JSON."""
    server.change(
        scripts={
            "root": [code("llm_query('p')"), final("'x'")],
            "sub": lambda _: Reply("half", "length"),
        }
    )
    root, sub = models(server.base_url, "root", "sub")
    result = await RLM(root, sub).acompletion("What?", "a text")
    again = RLMResult.from_dict(json.loads(json.dumps(result.to_dict())))
    for each in (result, again):
        assert [turn.finish_reason for turn in each.trajectory] == ["stop", "stop"]
        assert [call.finish_reason for call in each.repl_history[0].subcalls] == ["length"]


async def test_a_record_of_an_earlier_version_is_read() -> None:
    """A missing finish reason is loaded as None."""
    plain = (await run(Scripted([code("llm_query('p')"), final("'x'")]))).to_dict()
    for turn in plain["trajectory"]:
        del turn["finish_reason"]
        for execution in turn["executions"]:
            for call in execution["subcalls"]:
                del call["finish_reason"]
    result = RLMResult.from_dict(plain)
    assert result.trajectory[0].finish_reason is None
    assert result.repl_history[0].subcalls[0].finish_reason is None


def test_truncated_replies_of_a_batch() -> None:
    """Outside a run, replies have the same finish reason, with the sync and the async API."""
    lm = Cutting()
    assert [reply.truncated for reply in llm_batch(["long", "short"], lm)] == [True, False]
    assert {index: reply.truncated for index, reply in llm_batch_iter(["long", "short"], lm)} == {
        0: True,
        1: False,
    }


@pytest.mark.parametrize(
    ("reason", "is_cut"),
    [
        ("length", True),
        ("MAX_TOKENS", True),
        ("max_tokens", True),
        ("content_filter", True),
        ("stop", False),
        ("end_turn", False),
        (None, False),
    ],
)
def test_finish_reasons_of_truncated_replies(reason: str | None, is_cut: bool) -> None:
    """The providers' finish reasons of a truncated reply."""
    reply = LLMReply("text", reason)
    assert (reply.truncated, reply, hash(reply)) == (is_cut, "text", hash("text"))
    copied = pickle.loads(pickle.dumps(reply))
    assert (type(copied), copied, copied.finish_reason) == (LLMReply, "text", reason)
    error = LLMError("timeout", "too late")
    assert (error.truncated, error.finish_reason) == (False, None)


def test_the_host_ignores_a_finish_reason_from_code() -> None:
    """A reply keeps its finish reason on its way into the sandbox; sent back, it is a plain
    string.
    """
    frames: list[bytes] = []
    Encoder().encode(
        {"op": "x", "replies": [LLMReply("a" * 5_000, "length"), LLMReply("b")]}, frames.append
    )
    inside = Decoder().decode(frames[-1][4:])
    outside = Decoder(1 << 20).decode(frames[-1][4:])
    assert inside is not None
    assert outside is not None
    assert [reply.finish_reason for reply in inside["replies"]] == ["length", None]
    assert [type(reply) for reply in outside["replies"]] == [str, str]
