"""The identity of a call is the same in every run of the same code, whatever the timing of threads,
replies and children.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.gate import Gate, digest_of
from rlm_integrations.records import Request, SpanRef
from tests.engine.conftest import Scripted, code, run

DOCUMENT = "".join(f"Sentence {number} of the document says something. " for number in range(500))

THREADS = code(
    "from concurrent.futures import ThreadPoolExecutor",
    "with ThreadPoolExecutor(8) as pool:",
    "    replies = list(pool.map(llm_query, [f'thread {n % 6}' for n in range(12)]))",
    "print(replies)",
)
GATHER = code(
    "import asyncio",
    "replies = await asyncio.gather(*[llm_query(f'gathered {n}') for n in range(6)], llm_batch(['in a batch', 'in a batch', 'alone']))",
)
CHILDREN = code(
    "from concurrent.futures import ThreadPoolExecutor",
    "parts = [context[n * 1000 : n * 1000 + 900] for n in range(5)]",
    "with ThreadPoolExecutor(5) as pool:",
    "    replies = list(pool.map(lambda part: recursive_lm('child?', part), [*parts, parts[0]]))",
    "more = recursive_batch([{'query': 'child?', 'context': part} for part in parts[::-1]])",
)
WORKERS = code(
    "commits = rlm_worker_batched(['worker? a', 'worker? b', 'worker? a'])",
    "print([apply_commit(each) for each in commits])",
)
SCRIPTS = {
    "root?": [THREADS, GATHER, CHILDREN, WORKERS, code("FINAL('done')")],
    "child?": [
        code(
            "from concurrent.futures import ThreadPoolExecutor",
            "with ThreadPoolExecutor(4) as pool:",
            "    list(pool.map(llm_query, [context[:50], 'same for all', 'same for all']))",
            "id = store.create('note', context[:20], len(context))",
        ),
        code("FINAL(llm_query('and last: ' + context[:20]))"),
    ],
    "worker?": [
        code(
            "store.create('note', 'by a worker', 1)",
            "FINAL({'creates': [{'type': 'claim', 'description': 'd', 'content': 'c'}]})",
        )
    ],
}


@dataclass
class Seen:
    """The calls of one run that another run of the same code must repeat."""

    identities: Counter[Any] = field(default_factory=Counter)
    paths: Counter[Any] = field(default_factory=Counter)
    workers: set[str] = field(default_factory=set)


async def one_run(seed: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Seen:
    """A run whose replies arrive in another order for each seed."""
    seen, jitter = Seen(), random.Random(seed)
    identify = Gate._identify

    async def note(self: Gate, *args: Any) -> CallId:
        call = await identify(self, *args)
        seen.identities[call] += 1
        return call

    async def answer(request: Request) -> str:
        await asyncio.sleep(jitter.choice([0, 0, 0.001, 0.01]))
        return f"re: {request.messages[-1].content}"

    with monkeypatch.context() as patched:
        patched.setattr(Gate, "_identify", note)
        root = Scripted(SCRIPTS, answer)
        result = await run(root, DOCUMENT, "root?", max_depth=2, **options)
    assert (result.answer, result.stop_reason) == ("done", "final")
    seen.paths = Counter(
        (request.path, request.role, request.messages[-1].content[:100])
        for request in root.requests
    )
    seen.workers = {card["worker"] for card in result.store.search(limit=1000)}
    return seen


async def test_identities_do_not_depend_on_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs with threads, gather, batches, children and workers, and with replies in different
    orders, have the same calls with the same ids.
    """
    runs = [
        await one_run(seed, monkeypatch, max_parallel_calls=width)
        for seed, width in ((1, 10), (2, 3), (3, 30))
    ]
    for other in runs[1:]:
        assert other == runs[0]
    assert set(runs[0].identities.values()) == {1}
    assert set(runs[0].paths.values()) == {1}
    # Root (which applied the commits), children by thread and by batch, workers
    assert len(runs[0].workers) == 1 + 6 + 5 + 3


async def test_equal_calls_differ_by_their_occurrence_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of twelve calls from threads, six have different arguments, and each is made twice."""
    seen = await one_run(4, monkeypatch)
    threads = [
        call
        for call in seen.identities
        if (call.run, call.block, call.function) == ("r", 1, "llm_query")
    ]
    assert sorted(call.occurrence for call in threads) == [0] * 6 + [1] * 6
    assert len({call.digest for call in threads}) == 6


async def test_every_call_has_a_unique_path() -> None:
    """Paths are unique: root calls have the turn, batches the slot, repetitions the occurrence, and
    children are below the call that started them.
    """
    root = Scripted(
        {
            "root?": [
                code("llm_batch(['a', 'a'])", "llm_batch(['a', 'a'])", "llm_query('a')"),
                code("FINAL(recursive_lm('child?', 'x'))"),
            ],
            "child?": [code("FINAL(llm_query('a'))")],
        }
    )
    await run(root, DOCUMENT, "root?", max_depth=2)
    paths = [request.path for request in root.requests]
    assert len(set(paths)) == len(paths)
    assert [path for path in paths if "/" not in path] == ["r:t1", "r:t2"]
    first = next(path for path in paths if "/b" in path).removesuffix(".0")
    assert {f"{first}.0", f"{first}.1", f"{first}~2.0", f"{first}~2.1"} <= set(paths)
    child = next(path for path in paths if "/c" in path).removesuffix(":t1")
    assert [path for path in paths if path.startswith(child)] == [f"{child}:t1", paths[-1]]
    assert paths[-1].startswith(f"{child}.b1/q")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.builds(SpanRef, st.just("s"), st.just(1), st.integers()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def canonical(value: Any) -> Any:
    """The value with its types, in a form where 1, True and 1.0 differ."""
    if isinstance(value, list):
        return [canonical(each) for each in value]
    if isinstance(value, dict):
        return {key: canonical(each) for key, each in value.items()}
    return (type(value).__name__, repr(value))


@given(VALUES, VALUES)
def test_equal_arguments_have_equal_digests(one: Any, other: Any) -> None:
    """Different arguments have different digests, and the order of keys does not count."""
    assert (digest_of([one], {}) == digest_of([other], {})) == (canonical(one) == canonical(other))
    if isinstance(one, dict):
        assert digest_of([], dict(reversed(one.items()))) == digest_of([], one)


def test_digests_are_pinned() -> None:
    """The canonical form is pinned, because a change would invalidate every journal."""
    assert (
        digest_of(["a", 1, None, [SpanRef("context_0", 0, 5)]], {"model": "x", "b": True})[:16]
        == "bdd1cc3400464c3d"
    )
