"""Finds quotes that models changed: other typographic marks, composed or decomposed accents, other
case, added quotation marks, an ellipsis, words that are hyphenated at the end of a line.

The search is lenient, but the result is a span of the document. It takes time in proportion to the
document, like `find_quote`.
"""

import re
from bisect import bisect_left
from itertools import islice
from typing import Final
from unicodedata import combining, normalize

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.data_places import locate_path
from rlm_integrations.corpus.hyphenation import hyphenated_places
from rlm_integrations.corpus.single_spaced import spans_of
from rlm_integrations.corpus.spans import Hit, find_quote
from rlm_integrations.records import SpanRef

MAX_GAP_CHARS: Final = 1_000  # characters that an ellipsis may replace
MIN_CHARS: Final = 4  # of a quote that is searched for leniently
MIN_PART_CHARS: Final = 8  # before and after an ellipsis
MAX_PARTS: Final = 8  # of a quote with ellipses
PIECE_CHARS: Final = 1_000  # normalized at once
MAX_SEARCHES: Final = 24  # for the parts of a quote with other words between
MAX_PLACES: Final = 32  # of a quote or a part; with more, it does not mean one place

_MARKS: Final = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
    "\u2026": "...",
}
_ELLIPSIS: Final = re.compile(r" ?(?:\[\.{3,}\]|\(\.{3,}\)|\.{3,}) ?")
_EDGES: Final = "'\" "


def locate_quote(
    corpus: Corpus, quote: str, source: str | None = None, *, limit: int = 2
) -> list[Hit]:
    """The places of a quote, as `find_quote` returns them; if there are none, the one place that it
    clearly means.

    That place may differ in case, in typographic and straight marks, in composed and decomposed
    characters, in quotation marks around the quote, and in hyphens at ends of lines. An ellipsis between two parts of a quote
    replaces up to 1,000 characters, which belong to the place. If a quote could mean several
    places, none is returned. A path such as `$.items[3].name` means a value of JSON.

    Args:
        corpus: The document.
        quote: The words.
        source: The only source to search; None for all.
        limit: The maximum number of places.

    Raises:
        InputError: The source does not exist.
    """
    hits = find_quote(corpus, quote, source, limit=limit)
    if not hits and quote.startswith("$"):
        hits = [Hit(span, exact=False) for span in locate_path(corpus, quote.strip(), source)]
    if hits:
        return hits
    needle = _bare(fold_quote(" ".join(quote.split())))
    places = _places(corpus, source, needle) if len(needle) >= MIN_CHARS else []
    parts = [part for part in _ELLIPSIS.split(needle) if part]
    if not places and 1 < len(parts) <= MAX_PARTS and min(map(len, parts)) >= MIN_PART_CHARS:
        found = []
        for part in parts:
            found.append(_places(corpus, source, part))
            if not found[-1]:
                break
        places = _joined(found)
    if not places and len(needle) >= MIN_CHARS:
        places = hyphenated_places(corpus, source, needle, fold=fold_quote, most=MAX_PLACES)
    return [Hit(places[0], exact=False)] if len(places) == 1 else []


def has_words_between(corpus: Corpus, quote: str) -> bool:
    """Whether a quote that has no place is found in a few parts, in order, with other words of the
    document between them.
    """
    words = _bare(fold_quote(" ".join(quote.split()))).split()
    found: list[list[SpanRef]] = []
    searches = MAX_SEARCHES
    while words and len(found) < MAX_PARTS:
        least, most = 0, len(words)  # words at the beginning: occur, and do not occur
        while least < most and searches > 0:
            searches -= 1
            middle = (least + most + 1) // 2
            if _occurs(corpus, " ".join(words[:middle])):
                least = middle
            else:
                most = middle - 1
        part = " ".join(words[:least])
        if len(part) < MIN_PART_CHARS or searches == 0:
            return False
        found.append(_places(corpus, None, part))
        words = words[least:]
    return not words and len(found) > 1 and bool(_joined(found))


def fold_quote(text: str) -> str:
    """The text in the form that is compared: decomposed, in one case, with plain marks.

    Each character is folded independently of its neighbours.
    """
    if text.isascii():
        return text.lower().replace("`", "'")
    # In pieces, because the time for a run of combining marks is quadratic. Splitting a run changes
    # at most the order of its marks.
    pieces = (text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS))
    folded = "".join([normalize("NFD", piece).casefold() for piece in pieces])
    for mark, plain in _MARKS.items():
        folded = folded.replace(mark, plain)
    return folded


def _bare(needle: str) -> str:
    """The quote without quotation marks and ellipses around it."""
    for _ in range(MAX_PARTS):
        bare = needle.strip(_EDGES)
        if found := _ELLIPSIS.match(bare):
            bare = bare[found.end() :]
        if bare.endswith(("...", "...]", "...)")) and (
            last := [*_ELLIPSIS.finditer(bare)][-1]
        ).end() == len(bare):
            bare = bare[: last.start()]
        if bare == needle:
            break
        needle = bare
    return needle


def _places(corpus: Corpus, source: str | None, needle: str) -> list[SpanRef]:
    """The places of folded words, in order; an empty list if there are too many."""
    spans = spans_of(corpus, source, needle, fold=fold_quote)
    tried = list(islice(spans, MAX_PLACES + 1))
    return (
        [span for span in tried if _is_whole(corpus, span, needle)]
        if len(tried) <= MAX_PLACES
        else []
    )


def _is_whole(corpus: Corpus, span: SpanRef, needle: str) -> bool:
    """Whether the place consists of whole characters and whole words."""
    before = corpus.text(span.source, max(0, span.start - 1), span.start)
    text = corpus.text(span.source, span.start, span.end)
    after = corpus.text(span.source, span.end, min(span.end + 1, corpus.length(span.source)))
    if fold_quote(" ".join(text.split())) != needle or (after and combining(after)):
        return False
    return not (before.isalnum() and text[0].isalnum()) and not (
        text[-1].isalnum() and after.isalnum()
    )


def _occurs(corpus: Corpus, needle: str) -> bool:
    """Whether folded words occur."""
    return next(spans_of(corpus, None, needle, fold=fold_quote), None) is not None


def _joined(found: list[list[SpanRef]]) -> list[SpanRef]:
    """The places at which the parts of a quote follow one another, with at most `MAX_GAP_CHARS`
    characters between them.
    """
    return [joined for first in found[0] if (joined := _followed(first, found[1:])) is not None]


def _followed(first: SpanRef, rest: list[list[SpanRef]]) -> SpanRef | None:
    end = first.end
    for places in rest:
        own = [span for span in places if span.source == first.source]
        at = bisect_left(own, end, key=lambda span: span.start)
        if at == len(own) or own[at].start > end + MAX_GAP_CHARS:
            return None
        end = own[at].end
    return SpanRef(first.source, first.start, end)
