"""Runs with a store that outlives them: `RLM(…, store=storage.store(name))`."""

from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import RLM, Limits
from rlm_integrations.errors import InputError, JournalError, StorageError
from rlm_integrations.storage import Storage
from rlm_integrations.storage.owned_run import OwnedRun
from rlm_integrations.store import SharedStore
from tests.engine.conftest import Scripted, code, final

DOCUMENT = "The dam was approved by Ada Conti. " * 30
WRITES = code(
    "one = store.create('note', 'approved', 'by Ada', [cite('Ada Conti')], tags=['dam'])",
    "two = store.create('claim', 'it follows', 'c', parents=[one])",
    "store.link('supports', one, two)",
    "commit = {'commit_id': 'c1', 'creates': [{'id': 'e', 'type': 'note', 'description': 'of a commit'}]}",
    "made = apply_commit(commit)",
    "store.invalidate(made['created_ids']['e'], 'wrong')",
)


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    with Storage(tmp_path / "runs") as opened:
        yield opened


def rlm_of(storage: Storage | None, store: Any, *replies: str) -> RLM[Any]:
    return RLM(Scripted(replies), storage=storage, store=store)


@pytest.mark.parametrize("is_stored", [False, True], ids=["run in memory", "stored run"])
def test_runs_share_a_store(storage: Storage, is_stored: bool) -> None:
    """Each run sees what earlier ones found, and no two write the same id; the store is there when
    they are over, and a stored run gives it again.
    """
    store = storage.store("findings")
    rlm = rlm_of(storage if is_stored else None, store, WRITES, final("'done'"))
    first = rlm.completion("Who?", DOCUMENT)
    look = code("FINAL([len(store.view('invalid=any')), len(store.view('tag=dam'))])")
    second = rlm_of(storage if is_stored else None, store, WRITES + look).completion(
        "Who?", DOCUMENT
    )
    assert second.answer == "[6, 2]"
    assert first.trajectory[0].executions[0].store_events[0]["op"] == "create"
    ids = [event["id"] for event in store.events_since(0) if event["op"] == "create"]
    assert ids == [
        f"{run}{rest}"
        for run in (first.run_id, second.run_id)
        for rest in (".root_000001", ".root_000002", "/c1/e")
    ]
    assert [card["id"] for card in second.store.search("tag=dam")] == [ids[3], ids[0]]
    assert list(store.get(ids[0]).links) == [("supports", ids[1])]
    if is_stored:
        again = storage.run(first.run_id)
        assert again.store.search("tag=dam") == store.search("tag=dam")
        trace = again.store.with_document(DOCUMENT).trace(ids[0])
        assert trace[0]["spans"][0]["text"] == "Ada Conti"
        assert rlm.resume(first.run_id).store.get(ids[0]).content == "by Ada"


def test_a_write_and_its_record_are_one_unit(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the record of a call cannot be kept, its events are not kept either, and the run ends with
    the error; resumed with the same store, it writes them once.
    """
    store = storage.store("findings")
    rlm = rlm_of(storage, store, WRITES, final("'done'"))
    append_in, calls = OwnedRun.append_in, []

    def failing(self: OwnedRun, connection: Any, call: str, record: bytes) -> None:
        calls.append(call)
        append_in(self, connection, call, record)
        if "link" in call:
            raise StorageError("the disk is gone")

    monkeypatch.setattr(OwnedRun, "append_in", failing)
    with pytest.raises(JournalError, match="the disk is gone"):
        rlm.completion("Who?", DOCUMENT)
    assert [event["op"] for event in store.events_since(0)] == ["create", "create"]
    monkeypatch.undo()
    (run,) = storage.runs()
    assert storage.run(run.run_id).store.get(f"{run.run_id}.root_000001").content == "by Ada"
    with pytest.raises(InputError, match="its store is 'findings', not None"):
        rlm_of(storage, None, WRITES, final("'done'")).resume(run.run_id)
    result = rlm_of(storage, store, WRITES, final("'done'")).resume(run.run_id)
    ops = ["create", "create", "link", "create", "invalidate"]
    assert [event["op"] for event in store.events_since(0)] == ops
    recorded = result.trajectory[0].executions[0].store_events
    assert [event["op"] for event in recorded] == ops


def test_a_store_is_of_one_document(storage: Storage) -> None:
    """A run over another document is refused before a model is asked, or anything is stored."""
    store = storage.store("findings")
    rlm_of(storage, store, final("'done'")).completion("Who?", DOCUMENT)
    root = Scripted([])
    with pytest.raises(InputError, match="store 'findings' belongs to another document"):
        RLM(root, storage=storage, store=store).completion("Who?", "Another text. " * 100)
    assert len(storage.runs()) == 1
    assert root.requests == []


def test_what_store_takes(storage: Storage, tmp_path: Path) -> None:
    """Anything but a store of the run's own storage is refused, with what to pass."""
    store = storage.store("findings")
    with pytest.raises(InputError, match=r"as in storage.store\('findings'\), not SharedStore"):
        RLM("offline", store=SharedStore())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="store_mode='none' removes the store"):
        RLM("offline", store=store, store_mode="none")
    with (
        Storage(tmp_path / "other") as other,
        pytest.raises(InputError, match="store= must be in the storage of the run"),
    ):
        RLM("offline", store=store, storage=other)
    with Storage(tmp_path / "runs") as same:
        RLM("offline", store=store, storage=same)


def test_a_run_has_a_bound_in_a_shared_store(storage: Storage) -> None:
    """`store_bytes` bounds what one run writes, whatever others have written."""
    store = storage.store("findings")
    store.worker("w").create("note", "d", "x" * 10_000)
    writes = code(
        "store.create('note', 'd', 'c')",
        "try: store.create('note', 'd', 'x' * 5_000)",
        "except ValueError as error: FINAL(str(error))",
    )
    rlm = rlm_of(storage, store, writes).replace(limits=Limits(store_bytes=5_000))
    answer = rlm.completion("Who?", DOCUMENT).answer
    assert answer.startswith("the store is full: it holds 1,")
    assert len(store) == 2
