"""Stores that several processes share: what one writes the others see, once and in order."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.storage import Storage
from rlm_integrations.storage.stores.append import StoreAppend
from rlm_integrations.store import SharedStore
from tests._forked import Forked
from tests.storage._postgres import Server


@pytest.fixture
def place(url: str) -> str:
    return url


@pytest.fixture
def storage(place: str) -> Iterator[Storage]:
    with Storage(place) as opened:
        yield opened


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from rlm_integrations.storage import Storage
with Storage(sys.argv[1]) as storage:
    store = storage.store("shared")
    print("ready", flush=True)
    sys.stdin.readline()
    def write(writer):
        own, common = store.worker(f"p{sys.argv[2]}w{writer}"), store.worker("common")
        for number in range(10):
            id_ = own.create("note", str(number), number, tags=["x"])
            common.link("supports", common.create("claim", "c", number, parents=[id_]), id_)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
"""


@pytest.mark.exhaustive
async def test_32_writers_in_4_processes_lose_nothing(storage: Storage, place: str) -> None:
    """No event is lost, no number is missing, ids of a worker that all processes share never
    collide, each writer's events keep their order, and a reader that follows sees all of them.
    """
    processes = [Forked("-c", WRITER, place, str(number)) for number in range(4)]
    for process in processes:
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    total = 4 * 8 * 10 * 3
    store = storage.store("shared")
    seen = []
    following = store.follow()
    async for event in following:
        seen.append(event)
        if len(seen) == total:
            break
    await following.aclose()  # type: ignore[attr-defined]
    for process in processes:
        await asyncio.to_thread(process.communicate)
    assert [event["seq"] for event in seen] == list(range(1, total + 1))
    assert seen == store.events_since(0)
    common = [event["id"] for event in seen if event["type"] == "claim"]
    assert common == [f"common_{number:06d}" for number in range(1, 321)]
    of_writers: dict[str, list[str]] = {}
    for event in seen:
        if event["type"] == "note":
            of_writers.setdefault(event["worker"], []).append(event["description"])
    assert list(of_writers.values()) == [list(map(str, range(10)))] * 32
    summary = store.summary()
    assert (summary["types"], summary["tags"]) == ({"claim": 320, "note": 320}, {"x": 320})
    assert len(store.view("type=claim", 1_000)) == 320


async def test_following_begins_where_it_is_told(storage: Storage) -> None:
    """A reader gets the events after a number, then each further one, and ends when it is closed."""
    store = storage.store("s")
    worker = store.worker("w")
    for number in range(3):
        worker.create("note", str(number), "c")
    following = store.follow(1)
    assert [(await anext(following))["seq"] for _ in range(2)] == [2, 3]
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    await asyncio.to_thread(worker.create, "note", "4", "c")
    assert (await waiting)["description"] == "4"
    await following.aclose()  # type: ignore[attr-defined]
    with pytest.raises(StopAsyncIteration):
        await anext(following)


async def test_following_survives_the_servers_restart(server: Server, postgres_url: str) -> None:
    """A reader whose connection is lost goes on when the server is back, without losing or
    repeating an event.
    """
    with Storage(postgres_url) as storage:
        store = storage.store("s")
        worker = store.worker("w")
        worker.create("note", "1", "c")
        following = store.follow()
        assert (await anext(following))["seq"] == 1
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        await asyncio.to_thread(server.stop, "immediate")
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(worker.create, "note", "2", "c")
        assert (await waiting)["seq"] == 2
        await following.aclose()  # type: ignore[attr-defined]


def test_an_unclear_commit_is_not_repeated(storage: Storage, monkeypatch) -> None:
    """If the connection is lost after the commit, the repeated write finds its events and adds
    none.
    """
    writer = storage._shared.writer
    submit = writer.submit

    def twice(work, **options):
        submit(work, **options).result()
        return submit(work, **options)

    monkeypatch.setattr(
        writer,
        "submit",
        lambda work, **o: (twice if isinstance(work, StoreAppend) else submit)(work, **o),
    )
    store = storage.store("s")
    worker = store.worker("w")
    first = worker.create("note", "one", "c", tags=["x"])
    worker.invalidate(first, "wrong")
    assert worker.create("note", "two", "c") == "w_000002"
    assert [event["op"] for event in store.events_since(0)] == ["create", "invalidate", "create"]
    assert (store.summary()["total"], store.summary()["tags"]) == (1, {})


def test_another_process_continues(storage: Storage, place: str) -> None:
    """A store is there when it is opened again, also through a pickle or a copy, and its numbers
    go on.
    """
    storage.store("s").worker("w").create("note", "one", {"a": 1}, tags=["x"])
    with Storage(place) as again:
        store = pickle.loads(pickle.dumps(again.store("s")))
        assert store.get("w_000001").content == {"a": 1}
        assert store.worker("w").create("note", "two", "c") == "w_000002"
    assert len(storage.store("s")) == 2
    assert storage.store("other").view() == []
    assert repr(storage.store("s")) == "<StoredStore 's'>"


def test_stores_go_to_files_and_back(storage: Storage, tmp_path: Path) -> None:
    """The export of a stored store is that of a store in memory, and can be imported into either."""
    memory, stored = SharedStore(clock=lambda: 1.5), storage.store("s")
    worker = memory.worker("w")
    first = worker.create("note", "one", {"a": ["b"]}, tags=["x"])
    worker.link("supports", worker.create("claim", "two", "c", parents=[first]), first)
    worker.invalidate(first, "wrong")
    memory.export(tmp_path / "memory")
    stored.import_(tmp_path / "memory")
    stored.export(tmp_path / "stored")
    assert (tmp_path / "stored").read_bytes() == (tmp_path / "memory").read_bytes()
    stored.import_(tmp_path / "memory")
    assert [card["id"] for card in stored.view("invalid=any")] == [
        "import1/w_000002", "import1/w_000001", "w_000002", "w_000001"
    ]  # fmt: skip
    assert SharedStore.import_(tmp_path / "stored").events_since(0) == memory.events_since(0)


def test_a_store_belongs_to_one_document(storage: Storage) -> None:
    """The first document is the store's: with it spans show their words, and another one is
    refused.
    """
    store = storage.store("s")
    bound = store.with_document("The dam was approved.")
    id_ = bound.worker("w").create("note", "d", "c", [SpanRef("context_0", 4, 7)])
    assert bound.trace(id_)[0]["spans"][0]["text"] == "dam"
    assert store.trace(id_)[0]["spans"][0]["text"] is None
    with pytest.raises(InputError, match="store 's' belongs to another document"):
        store.with_document("Another text.")
    with pytest.raises(InputError, match="21 characters"):
        bound.worker("w").create("note", "d", "c", [SpanRef("context_0", 4, 22)])


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "a b", None, 7])
def test_a_store_has_a_usable_name(storage: Storage, name: object) -> None:
    """Names that a column cannot hold are refused before anything is written."""
    with pytest.raises(InputError, match="a store's name must be 1 to 64 letters"):
        storage.store(name)  # type: ignore[arg-type]


def test_a_damaged_row_is_an_error(storage: Storage) -> None:
    """A changed event or object raises; it never gives wrong findings."""
    store = storage.store("s")
    id_ = store.worker("w").create("note", "d", "c" * 1_000)
    schema = storage._shared.database.schema

    def change(connection) -> None:
        connection.execute(update(schema.events).values(body=b"s0000x"))
        connection.execute(update(schema.objects).values(card="[1]"))

    storage._shared.writer.submit(change).result()
    with pytest.raises(DamagedDataError, match="event 1 of store 's' is damaged"):
        store.get(id_)
    with pytest.raises(DamagedDataError, match="object 1 of store 's' is damaged"):
        store.view()
