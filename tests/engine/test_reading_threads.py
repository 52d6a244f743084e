"""Queries of one run do not delay anything else: not the loop, not other runs, not the end of their
own run.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rlm_integrations import Limits
from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.work import Work, WorkStoppedError, spend
from rlm_integrations.engine.threads import THREADS, TreeThreads
from rlm_integrations.records import Request
from rlm_integrations.sandbox.process import ProcessSession
from rlm_integrations.store import SharedStore, WorkerStoreProxy
from rlm_integrations.store.ledger import Ledger
from tests.engine.conftest import Scripted, code, final, run


class Endless:
    """Queries that wait until the test releases them, and then continue."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.let_go = threading.Event()
        self.stopped = 0
        self.open = self.most_open = 0
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()

    def __call__(self, *_: Any) -> list[Any]:
        with self._lock:
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        self._loop.call_soon_threadsafe(self.begun.put_nowait, None)
        try:
            assert self.let_go.wait(60)
            spend(1)
        except WorkStoppedError:
            self.stopped += 1
            raise
        finally:
            with self._lock:
                self.open -= 1
        return []


@pytest.fixture
async def endless() -> Any:
    made = Endless()
    yield made
    made.let_go.set()


MANY = code(
    "from concurrent.futures import ThreadPoolExecutor",
    "with ThreadPoolExecutor(8) as p: list(p.map(store.search, ['type=a'] * 8))",
)


async def test_one_run_queries_in_two_threads_and_others_continue(
    endless: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads answer all queries of a run; meanwhile another run opens, queries, finishes and
    closes.
    """
    search = WorkerStoreProxy.search
    monkeypatch.setattr(WorkerStoreProxy, "search", endless)
    hostile = asyncio.ensure_future(run(Scripted([MANY, final("'over'")])))
    for _ in range(THREADS):
        await endless.begun.get()
    monkeypatch.setattr(WorkerStoreProxy, "search", search)
    other = await run(
        Scripted(
            [
                code(
                    "i = store.create('note', 'd', 'words')",
                    "print(store.search_text('words'), cite('small'))",
                ),
                final("i"),
            ]
        )
    )
    assert (other.answer, hostile.done()) == ("root_000001", False)
    endless.let_go.set()
    assert (await hostile).answer == "over"
    assert endless.most_open == THREADS


async def test_a_run_is_cancelled_during_its_queries(
    endless: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled run ends before its queries; those stop at their next step, and waiting ones
    never start.
    """
    monkeypatch.setattr(WorkerStoreProxy, "search", endless)
    hostile = asyncio.ensure_future(run(Scripted([MANY, final("'over'")])))
    for _ in range(THREADS):
        await endless.begun.get()
    hostile.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hostile
    assert (endless.open, endless.begun.empty()) == (THREADS, True)
    endless.let_go.set()
    while endless.open:
        await asyncio.sleep(0.001)
    assert (endless.stopped, endless.begun.empty()) == (THREADS, True)


async def test_a_block_is_interrupted_during_its_query(
    endless: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt, such as at the time limit, ends the block although its query is still running;
    the run continues.
    """
    sessions: list[ProcessSession] = []
    execute = ProcessSession.execute

    async def kept(self: ProcessSession, code: str, block: int) -> Any:
        sessions.append(self)
        return await execute(self, code, block)

    monkeypatch.setattr(ProcessSession, "execute", kept)
    monkeypatch.setattr(WorkerStoreProxy, "search", endless)
    running = asyncio.ensure_future(
        run(
            Scripted([code("store.search('type=a')"), final("'over'")]),
            limits=Limits(grace_seconds=60),
        )
    )
    await endless.begun.get()
    await sessions[0].interrupt()
    result = await running
    assert ([execution.status for execution in result.repl_history], result.answer) == (
        ["interrupted", "ok"],
        "over",
    )
    assert endless.open == 1


async def test_a_session_opens_and_closes_while_all_shared_threads_are_busy() -> None:
    """Encoding, hashing and parsing have separate threads from opening and closing."""
    let_go = threading.Event()
    busy = [runtime.offload(let_go.wait, 60) for _ in range(8)]
    try:
        result = await run(Scripted([code("print(1)"), *["I think."] * 20]))
        assert result.repl_history[0].stdout == "1\n"
    finally:
        let_go.set()
        await asyncio.gather(*busy)


async def test_a_query_beyond_its_limit_raises_in_the_code() -> None:
    """A query above its limit raises in the code, with what to do, and the code continues."""
    block = code(
        "i = store.create('note', 'd', 'x' * 10_000)",
        "try: store.search('text~\"y\"')",
        "except ValueError as error: print(error)",
        "print(len(store.search('type=note')))",
    )
    result = await run(Scripted([block, final("'done'")]), limits=Limits(query_chars=5_000))
    assert result.repl_history[0].stdout == (
        "this would read more than 5,000 characters at once: ask for less, or split the query\n1\n"
    )


async def test_a_write_that_waits_does_not_block_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a long commit holds the store's lock, links and invalidations wait in threads, and
    models are called meanwhile.
    """
    stores: list[SharedStore] = []
    make = SharedStore.__init__

    def kept(self: SharedStore, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        stores.append(self)

    monkeypatch.setattr(SharedStore, "__init__", kept)
    waits: list[str] = []
    append = Ledger.append

    def noted(self: Ledger, build: Any) -> Any:
        waits.append(threading.current_thread().name)
        return append(self, build)

    monkeypatch.setattr(Ledger, "append", noted)

    async def answer(request: Request) -> str:
        lock = stores[0].backend.ledger.lock
        if request.messages[-1].content == "take":
            lock.__enter__()
        else:
            while len(waits) < 2:
                await asyncio.sleep(0.001)
            lock.__exit__()
        return "done"

    block = code(
        "from concurrent.futures import ThreadPoolExecutor",
        "a, b = [store.create('note', 'd', 'c') for _ in range(2)]",
        "llm_query('take')",
        "calls = [lambda: store.link('supports', a, b), lambda: store.invalidate(a, 'r'), lambda: llm_query('give back')]",
        "with ThreadPoolExecutor(3) as p: list(p.map(lambda call: call(), calls))",
        "FINAL([len(store.view()), len(store.events_since(0))])",
    )
    assert (await run(Scripted([block], answer))).answer == "[1, 4]"
    assert all(name.startswith("rlm-tree") for name in waits)


async def test_the_results_of_models_are_written_in_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`llm_map` and `llm_reduce` read and write the store in threads, where waiting for a long
    commit does not block the loop.
    """
    names: set[str] = set()
    create = Ledger.create

    def noted(self: Ledger, *args: Any, **kwargs: Any) -> Any:
        names.add(threading.current_thread().name[:8])
        return create(self, *args, **kwargs)

    monkeypatch.setattr(Ledger, "create", noted)
    block = code(
        "batch = store.llm_map([{'name': 'a', 'prompt': 'p'}, 1])",
        "FINAL(store.get(store.llm_reduce(batch, 'fold')).type)",
    )
    assert (await run(Scripted([block]))).answer == "reduction"
    assert names == {"rlm-tree"}


@pytest.mark.parametrize(
    ("content", "in_a_thread"), [("'x' * 100", False), ("[[]] * 20_000", True)]
)
async def test_a_large_object_is_read_in_a_thread(
    content: str, in_a_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small object is read on the loop, in microseconds; a large one is parsed in a thread."""
    names: list[str] = []
    get = WorkerStoreProxy.get

    def noted(self: WorkerStoreProxy, id: str) -> Any:  # noqa: A002 - as it is called
        names.append(threading.current_thread().name)
        return get(self, id)

    monkeypatch.setattr(WorkerStoreProxy, "get", noted)
    block = code(
        f"i = store.create('note', 'd', {content})",
        "print(store.get(i).id, store.get(id=i).id)",
        "FINAL('done')",
    )
    result = await run(Scripted([block]))
    assert result.repl_history[0].stdout == "root_000001 root_000001\n"
    assert [name.startswith("rlm-tree") for name in names] == [in_a_thread] * 2


async def test_a_tree_leaves_no_thread() -> None:
    """The threads of a tree end with it, even during work."""

    def endless() -> None:
        started.set()
        while True:
            spend(1)

    threads, started = TreeThreads(1_000), threading.Event()
    reading = asyncio.ensure_future(threads.run(Work(), endless))
    while not started.is_set():
        await asyncio.sleep(0.001)
    threads.close()
    with pytest.raises(WorkStoppedError):
        await reading
    for thread in tree_threads():
        thread.join(60)
    assert not list(tree_threads())


def tree_threads() -> Iterator[threading.Thread]:
    return (thread for thread in threading.enumerate() if thread.name.startswith("rlm-tree"))


async def test_the_bound_of_a_budget_is_in_seconds_too() -> None:
    """Work with a deadline stops there, such as the check of evidence at the run's time limit."""
    with Work(until=0.0).under_way(), pytest.raises(ValueError, match="the run's time is over"):
        spend(1)
