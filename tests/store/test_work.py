"""The cost of queries: characters are counted before they are read, each object is casefolded once,
and no step is long.
"""

import unicodedata

import pytest

from rlm_integrations._concurrency.work import Work, WorkSpentError, WorkStoppedError
from rlm_integrations.errors import InputError
from rlm_integrations.store import SharedStore, fulltext, search, view
from rlm_integrations.store import text as text_module
from rlm_integrations.store.text import casefold_in_steps, words


def filled(*contents: object) -> SharedStore:
    store = SharedStore()
    worker = store.worker("w")
    for content in contents:
        worker.create("note", "a note", content, tags=["x"])
    return store


def work_of(store: SharedStore, query: str, most: int | None = None) -> int:
    """The number of characters that a query counts."""
    work = Work(most)
    with work.under_way():
        store.search(query)
    return work.spent


def test_each_object_is_folded_once_for_all_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query of twenty terms on the content casefolds each content once."""
    folded: list[str] = []

    def counted(text: str) -> str:
        folded.append(text)
        return casefold_in_steps(text)

    monkeypatch.setattr(text_module, "casefold_in_steps", counted)
    store = filled("Aé" * 100, "Bé" * 100, "Cé" * 100)
    found = store.search(" ".join(f'-text~"zz{number}"' for number in range(20)) + ' text~"bé"')
    assert [card["id"] for card in found] == ["w_000002"]
    assert sorted(folded) == ["Aé" * 100, "Bé" * 100, "Cé" * 100]


def test_a_query_reads_no_more_than_it_may() -> None:
    """Every term counts the characters that it compares; a query stops before it exceeds its limit,
    with an error that says what to do.
    """
    store = filled(*["x" * 1_000] * 10)
    rows = 10 * search.LOOKED_AT
    cards = 10 * view.RETURNED_CHAR_COST * (len("a note") + view.ENTRY_CHARS)
    assert work_of(store, 'text~"y"') == 2 * 10 * 1_000 + rows
    # The first term has decided
    assert work_of(store, 'text~"y" -text~"z"') == 2 * 10 * 1_000 + rows
    assert work_of(store, '-text~"y" -text~"z"') == 3 * 10 * 1_000 + rows + cards
    with pytest.raises(
        WorkSpentError,
        match="more than 5,000 characters at once: ask for less, or split the query",
    ):
        work_of(store, 'text~"y"', 5_000)
    assert work_of(store, "tag=x type=note") == 2 * rows + cards


def test_the_rows_of_many_alternatives_count() -> None:
    """Exact terms with alternatives merge their rows in steps that count, too."""
    store = SharedStore()
    worker = store.worker("w")
    for number in range(10):
        worker.create("note", "d", "c", tags=[f"a{number}", f"b{number}"])
    work = Work()
    with work.under_way():
        assert len(store.search("tag=" + "|".join(f"a{number}" for number in range(10)))) == 10
    assert work.spent >= 10 * search.UNITED


def test_returned_content_counts() -> None:
    """The objects of a list count with their content, which is sent to the caller; reads by users
    have no limit.
    """
    store = SharedStore()
    worker = store.worker("w")
    batch = worker.create("batch", "d", "")
    for _ in range(10):
        worker.create("note", "d", "x" * 1_000, parents=[batch])
    with Work(50_000).under_way(), pytest.raises(WorkSpentError):
        store.children(batch)
    assert len(store.children(batch)) == 10


def test_an_unfinished_index_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text search that stops before all new objects are indexed keeps the indexed ones, so that a
    later search can finish.
    """
    monkeypatch.setattr(fulltext, "PORTION", 500)
    store = filled(*[f"word{number} " + "x" * 1_000 for number in range(10)])
    refused = 0
    while True:
        try:
            with Work(3_000).under_way():
                found = store.search_text("word9")
        except WorkSpentError:
            refused += 1
        else:
            break
    assert [card["id"] for card in found] == ["w_000010"]
    assert 3 <= refused <= 10


def test_work_that_is_stopped_ends_at_its_next_step() -> None:
    """Work without a waiting caller stops at its next read."""
    store, work = filled("abc"), Work()
    work.stop()
    with work.under_way(), pytest.raises(WorkStoppedError):
        store.search('text~"b"')


def test_long_texts_are_folded_in_steps() -> None:
    """Casefolding in steps has the same result, wherever the string is split."""
    text = "Straße İzmir ΑΣ ﬁn \U00010400" * 10_000
    assert len(text) > 2 * text_module.STEP_CHARS
    assert casefold_in_steps(text) == text.casefold()
    assert text_module.spaced("漢字" * 100_000) == " 漢  字 " * 100_000


@pytest.mark.parametrize(
    "text", ["a" + "\u0301\u0316" * 49_000, "e\u0301" * 45_000, "\u0327\u0301" * 40 + " word"]
)
def test_marks_are_normalized_in_short_runs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalizing takes quadratic time in the length of a run of marks, so runs are split, and no
    character is normalized twice.
    """
    lengths: list[int] = []

    def counted(form: str, piece: str) -> str:
        lengths.append(len(piece))
        return unicodedata.normalize(form, piece)

    monkeypatch.setattr(text_module, "normalize", counted)
    words(text)
    assert max(lengths) <= text_module.PIECE
    assert sum(lengths) <= len(text)


def test_words_are_composed_before_they_are_searched() -> None:
    """A word matches itself whether its marks are composed or not."""
    store = filled("das Café dort")
    assert [card["id"] for card in store.search_text("Cafe\u0301")] == ["w_000001"]


@pytest.mark.parametrize(
    "content",
    [[[]] * 300_000, {"a": [{"b": [None] * 150_000}, [0] * 60_000]}, [[[]] * 1_000] * 300],
)
def test_an_object_holds_a_bounded_number_of_values(content: object) -> None:
    """Content with too many values is refused, because JSON is parsed and written in one step; the
    same characters as one string are accepted.
    """
    store = SharedStore()
    worker = store.worker("w")
    with pytest.raises(
        InputError,
        match="more than 200,000 values: split it over several objects, or make it one string",
    ):
        worker.create("note", "d", content)
    assert worker.create("note", "d", "[]," * 300_000) == "w_000001"
    assert worker.create("note", "d", [[0] * 400] * 400) == "w_000002"


def test_texts_count_with_their_size_in_memory() -> None:
    """Strings count with their size in memory: one wide character makes a string four times as
    large.
    """
    narrow, wide = SharedStore(max_size=100_000), SharedStore(max_size=100_000)
    for store, content, fit in ((narrow, "x" * 10_000, 9), (wide, "x" * 9_999 + "\U0001f600", 2)):
        worker = store.worker("w")
        with pytest.raises(InputError, match="the store is full"):
            for _ in range(20):
                worker.create("note", "d", content)
        assert len(store) == fit
