"""Answers that cite in place: the numbers of citations in an answer's text, such as `[2]`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rlm_integrations.trajectory import Citation

MAX_NUMBERS: Final = 64  # of one mark, such as `[1, 3-5]`

_MARK: Final = re.compile(r"\[(\d{1,4}(?:\s?[,;\u2013-]\s?\d{1,4}){0,31})\](?!\()")
_RANGE: Final = re.compile(r"(\d+)(?:\s?[\u2013-]\s?(\d+))?")
_CODE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# What ends in a period and is not the end of a sentence
_SHORT: Final = re.compile(
    r"(?:^|[\s(])(?:Dr|Mr|Mrs|Ms|Prof|St|No|Nos|vs|cf|al|e\.g|i\.e|Inc|Ltd|Fig|Sec|Art|pp?|[A-Z])\.\s+$"
)
_SENTENCE_END: Final = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)*_]*[ \t]+(?=[^\sa-z])|\n+|\Z")


@dataclass(frozen=True, slots=True)
class AnswerCitation:
    """A statement of an answer with its citations.

    Attributes:
        start: The offset of the statement's first character in the answer.
        end: The offset after its last character; the numbers in brackets follow.
        numbers: The numbers that follow it; `n` is the citation `citations[n - 1]` of the result.
        citations: These citations.
    """

    start: int
    end: int
    numbers: tuple[int, ...]
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A part of a text with its numbers: the brackets themselves, or the statement before them."""

    start: int
    end: int
    numbers: tuple[int, ...]


def marks(text: str) -> list[Mark]:
    """The numbers in brackets of a text, except in code and as the text of links."""
    code = [(found.start(), found.end()) for found in _CODE.finditer(text)] if "`" in text else []
    found = []
    for match in _MARK.finditer(text):
        while code and code[0][1] <= match.start():
            del code[0]
        if not code or match.start() < code[0][0]:
            found.append(Mark(match.start(), match.end(), _numbers(match[1])))
    return found


def renumbered(answer: str, numbers: Sequence[Sequence[int]]) -> tuple[str, list[str]]:
    """An answer whose numbers refer to pieces of evidence, with those of citations instead.

    A number without a citation is left out. A number for which there is no evidence is left out,
    too, unless it follows a word at once, as an index does.

    Args:
        answer: The answer.
        numbers: The numbers of the citations of each piece of evidence.

    Returns:
        The answer, and the numbers for which there is no evidence.
    """
    found = marks(answer) if numbers else []
    if not found:
        return answer, []
    parts: list[str] = []
    unknown: list[str] = []
    done = 0
    for mark in found:
        known = [number for number in mark.numbers if 0 < number <= len(numbers)]
        before = answer[done : mark.start]
        if not known and answer[mark.start - 1 : mark.start].isalnum():
            continue
        unknown += [f"[{number}]" for number in mark.numbers if number not in known]
        shown = dict.fromkeys(own for number in known for own in numbers[number - 1])
        parts += [before if shown else before.rstrip(" "), *(f"[{own}]" for own in shown)]
        done = mark.end
    return "".join([*parts, answer[done:]]), unknown


def answer_citations(
    answer: str, citations: Sequence[Citation]
) -> tuple[list[AnswerCitation], list[str]]:
    """The statements of an answer with the citations that follow them, and the sentences without
    any.
    """
    found, uncited = statements(answer, len(citations))
    cited = [
        AnswerCitation(
            each.start, each.end, each.numbers, tuple(citations[n - 1] for n in each.numbers)
        )
        for each in found
    ]
    return cited, uncited


def statements(answer: str, count: int) -> tuple[list[Mark], list[str]]:
    """The statements of an answer that the numbers of citations follow, with these numbers, and the
    sentences that none follows.

    Args:
        answer: The answer.
        count: The number of its citations.
    """
    cited: list[Mark] = []
    uncited: list[str] = []
    known = _known_marks(answer, count)
    blank = _without(answer, known)
    sentences = list(_sentences(blank))
    at = 0
    for number, (start, end) in enumerate(sentences):
        following = sentences[number + 1][0] if number + 1 < len(sentences) else len(answer) + 1
        own = []
        while at < len(known) and known[at].start < following:
            own.append(known[at])
            at += 1
        if not own:
            uncited.append(answer[start:end])
        cited += _statements(blank, start, end, own)
    return cited, uncited


def _known_marks(answer: str, count: int) -> list[Mark]:
    """The marks whose numbers are all of citations; adjacent ones are one."""
    known: list[Mark] = []
    for mark in marks(answer):
        if not mark.numbers or not all(0 < number <= count for number in mark.numbers):
            continue
        if known and not answer[known[-1].end : mark.start].strip(" "):
            numbers = tuple(dict.fromkeys((*known[-1].numbers, *mark.numbers)))
            known[-1] = Mark(known[-1].start, mark.end, numbers)
        else:
            known.append(mark)
    return known


def _without(answer: str, known: Sequence[Mark]) -> str:
    """The answer with spaces in the place of marks."""
    parts, done = [], 0
    for mark in known:
        parts += [answer[done : mark.start], " " * (mark.end - mark.start)]
        done = mark.end
    return "".join([*parts, answer[done:]])


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in _SENTENCE_END.finditer(text):
        sentence = text[start : end.end()]
        if _SHORT.search(sentence, max(0, len(sentence) - 12)):
            continue
        if words := sentence.strip():
            begin = start + sentence.index(words[0])
            yield begin, begin + len(words)
        start = end.end()


def _statements(text: str, start: int, end: int, own: Sequence[Mark]) -> Iterator[Mark]:
    """The parts of a sentence that its marks follow. A mark at its beginning is of all of it."""
    for mark in own:
        part = text[start : max(start, min(mark.start, end))]
        if not any(map(str.isalnum, part)):
            part = text[start:end]
        words = part.strip().lstrip(",; ")
        begin = start + (part.index(words[0]) if words else 0)
        yield Mark(begin, begin + len(words), mark.numbers)
        start = min(max(start, mark.end), end)


def _numbers(inside: str) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for match in _RANGE.finditer(inside):
        first, last = int(match[1]), int(match[2] or match[1])
        found |= dict.fromkeys(range(first, min(last, first + MAX_NUMBERS) + 1))
    return tuple(found)[:MAX_NUMBERS]
