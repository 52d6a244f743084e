"""The document: sources, offsets, slices, hashes, spans; readers of files."""

from rlm_integrations.corpus.corpus import Corpus
from rlm_integrations.corpus.handover import Handover

__all__ = [
    "Corpus",
    "Handover",
]
