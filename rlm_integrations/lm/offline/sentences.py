"""Finds the sentences of a passage that answer a question best, by counting words. Pure functions,
without a language model.
"""

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

_MAX_TERMS = 32  # of one question
_MAX_UNIT_CHARS = 500  # a longer sentence is split
_MAX_QUOTE_CHARS = 1_000  # of a quote of two sentences
_MIN_SHARE = 0.4  # share of the question's weight that a quote must contain
_FEW, _MANY = 5, 50  # quotes for a question about one thing, and for one about all of a kind

_WORD = re.compile(r"[^\W_]+")
# Scripts without spaces between words are compared by pairs of characters.
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)")
_MARKS = re.compile("[\u0300-\u036f]+")
_LIST = re.compile(r"\b(all|each|enumerate|every|how many|list)\b", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“„«]([^\"”“»]+)[\"”“»]")
_WRAPPED = re.compile(r"[^\W\d_]\n[^\W\d_]|,\n")
_SENTENCE_END = (
    r"[.!?…](?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bNo\.)[\"'”\u2019»)\]]*\s+"
    r"|[\u3002\uff01\uff1f]"
)
_BORDER = re.compile(rf"{_SENTENCE_END}|\n")
_BORDER_WRAPPED = re.compile(rf"{_SENTENCE_END}|\n\s*\n")

_STOP_WORDS = frozenset(
    _WORD.findall(
        """
        a about according after all also am an and answer any are as ask at be been before
        being between both but by can context could describe did do document does each
        enumerate every explain find for from get give had has have he her him his how i
        identify if in into is it its just list many may me mention mentioned more most mr
        mrs ms much must my name no not of off on one only or other our out over passage
        please question said say says shall she should show so some such summarise summarize
        summary tell text than that the their them then there these they this those to under
        up us was we were what when where which while who whom whose why will with would you
        your
        """
    )
)
_ENDINGS = {  # each with the number of letters that must be left; the longest first
    **dict.fromkeys(("ments", "ment", "ness", "ions", "ion", "ers", "er", "ly"), 4),
    **dict.fromkeys(("ings", "ing", "ies", "ied", "es", "ed", "s"), 3),
}


@dataclass(frozen=True, slots=True)
class ParsedQuestion:
    """The search terms of a question.

    Attributes:
        words: The words to search for, by their stems, in the question's order.
        names: The stems of those that name one thing: names, numbers and quoted words.
        wants_all: Whether the question asks for everything of a kind.
    """

    words: dict[str, str]
    names: frozenset[str]
    wants_all: bool


def fold_accents(text: str) -> str:
    """The text in lower case and without accents."""
    if text.isascii():
        return text.lower()
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return unicodedata.normalize("NFC", bare)


def stem(word: str) -> str:
    """The common beginning of a folded word's forms, so that raw text can be searched for it."""
    if len(word) < 4 or not word.isalpha():
        return word
    for ending, least in _ENDINGS.items():
        if word.endswith(ending) and len(word) - len(ending) >= least and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] in "ey":
        word = word[:-1]
    if len(word) > 3 and word[-1] == word[-2] and word[-1] in "bdgmnprt":
        word = word[:-1]
    return word


def _stems(word: str) -> list[str]:
    """The stems of one folded word: one, or pairs of characters if the script has no spaces."""
    if word.isascii() or not _UNSPACED.search(word):
        return [stem(word)]
    found = []
    for at, part in enumerate(_UNSPACED.split(word)):
        if at % 2:
            found += [part[each : each + 2] for each in range(max(len(part) - 1, 1))]
        elif part:
            found.append(stem(part))
    return found


def read_question(text: str) -> ParsedQuestion:
    """The search terms of a question."""
    quoted = {
        each
        for part in _QUOTED.findall(text)
        for word in _WORD.findall(fold_accents(part))
        for each in _stems(word)
    }
    raw = _WORD.findall(text)
    # Capitals do not mark names in a title, or if everything is in capitals.
    capitals_count = sum(word[0].isupper() for word in raw) * 2 <= len(raw)
    words: dict[str, str] = {}
    names = set()
    for position, word in enumerate(raw):
        folded = fold_accents(word)
        is_number = any(char.isdigit() for char in word)
        if folded in _STOP_WORDS or (len(folded) == 1 and not is_number and folded.isascii()):
            continue
        for each in _stems(folded):
            if len(words) < _MAX_TERMS:
                words.setdefault(each, word if word.isascii() or len(each) > 2 else each)
            if each in words and (
                is_number
                or each in quoted
                or (capitals_count and position > 0 and word[0].isupper())
            ):
                names.add(each)
    return ParsedQuestion(words=words, names=frozenset(names), wants_all=bool(_LIST.search(text)))


def _units(passage: str) -> Iterator[tuple[int, int]]:
    """The places of the sentences or lines of a passage. In wrapped prose, line ends do not end a
    sentence.
    """
    is_wrapped = len(_WRAPPED.findall(passage)) * 3 > passage.count("\n")
    border = _BORDER_WRAPPED if is_wrapped else _BORDER
    start = 0
    for match in chain(border.finditer(passage), [None]):
        end = match.start() + len(match.group().rstrip()) if match else len(passage)
        while end - start > _MAX_UNIT_CHARS:
            space = passage.rfind(" ", start + _MAX_UNIT_CHARS // 2, start + _MAX_UNIT_CHARS)
            part = space if space > 0 else start + _MAX_UNIT_CHARS
            yield start, part
            start = part
        if end > start:
            yield start, end
        start = match.end() if match else end


def extract(question: ParsedQuestion, passage: str) -> list[str]:
    """The best quotes for a question, in descending order, each on one line; if the question has no
    search terms, the opening sentences.
    """
    units = list(_units(passage))
    if not question.words:
        return [_line(passage[start:end]) for start, end in units if end - start >= 20][:2]
    hits = _hits(question, passage, units)
    weights = _weights(question, hits, len(units))
    total = sum(weights.values())
    found: list[tuple[float, int, int]] = []
    for at, here in hits.items():
        before = hits.get(at - 1, frozenset()) - here
        is_joined = bool(before) and units[at][1] - units[at - 1][0] <= _MAX_QUOTE_CHARS
        held = here | before if is_joined else here
        # Words that only the sentence before contains count less: "the Lisbon vault. Its code is".
        share = (
            sum(
                weight * (1.0 if each in here else 0.75)
                for each, weight in weights.items()
                if each in held
            )
            / total
        )
        if share >= _MIN_SHARE and (not question.names or question.names & held):
            start, end = units[at - 1 if is_joined else at][0], units[at][1]
            # Of two quotes with the same words, the shorter is better.
            found.append((share - (end - start) / 100_000, start, end))
    taken: list[tuple[int, int]] = []
    for _, start, end in sorted(found, key=lambda each: (-each[0], each[1])):
        if len(taken) == (_MANY if question.wants_all else _FEW):
            break
        if all(end <= first or start >= last for first, last in taken):
            taken.append((start, end))
    return [_line(passage[start:end]) for start, end in taken]


def _hits(
    question: ParsedQuestion, passage: str, units: list[tuple[int, int]]
) -> dict[int, frozenset[str]]:
    """The question's words in each unit, for the units that contain any."""
    known: dict[str, list[str]] = {}
    terms = tuple(question.words)
    hits = {}
    for at, (start, end) in enumerate(units):
        text = fold_accents(passage[start:end])
        # Most units end here: to search is ten times as fast as to split into words.
        if not any(term in text for term in terms):
            continue
        held = set()
        for word in _WORD.findall(text):
            if word not in known:
                known[word] = _stems(word)
            held.update(known[word])
        if here := held & question.words.keys():
            hits[at] = frozenset(here)
    return hits


def _weights(
    question: ParsedQuestion, hits: dict[int, frozenset[str]], units: int
) -> dict[str, float]:
    """The weight of each word: the rarer it is in the passage, the higher."""
    counts = dict.fromkeys(question.words, 0)
    for here in hits.values():
        for each in here:
            counts[each] += 1
    return {each: math.log(1 + max(units, 50) / (1 + count)) for each, count in counts.items()}


def _line(text: str) -> str:
    return " ".join(text.split())
