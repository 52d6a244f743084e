"""Results made by hand: what a page shows, without a model or a sandbox."""

import dataclasses
from collections.abc import Sequence
from random import Random
from typing import Any

from rlm_integrations._json import to_plain
from rlm_integrations.corpus import Corpus
from rlm_integrations.prompt_pieces import made_of
from rlm_integrations.records import LLMError, Message, SpanRef, Usage
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import ModelNames, SourceInfo
from rlm_integrations.spending import Spending
from rlm_integrations.store import SharedStore
from rlm_integrations.trajectory import Citation, Execution, FunctionCall, Iteration, SubCall

FACT = "Ada Conti approved the Ravenna dam in March 1911."
_WORDS = "archive clerk council dam letter price rain river stone vote winter year".split()
_random = Random(7)


def _pages(name: str, count: int) -> str:
    return "".join(
        f"{name} {number}: {' '.join(_random.choices(_WORDS, k=9))}. " for number in range(count)
    )


DOCUMENT = [f"{_pages('Page', 300)}{FACT} {_pages('Leaf', 80)}", _pages("Letter", 100)]
WHERE = DOCUMENT[0].index(FACT)
QUESTION = "Who approved the Ravenna dam?"


def sources_of(corpus: Corpus) -> tuple[SourceInfo, ...]:
    return tuple(
        SourceInfo(name=each.name, length=each.length, sha256=each.sha256)
        for each in corpus.sources
    )


def call(
    corpus: Corpus, number: int, pieces: Sequence[str | SpanRef], reply: str = "NONE", **fields: Any
) -> SubCall:
    at = 0.4 + number * 0.1
    values: dict[str, Any] = {
        "path": f"r.b1/b00000000aa.{number}",
        "function": "llm_batch",
        "model": "sub",
        "depth": 1,
        "start": at,
        "end": at + 0.3,
        "wait": 0.05,
        "usage": Usage(700, 5),
        "finish_reason": "stop",
    }
    return SubCall(prompt=made_of(pieces, corpus)[1], reply=reply, **(values | fields))


def block(number: int, code: str, start: float, **fields: Any) -> Execution:
    status = "error" if "error" in fields else "ok"
    return Execution(block=number, code=code, status=status, start=start, elapsed=1.2, **fields)


def turn(number: int, reply: str, start: float, *executions: Execution, **fields: Any) -> Iteration:
    values: dict[str, Any] = {
        "start": start,
        "call_end": start + 0.2,
        "end": start + 1.6,
        "model": "root",
        "usage": Usage(900, 60),
        "finish_reason": "stop",
    }
    return Iteration(iteration=number, reply=reply, executions=executions, **(values | fields))


def made_run(corpus: Corpus, **changes: Any) -> RLMResult:
    """A run of two turns: nine calls, one of them retried, one failed and one a child run; a tool;
    a store of four objects; two citations.
    """
    calls = [
        call(corpus, n, [f"Question {n}:\n\n", SpanRef("context_0", 2_000 * n, 2_000 * (n + 1))])
        for n in range(6)
    ]
    calls[3] = dataclasses.replace(calls[3], retries=2, usage=None)
    calls[4] = dataclasses.replace(calls[4], reply=LLMError("server", "it is down", 3))
    inner = call(corpus, 7, ["Sum up: ", SpanRef("context_1", 100, 900)], "a sum", depth=2)
    child = call(
        corpus,
        6,
        ["What do the letters say?"],
        "They say that the weather is fine.",
        function="recursive_lm",
        model="",
        usage=None,
        turns=(turn(1, "child reply", 1.1, block(1, "llm_query('x')", 1.2, subcalls=(inner,))),),
        citations=(Citation("context_1", 0, 31, DOCUMENT[1][:31]),),
    )
    last = call(corpus, 8, ["And ", SpanRef("context_0", WHERE - 90, WHERE + 60)], f"- {FACT}")
    tool = FunctionCall(
        path="r.b1/cite-00",
        function="cite",
        arguments="'x'",
        start=1.4,
        end=1.45,
        error="ValueError: no",
    )
    store = SharedStore(corpus)
    root = store.worker("root")
    ids = [root.create("note", "the first page", "text", backrefs=[SpanRef("context_0", 40, 400)])]
    ids.append(
        root.create(
            "claim",
            "Ada approved it",
            {"who": "Ada"},
            backrefs=[SpanRef("context_0", WHERE, WHERE + len(FACT)), SpanRef("context_1", 0, 31)],
            parents=[ids[0]],
            tags=["dam"],
        )
    )
    ids.append(store.worker("reader").create("claim", "Bruno approved it", "no", parents=[ids[0]]))
    root.create("summary", "all of it", "Ada", parents=ids[1:])
    store.worker("root").invalidate(ids[2], "it is not in the document")
    events = tuple(each for each in store.events_since(0))
    executions = (
        block(
            1,
            "for page in pages:  # all\n    ask('who?')",
            0.3,
            subcalls=(*calls, child, last),
            function_calls=(tool,),
            output=f"printed:{DOCUMENT[1][2000:2300]}\n",
            store_events=events,
        ),
    )
    values: dict[str, Any] = {
        "answer": f"{FACT} Nobody knows the cost.",
        "citations": (
            Citation("context_0", WHERE, WHERE + len(FACT), FACT),
            Citation("context_1", 0, 31, DOCUMENT[1][:31]),
        ),
        "iterations": 2,
        "total_calls": 11,
        "spent": Spending(
            [
                ("root", 0, Usage(900, 60), "root"),
                *([("sub", 1, Usage(700, 5), "sub")] * 8),
                ("sub", 1, None, "sub"),
                ("sub", 2, Usage(700, 5), "sub"),
            ],
            lambda usage, model, _: None if model == "sub" else usage.input_tokens * 1e-6,
        ),
        "trajectory": (
            turn(1, "I look.\n```repl\nask()\n```", 0.05, *executions, note="one call failed"),
            turn(2, "```repl\nFINAL(…)\n```", 1.9, block(2, "1/0", 2.2, error="ZeroDivisionError")),
        ),
        "messages": (
            Message("system", "You write code."),
            Message("user", f"Question: {QUESTION}"),
            Message("assistant", "I look.\n```repl\nask()\n```"),
            Message("user", "REPL output:\nprinted"),
            Message("assistant", "```repl\nFINAL(…)\n```"),
        ),
        "run_id": "0123456789abcdef",
        "elapsed": 3.5,
        "layers": {"seccomp": "on"},
        "store": store,
        "question": QUESTION,
        "sources": sources_of(corpus),
        "models": ModelNames(root="root", subs={"sub": "sub"}, default="sub"),
        "options": {"budget": {"max_calls": 100}, "max_iterations": 20, "sandbox": "process"},
        "version": "0.1.0",
        "started": 1_700_000_000.0,
    }
    return RLMResult(**(values | changes))


def resumed_run(corpus: Corpus) -> RLMResult:
    """The run as one that was resumed with a cache: its first turn, three calls and the child run
    are from the journal, and another call from the cache.
    """
    run = made_run(corpus)
    first, second = run.trajectory
    calls = list(first.executions[0].subcalls)
    for number in (0, 1, 2, 6):
        calls[number] = dataclasses.replace(calls[number], replayed=True)
    calls[5] = dataclasses.replace(calls[5], usage=Usage(), saved=Usage(700, 5))
    ran = dataclasses.replace(first.executions[0], subcalls=tuple(calls))
    first = dataclasses.replace(first, executions=(ran,), replayed=True)
    models = dict(run.spent.by_model)
    models["sub"] = dataclasses.replace(models["sub"], cached=1)
    spent = {"by_model": models, "by_depth": {str(d): s for d, s in run.spent.by_depth.items()}}
    return dataclasses.replace(
        run, trajectory=(first, second), spent=Spending.from_dict(to_plain(spent))
    )
