"""A check finds everything that is damaged or missing, and a measure counts everything."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, delete, update

from rlm_integrations.storage import Amount, Manifest, Storage
from tests.storage.test_forgetting import LARGE, add_run


async def filled(storage: Storage) -> None:
    """Something of every kind."""
    await add_run(storage, "run-1", LARGE)
    await add_run(storage, "run-2", "short")
    storage.store("notes").worker("root").create("note", "d", "c")
    manifest = Manifest(task_type="notes")
    storage.queue.enqueue(manifest)
    storage.artifacts.write_manifest(manifest)
    storage.artifacts.write_artifact(manifest.manifest_id, "notes", {"answer": 42})
    storage.lake.put(b"of no run")


async def test_a_sound_storage_has_no_problems(storage: Storage) -> None:
    """Everything is read; what no run uses is counted, and is no problem."""
    await filled(storage)
    storage.artifacts._files.write("blobs/00/" + "0" * 64 + ".zst", b"of another program")
    report = storage.check()
    assert (report.problems, report.is_sound) == ((), True)
    assert report.checked == {
        "runs": 2, "records": 2, "events": 1, "replies": 0, "blobs": 11,
        "jobs": 1, "artifacts": 1, "manifests": 1,
    }  # fmt: skip
    assert report.unused == {"blobs": 1, "files": 1, "journals": 0}


def change(storage: Storage, work: Callable[[Connection], Any]) -> None:
    storage._shared.writer.submit(work).result()


def cut(storage: Storage, table: str, column: str = "body") -> None:
    """Damage a value of every row."""
    found = getattr(storage._shared.database.schema, table)
    values = {column: b"s1234changed"}
    change(storage, lambda each: each.execute(update(found).values(values)))


def tear(storage: Storage, start: str) -> None:
    """Cut the files of a folder."""
    files = storage.artifacts._files
    for name in files.sizes(start):
        files.write(name, (files.read(name) or b"")[:5])


def lose(storage: Storage, start: str) -> None:
    files = storage.artifacts._files
    for name in files.sizes(start):
        files.delete(name)


def lose_rows(storage: Storage, table: str) -> None:
    found = getattr(storage._shared.database.schema, table)
    change(storage, lambda each: each.execute(delete(found)))


DAMAGES: dict[str, tuple[Callable[[Storage], None], set[str], str]] = {
    "records": (lambda each: cut(each, "records"), {"record"}, "checksum is wrong"),
    "events": (lambda each: cut(each, "events"), {"event"}, "checksum is wrong"),
    "small blobs": (lambda each: cut(each, "blobs", "data"), {"blob", "run"}, "is damaged"),
    "torn files": (lambda each: tear(each, "blobs"), {"blob"}, "is damaged"),
    "lost files": (lambda each: lose(each, "blobs"), {"blob"}, "is not in the storage"),
    "lost rows": (lambda each: lose_rows(each, "blobs"), {"blob", "run"}, "is not in the storage"),
    "manifests": (lambda each: lose_rows(each, "manifests"), {"job"}, "is not a manifest"),
    "artifacts": (lambda each: tear(each, "artifacts"), {"artifact"}, "is not JSON"),
    "manifest files": (lambda each: tear(each, "manifests"), {"artifact"}, "is not a manifest"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found(tmp_path: Any, damage: str) -> None:
    """Each damaged or missing thing is a problem that names it, and the run that needs it."""
    with Storage(tmp_path / "runs") as storage:
        await filled(storage)
        work, kinds, words = DAMAGES[damage]
        work(storage)
        report = storage.check()
    assert not report.is_sound
    assert {each.kind for each in report.problems} == kinds
    assert all(words in each.message for each in report.problems), report.problems
    for each in report.problems:
        assert (each.run_id in {"run-1", "run-2"}) == (each.kind in {"blob", "record", "run"})


async def test_a_run_that_is_removed_meanwhile_is_no_problem(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check beside a `forget` reports nothing of the run that is gone."""
    await filled(storage)
    get, forgotten = storage.lake.get, list[object]()

    def gets(sha256: str) -> bytes:
        if not forgotten:
            forgotten.append(storage.forget("run-1"))
        return get(sha256)

    monkeypatch.setattr(storage.lake, "get", gets)
    assert storage.check().problems == ()
    assert forgotten


def test_a_damaged_database_is_a_problem(tmp_path: Any) -> None:
    """Pages of SQLite that were overwritten are reported, not raised."""
    with Storage(tmp_path / "runs") as storage:
        storage.queue.enqueue_many([Manifest(task_type="notes") for _ in range(300)])
    file = tmp_path / "runs" / "storage.sqlite"
    content = bytearray(file.read_bytes())
    content[-40_000:-20_000] = b"\xff" * 20_000
    file.write_bytes(content)
    with Storage(tmp_path / "runs") as storage:
        report = storage.check()
    assert report.problems[0].kind == "database"
    assert "restore" in report.problems[0].message


async def test_everything_is_counted(storage: Storage) -> None:
    """Runs and jobs by their status, and the size of what takes the space."""
    await filled(storage)
    stats = storage.stats()
    assert (stats.runs, stats.jobs) == ({"final": 2}, {"pending": 1})
    counts = {kind: amount.count for kind, amount in stats.kinds.items()}
    assert counts == {
        "records": 2 + 2, "events": 1, "blobs": 8, "replies": 0, "files": 3, "artifacts": 2,
    }  # fmt: skip
    assert all(stats.kinds[kind].size > 0 for kind in counts if kind != "replies")
    assert stats.kinds["files"] == Amount(3, sum(storage.lake.files().values()))
    assert stats.database_size is not None
    assert stats.database_size > sum(each.size for each in stats.kinds.values()) / 10
