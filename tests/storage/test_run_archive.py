"""A run is carried to another storage, and a file of others is checked before it is believed."""

import asyncio
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import (
    Corpus,
    DamagedDataError,
    InputError,
    RunBusyError,
    RunExistsError,
    StorageError,
)
from rlm_integrations.storage import Storage
from tests.standin import StandIn, serve_in_thread
from tests.storage import _runs
from tests.storage._runs import DOCUMENT, QUESTION, facts, rlm_of, whole
from tests.storage.test_forgetting import LARGE, add_run, setup_of
from tests.storage.test_resume import paths_from


@pytest.fixture
def provider() -> Iterator[StandIn]:
    with serve_in_thread(
        scripts={"stand-in": _runs.script_of}, latency=0.005, keep_requests=True
    ) as standin:
        yield standin


@pytest.fixture
def target(request: pytest.FixtureRequest, place: tuple[str, str | None], tmp_path: Path) -> Any:
    """An empty storage of the other kind of database."""
    where = tmp_path / "other" if "://" in place[0] else request.getfixturevalue("postgres_url")
    with Storage(where, lake=tmp_path / "other" / "lake") as opened:
        yield opened


async def test_a_run_goes_on_in_another_storage(
    storage: Storage, target: Storage, provider: StandIn, tmp_path: Path
) -> None:
    """A cancelled run that was carried to another kind of database ends there as it would have
    here, and no answer that was stored is asked for again.
    """
    task = asyncio.ensure_future(rlm_of(provider.base_url, storage).acompletion(QUESTION, DOCUMENT))
    while len(provider.calls()) < 90:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    (info,) = storage.runs()
    file = tmp_path / "run.zip"
    storage.export(info.run_id, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert target.import_run(file) == info.run_id
    assert target.load(info.run_id) == storage.load(info.run_id)
    assert target.info(info.run_id) == info
    assert target.check().is_sound
    stored = {each.call_id for each in storage.load(info.run_id)}
    storage.forget(info.run_id)
    asked = len(provider.requests())
    result = await rlm_of(provider.base_url, target).aresume(info.run_id)
    assert facts(result) == whole()
    assert stored & paths_from(provider, asked) == set()
    target.export(info.run_id, file)
    storage.import_run(file)
    assert storage.run(info.run_id).to_dict() == target.run(info.run_id).to_dict()


async def test_what_cannot_be_carried_is_said(storage: Storage, tmp_path: Path) -> None:
    """An unknown run, one that is being run, one that is there already, and a file that cannot be
    written; nothing is left of it.
    """
    await add_run(storage, "ended", LARGE)
    file = tmp_path / "ended.zip"
    storage.export("ended", file)
    first = file.read_bytes()
    storage.export("ended", file)
    assert file.read_bytes() == first
    with pytest.raises(RunExistsError, match="forget it first"):
        storage.import_run(file)
    with pytest.raises(InputError, match="no run 'endet' in this storage; the nearest are 'ended'"):
        storage.export("endet", file)
    running = await storage.begin("running", setup_of(), Corpus.build("short"))
    with pytest.raises(RunBusyError, match="is being run by process"):
        storage.export("running", file)
    running.let_go()
    with pytest.raises(StorageError, match="cannot be written: No such file or directory"):
        storage.export("ended", tmp_path / "missing" / "ended.zip")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is not a file: choose another name"):
        storage.export("ended", tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.glob(".*")] == []


Members = dict[str, bytes]


def in_run(**changes: Any) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["run.json"] = json.dumps({**json.loads(members["run.json"]), **changes}).encode()

    return change


def set_member(name: str, data: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: data})


def change_blob(members: Members) -> None:
    name = next(each for each in members if each.startswith("blobs/"))
    members[name] += b" "


def drop_blob(members: Members) -> None:
    del members[next(each for each in members if each.startswith("blobs/"))]


HOSTILE: dict[str, Callable[[Members], None]] = {
    "a path": set_member("../../etc/passwd", b""),
    "an absolute path": set_member("/etc/passwd", b""),
    "a blob's path": set_member("blobs/../run.json", b""),
    "another member": set_member("notes.txt", b""),
    "a blob of none": set_member("blobs/" + "0" * 64, b""),
    "no run": lambda members: members.pop("run.json"),
    "no journal": lambda members: members.pop("records.jsonl"),
    "a run that is no object": set_member("run.json", b"[]"),
    "a run that is no JSON": set_member("run.json", b"\xff"),
    "a deep run": set_member("run.json", b"[" * 100_000),
    "a field too many": in_run(more=1),
    "an id that is none": in_run(run_id="../x"),
    "a status that is none": in_run(status="<script>"),
    "another status": in_run(status="cancelled"),
    "a time that is none": in_run(created=1e300),
    "a setup of none": in_run(setup_sha256="0" * 64),
    "blobs that are none": in_run(blobs=[1]),
    "a changed blob": change_blob,
    "a missing blob": drop_blob,
    "another journal": set_member("records.jsonl", b'["r:t1", 1.0, "e30=", null]\n'),
    "a journal that is none": set_member("records.jsonl", b'{"a": 1}\n'),
    "a record of two bodies": set_member("records.jsonl", b'["r:t1", 1.0, null, null]\n'),
    "a record that is no base64": set_member("records.jsonl", b'["r:t1", 1.0, "!", null]\n'),
    "a line without an end": set_member("records.jsonl", b'["' + b"x" * 1_000_000),
}


@pytest.fixture
async def exported(tmp_path: Path) -> Path:
    """The file of a run."""
    with Storage(tmp_path / "source") as source:
        await add_run(source, "run-1", LARGE)
        source.export("run-1", tmp_path / "run.zip")
    return tmp_path / "run.zip"


def packed(members: Members, **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def unpacked(file: Path) -> Members:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


async def test_a_hostile_file_is_refused(exported: Path, tmp_path: Path) -> None:
    """Whatever was changed, the error is one line that says so, and nothing is kept."""
    with Storage(tmp_path / "target") as target:
        for name, change in HOSTILE.items():
            members = unpacked(exported)
            change(members)
            file = tmp_path / "changed.zip"
            file.write_bytes(packed(members))
            with pytest.raises(
                DamagedDataError, match="is damaged, or is not an exported run"
            ) as raised:
                target.import_run(file)
            assert "\n" not in str(raised.value), name
            assert len(str(raised.value)) < 500, name
        assert target.runs() == []
        assert target.stats().kinds["blobs"].count == 0
        assert target.lake.files() == {}


async def test_files_that_are_no_exports_are_told_apart(exported: Path, tmp_path: Path) -> None:
    """A missing file, one that is no zip, one of a later version, and one that is too large."""
    members = unpacked(exported)
    in_run(format=2)(members)
    (tmp_path / "later.zip").write_bytes(packed(members))
    (tmp_path / "none.zip").write_bytes(b"no zip at all")
    bomb = {**unpacked(exported), "blobs/" + "0" * 64: b"\0" * 50_000_000}
    (tmp_path / "bomb.zip").write_bytes(packed(bomb))
    with Storage(tmp_path / "target") as target:
        for name, words in [
            ("missing.zip", "cannot be read: No such file"),
            (".", "cannot be read: Is a directory"),
            ("none.zip", "is not a zip file"),
            ("later.zip", "version '2' of this form.*upgrade"),
        ]:
            with pytest.raises(InputError, match=words):
                target.import_run(tmp_path / name)
        with pytest.raises(InputError, match="pass a larger max_bytes"):
            target.import_run(tmp_path / "bomb.zip", max_bytes=20_000_000)


async def test_a_torn_file_is_refused_wherever_it_was_cut_or_changed(
    exported: Path, tmp_path: Path
) -> None:
    """Every cut, and every changed byte that matters, is an error of ours."""
    content = exported.read_bytes()
    file, outcomes = tmp_path / "torn.zip", set[str]()
    with Storage(tmp_path / "target") as target:
        for at in range(0, len(content), max(1, len(content) // 150)):
            for torn in (
                content[:at],
                content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :],
            ):
                file.write_bytes(torn)
                try:
                    target.forget(target.import_run(file))
                except (InputError, DamagedDataError) as error:
                    outcomes.add(type(error).__name__)
                else:
                    outcomes.add("imported")  # a byte without a meaning, such as a time
        assert outcomes >= {"InputError", "DamagedDataError"}
        assert target.runs() == []
        assert target.lake.files() == {}
