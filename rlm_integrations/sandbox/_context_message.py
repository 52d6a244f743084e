"""The description of the context in a session's first message.

It is encoded once per corpus, because encoding fifty thousand sources takes half a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlm_integrations.corpus import Corpus, Handover
from rlm_integrations.corpus.lazy import LazyCorpus
from rlm_integrations.sandbox.encoder import pack


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """The description of a context in the first message.

    Attributes:
        fields: The fields of the message.
        handover: The files to send; `fields` locates each source in them.
    """

    fields: Mapping[str, Any]
    handover: Handover


def describe_context(context: Corpus) -> ContextMessage:
    """The description of this context for a session. Blocks.

    Raises:
        ContextError: The corpus was closed.
    """
    return context.kept("context message", _encode_description)


def _encode_description(context: Corpus) -> ContextMessage:
    handover, metadata = context.handover(), context.metadata
    if isinstance(context, LazyCorpus):
        fields = {
            "is_lazy": True,
            "names": pack(each.name for each in context.sources),
            "pieces": [],
            "sizes": pack(metadata["sizes"].values()),
            "metadata": {**metadata, "sizes": {}},
        }
        return ContextMessage(fields, handover)
    fields = {
        "is_lazy": False,
        "is_list": context.is_list,
        "names": pack(each.name for each in context.sources) if context.is_named else None,
        "objects": [number for number, each in enumerate(context.sources) if each.is_object],
        "pieces": pack(
            [each.file, each.offset, each.chars, each.stored, each.maxchar]
            for each in handover.pieces
        ),
        "metadata": {**metadata, "sources": pack(metadata["sources"])},
    }
    return ContextMessage(fields, replace(handover, pieces=()))
