"""Large documents and many runs at once: the loop stays free, nothing is mixed or left, the record
stays small.
"""

import asyncio
import gc
import json
import os
import random
from pathlib import Path

import pytest

from rlm_integrations import RLM, Limits
from tests.engine.conftest import (
    Scripted,
    check_citations,
    children,
    code,
    descriptors,
    documents_held,
    final,
    run,
    soon,
)

MEGABYTE = 1_000_000


def text_of(characters: int) -> str:
    """Lines that all differ."""
    line = "line {:09d} of the document says what it says and goes on for a while, as lines do\n"
    return "".join(line.format(number) for number in range(characters // 84 + 1))[:characters]


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


LOOP = [
    code("print(len(context), context[:200])"),
    code(
        "chunks = [context[at : at + 40_000] for at in range(0, len(context), len(context) // 20 + 1)]",
        "replies = llm_batch([f'What is this about?\\n\\n{chunk}' for chunk in chunks])",
        "found = [cite(chunk[100:180]) for chunk in chunks]",
        "print(len(replies))",
    ),
    code("FINAL(replies[0], evidence=found)"),
]


HUNDRED = [
    code(
        "import sys, os",
        "print('out', context[:12])",
        "print('err', context[:12], file=sys.stderr)",
        "name = context[:12]",
        "store.create('note', name, name)",
        "replies = llm_batch([f'{name} {n}' for n in range(3)])",
    ),
    code(
        "print([each['description'] for each in store.search()], replies)",
        "FINAL(replies[2], evidence=[cite(name)])",
    ),
]


@pytest.mark.exhaustive
async def test_a_hundred_runs_at_once() -> None:
    """All answers are right, no output is mixed, and afterwards no process, no descriptor and no
    memory is left.
    """
    rlm = RLM(Scripted(HUNDRED))
    contexts = [f"document {number:03d} of a hundred" for number in range(100)]

    async def all_of_them() -> None:
        results = await asyncio.gather(
            *(rlm.acompletion("What is it?", context) for context in contexts)
        )
        for context, result in zip(contexts, results, strict=True):
            name = context[:12]
            first, second = result.repl_history
            assert (result.answer, result.stop_reason) == (f"re: {name} 2", "final")
            assert (first.stdout, first.stderr) == (f"out {name}\n", f"err {name}\n")
            assert second.stdout == f"{[name]} {[f're: {name} {n}' for n in range(3)]}\n"
            assert len(result.store) == 1
            check_citations(result, context)

    await all_of_them()
    gc.collect()
    open_before, memory_before, tasks = len(descriptors()), resident(), len(asyncio.all_tasks())
    await all_of_them()
    gc.collect()
    assert soon(lambda: not children())
    assert documents_held() == []
    assert len(descriptors()) <= open_before
    assert resident() - memory_before < 10 * MEGABYTE
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.exhaustive
async def test_the_record_of_a_large_document_is_small() -> None:
    """A hundred megabytes leave under one besides what models said: no locals, no context, in root,
    batches and children.
    """
    secrets = random.Random(11)
    needles = [f"needle {secrets.getrandbits(64):x}" for _ in range(200)]
    block = text_of(500_000 - 30)
    document = "".join(f"{block}{needle:30}" for needle in needles)
    script = {
        "root?": [
            *LOOP[:2],
            code(
                "everything = [context, context.upper(), context.split()]",
                "copies = [context[n:] for n in range(3)]",
                "del everything",
            ),
            code(
                "r = recursive_batch([{'query': 'child?', 'context': context[n * 1_000_000 : (n + 1) * 1_000_000]} for n in range(4)])"
            ),
            LOOP[2],
        ],
        "child?": [
            code(
                "replies = llm_batch([context[at : at + 90_000] for at in range(0, len(context), 100_000)])"
            ),
            final("len(replies)"),
        ],
    }
    root = Scripted(script, lambda _request: "nothing of note")
    result = await run(root, document, "root?", max_depth=2, limits=Limits(memory=8 << 30))
    assert (result.stop_reason, result.total_calls) == ("final", 5 + 20 + 4 * 2 + 4 * 10)
    assert sum(len(prompt) for prompt in root.asked) > 4 * MEGABYTE
    record = json.dumps(result.to_dict())
    said = sum(len(turn.reply) for turn in result.trajectory) + 60 * len("nothing of note")
    assert len(record) - said < MEGABYTE
    assert [
        needle for needle in needles if needle in record or repr(result).find(needle) >= 0
    ] == []
    (call, *_) = result.repl_history[1].subcalls
    asked = "".join(
        each if isinstance(each, str) else document[each.start : each.end]
        for each in call.prompt.pieces
    )
    assert asked in root.asked
