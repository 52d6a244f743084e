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
    assert len(list(lake.hashes())) == 2


def test_small_blobs_are_rows_and_large_ones_files(
    local: tuple[Lake, Path], sqlite_url: str
) -> None:
    """A blob of up to 64 KiB is a compressed row; a larger one a file, fanned out by its first two
    digits.
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
    assert [size for size, _ in rows] == [len(SMALL)]
    assert rows[0][1] < len(SMALL) / 5
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
    """A torn or changed file is an error that names the blob; `find_damaged` finds it, and keeping
    the content again mends it.
    """
    lake, folder = local
    name = lake.put(LARGE)
    file = folder / "blobs" / name[:2] / f"{name}.zst"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(DamagedDataError, match=name):
        lake.get(name)
    assert lake.find_damaged() == [name]
    assert lake.put(LARGE) == name
    assert lake.get(name) == LARGE
    assert lake.find_damaged() == []


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
    assert lake.find_damaged() == [name]


def test_removed_blobs_are_gone(lake: Lake) -> None:
    """Blobs are removed wherever they are, and the others stay."""
    small, large, other = lake.put(SMALL), lake.put(LARGE), lake.put(b"other")
    lake.delete([small, large])
    assert list(lake.hashes()) == [other]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_whether_a_blob_is_kept_is_known_without_reading_it(lake: Lake, data: bytes) -> None:
    """`has` is True from when a blob was written until it is removed."""
    sha256 = hashlib.sha256(data).hexdigest()
    assert not lake.has(sha256)
    assert lake.put(data) == sha256
    assert lake.has(sha256)
    lake.delete([sha256])
    assert not lake.has(sha256)
