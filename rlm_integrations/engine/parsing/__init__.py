"""From a model's reply to its blocks and its final."""

from rlm_integrations.engine.parsing.reply import (
    CodeBlock,
    Note,
    NoteKind,
    ProseFinal,
    Reply,
    parse_reply,
)

__all__ = [
    "CodeBlock",
    "Note",
    "NoteKind",
    "ProseFinal",
    "Reply",
    "parse_reply",
]
