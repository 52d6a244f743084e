"""Quotes as models write them are found if they clearly mean one place, and that place has the
document's exact text.
"""

import random
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus, hyphenation, single_spaced
from rlm_integrations.corpus import quotes as module
from rlm_integrations.corpus.quotes import MAX_GAP_CHARS, MAX_PLACES, fold_quote, locate_quote
from rlm_integrations.errors import InputError
from tests.engine.conftest import Scripted, check_citations, code, run

TEXT = (
    "Chapter 1. It was late. \u201cIt\u2019s a fine day \u2013 really\u201d, said Zoe\u0308,"
    " and left the Caf\u00e9 M\u00fcller.\n"
    "The long stra\u00dfe leads to the  river, past the mill that burned in 1911,"
    " and ends at the old bridge of Ravenna. "
    "Wait\u2026 was that all? The Dam was approved. The dam cost a lot. THE DAM COST A LOT."
)


def found(text: str, quote: str) -> list[str]:
    """The document's text at the places of a quote."""
    with Corpus.build(text) as corpus:
        return [
            corpus.text(hit.span.source, hit.span.start, hit.span.end)
            for hit in locate_quote(corpus, quote)
        ]


@pytest.mark.parametrize(
    ("quote", "words"),
    [
        # Straight for typographic
        ("It's a fine day - really", "It\u2019s a fine day \u2013 really"),
        # Another case, in quotation marks
        ("\u201cit\u2019s a fine day\u201d", "It\u2019s a fine day"),
        ("'chapter 1.'", "Chapter 1."),
        ("\u00abChapter 1.\u00bb", "Chapter 1."),
        ("`Chapter 1.`", "Chapter 1."),
        ("said Zo\u00eb", "said Zoe\u0308"),  # composed for decomposed
        ("Cafe\u0301 Mu\u0308ller", "Caf\u00e9 M\u00fcller"),  # decomposed for composed
        ("THE LONG STRASSE LEADS", "The long stra\u00dfe leads"),
        ("Wait... was that all?", "Wait\u2026 was that all?"),
        ("... leads to the river, past \u2026", "leads to the  river, past"),
        ("[...] Leads to the river, past [...]", "leads to the  river, past"),
        (
            "It was late ... said Zo\u00eb",
            "It was late. \u201cIt\u2019s a fine day \u2013 really\u201d, said Zoe\u0308",
        ),
        (
            "the long stra\u00dfe\u2026the mill that [\u2026] bridge of Ravenna",
            TEXT[TEXT.index("The long") : TEXT.index(" Wait") - 1],
        ),
    ],
)
def test_a_quote_as_models_write_it(quote: str, words: str) -> None:
    """Marks, accents, case, quotation marks and ellipses may differ; the result is the document's
    own text, to the last character.
    """
    assert found(TEXT, quote) == [words]
    assert TEXT.count(words) == 1


@pytest.mark.parametrize(
    ("quote", "why"),
    [
        ("The dAm cost a lot.", "two places in other cases"),
        ("long stras", "half of a character"),
        ("said zoe", "a character without its accent"),
        ("he Long Stra\u00dfe", "a part of a word"),
        ("the LONG stra\u00dfe lead", "a part of a word"),
        ("\u201c1.\u201d", "too short to mean one place"),
        ("The mill burned in 1911", "words left out without a mark"),
        ("bridge of Ravenna ... The long stra\u00dfe", "parts in another order"),
        ("was late ... a lot", "a part that is too short"),
        ("... \u2026 ...", "no words"),
        ("\u201c\u201d", "no words"),
        ("not in the document", "other words"),
    ],
)
def test_a_quote_that_does_not_clearly_mean_one_place(quote: str, why: str) -> None:
    """An ambiguous inexact quote has no place: a citation is never a guess."""
    assert found(TEXT, quote) == [], why


HYPHENATED = (
    "The infor-\nmation was well-\r\n  known, the ef\u00adfect of\nthe o\ufb03ce clear.\n"
    "A soft-\nware sys-\ntem may re-sign; a re-\u2010\nport is two hy\u2010\nphens.\n"
)


@pytest.mark.parametrize(
    ("quote", "words"),
    [
        ("The information was", "The infor-\nmation was"),
        ("information", "infor-\nmation"),
        ("well-known, the", "well-\r\n  known, the"),
        ("wellknown, the", "well-\r\n  known, the"),
        ("the effect of the office clear", "the ef\u00adfect of\nthe o\ufb03ce clear"),
        ("a software system may", "A soft-\nware sys-\ntem may"),
        ("a software sys-tem may", "A soft-\nware sys-\ntem may"),
        ("two hyphens.", "two hy\u2010\nphens."),
        (
            "\u201cThe information was wellknown, the effect of the office clear.\u201d",
            HYPHENATED[: HYPHENATED.index("\nA soft")],
        ),
    ],
)
def test_words_that_are_hyphenated_at_the_end_of_a_line(quote: str, words: str) -> None:
    """A quote has the word whole, or with its hyphen; the place has the line's end."""
    assert found(HYPHENATED, quote) == [words]


@pytest.mark.parametrize(
    "quote",
    ["may resign", "infor mation was", "soft ware system", "a re-port", "he information"],
)
def test_a_hyphen_within_a_line_is_a_part_of_the_word(quote: str) -> None:
    """Only hyphens at ends of lines may be missing, and words are whole."""
    assert found(HYPHENATED, quote) == []


@pytest.mark.parametrize(
    ("quote", "text", "most"),
    [
        ("not there at all, ever", HYPHENATED, 14),
        ("not there " * 500, HYPHENATED, 0),  # too long
        ("not there at all, ever", "No word is hyphen-ated here.\n", 0),
    ],
)
def test_the_search_over_hyphens_is_bounded(
    quote: str, text: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invented quote is searched for in a few parts, and only if the document hyphenates."""
    searched: list[str] = []
    spans_of = hyphenation.spans_of

    def counted(corpus: Corpus, source: str | None, part: str, **fold: Any) -> Any:
        searched.append(part)
        return spans_of(corpus, source, part, **fold)

    monkeypatch.setattr(hyphenation, "spans_of", counted)
    assert found(text, quote) == []
    assert len(searched) <= most
    assert bool(searched) == bool(most)


NEAR = [
    # What a model makes of a sentence when it does not copy it
    lambda words, at: [*words[:at], *words[at + 1 :]],  # a word is missing
    lambda words, at: [*words[:at], "indeed", *words[at:]],  # added
    lambda words, at: [*words[:at], "other", *words[at + 1 :]],  # another
    lambda words, at: [*words[:at], *reversed(words[at : at + 2]), *words[at + 2 :]],  # moved
    lambda words, at: [*words[:at], words[at] + "s", *words[at + 1 :]],  # inflected
    lambda words, at: [*words[:at], words[at].translate(_OTHER_DIGITS), *words[at + 1 :]],
]
_OTHER_DIGITS = str.maketrans("0123456789aeiou", "1234567890eioua")


@pytest.mark.exhaustive
def test_no_near_quote_is_a_citation() -> None:
    """Of more than 500 quotes that are nearly in the document none has a place, and each honest one
    has its own.
    """
    random_ = random.Random(7)
    sentences = [
        " ".join(random_.choices(PLAIN_WORDS, k=12)) + f" {random_.randrange(1000)} {number}."
        for number in range(30)
    ]
    text = "".join(map(_broken, sentences))
    near = honest = 0
    with Corpus.build(text) as corpus:
        for sentence in sentences:
            words = sentence.split(" ")
            for change in NEAR:
                for at in (2, 6, 10):
                    quote = " ".join(change(words, at))
                    if quote != sentence:
                        assert locate_quote(corpus, quote) == [], quote
                        near += 1
            (hit,) = locate_quote(corpus, sentence)
            there = corpus.text(hit.span.source, hit.span.start, hit.span.end)
            plain = there.replace("-\n", "").replace("\u201c", '"').replace("\ufb01", "fi")
            assert " ".join(plain.split()).strip('"') == sentence.strip('"')
            honest += 1
    assert near > 500 and honest == 30


PLAIN_WORDS = """the river "ends" at an old bridge where nobody finds information of difference in autumn""".split()


def _broken(sentence: str) -> str:
    """A sentence as a typesetter breaks it."""
    text = sentence.replace('"', "\u201c").replace("fi", "\ufb01")
    return text.replace("information", "infor-\nmation").replace(" bridge", "\n   bridge") + "\n"


def test_exact_places_are_preferred() -> None:
    """If the quote occurs exactly, inexact places do not count, and several exact ones are all
    reported.
    """
    assert found("THE DAM. The dam.", "The dam.") == ["The dam."]
    assert found("The dam. The dam.", "The dam.") == ["The dam."] * 2
    assert found("The  dam. THE DAM.", "The dam.") == ["The  dam."]


def test_an_ellipsis_has_a_maximum_length() -> None:
    """The parts around an ellipsis are within 1,000 characters in one source; of repeated parts the
    nearest counts.
    """
    for gap, places in ((MAX_GAP_CHARS, 1), (MAX_GAP_CHARS + 1, 0)):
        assert (
            len(
                found(
                    "The first part" + "." * gap + "the last part",
                    "The First part ... the last part",
                )
            )
            == places
        )
    with Corpus.build(["The first part", "the last part"]) as corpus:
        assert locate_quote(corpus, "The first part ... the last part") == []
    twice = "The first part and so on, the last part. More, the last part."
    assert found(twice, "The first part ... the last part") == [
        "The first part and so on, the last part"
    ]
    both = "The first part, the first part, the last part."
    assert found(both, "The First part ... the last part") == []


def test_a_source_may_be_named() -> None:
    """Only the named source is searched; an unknown one is an error."""
    with Corpus.build(["The Dam.", "The Dam."]) as corpus:
        assert locate_quote(corpus, "THE DAM.") == []
        assert [hit.span.source for hit in locate_quote(corpus, "THE DAM.", "context_1")] == [
            "context_1"
        ]
        with pytest.raises(InputError, match="there is no source"):
            locate_quote(corpus, "THE DAM.", "context_7")


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.text())
def test_folding_treats_each_character_alone(text: str) -> None:
    """Folding maps each character to one character, so that places in the folded text are places in
    the document.
    """
    assert len(fold_quote(text)) == sum(len(fold_quote(character)) for character in text)
    assert all(fold_quote(character) for character in text)


WORDS = (
    "Zo\u00eb caf\u00e9 Stra\u00dfe it\u2019s \u201cso\u201d na\u00efve"
    " \u4e2d\u6587 \u1ea5n plain A.B. x\u2014y"
).split()
WORDS += "re\u0301sume\u0301 wait\u2026 end".split()


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(0, 10**9), st.integers(1, 40))
def test_rewritten_slices_are_found(seed: int, step: int) -> None:
    """A rewritten slice of any text is found as that slice, or not at all if it is ambiguous; the
    size of the windows makes no difference.
    """
    draw = random.Random(seed)
    text = "".join(
        draw.choice(WORDS) + str(number) + draw.choice([" ", "  ", "\n"]) for number in range(12)
    )
    words = list(single_spaced._WORD.finditer(text))
    first = draw.randrange(len(words) - 2)
    last = draw.randrange(first + 1, len(words))
    true = text[words[first].start() : words[last].end()]
    quote = draw.choice([str.upper, str.lower, str.title, str])(true)
    quote = draw.choice(
        [
            str,
            lambda each: unicodedata.normalize("NFC", each),
            lambda each: unicodedata.normalize("NFD", each),
        ]
    )(quote)
    quote = draw.choice([str, lambda each: f"\u201c{each}\u201d", lambda each: f"...{each}..."])(
        quote
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_spaced, "STEP", step)
        places = found(text, quote)
    assert len(places) == 1
    assert fold_quote(" ".join(places[0].split())).strip("\"' .") == fold_quote(
        " ".join(true.split())
    ).strip("\"' .")


@pytest.mark.parametrize(
    "quote",
    ["Stras", "A\u00df " * 4_000 + "...x", "not there ... nor there is it", "\u201cZ \u201d"],
)
def test_the_work_is_bounded(quote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any quote, the search makes a few passes over the document, and checks a limited number
    of candidates.
    """
    text = "stra\u00dfe A\u00df " * 30_000
    searched: list[int] = []
    looked_at: list[str] = []
    find, is_whole = single_spaced.find_in_steps, module._is_whole

    def counted(text: str, needle: str, start: int = 0) -> int:
        searched.append(len(text) - start + len(needle))
        return find(text, needle, start)

    monkeypatch.setattr(single_spaced, "find_in_steps", counted)
    monkeypatch.setattr(
        module,
        "_is_whole",
        lambda corpus, span, needle: looked_at.append(needle) or is_whole(corpus, span, needle),
    )
    with Corpus.build(text) as corpus:
        assert locate_quote(corpus, quote) == []
    assert sum(searched) <= 12 * (len(text) + len(quote))
    assert len(looked_at) <= MAX_PLACES


async def test_evidence_is_cited_in_the_documents_words() -> None:
    """Quotes in FINAL, and results of `cite`, become citations whose quote is the document's text;
    invented ones are dropped.
    """
    root = Scripted(
        [
            code(
                "span = cite('\"Caf\u00e9 m\u00fcller\"')",
                "quotes = ['the long strasse ... old bridge', 'The mill is new']",
                "FINAL('x', evidence=[span, \"It's a fine day - really\", *quotes])",
            )
        ]
    )
    result = await run(root, TEXT)
    assert [each.quote for each in result.citations] == [
        "Caf\u00e9 M\u00fcller",
        "It\u2019s a fine day \u2013 really",
        TEXT[TEXT.index("The long") : TEXT.index(" of Ravenna")],
    ]
    assert result.dropped_citations == 1
    check_citations(result, TEXT)


@pytest.mark.parametrize("quote", ["a" + "\u0301\u0316" * 49_000, "e\u0301" * 45_000 + "x"])
def test_marks_are_normalized_in_short_runs(quote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalizing takes quadratic time in the length of a run of marks, so runs are split."""
    lengths: list[int] = []

    def counted(form: Any, text: str) -> str:
        lengths.append(len(text))
        return unicodedata.normalize(form, text)

    monkeypatch.setattr(module, "normalize", counted)
    with Corpus.build("words " + "a" + "\u0316\u0301" * 49_000) as corpus:
        locate_quote(corpus, quote)
    assert max(lengths) <= module.PIECE_CHARS


@pytest.mark.parametrize(
    "quote", ["... " * 25_000, "' " * 50_000, "[...] " * 16_000 + "words that are not there"]
)
def test_a_quote_of_ellipses_is_stripped_a_few_times(
    quote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ellipses around a quote are stripped in a few passes, however many there are."""
    looked_at = 0

    class Counting:
        def match(self, text: str) -> object:
            nonlocal looked_at
            looked_at += 1
            return pattern.match(text)

        def __getattr__(self, name: str) -> Any:
            return getattr(pattern, name)

    pattern = module._ELLIPSIS
    monkeypatch.setattr(module, "_ELLIPSIS", Counting())
    with Corpus.build("some words") as corpus:
        assert locate_quote(corpus, quote) == []
    assert looked_at <= module.MAX_PARTS


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.lists(
        st.sampled_from(["a", "bc", "bcd", "x y z " * 9, "  ", "\n" * 30, "\u00e9"]), max_size=12
    ),
    st.integers(1, 9),
    st.data(),
)
def test_every_place_is_found_once(pieces: list[str], step: int, data: st.DataObject) -> None:
    """Only the neighbourhood of the longest word is searched, and every place is found once,
    wherever the steps begin.
    """
    text = data.draw(st.sampled_from(["", " "])).join(pieces)
    squeezed = " ".join(text.split())
    needle = " ".join(
        data.draw(
            st.lists(
                st.sampled_from(["a", "bc", "bcd", "x", "y z", "\u00e9a"]), min_size=1, max_size=4
            )
        )
    )
    with pytest.MonkeyPatch.context() as patch, Corpus.build(text) as corpus:
        patch.setattr(single_spaced, "STEP", step)
        places = list(single_spaced.loose_places(corpus, "context_0", needle))
    assert len(places) == sum(squeezed.startswith(needle, at) for at in range(len(squeezed)))
    assert places == sorted(set(places))
    assert all(" ".join(text[start:end].split()) == needle for start, end in places)
