"""Stored runs with a shared store, through each face."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, OpenAILM
from rlm_integrations.cli import main
from rlm_integrations.langchain import RLMRunnable
from rlm_integrations.storage import Storage
from tests._cli import block
from tests.standin import Fault, serve_in_thread

RUN = "the-run"
QUESTION = "Who approved the dam?"
DOCUMENT = "Ada Conti approved the dam. " * 2_000
PROGRAM = [
    block("first = store.create('note', 'first', llm_query('one'))"),
    block("second = store.create('note', 'second', llm_query('two'))\nFINAL([first, second])"),
]
Kept = dict[str, Any]  # from the first call of a face to the second


def with_langchain(rlm: RLM, kept: Kept) -> Coroutine[Any, Any, Any]:
    chosen: Any = {"configurable": {"rlm_run_id": RUN}}
    return RLMRunnable.from_rlm(rlm, DOCUMENT).ainvoke(QUESTION, chosen)


def with_llama_index(rlm: RLM, kept: Kept) -> Coroutine[Any, Any, Any]:
    pytest.importorskip("llama_index.core")
    from llama_index.core import Document
    from llama_index.core.workflow import Context

    from rlm_integrations.llama_index import RLMQueryEngine
    from tests.llama_index._workflow import Asking

    engine = RLMQueryEngine.from_rlm(rlm, Document(text=DOCUMENT))
    context = kept.setdefault("context", Context(Asking(engine)))
    return engine.in_workflow(context).aquery(QUESTION)


def with_command_line(rlm: RLM, kept: Kept) -> Coroutine[Any, Any, Any]:
    if not kept:
        return rlm.acompletion(QUESTION, DOCUMENT, run_id=kept.setdefault("run", RUN))
    words = ["resume", RUN, "--storage", "runs", "--base-url", kept["base_url"]]
    return asyncio.to_thread(main, words)


@pytest.mark.parametrize("ask", [with_langchain, with_llama_index, with_command_line])
def test_a_run_with_a_shared_store_is_resumed(
    ask: Callable[[RLM, Kept], Coroutine[Any, Any, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same face, or the command line, goes on with a cancelled run that writes to a store that
    outlives it: no answered call is made again, and each finding is there once.
    """
    monkeypatch.chdir(tmp_path)
    kept: Kept = {}
    with serve_in_thread(scripts={"root": PROGRAM}, keep_requests=True) as server:

        async def asked(storage: Storage, *, until: Callable[[], bool] | None = None) -> None:
            lm = OpenAILM("root", base_url=server.base_url, api_key="none")
            rlm = RLM(lm, storage=storage, store=storage.store("findings"))
            task = asyncio.ensure_future(ask(rlm, kept))
            while until is not None and not until():
                await asyncio.sleep(0.001)
            if until is not None:
                task.cancel()
                await asyncio.wait([task])
            else:
                await task

        server.change(faults=[Fault("hang", match="two")])
        with Storage("runs") as storage:
            asyncio.run(asked(storage, until=lambda: len(server.requests()) == 4))
            assert [info.status for info in storage.runs()] == ["cancelled"]
        server.change(faults=[])
        kept["base_url"] = server.base_url
        with Storage("runs") as storage:
            asyncio.run(asked(storage))
            (info,) = storage.runs()
            assert info.status == "final"
            found = storage.store("findings").view("sort=oldest")
            assert [card["description"] for card in found] == ["first", "second"]
            assert all(card["id"].startswith(f"{info.run_id}.") for card in found)
        prompts = Counter(each.body["messages"][-1]["content"] for each in server.requests())
    assert (prompts["one"], prompts["two"]) == (1, 2)
    assert len(prompts) == 4
