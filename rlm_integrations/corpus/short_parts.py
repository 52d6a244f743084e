"""Finds short parts of the document, as a whole, in prompts."""

from collections.abc import Iterable

from rlm_integrations.corpus.corpus import Corpus
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import SpanRef

_SIZES = (16, 8, 4, 2, 1)  # of the beginnings by which parts are looked up


class ShortParts:
    """Parts of the document that are too short for `Locator`. Each is found once: after that it has
    been read. Blocks; one thread may use it at a time.
    """

    def __init__(self, corpus: Corpus, parts: Iterable[SpanRef]) -> None:
        self._places: dict[str, list[SpanRef]] = {}
        self._texts: dict[int, dict[str, list[str]]] = {}
        for part in parts:
            text = corpus.text(part.source, part.start, part.end)
            places = self._places.setdefault(text, [])
            if not places:
                size = next(size for size in _SIZES if size <= len(text))
                self._texts.setdefault(size, {}).setdefault(text[:size], []).append(text)
            places.append(part)
        for each in self._texts.values():
            for texts in each.values():
                texts.sort(key=len, reverse=True)

    def split(self, prompt: PromptPieces) -> PromptPieces:
        """The prompt with the parts in its own text as spans."""
        pieces: list[str | SpanRef] = []
        ambiguous: list[int] = []
        for at, piece in enumerate(prompt.pieces):
            if isinstance(piece, str):
                pieces += self._split(piece)
                continue
            if at in prompt.ambiguous:
                ambiguous.append(len(pieces))
            pieces.append(piece)
        return PromptPieces(tuple(pieces), tuple(ambiguous), prompt.sha256, prompt.left_out)

    def _split(self, text: str) -> Iterable[str | SpanRef]:
        done = at = 0
        while at < len(text):
            found = next(
                (each for each in self._candidates(text, at) if text.startswith(each, at)), None
            )
            if found is None:
                at += 1
                continue
            if at > done:
                yield text[done:at]
            yield self._places[found].pop(0)
            done = at = at + len(found)
        if done < len(text):
            yield text[done:]

    def _candidates(self, text: str, at: int) -> Iterable[str]:
        """The parts that may begin here and were not found yet, longest first."""
        for size in _SIZES:
            if by_start := self._texts.get(size):
                for each in by_start.get(text[at : at + size], ()):
                    if self._places[each]:
                        yield each
