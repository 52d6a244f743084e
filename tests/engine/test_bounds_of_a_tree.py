"""The memory, calls and threads that code can cause in the host are limited for a whole tree of
runs.
"""

import asyncio
import hashlib
from typing import Any

import pytest

from rlm_integrations import Budget, Limits, LLMError
from rlm_integrations._concurrency.pool import YIELD_AFTER_ITEMS
from rlm_integrations.engine import children, sub_calls
from rlm_integrations.errors import ContextError
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import Request
from rlm_integrations.result import RLMResult, SubCall
from rlm_integrations.sandbox.process import ProcessSandbox, ProcessSession
from tests.engine.conftest import Scripted, code, final, run


def calls_of(result: RLMResult) -> list[SubCall]:
    return [call for execution in result.repl_history for call in execution.subcalls]


# Prompts


@pytest.mark.parametrize(
    ("template", "chunk", "length"),
    [
        ("'{chunk}' * 3_000", "'x' * 1_000_000", 3_000_000_000),
        ("'{chunk}' * 1_000_000", "'x' * 1_000_000", 10**12),
    ],
)
async def test_the_length_of_a_filled_template_is_computed_first(
    template: str, chunk: str, length: int
) -> None:
    """A template whose filled length exceeds the limit fails in its slot; the long string is never
    built.
    """
    block = code(f"replies = parallel_query({template}, [{chunk}, 'y'])", "print(replies[0])")
    root = Scripted([block, final("'done'")])
    result = await run(root)
    assert (
        f"the prompt has {length:,} characters; the maximum is 20,000,000: send a part of it"
        in result.repl_history[0].stdout
    )
    assert result.answer == "done"
    assert len(root.asked) == 1


async def test_every_prompt_has_a_length_limit() -> None:
    """In single calls, batches, templates and children, a prompt that is too long fails alone, and
    the others are sent.
    """
    block = code(
        "long = 'x' * 1_001",
        "replies = [llm_query(long), *llm_batch([long, 'a']), *parallel_query('{chunk}', [long, 'b'])]",
        "replies.append(recursive_lm('q', [long, long]))",
        "print([reply[:12] for reply in replies])",
    )
    root = Scripted([block, final("'done'")])
    result = await run(root, limits=Limits(prompt_chars=1_000))
    failed = "Error: input"
    assert (
        result.repl_history[0].stdout == f"{[failed, failed, 're: a', failed, 're: b', failed]}\n"
    )
    assert sorted(root.asked) == ["a", "b"]


async def test_the_prompts_of_a_template_are_made_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No more filled prompts exist at a time than calls are in flight, even when they are
    recorded.
    """
    monkeypatch.setattr(sub_calls, "_MAX_GROUP_CHARS", 5_000)
    noted: list[int] = []
    note = sub_calls.SubCalls._note_calls

    async def watched(self: Any, *args: Any) -> None:
        pieces = self._tree.locator.pieces

        async def counted(prompts: list[str], *given: Any) -> list[PromptPieces]:
            noted.append(sum(map(len, prompts)))
            return list(await pieces(prompts, *given))

        monkeypatch.setattr(self._tree.locator, "pieces", counted)
        await note(self, *args)

    monkeypatch.setattr(sub_calls.SubCalls, "_note_calls", watched)
    root = Scripted(
        [
            code("parallel_query('{chunk}' * 1_000, [str(i) for i in range(10)] * 3)"),
            final("'done'"),
        ]
    )
    result = await run(root)
    assert [call.path.rpartition(".")[2] for call in calls_of(result)] == [
        str(number) for number in range(30)
    ]
    assert len(noted) >= 6
    assert max(noted) <= 5_000


async def test_prompts_of_templates_are_not_made_before_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With any number of calls with templates, no more of their prompts exist than calls are in
    flight.
    """
    there = most = 0
    ask = sub_calls.SubCalls._ask

    async def counted(self: Any, *args: Any) -> Any:
        nonlocal there, most
        there += 1
        most = max(most, there)
        try:
            return await ask(self, *args)
        finally:
            there -= 1

    async def answer(_request: Request) -> str:
        for _ in range(20):
            await asyncio.sleep(0)
        return "yes"

    monkeypatch.setattr(sub_calls.SubCalls, "_ask", counted)
    block = code(
        "from concurrent.futures import ThreadPoolExecutor",
        "ask = lambda _: parallel_query('Is it {chunk}?', ['a'] * 20, max_concurrent=5)",
        "with ThreadPoolExecutor(8) as p: print(sum(len(replies) for replies in p.map(ask, range(8))))",
    )
    result = await run(Scripted([block, final("'done'")], answer), max_parallel_calls=5)
    assert (result.repl_history[0].stdout, most) == ("160\n", 5)


# The record


async def test_the_record_keeps_ends_and_hashes_beyond_its_bound() -> None:
    """Prompts are recorded completely while there is room, then their beginnings and ends, then
    only counted; refused ones too.
    """
    block = code("for i in range(40): llm_query(str(i) + 'x' * 20_000 + 'end')")
    limits = Limits(recorded_chars=160_000)
    result = await run(
        Scripted([block, final("'done'")]), limits=limits, budget=Budget(max_calls=5)
    )
    calls, execution = calls_of(result), result.repl_history[0]
    assert len(calls) + execution.unrecorded == 40
    assert result.trajectory[0].calls == 40
    whole = [call for call in calls if not call.prompt.left_out]
    shortened = [call for call in calls if call.prompt.left_out]
    assert (len(whole), len(shortened)) == (3, 27)
    assert sum(len(str(call.prompt)) + len(call.reply) for call in calls) <= limits.recorded_chars
    for number, call in enumerate(calls):
        prompt = f"{number}{'x' * 20_000}end"
        assert call.prompt.sha256 == hashlib.sha256(prompt.encode()).hexdigest()
        assert str(call.prompt).startswith(f"{number}xxx")
        assert str(call.prompt).endswith("xend")
    with pytest.raises(ContextError, match=r"the record was full \(Limits.recorded_chars\)"):
        shortened[0].prompt.text(result.store.corpus)  # type: ignore[union-attr, arg-type] # a run has a store, of its document


async def test_the_record_bounds_long_replies_and_output_too() -> None:
    """Replies and output count too and are truncated only in the record: the code gets them
    completely, and the model as usual.
    """
    block = code("print(len(llm_query('p')))", "print('y' * 50_000)")
    root = Scripted([block, block, block, final("'done'")], lambda _: "r" * 50_000)
    result = await run(root, limits=Limits(recorded_chars=210_000, stdout_shown=60_000))
    assert [len(call.reply) for call in calls_of(result)] == [50_000, 1_043, 1_043]
    assert [len(execution.stdout) for execution in result.repl_history[:3]] == [
        50_007,
        1_000,
        1_000,
    ]
    assert [execution.dropped for execution in result.repl_history[:3]] == [0, 49_007, 49_007]
    assert all("50000" in told and "y" * 50_000 in told for told in root.told[1:])


async def test_a_refused_batch_of_very_many_prompts_is_counted() -> None:
    """The record has no entry for each of very many calls that were refused; it counts them."""
    block = code("print(len(llm_batch(['p'] * 20_000)))")
    result = await run(
        Scripted([block, final("'done'")]),
        limits=Limits(recorded_chars=100_000),
        budget=Budget(max_calls=2),
    )
    execution = result.repl_history[0]
    assert execution.stdout == "20000\n"
    assert len(execution.subcalls) <= 100
    assert len(execution.subcalls) + execution.unrecorded == 20_000


# The store


async def test_a_store_has_the_bound_of_its_run() -> None:
    """Code gets an error if the store is full, and continues."""
    block = code(
        "try:",
        "  for i in range(1_000): store.create('t', 'd', 'x' * 9_999 + chr(0x1F600))",
        "except ValueError as e: print(i, e)",
    )
    result = await run(Scripted([block, final("'done'")]), limits=Limits(store_bytes=1_000_000))
    assert result.repl_history[0].stdout.startswith("24 the store is full: it holds 98")
    assert result.answer == "done"


async def test_a_reduction_does_not_repeat_a_long_prompt_for_very_many_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a long prompt would be repeated too often, `llm_reduce` raises an error that says what to
    do.
    """
    monkeypatch.setattr("rlm_integrations.store.derive.MAX_REPEATED_CHARS", 1_000_000)
    block = code(
        "ids = [store.create('t', 'd', 'x' * 50_000)]",
        "try: store.llm_reduce(ids, 'p' * 94_000)",
        "except ValueError as e: print(e)",
        "FINAL(store.get(store.llm_reduce(ids, 'p')).type)",
    )
    result = await run(Scripted([block]))
    assert "would repeat it: shorten it, or reduce fewer objects" in result.repl_history[0].stdout
    assert result.answer == "reduction"


# Child runs and their sessions


class Counting(ProcessSandbox):
    """Counts its sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.open_now = self.most = 0

    async def open(self, *args: Any, **kwargs: Any) -> ProcessSession:
        self.opened += 1
        self.open_now += 1
        self.most = max(self.most, self.open_now)
        session = await super().open(*args, **kwargs)
        close = session.close

        async def counted() -> None:
            self.open_now -= 1
            await close()

        session.close = counted  # type: ignore[method-assign] # to count
        return session


MANY = code(
    "from concurrent.futures import ThreadPoolExecutor",
    "ask = lambda i: recursive_batch([{'query': f'child {i} {j}', 'context': 'c'} for j in range(5)])",
    "with ThreadPoolExecutor(8) as p: print(sum(len(r) for r in p.map(ask, range(8))))",
)


async def test_children_at_once_are_bounded_at_each_depth() -> None:
    """However many calls are in flight, the number of open sessions per depth is limited, and all
    children answer.
    """
    grand = code("FINAL(recursive_lm('grandchild', 'gc'))")
    scripts = {"grandchild": [final("'leaf'")], "child": [grand], "What": [MANY, final("'done'")]}
    sandbox = Counting()
    result = await run(
        Scripted(scripts),
        sandbox=sandbox,
        max_depth=3,
        limits=Limits(child_runs=3),
        max_parallel_calls=10,
    )
    assert (result.repl_history[0].stdout, result.answer) == ("40\n", "done")
    assert [call.reply for call in calls_of(result)] == ["leaf"] * 40
    assert sandbox.most <= 1 + 3 + 3
    assert sandbox.opened == 1 + 40 + 40


async def test_a_child_that_waits_for_its_model_has_no_session() -> None:
    """A child's session is opened when its model has replied with code."""
    sandbox = Counting()
    seen: list[int] = []

    class Watching(Scripted):
        async def complete(self, request: Request) -> Any:
            if "child" in request.query:
                await asyncio.sleep(0)
                seen.append(sandbox.opened)
            return await super().complete(request)

    root = Watching(
        {
            "child": ["no code here", "FINAL(1)"],
            "What": [code("recursive_lm('child', 'c')"), final("'done'")],
        }
    )
    await run(root, sandbox=sandbox, max_depth=2)
    assert seen == [1, 1]


async def test_no_child_is_prepared_once_the_budget_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the budget is spent, a child is refused at once, without a document, a session or a
    thread.
    """
    prepared = 0
    make = children._slice

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal prepared
        prepared += 1
        return make(*args, **kwargs)

    monkeypatch.setattr(children, "_slice", counted)
    sandbox = Counting()
    block = code(
        "replies = recursive_batch([{'query': f'child {i}', 'context': 'c' * 100} for i in range(2_000)])",
        "print(len(replies), sum(reply.startswith('Error') for reply in replies))",
    )
    scripts = {"child": [final("'leaf'")], "What": [block, final("'done'")]}
    result = await run(Scripted(scripts), sandbox=sandbox, max_depth=2, budget=Budget(max_calls=4))
    assert result.repl_history[0].stdout == "2000 1998\n"
    assert prepared <= 2 + 10
    assert sandbox.opened <= 1 + 10
    replies = [call.reply for call in calls_of(result)]
    assert (len(replies), sum(isinstance(reply, LLMError) for reply in replies)) == (2_000, 1_998)


@pytest.mark.exhaustive
async def test_the_cards_of_a_worker_have_a_bound() -> None:
    """A worker's cards, which become part of a prompt, are refused if they are too large, before
    they are formatted.
    """
    block = code("try: rlm_worker('p', [[]] * 1_000_000)", "except ValueError as e: print(e)")
    result = await run(Scripted([block, final("'done'")]))
    assert "store_cards are too large" in result.repl_history[0].stdout


# Batches


@pytest.mark.parametrize(
    "call",
    [
        "llm_batch(items)",
        "parallel_query('{chunk}', items)",
        "recursive_batch(items)",
        "rlm_query_batched(items)",
        "rlm_worker_batched(items)",
    ],
)
async def test_a_batch_has_a_bounded_number_of_items(call: str) -> None:
    """A batch with too many items is refused as a whole, with an error that says what to do."""
    block = code(
        "items = ['p'] * 11",
        f"try: {call}",
        "except ValueError as e: print(e)",
        f"items.pop(); print(len({call}))",
    )
    root = Scripted([block, final("'done'")])
    result = await run(root, limits=Limits(batch_items=10))
    function = call.partition("(")[0]
    assert (
        result.repl_history[0].stdout
        == f"{function}: a batch has at most 10 items, not 11: split it\n10\n"
    )
    assert len(root.asked) <= 10


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "call",
    [
        "llm_batch([[]] * 20_000)",
        "recursive_batch([[]] * 20_000)",
        "rlm_worker_batched([[]] * 20_000)",
        "llm_batch([''] * 20_000)",
    ],
)
async def test_a_refused_batch_does_not_block_the_loop(call: str) -> None:
    """While a large batch is refused, other tasks run after every few items."""
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(beside())
    try:
        root = Scripted([code(f"print(len({call}))"), final("'done'")])
        result = await run(root, budget=Budget(max_calls=2), limits=Limits(recorded_chars=100_000))
    finally:
        task.cancel()
    assert result.repl_history[0].stdout == "20000\n"
    assert turns >= 20_000 // YIELD_AFTER_ITEMS
