"""Commits: merged completely, once, under unique ids; or an `error`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import SpanRef
from rlm_integrations.store import SharedStore
from rlm_integrations.store.commit import apply_commit, commit_of
from tests.store.examples import examples


@pytest.fixture
def store():
    return SharedStore()


@pytest.fixture
def worker(store):
    worker = store.worker("root")
    worker.create("hypothesis", "H", "c")
    return worker


def commit(**changes) -> dict:
    creates = [
        {
            "id": "e1",
            "type": "evidence",
            "description": "a quote",
            "content": {"page": 15},
            "parents": ["s1"],
            "tags": ["x"],
        },
        {"id": "s1", "type": "source", "description": "the page", "parents": ["root_000001"]},
    ]
    links = [
        {"type": "supports", "src": "e1", "dst": "root_000001"},
        {"type": "refines", "src": "s1", "dst": "e1"},
    ]
    updates = [{"target": "root_000001", "description": "say it better", "content": "H2"}]
    return {
        "commit_id": "w7",
        "creates": creates,
        "links": links,
        "proposes_updates": updates,
        "error": None,
        **changes,
    }


def test_a_commit_is_merged_under_prefixed_ids(worker) -> None:
    """Ids are prefixed with the commit's id; parents and links may name objects of the commit, in
    any order, and of the store.
    """
    result = apply_commit(worker, commit())
    ids = {"e1": "w7/e1", "s1": "w7/s1"}
    assert result == {
        "commit_id": "w7",
        "created_ids": ids,
        "links_created": 2,
        "proposals_stored": 1,
        "error": None,
    }
    found = worker.get("w7/e1")
    assert (found.type, found.content, found.parents, found.tags, found.worker) == (
        "evidence",
        {"page": 15},
        ("w7/s1",),
        ("x",),
        "root",
    )
    assert found.links == (("supports", "root_000001"),)
    assert worker.get("w7/s1").links == (("refines", "w7/e1"),)
    assert worker.create("note", "d", "c") == "root_000002"


def test_a_proposed_update_is_an_object(worker) -> None:
    """A proposed update does not change its target; it is an object that refines the target and has
    all proposed fields.
    """
    apply_commit(worker, commit())
    [card] = worker.view("refines=root_000001")
    assert (card["id"], card["type"], card["description"], card["parents"]) == (
        "w7/proposal.1",
        "proposal",
        "say it better",
        ["root_000001"],
    )
    assert worker.get(card["id"]).content == {
        "target": "root_000001",
        "description": "say it better",
        "content": "H2",
    }
    assert worker.get("root_000001").description == "H"


def test_merging_twice_is_merging_once(store, worker) -> None:
    """The second merge writes nothing, whichever worker merges, and returns the same ids."""
    first = apply_commit(worker, commit())
    before = worker.events_since(0)
    again = apply_commit(store.worker("other"), json.loads(json.dumps(commit())))
    assert again == {**first, "links_created": 0, "proposals_stored": 0}
    assert worker.events_since(0) == before


def test_a_prefix_distinguishes_equal_commits(worker) -> None:
    """The same ids under another prefix are different objects; under the same prefix, different
    content is an error.
    """
    assert apply_commit(worker, commit(), "doc_1")["created_ids"]["e1"] == "doc_1/w7/e1"
    assert apply_commit(worker, commit(), "wave/doc_2")["created_ids"]["e1"] == "wave/doc_2/w7/e1"
    changed = commit(
        creates=[{"id": "e1", "type": "evidence", "description": "another quote"}],
        links=[],
        proposes_updates=[],
    )
    before = worker.events_since(0)
    assert (
        "another object is called 'doc_1/w7/e1'" in apply_commit(worker, changed, "doc_1")["error"]
    )
    assert worker.events_since(0) == before
    assert apply_commit(worker, changed, "doc_3")["error"] is None


def test_an_extended_commit_adds_only_new_objects(worker) -> None:
    """Merging an extended commit adds only its new objects."""
    apply_commit(worker, commit())
    grown = commit(creates=[*commit()["creates"], {"type": "note", "description": "third"}])
    result = apply_commit(worker, grown)
    assert result["created_ids"]["3"] == "w7/3"
    assert worker.get("w7/3").description == "third"


def test_spans_of_a_commit_are_checked() -> None:
    """A commit's spans, in their JSON form, must be inside the document, and are lifted like the
    worker's own.
    """
    with Corpus.build(["nothing", "the zebra"]) as corpus:
        worker = SharedStore(corpus).worker(
            "w", lift=lambda span: SpanRef("context_1", span.start, span.end)
        )
        entry = {
            "id": "e",
            "type": "evidence",
            "backrefs": [{"source": "context_0", "start": 4, "end": 9}],
        }
        assert apply_commit(worker, {"commit_id": "c", "creates": [entry]})["error"] is None
        assert worker.trace("c/e")[0]["spans"][0]["text"] == "zebra"
        entry = {
            "id": "e",
            "type": "evidence",
            "backrefs": [{"source": "context_0", "start": 4, "end": 99}],
        }
        assert (
            "creates[0]: 'context_1' has 9 characters"
            in apply_commit(worker, {"commit_id": "d", "creates": [entry]})["error"]
        )


BAD = {
    "no dict": ("creates", "a commit must be a dict"),
    "nothing": (None, "a commit must be a dict"),
    "a failed worker": (
        commit(error="Error: timeout"),
        "the worker failed, so there is nothing to apply: 'Error: timeout'",
    ),
    "no commit_id": ({"creates": []}, "commit_id must be a string"),
    "an empty commit_id": (commit(commit_id=" "), "commit_id must not be empty"),
    "a slash in the commit_id": (commit(commit_id="a/b"), "slashes"),
    "an unknown field": (commit(created=[]), "the commit has no field 'created'"),
    "creates that are no list": (commit(creates={"id": "e1"}), "creates must be a list"),
    "too many creates": (commit(creates=[{}] * 1_001), "at most 1,000"),
    "a create that is not a dict": (commit(creates=["e1"]), "creates[0] must be a dict"),
    "a create without a type": (
        commit(creates=[{"id": "e1"}]),
        "creates[0]: type must be a string, not None",
    ),
    "a create with an unknown field": (
        commit(creates=[{"id": "e1", "type": "t", "confidence": 1}]),
        "creates[0] has no field 'confidence'",
    ),
    "the same id twice": (
        commit(creates=[{"id": "e1", "type": "t"}] * 2),
        "creates[1].id: 'e1' is used twice",
    ),
    "an id that is a number": (
        commit(creates=[{"id": 1, "type": "t"}]),
        "creates[0].id must be a string, not 1",
    ),
    "content that is not JSON": (
        commit(creates=[{"id": "e1", "type": "t", "content": {1, 2}}]),
        "creates[0]: content must be JSON",
    ),
    "an unknown parent": (
        commit(creates=[{"id": "e1", "type": "t", "parents": ["gone"]}]),
        "creates[0]: parents[0]: no object has the id 'gone'",
    ),
    "parents of each other": (
        commit(
            creates=[
                {"id": "a", "type": "t", "parents": ["b"]},
                {"id": "b", "type": "t", "parents": ["a"]},
            ]
        ),
        "each other's parents",
    ),
    "its own parent": (
        commit(creates=[{"id": "a", "type": "t", "parents": ["a"]}]),
        "each other's parents",
    ),
    "a link of an unknown kind": (
        commit(links=[{"type": "likes", "src": "e1", "dst": "s1"}]),
        "links[0].type must be one of supports",
    ),
    "a link to nothing": (
        commit(links=[{"type": "supports", "src": "e1"}]),
        "links[0].dst: no object has the id None",
    ),
    "a link with an unknown field": (
        commit(links=[{"type": "supports", "from": "e1"}]),
        "links[0] has no field 'from'",
    ),
    "an update of nothing": (
        commit(proposes_updates=[{"field": "x"}]),
        "proposes_updates[0].target: no object has the id None",
    ),
    "an update with a bad description": (
        commit(proposes_updates=[{"target": "e1", "description": 5}]),
        "proposes_updates[0]: description",
    ),
    "an object named like a proposal": (
        commit(creates=[{"id": "proposal.1", "type": "t"}], links=[]),
        "name the object",
    ),
    "a hostile key": (commit(**{"x" * 10_000: 1}), "the commit has no field 'xxx"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_commit_returns_an_error(worker, case: str) -> None:
    """The `error` says what is wrong and where; nothing is raised, and nothing of the commit is
    written.
    """
    bad, message = BAD[case]
    before = worker.events_since(0)
    result = apply_commit(worker, bad)
    assert message in result["error"]
    assert len(result["error"]) < 400
    assert (result["created_ids"], result["links_created"], result["proposals_stored"]) == (
        {},
        0,
        0,
    )
    assert worker.events_since(0) == before


@pytest.mark.parametrize("prefix", [5, "a//b", "/", "a\n", "x" * 201])
def test_a_malformed_prefix_returns_an_error(worker, prefix) -> None:
    """The prefix is checked like every part of an id."""
    assert "batch_prefix" in apply_commit(worker, commit(), prefix)["error"]


def test_a_full_store_returns_an_error() -> None:
    """A commit that does not fit into the store writes nothing."""
    worker = SharedStore(max_size=2_500).worker("w")
    result = apply_commit(
        worker,
        {
            "commit_id": "c",
            "creates": [{"type": "t"}] * 2 + [{"type": "t", "content": "x" * 1_000}],
        },
    )
    assert "full" in result["error"]
    assert worker.view() == []


@examples(100)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["commit_id", "creates", "links", "proposes_updates", "error", "id", "type", "src", "dst", "parents", "target"]), inner
)))  # fmt: skip
def test_no_commit_raises(value) -> None:
    """Any JSON value is merged or returns an error."""
    worker = SharedStore().worker("w")
    result = apply_commit(worker, value)
    assert (result["error"] is None) or worker.events_since(0) == []
    apply_commit(worker, commit_of(value, "c"))


@pytest.mark.parametrize(
    "reply",
    [
        {"creates": [{"type": "t"}]},
        '{"creates": [{"type": "t"}]}',
        'Here it is:\n```json\n{"creates": [{"type": "t"}]}\n```\nDone {not this}.',
        'I found {a} and {"this": 1}, so: {"creates": [{"type": "t"}]} is all.',
        '```\n{"other": 1}\n```\n{"creates": [{"type": "t"}]}',
    ],
)
def test_a_reply_with_a_commit(worker, reply) -> None:
    """The commit in a worker's answer is found as a dict, as JSON, in a fence or within prose, and
    gets an id if it has none.
    """
    found = commit_of(reply, "w1")
    assert found == {
        "commit_id": "w1",
        "creates": [{"type": "t"}],
        "links": [],
        "proposes_updates": [],
        "error": None,
    }
    assert apply_commit(worker, found)["created_ids"] == {"1": "w1/1"}


@pytest.mark.parametrize(
    "reply",
    ["", "just words", "{", '{"a": 1}', {}, None, 7, ["creates"], "{" * 100_000, "```{" * 100_000],
)
def test_a_reply_without_a_commit(worker, reply) -> None:
    """Any other answer is an empty commit with an `error`, and applying it returns an error too."""
    found = commit_of(reply, "w1")
    assert found["error"].startswith("the worker's answer is not a commit")
    assert "not a commit" in apply_commit(worker, found)["error"]
