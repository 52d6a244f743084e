"""The store in model code: in the REPL, through the gate, recorded with the block that used it."""

import asyncio
from typing import Any

import pytest

from rlm_integrations import RLM, SpanRef
from rlm_integrations.events import CallFinished, RunFinished
from rlm_integrations.records import Request
from tests.engine.conftest import Scripted, code, final, run


async def printed(
    *lines: str, context: object = "The cat sat. The dog ran.", **options: Any
) -> str:
    """The output of one block."""
    result = await run(Scripted([code(*lines), final("'done'")]), context, **options)
    execution = result.repl_history[0]
    assert execution.error is None, execution.error
    return execution.stdout


async def test_objects_are_kept_found_and_read() -> None:
    """Create, get, search, search_text, summary, children, parents, link and invalidate work as the
    prompt describes.
    """
    shown = await printed(
        "a = store.create('claim', 'cats sit', {'n': 1}, backrefs=[cite('The cat sat.')], tags=['animal'])",
        "b = store.create(type='claim', description='dogs run', content='text', parents=[a], tags=['animal', 'fast'])",
        "print(a, b)",
        "found = store.get(a)",
        "print(found.content, found['tags'], found.backrefs[0].start)",
        "print([card['id'] for card in store.search('type=claim tag=fast')], [card['id'] for card in store.search_text('cats')])",
        "print(store.summary()['types'], [o.id for o in store.children(a)], [o.id for o in store.parents(b)])",
        "store.link('supports', b, a); store.invalidate(b, 'wrong')",
        "print(len(store.view()), [step['spans'][0]['text'] for step in store.trace(b) if step['spans']])",
        "print([event['op'] for event in store.events_since(0)], store.card_view()[0]['description'])",
    )
    assert shown.splitlines() == [
        "root_000001 root_000002",
        "{'n': 1} ('animal',) 0",
        "['root_000002'] ['root_000001']",
        "{'claim': 2} ['root_000002'] ['root_000001']",
        "1 ['The cat sat.']",
        "['create', 'create', 'link', 'invalidate'] cats sit",
    ]


async def test_each_block_records_its_writes_and_batches() -> None:
    """An execution has its writes and its batches; the result's store has the objects, with spans
    of the document.
    """
    root = Scripted(
        [
            code("store.create('note', 'first', 1)"),
            code(
                "llm_batch(['a', 'b'])",
                "store.create('note', 'second', 2, [SpanRef('context_0', 4, 7)])",
            ),
            final("'done'"),
        ]
    )
    result = await run(root, "The cat sat.")
    first, second = result.repl_history[:2]
    assert [
        (event["op"], event["id"], event["type"], event["description"], event["worker"])
        for event in first.store_events
    ] == [("create", "root_000001", "note", "first", "root")]
    assert [event["id"] for event in second.store_events] == ["root_000002"]
    assert all(event["ts"] > 0 for event in second.store_events)
    assert [(call["prompts_count"], call["model"]) for call in second.batch_calls] == [(2, "root")]
    assert second.batch_calls[0].keys() == {"prompts_count", "model", "execution_time", "ts"}
    assert first.batch_calls == ()
    assert result.store is not None
    assert result.store.get("root_000002").backrefs == (SpanRef("context_0", 4, 7),)


async def test_llm_map_keeps_each_reply_as_it_comes() -> None:
    """A task's object can be read as soon as its reply arrives, while other calls are in flight."""
    first_is_kept = asyncio.Event()

    async def answer(request: Request) -> str:
        if request.messages[-1].content == "slow":
            await asyncio.wait_for(first_is_kept.wait(), 60)
        return f"re: {request.messages[-1].content}"

    block = code(
        "batch = store.llm_map([{'name': 'one', 'prompt': 'quick'}, {'name': 'two', 'prompt': 'slow'}, {'name': 'bad'}])"
    )
    show = code(
        "for each in store.children(batch): print(each.type, each.description, each.content if each.type == 'result' else '')"
    )
    root = Scripted([block, show, final("'done'")], answer)
    async for event in RLM(root).astream("What is it?", "a document"):
        if isinstance(event, CallFinished) and event.record.reply == "re: quick":
            first_is_kept.set()
        if isinstance(event, RunFinished):
            mapped, shown = event.result.repl_history[:2]
    written = [(each["type"], each["description"]) for each in mapped.store_events]
    assert written[0] == ("batch", "3 tasks")
    assert written.index(("result", "one")) < written.index(("result", "two"))
    assert sorted(shown.stdout.splitlines()) == [
        "error bad ",
        "result one re: quick",
        "result two re: slow",
    ]


async def test_llm_reduce_folds_what_was_found() -> None:
    """Many objects become one, with its parents; the calls belong to the block."""
    shown = await printed(
        "batch = store.llm_map([{'name': str(i), 'prompt': f'about {i}'} for i in range(5)])",
        "end = store.get(store.llm_reduce(batch, 'Put these together.'))",
        "print(end.type, len(end.parents), end.content.startswith('re: Put these together.'))",
    )
    assert shown == "reduction 5 True\n"


async def test_without_a_store_nothing_mentions_it() -> None:
    """`store_mode="none"` removes store, workers and commits from the REPL and the prompt; spans
    and cite stay.
    """
    names = ["store", "rlm_worker", "rlm_worker_batched", "apply_commit"]
    root = Scripted(
        [code(f"print([name in globals() for name in {names}], cite('a small'))"), final("'done'")]
    )
    result = await run(root, store_mode="none")
    assert (
        result.repl_history[0].stdout
        == "[False, False, False, False] SpanRef(source='context_0', start=0, end=7, unit='chars')\n"
    )
    assert result.store is None
    system = root.requests[0].messages[0].content
    assert not any(word in system for word in ("store", "worker", "commit"))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("store.create('note', 'd', object())", "ValueError", "content"),
        ("store.create('note', 'd', 1, parents=['nobody_000001'])", "ValueError", "nobody_000001"),
        ("store.create('', 'd', 1)", "ValueError", "type"),
        ("store.get('root_000009')", "ValueError", "root_000009"),
        ("store.search('type=')", "ValueError", "column"),
        ("store.create('note', 'd', 1, [SpanRef('context_7', 0, 1)])", "ValueError", "context_7"),
        ("store.create('note', 'd', 1, [SpanRef('context_0', 5, 2)])", "ValueError", "5"),
        ("store.create('note', 'd', 1, [SpanRef('context_0', 0, 999)])", "ValueError", "999"),
        ("store.create()", "TypeError", "store.create"),
        ("store.link('loves', 'a', 'b')", "ValueError", "supports"),
        ("store.llm_map('not a list')", "ValueError", "tasks"),
        ("store.llm_reduce('type=none', 'x')", "ValueError", "nothing to reduce"),
    ],
)
async def test_bad_input_is_an_error_that_the_model_can_act_on(
    call: str, error: str, words: str
) -> None:
    """The exception says what is wrong, and nothing is partially written."""
    root = Scripted([code(call), code("print(len(store.events_since(0)))"), final("'done'")])
    result = await run(root, "a small document")
    failed, after = result.repl_history[:2]
    assert failed.error is not None
    assert error in failed.error.splitlines()[-1]
    assert words in failed.error.splitlines()[-1]
    assert after.stdout == "0\n"


@pytest.mark.parametrize(
    "commit",
    ["None", "5", "{}", "{'creates': 5}", "{'commit_id': 'x', 'creates': [{'id': 1}]}", "'text'"],
)
async def test_a_malformed_commit_returns_an_error(commit: str) -> None:
    """A malformed commit never raises in the REPL."""
    assert (await printed(f"print(apply_commit({commit})['error'] is not None)")) == "True\n"


async def test_a_commit_is_merged_once() -> None:
    """The same commit twice results in the same ids and one object; a prefix separates it from
    others.
    """
    shown = await printed(
        "commit = {'commit_id': 'w1', 'creates': [{'id': 'e1', 'type': 'note', 'description': 'd', 'content': 1}]}",
        "print(apply_commit(commit)['created_ids'], apply_commit(commit)['created_ids'], len(store.view()))",
        "print(apply_commit(commit, batch_prefix='b')['created_ids'], len(store.view()))",
    )
    assert shown == "{'e1': 'w1/e1'} {'e1': 'w1/e1'} 1\n{'e1': 'b/w1/e1'} 2\n"
