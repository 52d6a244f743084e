"""A run with many calls for tests of the storage, and a program that begins or resumes it."""

import asyncio
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from rlm_integrations import RLM, Corpus, OpenAILM, RLMResult, RunExistsError
from rlm_integrations.run_setup import ModelNames, RunSetup
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.files import open_files
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.run_log import RunLog
from rlm_integrations.storage.run_table import RunTable
from rlm_integrations.storage.shared_database import open_database
from rlm_integrations.storage.stores.stored_store import StoredStore, open_store
from tests.standin import serve_in_thread
from tests.standin.settings import Ask


def code(*lines: str) -> str:
    """A reply with one block."""
    return "\n".join(["```repl", *lines, "```"])


QUESTION = "the whole?"
DOCUMENT = "\n".join(f"Line {n}: the value of item {n} is {n * 7 % 13}." for n in range(400))
SCRIPTS = {
    QUESTION: [
        code(
            "from concurrent.futures import ThreadPoolExecutor",
            "first = llm_batch([f'batch {n}' for n in range(60)])",
            "kept = [store.create('note', f'of {n}', reply) for n, reply in enumerate(first[:5])]",
        )
        + "\n"
        + code(
            "with ThreadPoolExecutor(6) as pool:",
            "    second = list(pool.map(llm_query, {f'thread {n}' for n in range(40)}))",
            "looked = [lookup(n) for n in range(3)]",
        ),
        code(
            "batch = store.llm_map([{'name': f't{n}', 'prompt': f'map {n}'} for n in range(40)])",
            "total = store.llm_reduce(batch, 'Add them up.')",
            "store.link('supports', total, kept[0])",
        ),
        code(
            "inner = recursive_batch([{'query': 'a child', 'context': context[n * 1000:]} for n in range(4)])",
            "third = llm_batch([f'again {n}' for n in range(40)])",
            "span = cite('Line 3:')",
        ),
        code(
            "FINAL([sorted(first), sorted(second), looked, sorted(inner), sorted(third), total], evidence=[span])"
        ),
    ],
    "a child": [
        code("found = llm_batch([f'child {len(context)} {n}' for n in range(4)])"),
        code("store.create('claim', 'c', found[0])", "FINAL(found)"),
    ],
}
CALL = "x-rlm-call"  # the header with the path of a call
SUB_CALLS = 60 + 40 + 40 + 1 + 4 * 4 + 40


def script_of(ask: Ask) -> str:
    """What the server says: as root the next reply of a script, else words about the prompt."""
    messages = ask.body["messages"]
    if messages[0]["role"] != "system":
        return f"re: {ask.prompt[:200]}"
    asked = messages[1]["content"]
    script = next(replies for key, replies in SCRIPTS.items() if f"Question: {key}" in asked)
    return script[ask.turn]


def lookup(number: int) -> str:
    """A tool."""
    return f"looked up {number}"


def runs_of(url: str, folder: Path, **options: Any) -> RunTable:
    """The runs of a database, with a lake in the folder."""
    shared = open_database(Target(make_url(url)))
    lake = Lake(shared, open_files(folder / "lake"))
    return RunTable(shared, lake, RunLog(shared, lake), **options)


def rlm_of(base_url: str, storage: RunTable | None, **options: Any) -> RLM[Any]:
    """The RLM of all runs here."""
    lm = OpenAILM(
        "stand-in", base_url=base_url, api_key="none", headers=lambda asked: {CALL: asked.path}
    )
    return RLM(lm, max_depth=2, tools=[lookup], storage=storage, **options)


def store_in(url: str, name: str | None) -> StoredStore | None:
    """A store in a database that stays open."""
    return None if name is None else open_store(None, open_database(Target(make_url(url))), name)  # type: ignore[arg-type]


def facts(result: RLMResult) -> Any:
    """What a run must leave, whether it was resumed or not."""
    text = json.dumps(
        [
            result.answer,
            result.stop_reason,
            [[each.source, each.start, each.end, each.quote] for each in result.citations],
            [turn.reply for turn in result.trajectory],
            sorted(
                [call.path, call.reply]
                for turn in result.trajectory
                for block in turn.executions
                for call in block.subcalls
            ),
            sorted([card["id"], card["description"]] for card in result.store.search(limit=1000)),
            result.total_calls,
        ]
    )
    # In a store that several runs share, ids begin with that of the run, and so do arguments of
    # store.llm_reduce, of which its path has a hash
    text = re.sub(rf"{result.run_id}[./]", "", text)
    return json.loads(re.sub("/f[0-9a-f]{10}", "/f", text))


@cache
def whole() -> Any:
    """What the run leaves if nothing disturbs it and nothing is stored."""
    with serve_in_thread(scripts={"stand-in": script_of}) as provider:
        return facts(rlm_of(provider.base_url, None).completion(QUESTION, DOCUMENT))


async def begin_all(runs: RunTable, ids: list[str]) -> list[str]:
    """Begin runs that other processes begin too; the ids of those that were begun here."""
    models = ModelNames(root="root", subs={"root": "root"}, default="root")
    setup = RunSetup(question="q", sources=(), models=models, options={}, version="1", started=1.0)
    begun = []
    for run_id in ids:
        try:
            kept = await runs.begin(run_id, setup, Corpus.build("a document"))
        except RunExistsError:
            continue
        begun.append(run_id)
        await kept.release()
    return begun


def main() -> None:
    """Begin a run, or resume it, and print what it left; the arguments are in one JSON object. A run
    that `waits` goes on after its first event when stdin ends.
    """
    given = json.loads(sys.argv[1])
    runs = runs_of(given["url"], Path(given["folder"]), lease_seconds=given.get("lease", 30.0))
    if ids := given.get("begin"):
        print("ready", flush=True)
        sys.stdin.read()
        print(json.dumps(asyncio.run(begin_all(runs, ids))))
        return
    store = store_in(given["url"], given["store"])
    on_event = (lambda _: sys.stdin.read()) if given.get("waits") else None
    rlm = rlm_of(given["base_url"], runs, store=store, on_event=on_event)
    run_id = given["run_id"]
    result = rlm.resume(run_id) if run_id is not None else rlm.completion(QUESTION, DOCUMENT)
    print(json.dumps(facts(result)), flush=True)


if __name__ == "__main__":
    main()
