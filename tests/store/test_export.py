"""Export and import: the same file byte for byte, and nothing from a damaged file."""

import errno
import itertools
import json
import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.store import SharedStore
from rlm_integrations.store.commit import apply_commit
from tests.store.examples import examples
from tests.store.test_properties import built, histories


@pytest.fixture
def corpus():
    with Corpus.build("the zebra") as corpus:
        yield corpus


@pytest.fixture
def store(corpus):
    times = itertools.count(1.25, 0.1)
    store = SharedStore(corpus, clock=lambda: next(times))
    a, b = store.worker("a"), store.worker("b")
    one = a.create(
        "note",
        "ü 中 \ud800 \0",
        {"x": [1.5, None, "\u2028\n"]},
        [SpanRef("context_0", 4, 9)],
        tags=["x", "y"],
    )
    two = b.create("claim", "two", "text", parents=[one])
    b.link("supports", two, one)
    a.invalidate(one, "wrong")
    apply_commit(b, {"commit_id": "c", "creates": [{"id": "e", "type": "t", "parents": [two]}]})
    return store


def test_a_round_trip_is_byte_for_byte(store, corpus, tmp_path: Path) -> None:
    """An imported store answers as before, including spans, and is exported as the same bytes; new
    objects get the next ids.
    """
    store.export(tmp_path / "first")
    again = SharedStore.import_(tmp_path / "first", corpus=corpus)
    again.export(str(tmp_path / "second"))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert again.backend.ledger.view.state() == store.backend.ledger.view.state()
    assert again.trace("b_000001") == store.trace("b_000001")
    assert again.worker("a").create("note", "d", "c") == "a_000002"
    assert SharedStore.import_(tmp_path / "first").trace("a_000001")[0]["spans"][0]["text"] is None


@examples(40)
@given(histories)
def test_every_history_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, history
) -> None:
    """The round trip works for any history, into an empty store and into one with other objects."""
    folder = tmp_path_factory.mktemp("round")
    store = built(history)
    store.export(folder / "first")
    again = SharedStore.import_(folder / "first")
    again.export(folder / "second")
    assert (folder / "first").read_bytes() == (folder / "second").read_bytes()
    again.import_(folder / "first")
    cards = again.view("invalid=any", 10_000)
    assert len(cards) == 2 * len(store.view("invalid=any", 10_000))
    again.export(folder / "third")
    assert (
        SharedStore.import_(folder / "third").backend.ledger.view.state()
        == again.backend.ledger.view.state()
    )


def test_import_into_a_store_with_objects(store, corpus, tmp_path: Path) -> None:
    """Ids, parents, links and workers get a prefix, times are kept, event numbers continue, and the
    store's own counters are unaffected.
    """
    store.export(tmp_path / "file")
    assert store.import_(tmp_path / "file") is store
    found = store.get("import1/b_000001")
    assert (found.parents, found.links, found.worker) == (
        ("import1/a_000001",),
        (("supports", "import1/a_000001"),),
        "import1/b",
    )
    assert (found.seq, found.ts) == (7, store.get("b_000001").ts)
    assert store.get("import1/a_000001").invalid == "wrong"
    assert store.get("import1/c/e").parents == ("import1/b_000001",)
    assert store.worker("a").create("note", "d", "c") == "a_000002"
    store.import_(tmp_path / "file")
    assert store.get("import2/b_000001").worker == "import2/b"
    store.import_(tmp_path / "file", prefix="run7")
    assert store.get("run7/b_000001").worker == "run7/b"
    before = store.seq
    with pytest.raises(InputError, match="'run7/a_000001' already: import under another prefix"):
        store.import_(tmp_path / "file", prefix="run7")
    with pytest.raises(InputError, match="prefix"):
        store.import_(tmp_path / "file", prefix="a/b")
    with pytest.raises(InputError, match="this store has its document"):
        store.import_(tmp_path / "file", corpus=corpus)
    assert store.seq == before


def test_origins_are_exported_and_imported(corpus, tmp_path: Path) -> None:
    """Every kind of event keeps its origin, even in a store with other events; an event without an
    origin is exported without the field.
    """
    store = SharedStore(corpus)
    plain = store.worker("w")
    worker = plain.for_call("r.1/abc.1")
    first, second = plain.create("note", "d", "c"), worker.create("note", "d", "c")
    worker.link("supports", second, first)
    worker.invalidate(first, "wrong")
    apply_commit(worker, {"commit_id": "c", "proposes_updates": [{"target": second}]})
    origins = [event.origin for event in store.backend.ledger.log.since(0)]
    assert origins == [None] + ["r.1/abc.1"] * 5
    store.export(tmp_path / "file")
    lines = (tmp_path / "file").read_text(encoding="ascii").splitlines()[1:]
    assert "origin" not in json.loads(lines[0])
    assert [json.loads(line)["origin"] for line in lines[1:]] == origins[1:]
    for again in (
        SharedStore.import_(tmp_path / "file"),
        SharedStore.from_dict(store.to_dict()),
        pickle.loads(pickle.dumps(store)),
    ):
        assert [event.origin for event in again.backend.ledger.log.since(0)] == origins
    store.import_(tmp_path / "file")
    assert [event.origin for event in store.backend.ledger.log.since(0)] == origins * 2


@pytest.mark.parametrize("origin", ["", 7, None, "x" * 1_001])
def test_a_bad_origin_is_refused(origin) -> None:
    """An origin must be a short, non-empty string, both from a caller and in a file."""
    store = SharedStore()
    worker = store.worker("w")
    with pytest.raises(InputError, match="origin"):
        worker.for_call(origin)
    worker.create("note", "d", "c")
    data = store.to_dict()
    data["events"][0]["origin"] = origin
    with pytest.raises(InputError, match=r"events\[0\]: origin"):
        SharedStore.from_dict(data)


def test_the_file_is_plain_json_lines(store, tmp_path: Path) -> None:
    """The first line names format and version; each further line is an event in ASCII."""
    store.export(tmp_path / "file")
    first, *lines = (tmp_path / "file").read_text(encoding="ascii").splitlines()
    assert json.loads(first) == {"format": "rlm-integrations-store", "version": 1}
    assert [json.loads(line)["op"] for line in lines] == [
        "create",
        "create",
        "link",
        "invalidate",
        "create",
    ]
    assert json.loads(lines[0])["content"] == {"x": [1.5, None, "\u2028\n"]}


def test_an_export_appears_whole_or_not_at_all(
    store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk fails, the old file stays and nothing else is left; the error names the file."""
    target = tmp_path / "file"
    target.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written to .*file': No space left on device"):
        store.export(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(InputError, match="No such file or directory"):
        store.export(tmp_path / "nowhere" / "file")


def test_permissions_and_links_stay(store, tmp_path: Path) -> None:
    """A file keeps its permissions, and a symbolic link stays a link: its target is written."""
    target, link = tmp_path / "file", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    store.export(link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert len(SharedStore.import_(target)) == len(store)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    store.export(tmp_path / "dangling")
    assert (tmp_path / "new").read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("method", "code"), [("open", errno.EACCES), ("open", errno.EROFS), ("replace", errno.EBUSY)]
)
def test_a_file_that_cannot_be_replaced_is_written_to(
    store, tmp_path: Path, method: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that is not writable, and if the file is a mount point, the file is written in
    place.
    """
    target = tmp_path / "file"
    target.write_text("x" * 10_000)
    original = getattr(Path, method)

    def refused(self: Path, *args, **kwargs):
        if self.suffix == ".tmp":
            raise OSError(code, os.strerror(code))
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, refused)
        store.export(target)
        with pytest.raises(InputError, match=os.strerror(code)):
            store.export(tmp_path / "new")
    assert SharedStore.import_(target).seq == store.seq
    assert list(tmp_path.iterdir()) == [target]


def test_a_pipe_and_a_device_are_written_to(store, tmp_path: Path) -> None:
    """A file that is not regular is written in place; a pipe without a reader and a directory are
    refused.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="No such device or address"):
        store.export(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # the text is shorter than a pipe's buffer
    with os.fdopen(reader, "rb") as file:
        store.export(pipe)
        text = file.read()
    store.export(tmp_path / "file")
    assert text == (tmp_path / "file").read_bytes()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    store.export("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(InputError, match="No space left on device"):
        store.export("/dev/full")
    with pytest.raises(InputError, match="Is a directory"):
        store.export(tmp_path)


def event(**changes) -> dict:
    whole = {
        "op": "create",
        "seq": 1,
        "ts": 1.0,
        "worker": "w",
        "id": "w_000001",
        "type": "note",
        "description": "d",
        "content": "c",
    }
    return {**whole, "backrefs": [], "parents": [], "tags": [], "takes": 1, **changes}


INVALIDATE = {
    "op": "invalidate",
    "seq": 2,
    "ts": 2,
    "worker": "w",
    "id": "w_000001",
    "type": "note",
    "reason": "r",
}
LINK = {
    "op": "link",
    "seq": 2,
    "ts": 2,
    "worker": "w",
    "id": "w_000001",
    "type": "supports",
    "dst": "w_000001",
}
BAD = {
    "no JSON": (["{"], "line 2 is not JSON"),
    "no object": ([[]], "line 2: op must be one of create"),
    "deep nesting": (["[" * 100_000], "line 2 is not JSON"),
    "not a number": (['{"op": NaN}'], "NaN is not JSON"),
    "an unknown op": ([event(op="delete")], "line 2: op must be"),
    "an op of another type": ([event(op=["create"])], "line 2: op must be"),
    "a field too many": ([event(extra=1)], "'create' must have the fields"),
    "a field missing": (
        [{key: value for key, value in event().items() if key != "tags"}],
        "'create' must have the fields",
    ),
    "a gap": ([event(seq=2)], "seq must be 1"),
    "a seq of another type": ([event(seq=True)], "seq must be 1"),
    "no time": ([event(ts="now")], "ts must be a number"),
    "an endless time": (['{"op": "create", "seq": 1, "ts": 1e999'], "not JSON"),
    "an infinite time": (
        [json.dumps(event()).replace('"ts": 1.0', '"ts": 1e999')],
        "ts must be a number",
    ),
    "an integer that no time can be": (
        [event(ts=10**400)],
        "ts must be a number, not a number of more than 30 digits",
    ),
    "no worker": ([event(worker="")], "worker must not be empty"),
    "an unknown parent": (
        [event(parents=["w_000002"])],
        r"parents\[0\]: no object before this line",
    ),
    "its own parent": ([event(parents=["w_000001"])], r"parents\[0\]: no object before this line"),
    "an id twice": ([event(takes=2), event(seq=2)], "'w_000001' does not fit worker"),
    "an id of another worker": ([event(id="v_000001")], "'v_000001' does not fit worker"),
    "an id ahead of its worker": ([event(id="w_000002")], "'w_000002' does not fit worker"),
    "an id that takes no number": ([event(takes=0)], "'w_000001' does not fit worker"),
    "an id written otherwise": ([event(id="w_01")], "'w_01' does not fit worker"),
    "numbers below zero": ([event(takes=-1)], "takes must be a number"),
    "an empty type": ([event(type="")], "type must not be empty"),
    "bad content": ([json.dumps(event()).replace('"c"', "1e999")], "content must be JSON"),
    "a bad span": (
        [event(backrefs=[{"source": "context_0", "start": 2, "end": 1}])],
        "start <= end",
    ),
    "a span outside": (
        [event(backrefs=[{"source": "context_0", "start": 0, "end": 99}])],
        "9 characters",
    ),
    "invalidating nothing": ([{**INVALIDATE, "seq": 1}], "id: no object before this line"),
    "invalidating twice": (
        [event(), INVALIDATE, {**INVALIDATE, "seq": 3}],
        "line 4: 'w_000001' is already invalid",
    ),
    "invalidating another type": ([event(), {**INVALIDATE, "type": "claim"}], "of another type"),
    "linking nothing": ([event(), {**LINK, "dst": "x"}], "dst: no object before this line"),
    "an unknown link": ([event(), {**LINK, "type": "likes"}], "type must be one of supports"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_file_is_refused_completely(store, corpus, tmp_path: Path, case: str) -> None:
    """The error names the line and the reason; neither a new store nor an existing one imports any
    of the file.
    """
    lines, message = BAD[case]
    path = tmp_path / "file"
    texts = [
        line if isinstance(line, str) else json.dumps(line)
        for line in ({"format": "rlm-integrations-store", "version": 1}, *lines)
    ]
    path.write_text("\n".join(texts))
    before = store.seq
    with pytest.raises(InputError, match=message) as caught:
        SharedStore.import_(path, corpus=corpus)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=message):
        store.import_(path)
    assert store.seq == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1"),
        (b"hello\n", "line 1 is not JSON"),
        (b'{"format": "rlm-integrations-store", "version": 2}\n', "line 1 must be"),
        ('{"format": "ü"}'.encode(), "not ASCII"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Files that are not exports, or are of a later version, are refused with that reason."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        SharedStore.import_(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        SharedStore.import_(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        SharedStore.import_(tmp_path)
