"""A recorded prompt: its own text, and spans of the document."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus

_MAX_PIECES_SHORTENED: Final = 20  # minimum for a prompt that is recorded in part


@dataclass(frozen=True, slots=True)
class PromptPieces:
    """A prompt as a sequence of own text and spans of the document, which together are the exact
    prompt.

    Attributes:
        pieces: Strings and spans, in order.
        ambiguous: The indexes of spans whose text also occurs elsewhere in the document.
        sha256: The SHA-256 of the prompt in UTF-8, including lone surrogates.
        left_out: How many characters of its own text were dropped because the record was full.
    """

    pieces: tuple[str | SpanRef, ...]
    ambiguous: tuple[int, ...]
    sha256: str
    left_out: int = 0

    def __str__(self) -> str:
        """The prompt for display: each span as its source and offsets."""
        shown = (
            each
            if isinstance(each, str)
            else f"[{each.source}, characters {each.start:,} to {each.end:,}]"
            for each in self.pieces
        )
        return "".join(shown)

    @property
    def spans(self) -> tuple[SpanRef, ...]:
        """The spans among the pieces."""
        return tuple(piece for piece in self.pieces if isinstance(piece, SpanRef))

    def text(self, corpus: "Corpus") -> str:
        """The prompt.

        Raises:
            ContextError: The spans are of another corpus, or the prompt was recorded in part.
        """
        if self.left_out:
            raise ContextError(
                "the prompt cannot be rebuilt: it was recorded in part, because the record "
                "was full (Limits.recorded_chars)"
            )
        text = "".join(
            piece if isinstance(piece, str) else corpus.text(piece.source, piece.start, piece.end)
            for piece in self.pieces
        )
        if sha256_of(text) != self.sha256:
            raise ContextError(
                "the prompt cannot be rebuilt from this document: it was made from another document"
            )
        return text

    def shortened(self, kept: int) -> "PromptPieces":
        """The prompt with about this many characters of its own text at most: the beginnings and
        ends of its first and last pieces.
        """
        chosen = (
            self.pieces
            if len(self.pieces) <= _MAX_PIECES_SHORTENED
            else (
                *self.pieces[: _MAX_PIECES_SHORTENED // 2],
                *self.pieces[-_MAX_PIECES_SHORTENED // 2 :],
            )
        )
        half = max(1, kept // len(chosen) // 2)
        pieces = tuple(_ends(piece, half) if isinstance(piece, str) else piece for piece in chosen)
        words = sum(len(piece) for piece in self.pieces if isinstance(piece, str))
        left_out = words - sum(
            min(len(piece), 2 * half) for piece in chosen if isinstance(piece, str)
        )
        return PromptPieces(pieces, (), self.sha256, left_out)


def _ends(text: str, half: int) -> str:
    return text if len(text) <= 2 * half else f"{text[:half]}[…]{text[-half:]}"


def literal(prompt: str) -> PromptPieces:
    """A prompt without spans, for a document that can no longer be read."""
    return PromptPieces((prompt,) if prompt else (), (), sha256_of(prompt))


def made_of(pieces: Sequence[str | SpanRef], corpus: "Corpus") -> tuple[str, PromptPieces]:
    """The prompt of these strings and spans, and its recorded form."""
    text = "".join(
        each if isinstance(each, str) else corpus.text(each.source, each.start, each.end)
        for each in pieces
    )
    return text, PromptPieces(tuple(pieces), (), sha256_of(text))


def sha256_of(text: str) -> str:
    """The digest of a string, lone surrogates included."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
