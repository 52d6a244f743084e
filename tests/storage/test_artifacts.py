"""Artifacts, manifests and raw responses, in the layout of the original design."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore
from pydantic import ValidationError

from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.run_setup import SourceInfo
from rlm_integrations.storage.artifacts import ArtifactStore
from rlm_integrations.storage.files import ObjectFiles
from rlm_integrations.storage.manifest import Manifest

STORES: dict[str, Callable[[Path], ArtifactStore]] = {
    "local": ArtifactStore,
    "object store": lambda _: ArtifactStore(ObjectFiles(MemoryStore(), "memory:")),
}
STAMP = r"\d{8}T\d{6}\.\d{6}Z"


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return STORES[request.param](tmp_path / "lake")


def full_manifest() -> Manifest:
    return Manifest(
        task_type="entity_extraction",
        llm_provider="openai",
        llm_model="gpt-5",
        sub_models={"fast": "gpt-5-mini"},
        question="Wer ist 東京?",
        sources=(SourceInfo(name="context_0", length=5, sha256="ab" * 32, file="a.txt"),),
        options={"max_iterations": 5, "budget": {"max_cost": 1.5}},
        prompts_sha256="cd" * 32,
    )


def test_files_have_the_layout_of_the_original(tmp_path: Path) -> None:
    """The three kinds of files are where the original design puts them, and are private."""
    store = ArtifactStore(tmp_path)
    manifest = full_manifest()
    name = manifest.manifest_id
    paths = [
        store.write_manifest(manifest),
        store.write_artifact(name, "entity_extraction", {"entities": ["東京"]}),
        store.write_raw_response(name, "```repl\nFINAL(1)\n```"),
    ]
    found = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert found[0] == f"manifests/{name}.json"
    assert re.fullmatch(rf"artifacts/entity_extraction/{STAMP}_{name}\.json", found[1])
    assert re.fullmatch(rf"raw_responses/{STAMP}_{name}\.txt", found[2])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    assert json.loads(paths[1].read_text(encoding="utf-8")) == {"entities": ["東京"]}
    assert paths[2].read_text() == "```repl\nFINAL(1)\n```"


def test_what_is_written_is_read(store: ArtifactStore) -> None:
    """Manifests, artifacts and responses come back as they were, by the path of the write."""
    manifest = full_manifest()
    store.write_manifest(manifest)
    assert store.read_manifest(manifest.manifest_id) == manifest
    data = {"a": [1, 2.5, None, True], "b": {"c": "\ud800 half a pair"}}
    assert store.read_artifact(store.write_artifact("m1", "notes", data)) == data
    text = "one\r\ntwo\n\x00\ud800"
    assert store.read_raw_response(store.write_raw_response("m1", text)) == text


def test_records_become_json(store: ArtifactStore) -> None:
    """Records and models in an artifact are written as JSON objects."""
    path = store.write_artifact("m1", "spans", [SpanRef("context_0", 1, 2), full_manifest()])
    span, manifest = store.read_artifact(path)
    assert (span["source"], span["start"], span["end"]) == ("context_0", 1, 2)
    assert manifest["question"] == "Wer ist 東京?"


def test_the_same_data_at_the_same_time_is_one_artifact(store: ArtifactStore) -> None:
    """A second write of what is there gives its path; other data of that time is another file."""
    at = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    first = store.write_artifact("m1", "notes", ["one"], at=at)
    assert first.name == "20260301T103000.000000Z_m1.json"
    assert store.write_artifact("m1", "notes", ["one"], at=at) == first
    second = store.write_artifact("m1", "notes", ["two"], at=at)
    assert store.write_artifact("m1", "notes", ["two"], at=at) == second
    assert [store.read_artifact(each.path) for each in store.list_artifacts()] == [["one"], ["two"]]


def test_lists_are_in_the_order_of_writing(store: ArtifactStore) -> None:
    """Artifacts are listed oldest first, for a task type, for a manifest, or all; none replaces
    another, however fast they come.
    """
    written = [store.write_artifact(f"m{n % 2}", "ab"[n % 3 == 0], n) for n in range(12)]
    shown = store.list_artifacts()
    assert sorted(each.path for each in shown) == sorted(written)
    assert [each.written_at for each in shown] == sorted(each.written_at for each in shown)
    assert {store.read_artifact(each.path) for each in store.list_artifacts("b")} == {0, 3, 6, 9}
    assert {store.read_artifact(each.path) for each in store.list_artifacts("a", "m1")} == {
        1,
        5,
        7,
        11,
    }
    assert {(each.task_type, each.manifest_id) for each in shown} == {
        ("a", "m0"),
        ("a", "m1"),
        ("b", "m0"),
        ("b", "m1"),
    }
    store.write_raw_response("m0", "x")
    assert [each.manifest_id for each in store.list_raw_responses("m0")] == ["m0"]
    assert store.list_raw_responses("m1") == []
    assert len(store.list_artifacts()) == 12
    manifest = full_manifest()
    store.write_manifest(manifest)
    assert store.list_manifests() == [manifest.manifest_id]


def test_an_artifact_is_read_by_any_path_below_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path below `base_dir`, the returned path and an absolute one name the same file; one
    outside is refused.
    """
    monkeypatch.chdir(tmp_path)
    store = ArtifactStore("lake")
    path = store.write_artifact("m1", "notes", 1)
    below = path.relative_to("lake")
    assert [store.read_artifact(each) for each in (path, str(path), below, path.absolute())] == [
        1,
        1,
        1,
        1,
    ]
    (tmp_path / "secret.json").write_text("2")
    for outside in (tmp_path / "secret.json", "../secret.json", "artifacts/../../secret.json"):
        with pytest.raises(InputError, match=r"is not in|leaves its folder"):
            store.read_artifact(outside)


def test_json_can_be_compact(tmp_path: Path) -> None:
    """`pretty_print` chooses between indented JSON and one line."""
    pretty = ArtifactStore(tmp_path / "a").write_artifact("m", "t", {"a": [1]})
    compact = ArtifactStore(tmp_path / "b", pretty_print=False).write_artifact("m", "t", {"a": [1]})
    assert pretty.read_text() == '{\n  "a": [\n    1\n  ]\n}\n'
    assert compact.read_text() == '{"a": [1]}\n'


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "x" * 101, None, "ä"])
def test_names_that_make_no_file_are_refused(store: ArtifactStore, name: Any) -> None:
    """Task types and ids are parts of file names; others are errors, and nothing is written."""
    with pytest.raises(InputError, match="must be 1 to 100 letters"):
        store.write_artifact("m1", name, {})
    with pytest.raises(InputError):
        store.write_artifact(name or "", "notes", {})
    with pytest.raises((InputError, ValidationError)):
        Manifest(task_type=name)
    assert store.list_artifacts() == []


def test_what_is_not_there_is_an_error(store: ArtifactStore) -> None:
    """A missing manifest or artifact names the file."""
    with pytest.raises(InputError, match=r"no file 'manifests/m9\.json'"):
        store.read_manifest("m9")
    with pytest.raises(InputError, match=r"no file 'artifacts/a/b\.json'"):
        store.read_artifact("artifacts/a/b.json")


def test_a_damaged_file_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file that was changed by hand says what is wrong with it."""
    store = ArtifactStore(tmp_path)
    path = store.write_manifest(full_manifest())
    path.write_text(path.read_text().replace('"task_type"', '"task"'))
    with pytest.raises(DamagedDataError, match="is not a manifest: task_type: Field required"):
        store.read_manifest(path.stem)
    path.write_text("{")
    with pytest.raises(DamagedDataError, match="is not a manifest"):
        store.read_manifest(path.stem)
    artifact = store.write_artifact("m", "t", 1)
    artifact.write_text("{")
    with pytest.raises(DamagedDataError, match="is not JSON"):
        store.read_artifact(artifact)


def test_a_manifest_knows_its_versions() -> None:
    """A manifest has an id, its own version and the library's without being told."""
    first, second = Manifest(task_type="a"), Manifest(task_type="a")
    assert first.manifest_id != second.manifest_id
    assert (first.manifest_version, bool(first.library_version)) == ("1.0", True)
    upper = Manifest(task_type="a", manifest_id=first.manifest_id.upper())
    assert upper.manifest_id == first.manifest_id
    with pytest.raises(ValidationError, match="must be a UUID, not 'm1'"):
        Manifest(task_type="a", manifest_id="m1")
    with pytest.raises(ValidationError, match="Extra inputs"):
        Manifest(task_type="a", model="gpt-5")


def test_times_are_in_utc() -> None:
    """A manifest's time is Python's own UTC, whatever zone it was written in."""
    written = '{"task_type": "a", "created_at_utc": "2026-01-01T01:00:00+01:00"}'
    time = Manifest.from_json(written, "it").created_at_utc
    assert time.tzinfo is UTC
    assert time == datetime(2026, 1, 1, tzinfo=UTC)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(data=JSON, question=st.text())
def test_any_json_comes_back(data: Any, question: str) -> None:
    """Whatever JSON an artifact or a manifest has is read as it was written."""
    store = ArtifactStore(ObjectFiles(MemoryStore(), "memory:"), pretty_print=False)
    assert store.read_artifact(store.write_artifact("m", "t", data)) == data
    manifest = Manifest(task_type="t", question=question, options={"data": data})
    store.write_manifest(manifest)
    assert store.read_manifest(manifest.manifest_id) == manifest
