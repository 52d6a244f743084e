"""The places of texts in the document: quotes, and the document's text in prompts."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus, reading, single_spaced
from rlm_integrations.corpus import spans as module
from rlm_integrations.corpus.likely_parts import LikelyParts
from rlm_integrations.corpus.short_parts import ShortParts
from rlm_integrations.corpus.spans import Hit, Locator, find_quote
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.prompt_pieces import PromptPieces, literal
from rlm_integrations.records import SpanRef


def words(count: int, seed: int = 1, character: str = "") -> str:
    """Text in which no forty characters occur twice."""
    draw = random.Random(seed)
    return " ".join(
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyz" + character, k=draw.randint(2, 9)))
        for _ in range(count)
    )


# Quotes


def test_a_quote_is_found_exactly() -> None:
    """An exact quote is found in any source."""
    with Corpus.build(["nothing here", "she said so, twice"]) as corpus:
        assert find_quote(corpus, "said so") == [Hit(SpanRef("context_1", 4, 11), exact=True)]


def test_a_quote_is_found_across_white_space() -> None:
    """Different white space between the words still matches, and the span is that of the document's
    text.
    """
    text = "first line\r\n\tsecond\u00a0 line, end"
    with Corpus.build(text) as corpus:
        (hit,) = find_quote(corpus, "  line second line,\n")
        assert not hit.exact
        assert (
            corpus.text(hit.span.source, hit.span.start, hit.span.end)
            == "line\r\n\tsecond\u00a0 line,"
        )


def test_an_exact_place_is_preferred() -> None:
    """If the quote occurs exactly, places with other white space do not count."""
    with Corpus.build("one  two, one two") as corpus:
        assert find_quote(corpus, "one two") == [Hit(SpanRef("context_0", 10, 17), exact=True)]


def test_an_ambiguous_quote_has_several_places() -> None:
    """A quote that occurs several times returns two places, or as many as requested; overlapping
    ones count.
    """
    with Corpus.build(["aXbXc", "X", "aaa"]) as corpus:
        assert [hit.span for hit in find_quote(corpus, "X")] == [
            SpanRef("context_0", 1, 2),
            SpanRef("context_0", 3, 4),
        ]
        assert len(find_quote(corpus, "X", limit=9)) == 3
        assert len(find_quote(corpus, "X", limit=1)) == 1
        assert len(find_quote(corpus, "aa")) == 2
    with Corpus.build("b  c b \n c") as corpus:
        assert [hit.exact for hit in find_quote(corpus, "b c")] == [False, False]


def test_a_quote_in_one_source() -> None:
    """The source can be given; an unknown one is an error."""
    with Corpus.build(["the words", "the words"]) as corpus:
        assert find_quote(corpus, "words", "context_1") == [
            Hit(SpanRef("context_1", 4, 9), exact=True)
        ]
        with pytest.raises(InputError, match="there is no source 'context_7'"):
            find_quote(corpus, "words", "context_7")


@pytest.mark.parametrize("quote", ["", " \n ", "absent", "words the", "a.c", "two(", "\\w+"])
def test_a_quote_that_is_not_there(quote: str) -> None:
    """A quote that is not in the document, or without words, has no place, and is never treated as
    a pattern.
    """
    with Corpus.build("the words abc two") as corpus:
        assert find_quote(corpus, quote) == []


def test_special_characters_match_literally() -> None:
    """Special characters of patterns match literally."""
    with Corpus.build("f(x)  [a-z]* $5.00?") as corpus:
        (hit,) = find_quote(corpus, "f(x) [a-z]* $5.00?")
        assert hit.span == SpanRef("context_0", 0, 19)


def test_white_space_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are found with any amount of white space between them, even more than a step."""
    monkeypatch.setattr(single_spaced, "STEP", 64)
    for count in (1, 63, 64, 65, 1_000):
        with Corpus.build("x a" + " " * count + "\nb x") as corpus:
            assert [hit.span for hit in find_quote(corpus, "a b")] == [
                SpanRef("context_0", 2, count + 5)
            ]


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("0 " * 100_000, " ".join(["0"] * 2_000) + " 1"),
        ("0  " * 60_000, " ".join(["0"] * 4_000) + " 1"),
        ("0\n" * 60_000, "1 " + " ".join(["0"] * 40_000)),
        (" " * 300_000, "0 " * 10_000),
        ("a" * 300_000, "a" * 50_000 + "b"),
    ],
)
def test_a_quote_of_repeated_words_costs_as_much_as_any(
    text: str, quote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any document and quote, the searched characters are at most a few times the document, in
    steps of bounded size.
    """
    searched: list[int] = []
    find = single_spaced.find_in_steps

    def counted(text: str, needle: str, start: int = 0) -> int:
        searched.append(len(text) - start + len(needle))
        return find(text, needle, start)

    monkeypatch.setattr(single_spaced, "find_in_steps", counted)
    with Corpus.build(text) as corpus:
        assert find_quote(corpus, quote) == []
    assert sum(searched) <= 6 * (len(text) + len(quote))
    assert max(searched, default=0) <= module._WINDOW_CHARS + 3 * len(quote)


@settings(deadline=None, max_examples=150)
@given(
    st.text("ab \n\u20ac", max_size=60),
    st.text("ab \u20ac", min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_windows_make_no_difference(text: str, quote: str, window: int) -> None:
    """The same places are found with windows of any size."""
    places = [at for at in range(len(text)) if text.startswith(quote, at)] if quote.strip() else []
    with pytest.MonkeyPatch.context() as patch, Corpus.build(text) as corpus:
        patch.setattr(module, "_WINDOW_CHARS", window)
        patch.setattr(single_spaced, "STEP", window)
        hits = find_quote(corpus, quote, limit=1000)
        if places or not quote.strip():
            assert [hit.span.start for hit in hits] == places
            assert all(hit.exact for hit in hits)
        else:
            assert bool(hits) == (" ".join(quote.split()) in " ".join(text.split()))
            assert all(text[hit.span.start : hit.span.end].split() == quote.split() for hit in hits)
            assert len(set(hits)) == len(hits)


@pytest.mark.parametrize("window", range(1, 12))
def test_windows_make_no_difference_to_white_space(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place with other white space is found once, wherever the windows begin."""
    monkeypatch.setattr(module, "_WINDOW_CHARS", window)
    monkeypatch.setattr(single_spaced, "STEP", window)
    with Corpus.build("#a \n b" * 3) as corpus:
        hits = find_quote(corpus, "a b", limit=9)
        assert [(hit.span.start, hit.span.end) for hit in hits] == [(1, 6), (7, 12), (13, 18)]


@given(st.text(" \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0ab", max_size=40) | st.text(max_size=20))
def test_white_space_is_made_uniform(text: str) -> None:
    """Any white space becomes one space between words; nothing else changes."""
    assert single_spaced.single_spaced(text) == " ".join(text.split())


# Prompts


def test_a_part_of_the_document_is_found_whole() -> None:
    """A prompt with a part of the document is recorded as its own text and the exact span, and is
    rebuilt exactly.
    """
    text = words(20_000)
    with Corpus.build(text) as corpus:
        locator = Locator(corpus)
        for start, length in ((0, 100), (12_345, 100), (777, 50_000), (len(text) - 100, 100)):
            prompt = f"# What is said here?\n\n{text[start : start + length]}#\nAnswer."
            pieces = locator.locate(prompt)
            assert pieces.pieces == (
                "# What is said here?\n\n",
                SpanRef("context_0", start, start + length),
                "#\nAnswer.",
            )
            assert pieces.ambiguous == ()
            assert pieces.text(corpus) == prompt


def test_several_parts_of_several_sources() -> None:
    """Parts of different sources are found in one prompt, in its order, at every width."""
    texts = [words(5000, 1), words(5000, 2, "\u20ac"), words(5000, 3, "\U0001f600")]
    with Corpus.build(texts) as corpus:
        prompt = f"{texts[2][100:900]}#{texts[0][50:300]}#{texts[1][1000:20_000]}"
        spans = (
            SpanRef("context_2", 100, 900),
            SpanRef("context_0", 50, 300),
            SpanRef("context_1", 1000, 20_000),
        )
        assert Locator(corpus).locate(prompt).spans == spans


def test_neighbouring_parts_are_one_span() -> None:
    """Parts that are adjacent in the document are one span."""
    text = words(5000)
    with Corpus.build(text) as corpus:
        assert Locator(corpus).locate(text[100:500] + text[500:900]).pieces == (
            SpanRef("context_0", 100, 900),
        )


def test_small_texts_of_a_list_are_found() -> None:
    """Every text of a list is found completely, however small it is."""
    texts = [words(12, seed) for seed in range(500)]
    with Corpus.build(texts) as corpus:
        locator = Locator(corpus)
        for number in (0, 250, 499):
            assert locator.locate(f"## {texts[number]} ##").spans == (
                SpanRef(f"context_{number}", 0, len(texts[number])),
            )


def test_a_made_up_prompt_has_no_spans() -> None:
    """Text that is not the document's is recorded as text, as are empty and very short prompts."""
    with Corpus.build(words(5000)) as corpus:
        locator = Locator(corpus)
        for prompt in ("", "Hi", words(300, seed=9)):
            assert locator.locate(prompt).pieces == ((prompt,) if prompt else ())


def test_an_empty_document() -> None:
    """A document without text is part of no prompt."""
    for context in ("", [], ["", ""]):
        with Corpus.build(context) as corpus:
            assert Locator(corpus).locate("x" * 100).pieces == ("x" * 100,)


def test_repeated_text_is_ambiguous_and_the_nearest_is_taken() -> None:
    """Repeated text is marked as ambiguous; the place nearest to the last span is used, of this
    prompt or the previous one.
    """
    # As long as four strides, so that each copy is indexed at the same places
    page = words(64, seed=5)[:256]
    assert len(page) == 256
    text = page + words(2000, 1)[: 64 * 100] + page + words(2000, 2)[: 64 * 100] + page
    second, third = 256 + 6400, 2 * (256 + 6400)
    with Corpus.build(text) as corpus:
        locator = Locator(corpus)
        assert locator.stride == 64
        first = locator.locate(page)
        assert (first.pieces, first.ambiguous) == ((SpanRef("context_0", 0, 256),), (0,))
        near_second = locator.locate(f"# {text[second + 300 : second + 600]}# {page}")
        assert near_second.spans[-1] == SpanRef("context_0", second, second + 256)
        assert near_second.ambiguous == (3,)
        assert locator.locate(page, after=SpanRef("context_0", third - 500, third - 300)).spans == (
            SpanRef("context_0", third, third + 256),
        )


def test_a_place_in_the_likely_parts_is_preferred() -> None:
    """Of several places with the same text, one in the parts that a run reads is taken, however far
    it is from the last one, and in any number of parts.
    """
    page = words(40, seed=5)
    text = "".join(page + words(60, seed) for seed in range(10, 40))
    places = [at for at in range(len(text)) if text.startswith(page, at)]
    with Corpus.build(text) as corpus:
        locator = Locator(corpus)
        for at in (places[0], places[17], places[-1]):
            spans = [SpanRef("context_0", at - 5 * n, at + len(page)) for n in range(3) if at >= 10]
            within = locator.likely_parts(spans or [SpanRef("context_0", 0, len(page))])
            found = locator.locate(f"# {page}#", within=within)
            assert found.pieces == ("# ", SpanRef("context_0", at, at + len(page)), "#")
            assert found.ambiguous == (1,)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8), st.integers(-2, 33))
def test_likely_parts_contain_what_one_of_them_contains(
    parts: list[tuple[int, int]], place: int
) -> None:
    """For any parts, overlapping or empty."""
    assert (place in LikelyParts(parts)) == any(start <= place < end for start, end in parts)


@given(st.lists(st.text("ab c", max_size=20), max_size=6), st.text("ab c", max_size=60))
def test_short_parts_are_found_once_and_whole(parts: list[str], prompt: str) -> None:
    """The prompt stays the same, each part is found at most once, and what was found is the text of
    its place.
    """
    with Corpus.build(parts) as corpus:
        spans = [SpanRef(f"context_{n}", 0, len(text)) for n, text in enumerate(parts) if text]
        short = ShortParts(corpus, spans)
        found = [short.split(literal(prompt)) for _ in range(2)]
        assert [each.text(corpus) for each in found] == [prompt, prompt]
        seen = [span for each in found for span in each.spans]
        assert len(seen) == len(set(seen))
        if not seen:
            assert not any(text in prompt for text in parts if text)


def test_a_longer_match_replaces_what_it_covers() -> None:
    """A wrong place with the same beginning is replaced when more of the prompt shows the right
    one.
    """
    header = words(64, seed=5)[:128]
    body = words(2000, 1)[: 64 * 50]
    # The second header is between the index's places
    text = header + words(2000, 2)[: 64 * 50] + "#" * 30 + header + body
    start = 128 + 3200 + 30
    with Corpus.build(text) as corpus:
        assert Locator(corpus).locate(header + body).pieces == (
            SpanRef("context_0", start, start + 128 + 3200),
        )


def test_a_long_prompt_without_a_hit_is_sampled_and_still_finds_long_parts() -> None:
    """After much own text, a long part of the document is still found completely."""
    text = words(20_000)
    asked = 0

    class Counting(dict[str, int]):
        def __contains__(self, key: object) -> bool:
            nonlocal asked
            asked += 1
            return super().__contains__(key)

    with Corpus.build(text) as corpus:
        locator = Locator(corpus)
        locator._places = Counting(locator._places)
        prompt = words(120_000, seed=3) + "#" + text[1000:9000]
        assert locator.locate(prompt).spans == (SpanRef("context_0", 1000, 9000),)
    assert asked < len(prompt) / 3


def test_many_short_coincidences_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many phrases that are too short for a span do not cause a read of the document each."""
    reads = 0
    text = Corpus.text

    def counted(self: Corpus, source: str, start: int = 0, end: int | None = None) -> str:
        nonlocal reads
        reads += 1
        return text(self, source, start, end)

    with Corpus.build(
        "".join(f"the same words in every one {number:036d}" for number in range(2000))
    ) as corpus:
        locator = Locator(corpus)
        assert locator.stride == 64  # as long as a line, so that the phrase is what is indexed
        monkeypatch.setattr(Corpus, "text", counted)
        prompt = "".join(
            f"the same words in every line that is {number}\n" for number in range(5000)
        )
        assert locator.locate(prompt).pieces == (prompt,)
    assert 0 < reads < 7000  # one line of the prompt would take seven


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_prompt_is_rebuilt_exactly(data: st.DataObject) -> None:
    """For any prompt and any repetitive document, the pieces are the prompt, in order and without
    overlap.
    """
    line = st.sampled_from(
        [
            "=" * 50 + "\n",
            " " * 45,
            "2024-01-01 INFO started\n",
            "2024-01-01 INFO stopped\n",
            "\ud83d\ude00" * 30,
            "\u20acx",
        ]
    )
    texts = data.draw(st.lists(st.lists(line, max_size=30).map("".join), max_size=3))
    with Corpus.build(texts) as corpus:
        joined = "".join(texts)
        start = data.draw(st.integers(0, len(joined)))
        prompt = (
            data.draw(st.text(max_size=5))
            + joined[start:]
            + "".join(data.draw(st.lists(line, max_size=10)))
        )
        pieces = Locator(corpus).locate(prompt)
        assert pieces.text(corpus) == prompt
        assert all(isinstance(pieces.pieces[number], SpanRef) for number in pieces.ambiguous)


def test_the_index_reads_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places near the edges of a window are indexed like others."""
    monkeypatch.setattr(module, "_WINDOW_CHARS", 100)
    text = words(2000)
    with Corpus.build(text) as corpus:
        locator = Locator(corpus)
        for start in range(0, 2000, 37):
            assert locator.locate(text[start : start + 87]).spans == (
                SpanRef("context_0", start, start + 87),
            )


def test_another_document_is_refused() -> None:
    """Pieces rebuild their prompt only from their own document."""
    text = words(500)
    with Corpus.build(text) as corpus, Corpus.build(text.upper()) as other:
        pieces = Locator(corpus).locate(text[:300])
        with pytest.raises(ContextError, match="cannot be rebuilt"):
            pieces.text(other)


def test_a_large_file_that_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a document on disk has changed, locating a prompt is an error, never a wrong span."""
    monkeypatch.setattr(reading, "COPIED", 0)
    path = tmp_path / "a.txt"
    text = words(500)
    path.write_text(text, encoding="utf-8")
    with Corpus.build(path) as corpus:
        locator = Locator(corpus)
        path.write_text(text.upper() + "!", encoding="utf-8")
        with pytest.raises(ContextError, match="changed"):
            locator.locate(text[:300])


def test_pieces_are_plain_data() -> None:
    """Pieces are compared by value, and list their spans."""
    pieces = PromptPieces(("a", SpanRef("context_0", 0, 1)), (), "0" * 64)
    assert pieces == PromptPieces(("a", SpanRef("context_0", 0, 1)), (), "0" * 64)
    assert pieces.spans == (SpanRef("context_0", 0, 1),)
