"""What a storage offers: records of a journal, events of stores, and the rest in one object."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore
from sqlalchemy import func, select, update

from rlm_integrations import RLM
from rlm_integrations.errors import DamagedDataError, InputError, StorageError
from rlm_integrations.storage import DeriveJobStatus, JournalRecord, Manifest, Storage
from rlm_integrations.storage.files import ObjectFiles
from rlm_integrations.storage.lake import SMALL_BYTES
from tests._script import run_script
from tests.storage._postgres import Server

ROOT = Path(__file__).parents[2]


def record(number: int, run: str = "run-1", size: int = 10) -> JournalRecord:
    return JournalRecord(run, f"r.b1/q{number}", (b"%d " % number) * size)


async def test_records_come_back_in_order(storage: Storage) -> None:
    """A run's records are loaded in the order in which they were kept, without those of others; an
    unknown run has none.
    """
    for number in range(3):
        await storage.append([record(number)])
    await storage.append([record(number) for number in range(3, 10)])
    await storage.append([record(99, "run-2")])
    await storage.append([])
    assert storage.load("run-1") == [record(number) for number in range(10)]
    assert await storage.aload("run-2") == [record(99, "run-2")]
    assert storage.load("run-3") == []


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 1_000_000])
async def test_records_of_any_size_are_kept(storage: Storage, size: int) -> None:
    """Small answers are rows and large ones blobs; both come back as they were."""
    kept = JournalRecord("run-1", "r.t1", os.urandom(size))
    await storage.append([kept])
    assert storage.load("run-1") == [kept]
    assert len(storage.lake.files()) == (size > SMALL_BYTES)


async def test_blobs_that_a_run_uses_are_noted(storage: Storage) -> None:
    """Each blob that a record names is noted with its run, once, so that it can be removed with the
    run.
    """
    name = storage.lake.put(b"a document")
    for number in range(3):
        await storage.append([JournalRecord("run-1", str(number), b"", (name,))])
    large = JournalRecord("run-1", "large", os.urandom(SMALL_BYTES + 1))
    await storage.append([large])
    uses = storage._shared.database.schema.blob_uses
    rows = storage._shared.database.read(
        lambda each: each.execute(select(uses.c.run_id, uses.c.sha256)).all()
    )
    assert sorted(rows) == sorted([("run-1", name), *(("run-1", n) for n in storage.lake.files())])
    assert len(rows) == 2


async def test_many_tasks_append_at_once(storage: Storage) -> None:
    """Tasks that append concurrently lose nothing."""
    await asyncio.gather(*(storage.append([record(number)]) for number in range(300)))
    assert {each.call_id for each in storage.load("run-1")} == {
        record(number).call_id for number in range(300)
    }


@pytest.mark.parametrize("size", [1, 100, 1_000])
async def test_a_damaged_record_is_found(storage: Storage, size: int) -> None:
    """A row that was changed is an error that names it, never a wrong answer."""
    await storage.append([record(1, size=size), record(2, size=size)])
    table = storage._shared.database.schema.records

    def change(connection: Any) -> None:
        data = connection.scalar(select(table.c.body).order_by(table.c.record_no))
        first = select(func.min(table.c.record_no)).scalar_subquery()
        changed = data[:-1] + bytes([data[-1] ^ 1])
        connection.execute(update(table).where(table.c.record_no == first).values(body=changed))

    storage._shared.writer.submit(change).result()
    with pytest.raises(DamagedDataError, match="record 1 of run run-1 is damaged"):
        storage.load("run-1")


@pytest.mark.parametrize("run_id", ["", "x" * 65, None, 7])
async def test_ids_are_short_strings(storage: Storage, run_id: Any) -> None:
    """Ids that a column cannot hold are refused before anything is written."""
    with pytest.raises(InputError, match="run_id must be a string of 1 to 64 characters"):
        await storage.append([JournalRecord(run_id, "c", b"")])
    with pytest.raises(InputError, match="store_id must be a string of 1 to 64 characters"):
        await storage.append_events(run_id, [b""])
    with pytest.raises(InputError, match="at least one event"):
        await storage.append_events("s", [])


async def test_events_are_numbered_without_gaps(storage: Storage) -> None:
    """Each store counts its events from 1, in the order of the commits."""
    assert await storage.append_events("a", [b"one", b"two"], run_id="run-1") == 1
    assert await storage.append_events("b", [b"other"]) == 1
    assert await storage.append_events("a", [b"three"]) == 3
    events = storage.events_since("a")
    assert [(each.seq, each.body, each.run_id) for each in events] == [
        (1, b"one", "run-1"),
        (2, b"two", "run-1"),
        (3, b"three", None),
    ]
    assert [each.seq for each in storage.events_since("a", 2)] == [3]
    assert storage.events_since("nothing") == []


WRITER = """
import asyncio, sys
from rlm_integrations.storage import Storage
async def main():
    with Storage(sys.argv[1], lake=sys.argv[2] or None) as storage:
        print("ready", flush=True)
        sys.stdin.readline()
        async def write(writer):
            for number in range(25):
                body = f"{sys.argv[3]} {writer} {number}".encode()
                await storage.append_events("shared", [body] * (1 + number % 3))
        await asyncio.gather(*(write(writer) for writer in range(8)))
asyncio.run(main())
"""


async def test_writers_of_many_processes_share_one_store(
    storage: Storage, place: tuple[str, str | None]
) -> None:
    """32 writers in 4 processes: no event is lost, no number is missing, each writer's events keep
    their order, and a reader that follows sees all of them once and in order.
    """
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, place[0], place[1] or "", str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for number in range(4)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert await asyncio.to_thread(worker.stdout.readline) == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    total = 4 * 8 * sum(1 + number % 3 for number in range(25))
    seen = []
    following = storage.follow_events("shared")
    async for event in following:
        seen.append(event)
        if len(seen) == total:
            break
    await following.aclose()  # type: ignore[attr-defined]
    for worker in workers:
        await asyncio.to_thread(worker.communicate)
    assert [event.seq for event in seen] == list(range(1, total + 1))
    assert seen == storage.events_since("shared")
    of_writers: dict[tuple[str, str], list[int]] = {}
    for event in seen:
        process, writer, number = event.body.decode().split()
        of_writers.setdefault((process, writer), []).append(int(number))
    wanted = [number for number in range(25) for _ in range(1 + number % 3)]
    assert list(of_writers.values()) == [wanted] * 32


async def test_following_begins_where_it_is_told(storage: Storage) -> None:
    """A reader gets the events after a number, then each further one, and ends when it is closed."""
    await storage.append_events("s", [b"1", b"2", b"3"])
    following = storage.follow_events("s", after=1)
    assert [(await anext(following)).seq for _ in range(2)] == [2, 3]
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    assert await storage.append_events("s", [b"4"]) == 4
    assert (await waiting).body == b"4"
    await following.aclose()  # type: ignore[attr-defined]
    with pytest.raises(StopAsyncIteration):
        await anext(following)


async def test_following_survives_the_servers_restart(server: Server, postgres_url: str) -> None:
    """A reader whose connection is lost goes on when the server is back, without losing or
    repeating an event.
    """
    with Storage(postgres_url) as storage:
        await storage.append_events("s", [b"1"])
        following = storage.follow_events("s")
        assert (await anext(following)).seq == 1
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        await asyncio.to_thread(server.stop, "immediate")
        await asyncio.to_thread(server.start)
        await storage.append_events("s", [b"2"])
        assert (await waiting).seq == 2
        await following.aclose()  # type: ignore[attr-defined]


async def test_an_unclear_commit_is_not_repeated(storage: Storage) -> None:
    """If the connection is lost after the commit, the repeated append finds its events and adds
    none.
    """
    work = storage._log._appending("s", [b"1", b"2"], None)
    writer = storage._shared.writer
    assert [writer.submit(work).result() for _ in range(2)] == [1, 1]
    assert [each.seq for each in storage.events_since("s")] == [1, 2]


def test_everything_is_in_one_object(storage: Storage, place: tuple[str, str | None]) -> None:
    """A storage has the queue, the lake and the artifacts, and what one process keeps another
    finds.
    """
    manifest = Manifest(task_type="notes", question="Who?")
    job_id = storage.queue.enqueue(manifest)
    storage.artifacts.write_manifest(manifest)
    path = storage.artifacts.write_artifact(manifest.manifest_id, "notes", {"answer": 42})
    blob = storage.lake.put(b"document" * 20_000)
    code = (
        "import sys; from rlm_integrations.storage import Storage, DeriveJobStatus\n"
        "with Storage(sys.argv[1], lake=sys.argv[2] or None) as storage:\n"
        "    job = storage.queue.dequeue()\n"
        "    print(job.job_id == sys.argv[3], storage.artifacts.read_artifact(sys.argv[4])['answer'])\n"
        "    print(storage.artifacts.read_manifest(job.manifest.manifest_id) == job.manifest)\n"
        "    print(len(storage.lake.get(sys.argv[5])))\n"
        "    storage.queue.update_status(job.job_id, DeriveJobStatus.COMPLETED, artifact_path=sys.argv[4])\n"
    )
    done = run_script(code, place[0], place[1] or "", job_id, str(path), blob)
    assert (done.stdout.split(), done.stderr) == (["True", "42", "True", "160000"], "")
    assert storage.queue.get(job_id).status == DeriveJobStatus.COMPLETED


def test_a_folder_has_everything(tmp_path: Path) -> None:
    """An embedded storage is one folder, which an `ArtifactStore` may have begun."""
    from rlm_integrations.storage import ArtifactStore

    ArtifactStore(tmp_path / "runs").write_manifest(Manifest(task_type="notes"))
    with Storage(tmp_path / "runs") as storage:
        storage.lake.put(os.urandom(SMALL_BYTES + 1))
        assert len(storage.artifacts.list_manifests()) == 1
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "blobs",
        "manifests",
        "storage.sqlite",
    ]


def test_an_object_store_may_be_the_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lake=` puts large blobs and artifacts elsewhere, and the folder keeps the database alone."""
    (tmp_path / "bucket").mkdir()
    store = ObjectFiles(LocalStore(tmp_path / "bucket"), "s3://bucket")
    monkeypatch.setattr(ObjectFiles, "from_url", lambda _: store)
    with Storage(tmp_path / "runs", lake="s3://bucket") as storage:
        name = storage.lake.put(os.urandom(SMALL_BYTES + 1))
        storage.artifacts.write_raw_response("m1", "words")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["storage.sqlite"]
    assert (tmp_path / "bucket" / "blobs" / name[:2] / f"{name}.zst").exists()


def test_a_server_without_a_lake_keeps_blobs_and_no_artifacts(postgres_url: str) -> None:
    """Without `lake=` large blobs are in the database, and artifacts say what to do."""
    with Storage(postgres_url) as storage:
        assert storage.lake.get(storage.lake.put(b"x" * 1_000_000)) == b"x" * 1_000_000
        with pytest.raises(InputError, match="no place for files: pass lake="):
            storage.artifacts  # noqa: B018 - the access is the test


def test_a_closed_storage_says_so(storage: Storage) -> None:
    """After `close` every use is an error of ours; closing again does nothing."""
    storage.close()
    storage.close()
    uses: list[Callable[[], object]] = [
        lambda: storage.load("run-1"),
        lambda: storage.events_since("s"),
        lambda: storage.lake.put(b""),
        storage.queue.counts,
        lambda: asyncio.run(storage.append([record(1)])),
    ]
    for use in uses:
        with pytest.raises(StorageError, match="is closed; open it again"):
            use()


def test_no_password_is_shown(postgres_url: str) -> None:
    """The storage's own description hides the password."""
    with Storage(postgres_url) as storage:
        assert "rlm:***@" in repr(storage)


def test_without_its_packages_the_extra_is_named() -> None:
    """`from rlm_integrations.storage import Storage` without SQLAlchemy says what to install."""
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "try: from rlm_integrations.storage import Storage\n"
        "except ImportError as error: print(error.extra)\n"
    )
    for package in ("sqlalchemy", "alembic", "yaml", "zstandard"):
        assert run_script(code, package).stdout == "storage\n"


def test_an_rlm_keeps_its_runs(storage: Storage) -> None:
    """`RLM(storage=…)` keeps a run in the storage: it is listed, and resuming it when it has ended
    gives its result.
    """
    rlm = RLM("offline", storage=storage)
    result = rlm.completion("Who approved the dam?", "The dam was approved by Ada Conti. " * 50)
    (info,) = storage.runs()
    assert (info.run_id, info.question) == (result.run_id, "Who approved the dam?")
    assert (info.status, info.is_owned) == (result.stop_reason, False)
    assert rlm.resume(result.run_id).answer == result.answer
    with pytest.raises(InputError, match=f"nearest are '{result.run_id}'"):
        rlm.resume(result.run_id[:-1])
