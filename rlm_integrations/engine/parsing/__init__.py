"""Parses a model's reply into its code blocks and its final."""

from rlm_integrations.engine.parsing.finals import ProseFinal
from rlm_integrations.engine.parsing.reader import parse_reply
from rlm_integrations.engine.parsing.reply import CodeBlock, Note, NoteKind, Reply

__all__ = [
    "CodeBlock",
    "Note",
    "NoteKind",
    "ProseFinal",
    "Reply",
    "parse_reply",
]
