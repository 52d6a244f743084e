"""Blobs by their hash: each content once, and damage is always found."""

import hashlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from sqlalchemy import func, make_url, select, update

from rlm_integrations.errors import DamagedDataError, StorageError
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.files import Files, LocalFiles, ObjectFiles
from rlm_integrations.storage.lake import SMALL_BYTES, Lake
from rlm_integrations.storage.shared_database import SharedDatabase, open_database

LARGE = secrets.token_bytes(SMALL_BYTES + 1)
SMALL = b'{"answer": 42}' * 50
PLACES: dict[str, Callable[[Path], Files | None]] = {
    "folder": LocalFiles,
    "object store": lambda _: ObjectFiles(MemoryStore(), "memory:"),
    "database": lambda _: None,
}


@pytest.fixture(params=PLACES)
def lake(request: pytest.FixtureRequest, opened: SharedDatabase, tmp_path: Path) -> Lake:
    return Lake(opened, PLACES[request.param](tmp_path / "lake"))


@pytest.fixture
def local(sqlite_url: str, tmp_path: Path) -> Iterator[tuple[Lake, Path]]:
    """A lake over SQLite and a folder, and the folder."""
    shared = open_database(Target(make_url(sqlite_url)))
    yield Lake(shared, LocalFiles(tmp_path / "lake")), tmp_path / "lake"
    shared.release()


def kept_in(lake: Lake) -> list[str]:
    """The hashes of all blobs."""
    table = lake._table
    return lake._shared.database.read(lambda each: list(each.scalars(select(table.c.sha256))))


@pytest.mark.parametrize("data", [b"", SMALL, LARGE[:-1], LARGE, b"\0" * 1_000_000])
def test_blobs_are_kept_by_their_hash(lake: Lake, data: bytes) -> None:
    """Any content is named by its SHA-256 and comes back as it was."""
    name = lake.put(data)
    assert name == hashlib.sha256(data).hexdigest()
    assert lake.get(name) == data


async def test_event_loops_have_methods_of_their_own(lake: Lake) -> None:
    """`aput` and `aget` do the same as `put` and `get`."""
    assert await lake.aget(await lake.aput(LARGE)) == LARGE


def test_each_content_is_kept_once(lake: Lake) -> None:
    """Keeping the same content again adds nothing."""
    for _ in range(3):
        lake.put(SMALL)
        lake.put(LARGE)
    assert len(kept_in(lake)) == 2


def test_small_blobs_are_rows_and_large_ones_files(
    local: tuple[Lake, Path], sqlite_url: str
) -> None:
    """A blob of up to 64 KiB is a compressed row; a larger one a file, fanned out by its first two
    digits, with a row that says so.
    """
    lake, folder = local
    lake.put(SMALL)
    name = lake.put(LARGE)
    shared = open_database(Target(make_url(sqlite_url)))
    blobs = shared.database.schema.blobs
    rows = shared.database.read(
        lambda each: each.execute(select(blobs.c.size, func.length(blobs.c.data))).all()
    )
    shared.release()
    assert [size for size, _ in rows] == [len(SMALL), len(LARGE)]
    assert rows[0][1] < len(SMALL) / 5
    assert rows[1][1] is None
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert files == [f"blobs/{name[:2]}/{name}.zst"]


def test_an_unknown_blob_is_an_error(lake: Lake) -> None:
    """A hash that nothing has says so."""
    with pytest.raises(StorageError, match=r"blob 00.* is not in the storage"):
        lake.get("0" * 64)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "longer": lambda content: content + b"more",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_found_and_mended(local: tuple[Lake, Path], damage: str) -> None:
    """A torn or changed file is an error that names the blob, and keeping the content again mends
    it.
    """
    lake, folder = local
    name = lake.put(LARGE)
    file = folder / "blobs" / name[:2] / f"{name}.zst"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(DamagedDataError, match=name):
        lake.get(name)
    assert lake.put(LARGE) == name
    assert lake.get(name) == LARGE


def test_a_file_with_other_content_is_found(local: tuple[Lake, Path]) -> None:
    """A file that is whole and belongs to another blob is found by its hash."""
    lake, folder = local
    names = [lake.put(LARGE), lake.put(LARGE[::-1])]
    first, second = (folder / "blobs" / name[:2] / f"{name}.zst" for name in names)
    first.write_bytes(second.read_bytes())
    with pytest.raises(DamagedDataError, match="another hash"):
        lake.get(names[0])


def test_a_damaged_row_is_found(lake: Lake, opened: SharedDatabase) -> None:
    """A changed row of the database is an error that names the blob."""
    name = lake.put(SMALL)
    table = opened.database.schema.blobs

    def change(connection: Any) -> None:
        data = connection.scalar(select(table.c.data))
        connection.execute(update(table).values(data=data[:30]))

    opened.writer.submit(change).result()
    with pytest.raises(DamagedDataError, match=name):
        lake.get(name)


def test_only_unused_blobs_are_removed(lake: Lake, opened: SharedDatabase) -> None:
    """Blobs are removed wherever they are, unless a run uses them; others are not touched."""
    small, large, used, other = map(lake.put, (SMALL, LARGE, LARGE[::-1], b"other"))
    opened.writer.submit(lambda each: lake.use(each, "run-1", [used])).result()
    removed = lake.remove_unused([small, large, used, "0" * 64])
    assert (removed.count, removed.size) == (2, len(SMALL) + len(LARGE))
    assert sorted(kept_in(lake)) == sorted([used, other])
    assert set(lake.files()) <= {used}
    with pytest.raises(StorageError, match="is not in the storage"):
        opened.writer.submit(lambda each: lake.use(each, "run-2", [used, small])).result()
    assert lake.get(used) == LARGE[::-1]


def test_a_schema_has_a_lake_of_its_own(tmp_path: Path) -> None:
    """Storages of two schemas in one folder do not remove each other's files."""
    target = Target(make_url(f"sqlite:///{tmp_path}/storage.sqlite"))
    opened = [open_database(target), open_database(target, schema="other")]
    first, second = (Lake(each, LocalFiles(tmp_path)) for each in opened)
    name = first.put(LARGE)
    assert second.put(LARGE) == name
    assert second.remove_unused([name]).count == 1
    assert first.get(name) == LARGE
    for each in opened:
        each.release()


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_whether_a_blob_is_kept_is_known_without_reading_it(lake: Lake, data: bytes) -> None:
    """`has` is True from when a blob was written until it is removed."""
    sha256 = hashlib.sha256(data).hexdigest()
    assert not lake.has(sha256)
    assert lake.put(data) == sha256
    assert lake.has(sha256)
    lake.remove_unused([sha256])
    assert not lake.has(sha256)
