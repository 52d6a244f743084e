"""Helpers of the tests of the corpus."""

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus, reading
from rlm_integrations.corpus.fixed_width import BLOCK, MAXCHARS
from rlm_integrations.sandbox.fill import fill


def handed_over(corpus: Corpus) -> list[str]:
    """The texts as another process receives them."""
    handover = corpus.handover()
    texts = {}
    for number, fd in enumerate(handover.files()):
        for place, piece in enumerate(handover.pieces):
            if piece.file == number:
                texts[place] = fill(fd, piece.offset, piece.chars, piece.stored, piece.maxchar)
    return [texts[place] for place in range(len(texts))]


def whole(corpus: Corpus) -> list[str]:
    return [corpus.text(source.name) for source in corpus.sources]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def maxchar_of(text: str) -> int:
    widest = max(map(ord, set(text)), default=0)
    return next(each for each in MAXCHARS if widest <= each)


def open_descriptors() -> set[tuple[str, str]]:
    """The descriptors of this process that hold text, after a garbage collection of other tests'
    objects.
    """
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((entry.name, str(entry.readlink())))
    return {
        (name, target)
        for name, target in found
        if target.startswith("/memfd:rlm-context") or target.endswith((".txt", "pipe"))
    }


# Texts that cross blocks and change their width anywhere, lone surrogates side by side included.
units = st.sampled_from(["a", "\r\n", "\xe9", "\u20ac", "\ud83d", "\ude00", "\U0001f600"])
counts = st.sampled_from([1, 2, 100, BLOCK - 1, BLOCK])
texts = st.lists(st.tuples(units, counts), max_size=5).map(
    lambda parts: "".join(unit * count for unit, count in parts)
)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def nothing_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ASCII files are treated like large ones."""
    monkeypatch.setattr(reading, "COPIED", 0)
