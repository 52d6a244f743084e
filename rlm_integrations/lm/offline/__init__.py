"""The stand-in that needs no key and no network."""

from rlm_integrations.lm.offline.model import NOTHING, NOTICE, OfflineLM

__all__ = [
    "NOTHING",
    "NOTICE",
    "OfflineLM",
]
