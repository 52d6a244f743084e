"""Finds short parts of the document, as a whole, in prompts."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator

from rlm_integrations._concurrency.work import spend
from rlm_integrations.corpus.corpus import Corpus
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import SpanRef

_SIZES = (16, 8, 4, 2, 1)  # of the beginnings by which parts are looked up
_STEP_CHARS = 4096


class ShortParts:
    """Parts of the document that are too short for `Locator`. Each is found once: after that it has
    been read. Blocks; threads may share it.
    """

    def __init__(self, corpus: Corpus, parts: Iterable[SpanRef]) -> None:
        self._places: dict[str, deque[SpanRef]] = {}
        for part in parts:
            text = corpus.text(part.source, part.start, part.end)
            self._places.setdefault(text, deque()).append(part)
        # By their beginnings, the lengths of the parts, longest first
        self._lengths: dict[str, list[int]] = {}
        for text in sorted(self._places, key=len, reverse=True):
            lengths = self._lengths.setdefault(text[: _size(text)], [])
            if not lengths or lengths[-1] != len(text):
                lengths.append(len(text))
        self._sizes = sorted({len(start) for start in self._lengths}, reverse=True)
        self._lock = threading.Lock()

    def split(self, prompt: PromptPieces) -> PromptPieces:
        """The prompt with the parts in its own text as spans."""
        pieces: list[str | SpanRef] = []
        ambiguous: list[int] = []
        with self._lock:
            for at, piece in enumerate(prompt.pieces):
                if isinstance(piece, str):
                    pieces += self._split(piece)
                    continue
                if at in prompt.ambiguous:
                    ambiguous.append(len(pieces))
                pieces.append(piece)
        return PromptPieces(tuple(pieces), tuple(ambiguous), prompt.sha256, prompt.left_out)

    def _split(self, text: str) -> Iterator[str | SpanRef]:
        done = at = 0
        while at < len(text):
            if at % _STEP_CHARS == 0:
                spend(_STEP_CHARS)
            found = self._found(text, at)
            if found is None:
                at += 1
                continue
            if at > done:
                yield text[done:at]
            yield found
            done = at = at + found.end - found.start
        if done < len(text):
            yield text[done:]

    def _found(self, text: str, at: int) -> SpanRef | None:
        """The longest part that begins here and was not found yet."""
        for size in self._sizes:
            for length in self._lengths.get(text[at : at + size], ()):
                if places := self._places.get(text[at : at + length]):
                    return places.popleft()
        return None


def _size(text: str) -> int:
    return next(size for size in _SIZES if size <= len(text))
