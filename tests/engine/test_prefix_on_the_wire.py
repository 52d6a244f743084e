"""The root's conversation as providers receive it: their caches keep the longest prefix that they
have seen, byte for byte.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from rlm_integrations import RLM, OpenAILM
from tests.engine.conftest import code, final
from tests.lm._foreign import CLAUDE, foreign
from tests.standin import Ask, Reply, StandIn, serve_in_thread
from tests.standin.settings import Usage

TURNS = 30


def talk(ask: Ask) -> str:
    """A root that thinks aloud and prints much, and finishes at last."""
    said = f"Thought {ask.turn}. {'words ' * 100}"
    if ask.turn == TURNS - 1:
        return final("'done'")
    block = code(f"print('output {ask.turn} ' * 300)")
    return f"{said}\n{block}"


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with serve_in_thread(scripts={"root": talk}, keep_requests=True) as server:
        yield server


def prefixes(standin: StandIn) -> list[str]:
    """The bodies of all requests, up to the end of their last message."""
    return [json.dumps(kept.body["messages"])[:-1] for kept in standin.requests()]


def changes_of(prefixes: Sequence[str]) -> list[int]:
    """The requests that do not begin with the one before them."""
    pairs = pairwise(prefixes)
    return [at for at, (before, after) in enumerate(pairs, 1) if not after.startswith(before)]


async def test_each_turn_begins_with_the_turn_before(standin: StandIn) -> None:
    """Without compaction the bytes of one request are the beginning of the next, also from one
    question of a session to the next.
    """
    root = OpenAILM("root", base_url=standin.base_url)
    async with RLM(root, max_iterations=TURNS).session("a document") as chat:
        assert (await chat.acompletion("What is it?")).answer == "done"
        standin.change(scripts={"root": [final("1")] * TURNS + [final("'more'")]})
        assert (await chat.acompletion("And what else?")).answer == "more"
    sent = prefixes(standin)
    assert len(sent) == TURNS + 1
    assert changes_of(sent) == []


@pytest.mark.parametrize("window", [14_000, 16_000, 24_000])
async def test_a_compaction_changes_the_prefix_once(standin: StandIn, window: int) -> None:
    """After a compaction the next turns begin with the shortened conversation, unchanged; and it
    makes room for several of them.
    """
    root = OpenAILM("root", base_url=standin.base_url, context_window=window)
    result = await RLM(root, max_iterations=TURNS).acompletion("What is it?", "a document")
    assert (result.answer, result.iterations) == ("done", TURNS)
    sent = prefixes(standin)
    changes = changes_of(sent)
    assert changes
    shown = "characters of output are no longer shown"
    assert changes[0] == next(at for at, each in enumerate(sent) if shown in each)
    gaps = [after - before for before, after in pairwise(changes)]
    assert min(gaps, default=3) >= 3
    system = [kept.body["messages"][0] for kept in standin.requests()]
    assert system == [system[0]] * TURNS


def marks(body: dict[str, Any]) -> list[tuple[str, int]]:
    """Where a request of Anthropic's has cache points."""
    texts = [("system", body["system"]), *((m["role"], m["content"]) for m in body["messages"])]
    return [
        (role, at)
        for at, (role, blocks) in enumerate(texts)
        for block in blocks
        if "cache_control" in block
    ]


def unmarked(body: dict[str, Any]) -> str:
    """A request of Anthropic's without its cache points, up to its last message."""
    text = json.dumps([body["system"], *body["messages"]])
    return text.replace(', "cache_control": {"type": "ephemeral"}', "")[:-1]


async def test_anthropic_is_told_what_to_cache(standin: StandIn) -> None:
    """A root of Anthropic's has cache points on its system prompt and on the last message, which
    move with the conversation; calls of sub-models have none. What the cache gave and got is in
    usage and cost.
    """
    script = [code("x = llm_query('plain')"), code("print(x)"), final("x")]
    usage = Usage(input=10_000, output=100, cached=6_000, written=3_000)

    def reply(ask: Ask) -> Reply:
        is_root = ask.body["messages"][0]["role"] == "system"
        return Reply(script[ask.turn], usage=usage) if is_root else Reply("sub", usage=Usage())

    standin.change(scripts={CLAUDE: reply})
    rlm = RLM(foreign("ChatAnthropic", standin.base_url))
    result = await rlm.acompletion("What is it?", "a document")
    assert result.answer == "sub"
    first, plain, *later = (kept.body for kept in standin.requests())
    roots = [first, *later]
    assert [marks(body) for body in roots] == [
        [("system", 0), ("user", 2 * turn + 1)] for turn in range(3)
    ]
    assert changes_of([unmarked(body) for body in roots]) == []
    assert "cache_control" not in json.dumps(plain)
    spent = result.spent.by_model[CLAUDE]
    assert (spent.usage.cached_tokens, spent.usage.cache_write_tokens) == (18_000, 9_000)


async def test_the_users_own_cache_points_stay(standin: StandIn) -> None:
    """A model to which the user has bound cache control gets no further points."""
    standin.change(scripts={CLAUDE: [final("'1'")]})
    model = foreign("ChatAnthropic", standin.base_url)
    bound = model.bind(cache_control={"type": "ephemeral", "ttl": "1h"})
    await RLM(bound).acompletion("What is it?", "a document")
    (kept,) = standin.requests()
    assert kept.body["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert "cache_control" not in json.dumps([kept.body["system"], kept.body["messages"]])
