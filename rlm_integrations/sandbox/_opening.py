"""What a session's first message says of the context. It is made once for each corpus: fifty
thousand texts take half a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlm_integrations.corpus import Corpus, Handover
from rlm_integrations.sandbox.wire import pack


@dataclass(frozen=True, slots=True)
class Opening:
    """A context as the first message describes it.

    Attributes:
        fields: The fields of the message.
        handover: The files to send, whose pieces are in the fields.
    """

    fields: Mapping[str, Any]
    handover: Handover


def opening_of(context: Corpus) -> Opening:
    """The opening of a session over this context; it blocks.

    Raises:
        ContextError: The corpus was closed.
    """
    return context.kept("opening", _made)


def _made(context: Corpus) -> Opening:
    handover, metadata = context.handover(), context.metadata
    fields = {
        "is_list": context.is_list,
        "names": pack(source.name for source in context.sources),
        "pieces": pack(
            [each.file, each.offset, each.chars, each.stored, each.maxchar]
            for each in handover.pieces
        ),
        "metadata": {**metadata, "sources": pack(metadata["sources"])},
    }
    return Opening(fields, replace(handover, pieces=()))
