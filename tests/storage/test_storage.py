"""What a storage offers: records of a journal, events of stores, and the rest in one object."""

import asyncio
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore
from sqlalchemy import func, select, update

from rlm_integrations import RLM
from rlm_integrations.errors import DamagedDataError, InputError, StorageError
from rlm_integrations.storage import DeriveJobStatus, JournalRecord, Manifest, Storage, run_table
from rlm_integrations.storage.files import ObjectFiles
from rlm_integrations.storage.lake import SMALL_BYTES
from rlm_integrations.storage.owned_run import OwnedRun
from rlm_integrations.storage.owner import is_here
from tests._forked import Forked
from tests._script import run_script

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
    out, err = Forked("-c", code, place[0], place[1] or "", job_id, str(path), blob).communicate()
    assert (out.split(), err) == (["True", "42", "True", "160000"], "")
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
        lambda: storage.store("s").view(),
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
        "import sys\n"
        "for package in sys.argv[1:]:\n"
        "    sys.modules[package] = None\n"
        "    try: from rlm_integrations.storage import Storage\n"
        "    except ImportError as error: print(error.extra)\n"
        "    del sys.modules[package]\n"
    )
    packages = ("sqlalchemy", "alembic", "yaml", "zstandard")
    assert run_script(code, *packages).stdout == "storage\n" * 4


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


def test_a_run_is_never_seen_without_its_owner(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as others see a new run, it belongs to this process: nobody else can resume it."""
    seen = []

    def make(*args: Any) -> OwnedRun:
        seen.extend(each.is_owned for each in storage.runs())
        return OwnedRun(*args)

    monkeypatch.setattr(run_table, "OwnedRun", make)
    RLM("offline", storage=storage).completion("Who?", "Ada Conti.", run_id="new")
    assert seen == [True]
    assert not is_here("new")


def test_a_pickled_storage_is_the_same_folder_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that is unpickled in another working directory opens the same folder; it names its
    machine, which a database on a server does not have.
    """
    monkeypatch.chdir(tmp_path)
    with Storage("runs", lake="lake") as storage:
        large = os.urandom(10 * SMALL_BYTES)
        sha256 = storage.lake.put(large)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pickle.loads(pickle.dumps(storage)) as again:
            assert again.lake.get(sha256) == large
            assert again.machine == storage.machine is not None
    assert list((tmp_path / "elsewhere").iterdir()) == []
