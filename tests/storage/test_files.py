"""Files of a lake: whole or not there, private, within their folder; local and in object stores."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from rlm_integrations.errors import InputError, StorageError, StorageUnavailableError
from rlm_integrations.storage.files import Files, LocalFiles, ObjectFiles, open_files
from tests._forked import Forked
from tests._script import run_script

MAKERS: dict[str, Callable[[Path], Files]] = {
    "local": lambda folder: LocalFiles(folder / "new"),
    "memory store": lambda _: ObjectFiles(MemoryStore(), "memory:"),
    "local store": lambda folder: ObjectFiles(LocalStore(folder), "file:"),
}


@pytest.fixture(params=MAKERS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return MAKERS[request.param](tmp_path)


def test_files_are_written_read_listed_and_removed(files: Files) -> None:
    """What is written is read as it was, listed by folder, and gone once it is removed."""
    assert files.sizes("a") == {}
    assert files.read("a/b/one") is None
    assert files.write("a/b/one", b"first")
    assert files.write("a/two", b"second")
    assert files.write("c/three", b"")
    assert files.read("a/b/one") == b"first"
    assert files.read("c/three") == b""
    assert list(files.sizes("a").items()) == [("a/b/one", 5), ("a/two", 6)]
    assert files.exists("a/two")
    files.delete("a/two")
    files.delete("a/two")
    assert not files.exists("a/two")
    assert files.sizes("a") == {"a/b/one": 5}


def test_an_existing_file_is_replaced_only_if_asked(files: Files) -> None:
    """`replace=False` leaves what is there and says so."""
    assert files.write("x", b"first")
    assert not files.write("x", b"second", replace=False)
    assert files.read("x") == b"first"
    assert files.write("x", b"third")
    assert files.read("x") == b"third"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "", "a\\b", "a\0b"])
def test_names_stay_in_their_folder(files: Files, name: str) -> None:
    """No name reaches a file outside."""
    for use in (files.read, files.delete, files.path_of, lambda each: files.write(each, b"")):
        with pytest.raises(InputError, match="leaves its folder"):
            use(name)


def test_local_files_are_private(tmp_path: Path) -> None:
    """Files have mode 0600 and new folders 0700, whatever the umask; nothing else is left."""
    before = os.umask(0)
    try:
        LocalFiles(tmp_path / "lake").write("a/b", b"x")
    finally:
        os.umask(before)
    found = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
    }
    assert found == {"lake": 0o700, "lake/a": 0o700, "lake/a/b": 0o600}


def test_a_file_is_synced_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data is on the disk before the name is, and the name before the call returns."""
    steps: list[str] = []
    real = (os.fdatasync, Path.replace, os.fsync)
    monkeypatch.setattr(os, "fdatasync", lambda fd: (steps.append("data"), real[0](fd)))
    monkeypatch.setattr(
        Path, "replace", lambda path, other: (steps.append("name"), real[1](path, other))[1]
    )
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("folder"), real[2](fd)))
    LocalFiles(tmp_path).write("a", b"x")
    assert steps == ["data", "name", "folder"]


WRITES = """
import sys; from pathlib import Path
from rlm_integrations.storage.files import LocalFiles
files = LocalFiles(Path(sys.argv[1])); print("ready", flush=True)
for number in range(1_000_000):
    files.write(f"{number % 3}", bytes([number % 256]) * 3_000_000)
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_of_a_write_tears_nothing(tmp_path: Path) -> None:
    """After `kill -9` at any moment every file has the whole content of one write."""
    for written in range(2):
        process = Forked("-c", WRITES, str(tmp_path))
        for _ in range(written + 1):
            process.stdout.readline()
        while written % 2 and not list(tmp_path.glob(".*.tmp")):
            pass  # until it is in the middle of a write
        process.kill()
        process.communicate()
        for path in tmp_path.glob("[0-9]"):
            content = path.read_bytes()
            assert len(content) == 3_000_000
            assert len(set(content)) == 1


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the error says so, and no part of the file is left."""
    monkeypatch.setattr(
        os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
    )
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        LocalFiles(tmp_path).write("a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_a_folder_and_a_url_a_store(tmp_path: Path) -> None:
    """Object stores are named by URL; other strings and paths are folders."""
    assert isinstance(open_files(tmp_path), LocalFiles)
    assert isinstance(open_files("runs/lake"), LocalFiles)
    assert str(open_files("s3://bucket/prefix")) == "s3://bucket/prefix"


def test_an_unknown_store_is_refused() -> None:
    """The error names the kinds of URL, and shows no credentials of the URL."""
    with pytest.raises(InputError, match="write a folder, or a URL such as s3://") as raised:
        open_files("ftp://me:sesame@host/x?token=hidden")
    assert "sesame" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_a_missing_package_names_its_extra() -> None:
    """Object stores need the extra `s3`, which the error names."""
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from rlm_integrations.storage.files import open_files\n"
        "try: open_files('s3://bucket')\n"
        "except ImportError as error: print(error.extra)\n"
    )
    assert run_script(code).stdout == "s3\n"


def test_a_store_that_cannot_be_reached_is_an_error_of_ours() -> None:
    """A server that does not answer is an error that may pass, and names no credentials."""
    from obstore.store import S3Store

    store = S3Store(
        "bucket",
        endpoint="http://127.0.0.1:1",
        access_key_id="id",
        secret_access_key="sesame",
        region="x",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    with pytest.raises(StorageUnavailableError, match="check the bucket") as raised:
        ObjectFiles(store, "s3://bucket").write("a", b"x")
    assert "sesame" not in str(raised.value)
