"""Runs are removed with all that only they use, whatever other processes do meanwhile."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from rlm_integrations import Completion, Corpus, InputError, RunBusyError
from rlm_integrations._concurrency import runtime
from rlm_integrations.run_setup import ModelNames, RunSetup
from rlm_integrations.storage import JournalRecord, Removed, Storage
from rlm_integrations.storage.lake import SMALL_BYTES
from rlm_integrations.storage.owned_run import OwnedRun
from tests._cli import until

LARGE = "A long document. " * (SMALL_BYTES // 10)


def setup_of(question: str = "Who?") -> RunSetup:
    models = ModelNames(root="root", subs={"root": "root"}, default="root")
    return RunSetup(
        question=question, sources=(), models=models, options={}, version="1", started=1.0
    )


async def add_run(storage: Storage, run_id: str, document: str, *, ends: bool = True) -> None:
    """A run with a document, a small and a large record, and perhaps a result."""
    kept = await storage.begin(run_id, setup_of(), Corpus.build(document))
    await kept.append("r:t1", b"{}")
    await kept.append("r:t2", run_id.encode() * SMALL_BYTES)
    if ends:
        await kept.finish("final", b'{"stop_reason":"final","answer":"of %b"}' % run_id.encode())


def rows_of(storage: Storage) -> dict[str, int]:
    """How many rows each table has."""
    schema = storage._shared.database.schema
    names = ("runs", "records", "blobs", "blob_uses", "replies")
    return storage._shared.database.read(
        lambda each: {
            name: each.scalar(select(func.count()).select_from(getattr(schema, name)))
            for name in names
        }
    )


def age(storage: Storage, run_id: str, days: int) -> None:
    """Make a run, and all blobs and replies, look as if they were not changed for so long."""
    schema, then = storage._shared.database.schema, datetime.now(UTC) - timedelta(days=days)

    def change(connection: Any) -> None:
        runs = schema.runs
        old = update(runs).where(runs.c.run_id == run_id).values(updated_at_utc=then)
        connection.execute(old)
        for table in (schema.blobs, schema.records, schema.replies):
            connection.execute(update(table).values(kept_at=then.timestamp()))

    storage._shared.writer.submit(change).result()


@pytest.fixture
def other(storage: Storage, place: tuple[str, str | None]) -> Iterator[Storage]:
    """The same storage with connections and a writer of its own, as another process has it."""
    runtime.forget(storage._shared._key, storage._shared)
    with Storage(place[0], lake=place[1]) as opened:
        assert opened._shared is not storage._shared
        yield opened


async def test_a_forgotten_run_leaves_nothing(storage: Storage) -> None:
    """Its rows are gone, and every blob in database and lake that no other run uses."""
    await add_run(storage, "run-1", LARGE)
    await add_run(storage, "run-2", LARGE)
    before = storage.lake.files()
    removed = storage.forget("run-1")
    assert (removed.runs, removed.blobs) == (1, 2)  # its large record and its result
    assert [each.run_id for each in storage.runs()] == ["run-2"]
    assert len(storage.lake.files()) == len(before) - 1
    assert storage.load("run-1") == []
    loaded = await storage.take("run-2")
    assert loaded.result == {"stop_reason": "final", "answer": "of run-2"}
    assert storage.forget("run-2").blobs == 5  # also the document's text and form, and the setup
    assert rows_of(storage) == dict.fromkeys(rows_of(storage), 0)
    assert storage.lake.files() == {}


async def test_what_others_have_is_not_forgotten(storage: Storage) -> None:
    """A run that a process is running is refused, with who has it; so is an unknown one, with the
    nearest ones. What a run wrote to a store stays.
    """
    await add_run(storage, "run-1", "short", ends=False)
    storage.store("shared").worker("run-1.root").create("note", "d", "c")
    with pytest.raises(RunBusyError, match=f"run by process {os.getpid()} on this machine; cancel"):
        storage.forget("run-1")
    with pytest.raises(InputError, match="no run 'run-7' in this storage; the nearest are 'run-1'"):
        storage.forget("run-7")
    assert storage.prune(older_than=timedelta(0)) == Removed()
    storage._runs._leases.close()
    age(storage, "run-1", 1)
    runs = storage._shared.database.schema.runs
    storage._shared.writer.submit(lambda each: each.execute(update(runs).values(owner=None)))
    assert storage.forget("run-1").runs == 1
    assert len(storage.store("shared")) == 1


async def test_old_runs_are_pruned(storage: Storage) -> None:
    """Runs that were not changed for so long go, and journals without a run, and cached replies;
    younger ones stay.
    """
    await add_run(storage, "old", LARGE)
    await storage.keep_reply("old", Completion("a reply"))
    await storage.append([JournalRecord("alone", "r:t1", b"{}")])
    age(storage, "old", 40)
    await add_run(storage, "new", LARGE)
    await storage.keep_reply("new", Completion("a reply"))
    assert storage.prune(older_than="6w") == Removed()
    removed = storage.prune(older_than="30d")
    assert (removed.runs, removed.blobs, removed.replies) == (2, 2, 1)
    assert await storage.find_reply("old") is None
    assert await storage.find_reply("new") == Completion("a reply")
    assert [each.run_id for each in storage.runs()] == ["new"]
    with pytest.raises(InputError, match="older_than must be like 12h, 30d or 2w, not '30 days'"):
        storage.prune(older_than="30 days")
    with pytest.raises(InputError, match="older_than must be"):
        storage.prune(older_than=timedelta(days=-1))


async def test_a_removal_that_was_cut_off_is_completed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a process ends between a run's rows and its blobs, the next prune removes the blobs."""
    await add_run(storage, "run-1", LARGE)

    def killed(hashes: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(storage.lake, "remove_unused", killed)
        storage.forget("run-1")
    assert rows_of(storage)["blobs"] == 5
    assert storage.prune(older_than=timedelta(0)).blobs == 5
    assert rows_of(storage) == dict.fromkeys(rows_of(storage), 0)
    assert storage.lake.files() == {}


DOCUMENTS = pytest.mark.parametrize("document", ["short", LARGE], ids=["row", "file"])


async def read_by(storage: Storage, run: OwnedRun) -> str:
    """The document of a run, as another process reads it."""
    run.let_go()
    loaded = await storage.take(run.run_id)
    assert loaded.corpus is not None
    assert loaded.kept is not None
    loaded.kept.let_go()
    return str(loaded.corpus.text("context_0"))


@DOCUMENTS
async def test_a_blob_that_is_removed_before_its_first_use_is_put_again(
    storage: Storage, other: Storage, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    """A run begins over a document that is there; before its row is written, another process
    forgets the only run that used it: the new run has its document all the same.
    """
    await add_run(storage, "first", document)
    submit, forgotten = storage._shared.writer.submit, list[Removed]()

    def submits(work: Any) -> Any:  # after the last put, before the row of the run
        if not forgotten:
            forgotten.append(other.forget("first"))
        return submit(work)

    with monkeypatch.context() as patched:
        patched.setattr(storage._shared.writer, "submit", submits)
        run = await storage.begin("second", setup_of(), Corpus.build(document))
    assert forgotten == [Removed(runs=1, blobs=5, blob_bytes=forgotten[0].blob_bytes)]
    assert await read_by(other, run) == document


async def test_a_put_waits_for_a_removal_that_has_begun(
    storage: Storage, other: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has removed the file of a document and not yet committed: who puts the same
    document meanwhile waits, then writes it again.
    """
    await add_run(storage, "first", LARGE)
    removed, goes_on = threading.Event(), threading.Event()
    files = other.lake._files
    assert files is not None
    delete = files.delete

    def deletes(name: str) -> None:
        delete(name)
        removed.set()
        assert goes_on.wait(250)

    monkeypatch.setattr(files, "delete", deletes)
    forgetting = asyncio.create_task(asyncio.to_thread(other.forget, "first"))
    assert await asyncio.to_thread(removed.wait, 250)
    beginning = asyncio.create_task(storage.begin("second", setup_of(), Corpus.build(LARGE)))
    await asyncio.to_thread(wait_for_lock, storage)
    goes_on.set()
    assert (await forgetting).runs == 1
    assert await read_by(other, await beginning) == LARGE


async def test_a_removal_waits_for_a_use_that_has_begun(
    storage: Storage, other: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has noted that a run uses a document and not yet committed: who removes the
    document meanwhile waits, then leaves it.
    """
    await add_run(storage, "first", LARGE)
    used, goes_on = threading.Event(), threading.Event()
    use = storage.lake.use

    def uses(*arguments: Any) -> None:
        use(*arguments)
        used.set()
        assert goes_on.wait(250)

    monkeypatch.setattr(storage.lake, "use", uses)
    beginning = asyncio.create_task(storage.begin("second", setup_of("And?"), Corpus.build(LARGE)))
    assert await asyncio.to_thread(used.wait, 250)
    forgetting = asyncio.create_task(asyncio.to_thread(other.forget, "first"))
    await asyncio.to_thread(wait_for_lock, other)
    goes_on.set()
    assert (await forgetting).blobs == 3  # its setup, its large record and its result
    assert await read_by(other, await beginning) == LARGE


# SQLite does not tell, and one of its transactions is alone in any case
LOCK_WAITS = {
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
    "mariadb": "SELECT variable_value + 0 FROM information_schema.global_status "
    "WHERE variable_name = 'Innodb_row_lock_current_waits'",
}


def wait_for_lock(storage: Storage) -> None:
    """Wait until the writer of the storage waits for another's transaction."""
    writer, database = storage._shared.writer, storage._shared.database
    until(lambda: writer._thread is not None and not writer._waiting)
    query = LOCK_WAITS.get(database.dialect.name)
    if query is not None:
        until(lambda: database.read(lambda connection: connection.scalar(text(query))) > 0)


async def test_retention_is_applied_to_an_open_storage(
    storage: Storage, place: tuple[str, str | None]
) -> None:
    """Old runs are removed in a thread when a storage is opened, which ends with the storage; and
    again when a run begins, at most once an hour.
    """
    await add_run(storage, "old", LARGE)
    age(storage, "old", 40)
    with Storage(place[0], lake=place[1], retention="30d") as opened:
        until(lambda: not opened.runs())
        first = opened._retention._thread
        await add_run(opened, "older", "short")
        age(opened, "older", 40)
        await add_run(opened, "new", "short")
        assert opened._retention._thread is first
        opened._retention._last = time.monotonic() - 3601
        opened._retention.start()
        until(lambda: [each.run_id for each in opened.runs()] == ["new"])
        second = opened._retention._thread
    assert first is not None
    assert second is not None
    assert (first is second, first.is_alive(), second.is_alive()) == (False, False, False)
    assert rows_of(storage)["runs"] == 1
