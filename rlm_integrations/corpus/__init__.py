"""The document: sources, offsets, slices, hashes, spans; readers of files."""

from rlm_integrations.corpus.corpus import Corpus, Handover

__all__ = [
    "Corpus",
    "Handover",
]
