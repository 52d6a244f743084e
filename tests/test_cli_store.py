"""The command `store`: search, counts and export of findings."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlm_integrations import RLM, SharedStore
from rlm_integrations.records import SpanRef
from rlm_integrations.storage import Storage
from rlm_integrations.store.objects import all_objects
from tests._cli import FACT, FILLER, QUESTION, Shell, bare_environment, run

__all__ = ["bare_environment", "run"]  # fixtures

START = len(FILLER) + 1
RUN_ID = "lisbon-1"


@pytest.fixture
def shared() -> Iterator[SharedStore]:
    """A store that a run has used and that then got findings of a person, in a storage."""
    with Storage("runs") as storage:
        store = storage.store("vaults")
        rlm = RLM("offline", storage=storage, store=store)
        rlm.completion(QUESTION, Path("report.txt"), run_id=RUN_ID).save("run.json")
        yield store


@pytest.fixture
def findings(shared: SharedStore) -> SharedStore:
    """With a finding that has everything, and one that was wrong."""
    worker = shared.worker("clerk")
    first = worker.create(
        "claim",
        "The vault\nhas a code",
        {"code": 48213},
        [SpanRef("context_0", START, START + len(FACT))],
        tags=["vault", "code"],
    )
    wrong = worker.create("claim", "The vault has none", "none", parents=[first], tags=["vault"])
    worker.link("contradicts", wrong, first)
    worker.invalidate(wrong, "it has one")
    return shared


def test_findings_are_searched(run: Callable[..., Shell], findings: SharedStore) -> None:
    """A query or words find them: id, type, tags, content, and each place with its quote."""
    code, out, err = run("store", "search", "vaults", "tag=vault", "--shared")
    assert (code, err) == (0, "")
    place = f'    context_0 (report.txt) {START}-{START + len(FACT)}: "{FACT}"\n'
    head = "clerk_000001  claim  The vault has a code  [vault, code]\n"
    assert out == f'{head}    {{"code": 48213}}\n{place}'
    code, out, _ = run("store", "search", "vaults", "--shared", "invalid=yes")
    assert out == (
        "clerk_000002  claim  The vault has none  [vault]  (invalid: it has one)\n    none\n"
    )
    code, out, _ = run("store", "search", "vaults", "--text", "access code", "--shared", "--json")
    best = json.loads(out)[0]
    assert best["backrefs"][0]["quote"] == FACT
    assert best["score"] > 0
    assert run("store", "search", "vaults", "tag=none", "--shared")[1:] == (
        "", "rlm-integrations: no finding\n",
    )  # fmt: skip


def test_the_findings_of_one_run(run: Callable[..., Shell]) -> None:
    """A stored run brings its document; a saved one has quotes with `--document`, and says so
    without.
    """
    run("ask", "report.txt", QUESTION, "--storage", "runs", "--save", "run.json")
    run_id = run("runs")[1].split()[0]
    code, stored, err = run("store", "search", run_id)
    assert (code, err) == (0, "")
    assert f': "{FACT}"\n' in stored
    assert run("store", "search", "run.json", "--document", "report.txt") == (0, stored, "")
    code, out, err = run("store", "search", "run.json")
    assert code == 0
    assert FACT not in out.splitlines()[1]
    assert err.startswith("rlm-integrations: the document is not stored, so there are no quotes")
    assert run("store", "summary", "run.json", "type=quote") == (
        0, f"1 finding\ntypes: 1 quote\ntags: none\n{stored.splitlines()[0]}\n", "",
    )  # fmt: skip


def test_findings_are_counted(run: Callable[..., Shell], findings: SharedStore) -> None:
    """`summary` prints what `store.summary` returns."""
    code, out, err = run("store", "summary", "vaults", "--shared", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == findings.summary()
    code, out, _ = run("store", "summary", "vaults", "tag=vault invalid=any", "--shared")
    assert out.startswith("2 findings\ntypes: 2 claim\ntags: 2 vault, 1 code\n")


def test_an_export_is_complete(run: Callable[..., Shell], findings: SharedStore) -> None:
    """Every format has every finding, wrong ones too, with the document's words; `events` is what
    `SharedStore.import_` reads, and a file has what stdout has.
    """
    code, out, err = run("store", "export", "vaults", "--shared")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    objects = [findings.get(each["id"]).to_dict() for each in lines]
    text = Path("report.txt").read_text()
    for line, expected in zip(lines, objects, strict=True):
        for place in line["backrefs"]:
            assert place.pop("quote") == text[place["start"] : place["end"]]
            assert place.pop("file") == "report.txt"
        assert line == expected
    assert [each["id"] for each in lines[-2:]] == ["clerk_000001", "clerk_000002"]
    assert lines[-1]["links"] == [["contradicts", "clerk_000001"]]
    as_list = run("store", "export", "vaults", "--shared", "--format", "json")[1]
    assert json.loads(as_list) == [json.loads(line) for line in out.splitlines()]
    words = ["store", "export", "vaults", "--shared", "-o"]
    assert run(*words, "all.jsonl") == (0, "all.jsonl\n", "")
    assert Path("all.jsonl").read_text() == out
    code, told, _ = run(*words, "events.jsonl", "--format", "events", "--json")
    assert json.loads(told) == {"file": "events.jsonl", "findings": len(lines)}
    again = SharedStore.import_("events.jsonl")
    assert again.get("clerk_000002") == findings.get("clerk_000002")


def test_an_export_reads_page_after_page(shared: SharedStore) -> None:
    """The findings of a store with several pages of events are those that `get` returns, without
    those that others write meanwhile.
    """
    worker = shared.worker("w")
    ids = [worker.create("note", f"note {number}", None) for number in range(1_100)]
    worker.invalidate(ids[3], "wrong")
    worker.link("supports", ids[0], ids[-1])
    before = len(list(all_objects(shared.backend)))
    found = all_objects(shared.backend)
    first = next(found)
    worker.create("note", "too late", None)
    rest = list(found)
    assert len(rest) + 1 == before
    assert all(shared.get(each.id) == each for each in [first, *rest[:10], *rest[-10:]])
    assert [each.id for each in rest[-1_100:]] == ids


def test_what_has_no_findings_is_told_in_one_line(
    run: Callable[..., Shell], shared: SharedStore
) -> None:
    """An unknown run, store or file, a wrong query, and another document exit with 2."""
    run("ask", "report.txt", QUESTION, "--save", "none.json", "--store-mode", "none")
    for words, message in [
        (("search", "gone"), "there is no run 'gone' in this storage"),
        (("search", "gone.json"), "there is no file 'gone.json'"),
        (("search", "x", "--storage", "gone"), "there is no storage in 'gone'"),
        (("search", "gone", "--shared"), "there is no shared store 'gone' in this storage"),
        (("search", "a/b", "--shared"), "a store's name must be 1 to 64 letters"),
        (("summary", "none.json"), "run 'none.json' has no store"),
        (("export", "run.json"), "are in the shared store 'vaults': name it with --shared"),
        (("search", RUN_ID, "dam"), 'column 1: a single word is not a term: write desc~"…"'),
        (("search", RUN_ID, "dam"), "or use --text for free text"),
        (("search", RUN_ID, "type=x", "--text", "y"), "a QUERY and --text exclude each other"),
        (("search", RUN_ID, "--limit", "20000"), "limit must be"),
        (("search", RUN_ID, "--document", "other.txt"), "belongs to another document"),
        (("export", RUN_ID, "--json"), "--json needs -o"),
        (("export", RUN_ID, "-o", "no/such/file"), "--output 'no/such/file' cannot be written"),
    ]:
        code, out, err = run("store", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), (words, err)
        assert message in err
