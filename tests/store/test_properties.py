"""Random histories: the view always equals the log, and every search finds what reading all objects
finds.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations.store import SharedStore, fulltext
from rlm_integrations.store.commit import apply_commit
from rlm_integrations.store.query import parse_query
from rlm_integrations.store.view import View
from tests.store.examples import examples

WORDS = ["ppo", "trpo", "Straße", "atari", "a b", "中国", 'q"q', "x"]
TYPES, TAGS, WORKERS = ["note", "claim"], ["red", "green", "blue"], ["a", "b"]

texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
contents = st.one_of(
    texts,
    st.dictionaries(texts, st.one_of(texts, st.integers(), st.none()), max_size=2),
    st.lists(texts, max_size=2),
)
picks = st.integers(0, 10**6)
creates = st.tuples(
    st.just("create"),
    st.sampled_from(TYPES),
    texts,
    contents,
    st.lists(picks, max_size=2),
    st.lists(st.sampled_from(TAGS), max_size=3),
)
links = st.tuples(
    st.just("link"), st.sampled_from(["supports", "contradicts", "refines"]), picks, picks
)
invalidations = st.tuples(st.just("invalidate"), picks)
commits = st.tuples(
    st.just("commit"), st.sampled_from(["c1", "c2"]), st.sampled_from(["", "p"]), texts, picks
)
operations = st.one_of(creates, creates, links, invalidations, commits)
histories = st.lists(st.tuples(st.sampled_from(WORKERS), operations), max_size=30)


def perform(store: SharedStore, worker: str, operation: tuple) -> None:
    """Perform one operation; numbers select among the existing objects."""
    proxy = store.worker(worker)
    ids = [card["id"] for card in store.view("invalid=any sort=oldest", 10_000)]
    match operation:
        case "create", kind, description, content, parents, tags:
            proxy.create(
                kind,
                description,
                content,
                parents=[ids[pick % len(ids)] for pick in parents] if ids else [],
                tags=tags,
            )
        case "link", kind, src, dst if ids:
            proxy.link(kind, ids[src % len(ids)], ids[dst % len(ids)])
        case "invalidate", pick if ids:
            proxy.invalidate(ids[pick % len(ids)], "because")
        case "commit", commit_id, prefix, text, pick:
            target = ids[pick % len(ids)] if ids else None
            creates = [
                {"id": "1", "type": "note", "description": text, "parents": ["2"]},
                {"id": "2", "type": "claim", "content": [text]},
            ]
            links = [{"type": "supports", "src": "1", "dst": target or "2"}]
            updates = [{"target": target, "why": text}] if target else []
            commit = {
                "commit_id": commit_id,
                "creates": creates,
                "links": links,
                "proposes_updates": updates,
            }
            apply_commit(proxy, commit, prefix)


def built(history: list[tuple[str, tuple]]) -> SharedStore:
    store = SharedStore()
    for worker, operation in history:
        perform(store, worker, operation)
    return store


@examples(100)
@given(histories)
def test_the_rebuilt_view_equals_the_live_one(history: list[tuple[str, tuple]]) -> None:
    """After any history, and halfway through it, a view rebuilt from the log equals the live one in
    every index and count.
    """
    store = built(history)
    events = list(store.backend.ledger.log.since(0))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert View(events).state() == store.backend.ledger.view.state()
    half = View(events[: len(events) // 2])
    for event in events[len(events) // 2 :]:
        half.apply(event)
    assert half.state() == store.backend.ledger.view.state()


@examples(25)
@given(st.lists(histories, min_size=2, max_size=4))
def test_the_rebuilt_view_equals_the_live_one_after_any_interleaving(
    some: list[list[tuple[str, tuple]]],
) -> None:
    """The same applies when several threads write at once; nothing is lost, and each worker's
    numbers have no gaps.
    """
    store = SharedStore()

    def write(number: int) -> None:
        for worker, operation in some[number]:
            perform(store, f"{worker}{number}", operation)

    with ThreadPoolExecutor(len(some)) as pool:
        list(pool.map(write, range(len(some))))
    assert View(store.backend.ledger.log.since(0)).state() == store.backend.ledger.view.state()
    for number, history in enumerate(some):
        for worker in WORKERS:
            made = sum(name == worker and operation[0] == "create" for name, operation in history)
            cards = store.view(f"worker={worker}{number} invalid=any sort=oldest", 10_000)
            assert [card["id"] for card in cards if "/" not in card["id"]] == [
                f"{worker}{number}_{at:06d}" for at in range(1, made + 1)
            ]


def counted(values: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in values.items() if count}


@examples(100)
@given(histories)
def test_counts_are_those_of_the_objects(history: list[tuple[str, tuple]]) -> None:
    """The maintained summary equals a count over all objects, the highest count first."""
    store = built(history)
    summary = store.summary("", 10_000)
    cards = store.view("", 10_000)
    assert summary["total"] == len(cards) == len(store)
    assert summary["types"] == counted(
        {kind: sum(card["type"] == kind for card in cards) for kind in [*TYPES, "proposal"]}
    )
    assert summary["tags"] == counted(
        {tag: sum(tag in card["tags"] for card in cards) for tag in TAGS}
    )
    assert list(summary["tags"].values()) == sorted(summary["tags"].values(), reverse=True)


terms = st.one_of(
    st.sampled_from(TYPES).map("type={}".format),
    st.sampled_from(TAGS).map("tag={}".format),
    st.sampled_from(
        [
            "tag=red|blue",
            "-type=note",
            "-tag=green",
            "worker=a",
            "-worker=b",
            "parent=a_000001|b_000001",
            "-parent=a_000001",
        ]
    ),
    st.sampled_from(
        [
            "supports=a_000001|b_000001",
            "-refines=a_000001",
            "id=a_000001|b_000002",
            "invalid=any",
            "invalid=yes",
        ]
    ),
    st.tuples(
        st.sampled_from(["desc", "text", "-desc", "-text"]),
        st.text('potrasSßße 中国q"x', min_size=1, max_size=5),
    ).map(lambda pair: f"{pair[0]}~{json.dumps(pair[1], ensure_ascii=False)}"),
    st.sampled_from(
        ['desc~"atari"|"straße"', "text~STRASSE|trpo", "sort=oldest", "sort=description", "limit=2"]
    ),
)


def holds(store: SharedStore, card: dict, term) -> bool:
    """Whether an object satisfies a term, by its definition."""
    found = store.get(card["id"])
    text = found.content if isinstance(found.content, str) else "\n".join(strings(found.content))
    linking = {dst for kind, dst in found.links if kind == term.key}
    has = {
        "type": {found.type}, "worker": {found.worker}, "id": {found.id}, "tag": set(found.tags), "parent": set(found.parents)
    }.get(term.key, linking)  # fmt: skip
    if term.key in {"desc", "text"}:
        whole = (found.description if term.key == "desc" else text).casefold()
        return any(value.casefold() in whole for value in term.values) != term.negated
    return bool(has & set(term.values)) != term.negated


def strings(value) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in [key, *strings(item)]]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [] if value is None else [str(value)]


@pytest.mark.parametrize("indexed", [False, True], ids=["read", "indexed"])
@examples(150)
@given(history=histories, asked=st.lists(terms, max_size=4))
def test_a_query_finds_what_reading_all_finds(
    indexed: bool, history: list[tuple[str, tuple]], asked: list[str]
) -> None:
    """Whichever index is used, a query returns exactly the objects that satisfy every term, in the
    requested order.
    """
    text = " ".join(dict.fromkeys(asked))
    if (
        sum("type=" in term and term[0] != "-" for term in dict.fromkeys(asked)) > 1
        or text.count("sort=") > 1
        or text.count("invalid=") > 1
    ):
        return
    with pytest.MonkeyPatch.context() as patch:
        if indexed:  # the trigrams are used from the first object
            patch.setattr(fulltext, "READ_BELOW_OBJECTS", {"desc": 0, "text": 0})
            patch.setattr("rlm_integrations.store.search.MAX_ROWS_READ", 0)
        store = built(history)
        query = parse_query(text)
        everything = store.view("invalid=any", 10_000)
        wanted = {"no": {False}, "yes": {True}, "any": {False, True}}[query.invalid]
        expected = [
            card
            for card in everything
            if ("invalid" in card) in wanted
            and all(holds(store, card, term) for term in query.terms)
        ]
        if query.sort == "oldest":
            expected.reverse()
        elif query.sort == "description":
            expected.sort(key=lambda card: card["description"])
        assert store.view(text, 10_000) == expected[: query.limit]
        assert store.summary(text, 10_000)["total"] == len(expected)
