"""Free text: FTS5 compared with reading everything, its limits, and Pythons without it."""

import math
import random
import sqlite3
import subprocess
import sys
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations.store import SharedStore, fulltext, text_index
from rlm_integrations.store.fulltext import FullText
from rlm_integrations.store.scan import Scan
from rlm_integrations.store.text import words
from tests.store.examples import examples

VOCABULARY = [f"{letter}{number}" for letter in "abc" for number in range(8)]


def filled(texts) -> SharedStore:
    store = SharedStore()
    worker = store.worker("w")
    for text in texts:
        worker.create("note", text, "")
    return store


def nothing(_row: int) -> bool:
    return False


@examples(60)
@given(
    st.lists(
        st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=12).map(" ".join),
        min_size=1,
        max_size=25,
    ),
    st.lists(st.sampled_from([*VOCABULARY, "absent"]), max_size=5).map(" ".join),
    st.sets(st.integers(0, 24)),
)
def test_the_score_is_bm25(texts: list[str], asked: str, skipped: set[int]) -> None:
    """FTS5 returns the rows and scores of BM25 by its definition, without skipped rows."""
    rows = filled(texts).backend.ledger.view.rows
    found = FullText().rank(rows, asked, 50, skipped.__contains__)
    expected = Scan().rank(rows, asked, 50, skipped.__contains__)
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])
    assert dict(found) == pytest.approx(dict(expected))
    mean = sum(len(text.split()) for text in texts) / len(texts)
    for row, score in found:
        tokens = texts[row].split()
        total = 0.0
        for word in dict.fromkeys(asked.split()):
            have = sum(word in text.split() for text in texts)
            weight = max(math.log((len(texts) - have + 0.5) / (have + 0.5)), 1e-6)
            total += (
                weight
                * tokens.count(word)
                * 2.2
                / (tokens.count(word) + 1.2 * (0.25 + 0.75 * len(tokens) / mean))
            )
        assert score == pytest.approx(total)


def test_a_small_limit_is_the_head_of_a_large_one() -> None:
    """A small limit returns the first results of a large one, even with skipped rows at the front
    and in any order of creation.
    """
    pick = random.Random(1)
    rows = filled(
        [" ".join(pick.choices(VOCABULARY, k=6)) for _ in range(500)]
    ).backend.ledger.view.rows
    index = FullText()
    every = index.rank(rows, "a1 b2 c3", 500, nothing)
    assert index.rank(rows, "a1 b2 c3", 10, nothing) == every[:10]
    skipped = {row for row, _ in every[:100]}
    assert index.rank(rows, "a1 b2 c3", 10, skipped.__contains__) == every[100:110]


def test_rare_words_decide_in_a_large_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above `SCORED` objects, those with the rare word rank first, among them those that also have
    the common one; others fill the rest.
    """
    monkeypatch.setattr(fulltext, "SCORED", 20)
    texts = ["common filler"] * 100
    texts[3], texts[50] = "rare filler", "rare common"
    rows = filled(texts).backend.ledger.view.rows
    found = [row for row, _ in FullText().rank(rows, "common rare", 6, nothing)]
    assert found[:2] == [50, 3]
    assert found[2:] == [99, 98, 97, 96]  # of equal ones the newest


def test_common_words_are_searched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all words are common, objects with all of them rank first, however old they are."""
    monkeypatch.setattr(fulltext, "SCORED", 20)
    texts = ["left filler", "right filler"] * 50
    texts[1] = "left right"
    found = FullText().rank(filled(texts).backend.ledger.view.rows, "left right", 5, nothing)
    assert found[0][0] == 1
    assert len(found) == 5


def test_invalid_objects_do_not_crowd_out_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of the newest matches are skipped, older ones are found."""
    monkeypatch.setattr(fulltext, "SCORED", 10)
    rows = filled(["left filler", "right filler"] * 200).backend.ledger.view.rows
    assert [row for row, _ in FullText().rank(rows, "left right", 3, lambda row: row >= 7)] == [
        6,
        5,
        4,
    ]


def test_words_that_all_objects_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word in very many objects does not count together with others; alone it returns the newest
    objects.
    """
    monkeypatch.setattr(fulltext, "COMMON_WORD_OBJECTS", 30)
    texts = ["the thing"] * 50
    texts[10] = "the zebra"
    index = FullText()
    rows = filled(texts).backend.ledger.view.rows
    assert [row for row, _ in index.rank(rows, "the zebra", 5, nothing)] == [10]
    assert index.rank(rows, "the", 3, lambda row: row == 49) == [(48, 1e-6), (47, 1e-6), (46, 1e-6)]


def test_words() -> None:
    """Each distinct word counts once, up to 32 words; scripts without spaces are split into pairs
    of characters.
    """
    assert words("PPO ppo, trpo!") == ["ppo", "trpo"]
    assert words("a中国的b x国") == ["a", "中 国", "国 的", "b", "x", "国"]
    assert len(words(" ".join(map(str, range(100))))) == 32
    assert words("a_b " + "x" * 201) == ["a", "b"]


def test_indexes_are_updated_and_not_rebuilt() -> None:
    """A search after more writes indexes only the new objects."""
    store = filled(["one two three"] * 10)
    rows = store.backend.ledger.view.rows
    index = FullText()
    assert len(index.rank(rows, "one", 50, nothing)) == 10
    statements: list[str] = []
    index._db.set_trace_callback(statements.append)
    store.worker("w").create("note", "one more", "")
    assert len(index.rank(rows, "one", 50, nothing)) == 11
    assert sum(text.startswith("INSERT INTO words(rowid") for text in statements) == 1


def test_a_failed_index_update_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """If indexing fails halfway, nothing of it is kept, and the next search indexes all rows."""
    rows = filled(["one two"] * 200).backend.ledger.view.rows
    index = FullText()
    real, calls = fulltext.searchable_text, []

    def failing(event):
        calls.append(event)
        if len(calls) == 150:
            raise MemoryError
        return real(event)

    monkeypatch.setattr(fulltext, "searchable_text", failing)
    with pytest.raises(MemoryError):
        index.rank(rows, "one", 50, nothing)
    assert len(index.rank(rows, "one", 500, nothing)) == 200


def test_trigrams_never_miss() -> None:
    """The rows found by trigrams include every row that contains the needle, in order, for any
    characters.
    """
    pick = random.Random(2)
    texts = ["".join(pick.choices('abcß"\0\ud800中 ', k=pick.randint(0, 30))) for _ in range(6_000)]
    rows = filled(texts).backend.ledger.view.rows
    index = FullText()
    for length in (3, 4, 7, 12, 25):
        text = max(texts[:200], key=len).casefold()
        needle = text[:length]
        for newest_first in (True, False):
            portions = index.holding(rows, "desc", [needle], newest_first=newest_first)
            assert portions is not None
            found = [row for portion in portions for row in portion]
            assert found == sorted(found, reverse=newest_first)
            assert {row for row, each in enumerate(texts) if needle in each.casefold()} <= set(
                found
            )


def test_small_stores_and_short_needles_are_read() -> None:
    """No index is built if reading is as fast, or if a needle has no trigram."""
    index = FullText()
    assert (
        index.holding(
            filled(["abc"] * 10).backend.ledger.view.rows, "desc", ["abc"], newest_first=True
        )
        is None
    )
    assert (
        index.holding(
            filled(["abc"] * 6_000).backend.ledger.view.rows,
            "desc",
            ["abc", "ab"],
            newest_first=True,
        )
        is None
    )


class WithoutFts5:
    def __init__(self) -> None:
        raise sqlite3.OperationalError("no such module: fts5")


@pytest.mark.parametrize("lacking", ["fts5", "sqlite"])
def test_without_fts5_everything_is_read(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """If Python lacks SQLite, or SQLite lacks FTS5, a warning says so, and all searches return the
    same results.
    """
    texts = ["ppo beats trpo", "trpo alone", "nothing"]
    expected = {card["id"]: card["score"] for card in filled(texts).search_text("trpo beats")}
    if lacking == "fts5":
        monkeypatch.setattr(text_index, "FullText", WithoutFts5)
    else:
        monkeypatch.setitem(sys.modules, "sqlite3", None)
    store = filled(texts)
    with pytest.warns(
        RuntimeWarning,
        match=f"this Python lacks full-text search .*{lacking}.*: text searches read every object",
    ):
        found = store.search_text("trpo beats")
    assert {card["id"]: card["score"] for card in found} == pytest.approx(expected)
    assert [card["id"] for card in found] == list(expected)
    assert store.search_text("") == []
    assert [card["id"] for card in store.search("desc~trpo")] == ["w_000002", "w_000001"]


def test_the_index_is_closed_with_its_store() -> None:
    """Nothing stays open after a store is freed, whichever thread built its index."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = filled(["abc"])
        thread = threading.Thread(target=store.search_text, args=("abc",))
        thread.start()
        thread.join()
        assert len(store.search_text("abc")) == 1
        database = store.backend._index()._db
        del store
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            database.execute("SELECT 1")


def test_sqlite_is_loaded_when_it_is_needed() -> None:
    """Importing and writing do not load SQLite; the first free-text search does."""
    code = (
        "import sys; from rlm_integrations.store import SharedStore; store = SharedStore(); store.worker('w').create('note', 'd', 'c');"
        "store.search('type=note desc~d'); print('sqlite3' in sys.modules); store.search_text('d'); print('sqlite3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
