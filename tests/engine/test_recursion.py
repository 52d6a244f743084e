"""Children: separate runs below the limit of depth, plain calls at it; one tree of models, budget,
store and document.
"""

import asyncio
import json

import pytest

from rlm_integrations import RLM, Budget, Limits
from rlm_integrations.events import ChildFinished, Event, RunStarted
from rlm_integrations.records import SpanRef
from rlm_integrations.result import SubCall
from tests.engine.conftest import Scripted, check_citations, code, final, models, overlong, run
from tests.standin import Ask, Fault, StandIn

DOCUMENT = "".join(
    f"Paragraph {number} tells of the year {1200 + number} and of nothing else. "
    for number in range(400)
)
HALF = len(DOCUMENT) // 2


def subcalls(root_result: object) -> list[SubCall]:
    return [call for execution in root_result.repl_history for call in execution.subcalls]


async def test_at_depth_one_a_child_is_one_call_of_the_sub_model() -> None:
    """With the default depth `recursive_lm` sends the question and the part to the sub-model
    once.
    """
    root = Scripted([code("r = recursive_lm('who?', context[:20])", "FINAL(r)")])
    result = await run(root, DOCUMENT)
    assert root.asked == [f"Question: who?\n\n{DOCUMENT[:20]}"]
    assert (result.answer, result.total_calls) == (f"re: {root.asked[0]}", 2)
    (call,) = subcalls(result)
    assert (call.function, call.depth, call.turns, call.model) == ("recursive_lm", 1, (), "root")


async def test_at_depth_one_a_list_of_texts_is_asked_about_in_one_call() -> None:
    """The texts of a list follow the question, in order."""
    root = Scripted([code("r = recursive_lm('who?', ['one', 'two'])", "FINAL(r)")])
    await run(root)
    assert root.asked == ["Question: who?\n\none\n\ntwo"]


async def test_below_the_limit_a_child_has_its_own_repl_over_its_part() -> None:
    """It has its own variables, its context is the part, and its own children are plain calls at
    the limit.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "secret = 1",
                    "r = recursive_lm('child?', context[100:5100])",
                    "FINAL([r, 'mine' in dir()])",
                )
            ],
            "child?": [
                code("mine = 2", "print(len(context), context[:20], 'secret' in dir())"),
                code("FINAL(recursive_lm('leaf?', context[:7]))"),
            ],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    assert result.answer == f'["re: Question: leaf?\\n\\n{DOCUMENT[100:107]}", false]'
    (call,) = subcalls(result)
    assert call.turns[0].executions[0].stdout == f"5000 {DOCUMENT[100:120]} False\n"
    assert [
        inner.depth
        for turn in call.turns
        for execution in turn.executions
        for inner in execution.subcalls
    ] == [2]
    assert {depth: spent.calls for depth, spent in result.spent.by_depth.items()} == {
        0: 1,
        1: 2,
        2: 1,
    }
    assert result.total_calls == 4


async def test_depth_three_nests_runs_in_runs() -> None:
    """Each level has a REPL, the slices are slices of slices, and only the last level is a plain
    call.
    """
    root = Scripted(
        {
            "level 0": [code("FINAL(recursive_lm('level 1', context[1000:21000]))")],
            "level 1": [code("FINAL(recursive_lm('level 2', context[1000:11000]))")],
            "level 2": [
                code("FINAL(recursive_lm('level 3', context[1000:1020]) + str(len(context)))")
            ],
        }
    )
    result = await run(root, DOCUMENT, "level 0", max_depth=3)
    assert result.answer == f"re: Question: level 3\n\n{DOCUMENT[3000:3020]}10000"
    assert sorted(request.depth for request in root.requests) == [0, 1, 2, 3]


async def test_a_child_over_a_list_has_a_list() -> None:
    """Each text is a separate source."""
    root = Scripted(
        {
            "root?": [
                code("FINAL(recursive_lm('child?', [context[:100], 'made up', context[200:300]]))")
            ],
            "child?": [
                code("FINAL([type(context).__name__, len(context), context_1, len(context_2)])")
            ],
        }
    )
    assert (await run(root, DOCUMENT, "root?", max_depth=2)).answer == '["list", 3, "made up", 100]'


async def test_children_of_a_batch_answer_in_order_at_the_same_time() -> None:
    """`recursive_batch` keeps order and length; a malformed task fails alone; all children run
    concurrently.
    """
    together = asyncio.Barrier(4)

    async def meet(request: object) -> str:
        await asyncio.wait_for(together.wait(), 60)
        return "met"

    root = Scripted(
        {
            "root?": [
                code(
                    "tasks = [{'query': f'child? {n}', 'context': str(n)} for n in range(4)]",
                    "r = recursive_batch([*tasks[:2], 'no task', {'query': ''}, *tasks[2:]])",
                    "FINAL(r)",
                )
            ],
            "child?": [code("FINAL(context + llm_query('x'))")],
        },
        meet,
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    assert [answer[:5] for answer in json.loads(result.answer)] == [
        "0met",
        "1met",
        "Error",
        "Error",
        "2met",
        "3met",
    ]
    assert [
        call.path.rpartition(".")[2]
        for call in sorted(subcalls(result), key=lambda call: call.path)
    ] == ["0", "1", "4", "5"]


async def test_the_tree_shares_one_bound_of_parallel_calls(server: StandIn) -> None:
    """Six children with five sub-calls each never have more than `max_parallel_calls` in flight."""

    def root(ask: Ask) -> str:
        if "root?" in str(ask.body["messages"]):
            return code(
                "FINAL(recursive_batch([{'query': f'child {n}', 'context': 'c'} for n in range(6)]))"
            )
        return code("FINAL(len(llm_batch(['a', 'b', 'c', 'd', 'e'])))")

    server.change(scripts={"root": root}, latency=0.01)
    lm, sub = models(server.base_url, "root", "sub")
    result = await RLM(lm, sub, max_depth=2, max_parallel_calls=4).acompletion("root?", DOCUMENT)
    assert result.answer == '["5", "5", "5", "5", "5", "5"]'
    assert (server.stats().most_in_flight, result.total_calls) == (4, 1 + 6 + 30)


async def test_children_share_the_store() -> None:
    """A parent finds its child's objects, under the child's name, and the event belongs to the
    child's block.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "recursive_lm('child?', context[1000:3000])",
                    "FINAL([found['worker'] for found in store.search()])",
                )
            ],
            "child?": [code("store.create('note', 'a finding', 'content')", "FINAL('kept')")],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    (call,) = subcalls(result)
    worker = call.path.replace("/", "_")
    assert result.answer == f'["{worker}"]'
    (event,) = call.turns[0].executions[0].store_events
    assert (event["op"], event["id"], event["worker"]) == ("create", f"{worker}_000001", worker)
    assert result.repl_history[0].store_events == ()


@pytest.mark.parametrize(
    "backrefs",
    [
        "[cite(context[10:60])]",
        "cite(context[10:60])",
        "[{'source': 'context_0', 'start': 10, 'end': 60}]",
    ],
)
async def test_store_backrefs_of_a_child_are_spans_of_the_root(backrefs: str) -> None:
    """Spans of the child's document, in any form, are stored as spans of the root's."""
    root = Scripted(
        {
            "root?": [
                code("recursive_lm('child?', context[1000:3000])", "FINAL(store.search()[0]['id'])")
            ],
            "child?": [code(f"FINAL(store.create('note', 'a finding', 'content', {backrefs}))")],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    (span,) = result.store.get(result.answer).backrefs
    assert span == SpanRef("context_0", 1010, 1060)
    assert DOCUMENT[span.start : span.end] == DOCUMENT[1000:3000][10:60]


async def test_a_backref_to_made_up_text_is_refused() -> None:
    """A backref must be in the document; otherwise the child gets an error, and nothing is
    stored.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "FINAL(recursive_lm('child?', 'Words that nobody wrote, and that are in no document at all.'))"
                )
            ],
            "child?": [
                code(
                    "store.create('note', 'a finding', 'content', [cite('Words that nobody wrote')])"
                ),
                code("FINAL(len(store.search()))"),
            ],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    assert result.answer == "0"
    (call,) = subcalls(result)
    assert "spans must refer to the document" in call.turns[0].executions[0].error


@pytest.mark.parametrize(
    ("part", "start"),
    [
        ("context[5000:9000]", 5000),
        ("context[5000:5030]", 5000),
        ("'Made up. ' * 20 + context[5000:9000] + ' The end.'", 5000),
    ],
)
async def test_citations_of_a_child_are_lifted_to_the_roots_document(part: str, start: int) -> None:
    """Spans of a slice, of a short one, and of a slice inside made-up text become the root's own
    spans.
    """
    root = Scripted(
        {
            "root?": [code(f"FINAL(recursive_lm('child?', {part}))")],
            "child?": [
                code(
                    f"at = context.index({DOCUMENT[start : start + 30]!r})",
                    "FINAL('x', [SpanRef('context_0', at, at + 30)])",
                )
            ],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    (call,) = subcalls(result)
    assert [(each.start, each.end) for each in call.citations] == [(start, start + 30)]
    assert DOCUMENT[start : start + 30] == call.citations[0].quote
    assert call.dropped_citations == 0


async def test_invented_citations_of_a_child_are_dropped() -> None:
    """Made-up text, invented quotes and invalid spans are dropped and counted, in the child and
    where the root repeats them.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "made = 'It is a fact that the moon was bought by the mill in the year 1999, for good.'",
                    "r = recursive_lm('child?', [made, context[:500]])",
                    "FINAL(r, [made, r, cite(made), context[10:80]])",
                )
            ],
            "child?": [
                code(
                    "FINAL('the moon', [cite(context_0), SpanRef('context_0', 0, 10), 'an invented quote', SpanRef('context_1', 0, 9999), "
                    "SpanRef('context_1', 7, 60)])"
                )
            ],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    (call,) = subcalls(result)
    assert [(each.start, each.end) for each in call.citations] == [(7, 60)]
    assert call.dropped_citations == 4
    assert [(each.start, each.end) for each in result.citations] == [(10, 80)]
    assert result.dropped_citations == 2
    check_citations(result, DOCUMENT)


async def test_a_span_partly_in_made_up_text_is_dropped() -> None:
    """A span that is half document and half made-up text is not a place in the document."""
    root = Scripted(
        {
            "root?": [
                code("FINAL(recursive_lm('child?', context[1000:3000] + 'And this is invented.'))")
            ],
            "child?": [
                code(
                    "FINAL('x', [SpanRef('context_0', 1990, 2010), SpanRef('context_0', 1980, 2000)])"
                )
            ],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    (call,) = subcalls(result)
    assert [(each.start, each.end) for each in call.citations] == [(2980, 3000)]


async def test_a_child_that_fails_is_an_error_for_its_parent(server: StandIn) -> None:
    """A child whose model fails returns an `LLMError`; the parent's block continues."""

    def root(ask: Ask) -> str:
        return code("r = recursive_lm('child?', 'text')", "FINAL([type(r).__name__, r.type])")

    server.change(scripts={"root": root}, faults=[Fault("auth", at=(1,))])
    (lm,) = models(server.base_url, "root")
    result = await RLM(lm, max_depth=2).acompletion("root?", DOCUMENT)
    assert result.answer == '["LLMError", "auth"]'


async def test_a_child_at_its_limit_of_turns_leaves_the_others_alone() -> None:
    """It returns its best answer after its own closing request; its parent and its siblings can
    continue.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "r = recursive_batch([{'query': 'loops', 'context': 'x'}, {'query': 'quick', 'context': 'x'}])",
                    "print(r)",
                ),
                code("FINAL([r, llm_query('and now?'), recursive_lm('quick', 'x')])"),
            ],
            "loops": [code(f"print('turn {turn}', llm_query('more'))") for turn in range(2)]
            + [code("print(llm_query('too late'))")],
            "quick": [code("FINAL(llm_query('fine'))")],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2, max_iterations=2)
    assert result.answer == '[["turn 1 re: more", "re: fine"], "re: and now?", "re: fine"]'
    assert result.stop_reason == "final"
    assert root.asked.count("too late") == 0


async def test_children_of_an_interrupted_block_are_recorded() -> None:
    """Calls and children of an interrupted block are recorded as cancelled, with their turns so
    far.
    """
    root = Scripted(
        {
            "root?": [
                code("recursive_batch([{'query': 'child?', 'context': 'x'}] * 2)"),
                final("'went on'"),
            ],
            "child?": [
                code("print('a turn', llm_query('quick'))"),
                code("llm_batch(['slow', 'slow'])"),
            ],
        },
        lambda request: (
            overlong(60)(request) if request.messages[-1].content == "slow" else "quick"
        ),
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2, limits=Limits(block_wall_seconds=0.5))
    assert (result.answer, result.repl_history[0].status, root.open) == (
        "went on",
        "interrupted",
        0,
    )
    for call in subcalls(result):
        assert call.reply == "Error: cancelled: the calling block ended first"
        assert [execution.stdout for turn in call.turns for execution in turn.executions] == [
            "a turn quick\n",
            "",
        ]
        assert [slow.reply for slow in call.turns[1].executions[0].subcalls] == [
            "Error: cancelled: the block ended first"
        ] * 2
    assert len(subcalls(result)) == 2


async def test_children_spend_the_roots_budget() -> None:
    """The calls of a child count; when they are spent, child and root stop, and the reserve is the
    root's.
    """
    root = Scripted(
        {
            "root?": [
                code("print(recursive_lm('child?', 'text'))"),
                code("FINAL('the best there is')"),
            ],
            "child?": [code(f"print(llm_batch(['a{turn}', 'b', 'c']))") for turn in range(20)],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2, budget=Budget(max_calls=10))
    assert (result.stop_reason, result.answer) == ("budget_calls", "the best there is")
    assert result.total_calls == len(root.requests) == 10
    assert [request.depth for request in root.requests].count(0) == 2


async def test_events_of_a_child_name_its_parent() -> None:
    """RunStarted and ChildFinished of a child have the parent run as parent, at every depth; calls
    have their own run.
    """
    events: list[Event] = []
    root = Scripted(
        {
            "level 0": [code("FINAL(recursive_lm('level 1', 'text'))")],
            "level 1": [code("FINAL(recursive_lm('level 2', 'text'))")],
            "level 2": [final("'leaf'")],
        }
    )
    await run(root, DOCUMENT, "level 0", max_depth=3, on_event=events.append)
    started = [event for event in events if isinstance(event, RunStarted)]
    assert [event.depth for event in started] == [0, 1, 2]
    assert [event.parent for event in started] == [None, started[0].id, started[1].id]
    finished = [event for event in events if isinstance(event, ChildFinished)]
    assert [(event.id, event.parent, event.answer) for event in finished] == [
        (started[2].id, started[1].id, "leaf"),
        (started[1].id, started[0].id, "leaf"),
    ]


COMMIT = "{'creates': [{'id': 'e1', 'type': 'claim', 'description': 'a claim', 'content': 'c', 'backrefs': [cite(context[5:60])]}]}"


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_worker_answers_with_a_commit_that_merges_once(depth: int) -> None:
    """Below the limit a worker is a run over the whole document, at the limit a call; applying its
    commit twice changes nothing.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "commit = rlm_worker('explore', store_cards=store.card_view())",
                    "first = apply_commit(commit, 'batch')",
                    "again = apply_commit(commit, 'batch')",
                    "print(first, again)",
                    "FINAL([len(store.search('type=claim')), first['error'], sorted(commit)])",
                )
            ],
            "explore": [code(f"FINAL({COMMIT})")],
        },
        lambda request: (
            '{"creates": [{"id": "e1", "type": "claim", "description": "a claim", "content": "c"}]}'
        ),
    )
    result = await run(root, DOCUMENT, "root?", max_depth=depth)
    assert (
        result.answer == '[1, null, ["commit_id", "creates", "error", "links", "proposes_updates"]]'
    )
    (found,) = result.store.search("type=claim")
    spans = result.store.get(found["id"]).backrefs
    assert spans == ((SpanRef("context_0", 5, 60),) if depth == 2 else ())


async def test_workers_in_a_batch_keep_order_and_fail_alone() -> None:
    """A worker's answer that is not a commit, and a malformed task, are empty commits with an
    error; ids never collide.
    """
    root = Scripted(
        {
            "root?": [
                code(
                    "commits = rlm_worker_batched(['explore a', 'nonsense', 7, {'prompt': 'explore b', 'store_cards': []}])",
                    "applied = [apply_commit(each) for each in commits]",
                    "FINAL([[bool(each['error']) for each in applied], len({each['commit_id'] for each in commits}), len(store.search())])",
                )
            ],
            "explore": [code(f"FINAL({COMMIT})")],
            "nonsense": [final("'I found nothing.'")],
        }
    )
    result = await run(root, DOCUMENT, "root?", max_depth=2)
    assert result.answer == "[[false, true, true, false], 4, 2]"


async def test_a_malformed_commit_returns_an_error() -> None:
    """`apply_commit` with any malformed commit returns an error and leaves the store unchanged."""
    root = Scripted(
        [
            code(
                "r = [apply_commit(x) for x in (None, 5, {}, {'commit_id': 'a', 'creates': 'x'}, [])]",
                "FINAL([bool(x['error']) for x in r])",
            )
        ]
    )
    result = await run(root)
    assert result.answer == "[true, true, true, true, true]"
    assert len(result.store) == 0


async def test_without_a_store_there_are_no_workers() -> None:
    """`store_mode="none"` removes store, workers and commits from the REPL; spans and `cite`
    stay.
    """
    names = ["store", "rlm_worker", "rlm_worker_batched", "apply_commit", "SpanRef", "cite"]
    root = Scripted([code(f"FINAL([name in globals() for name in {names}])")])
    result = await run(root, store_mode="none")
    assert result.answer == "[false, false, false, false, true, true]"
    assert result.store is None
    assert not any(
        word in root.requests[0].messages[0].content for word in ("store", "commit", "worker")
    )
