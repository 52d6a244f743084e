"""Parses a model's reply into its code blocks and its final."""

from rlm_integrations.engine.parsing.finals import ProseFinal
from rlm_integrations.engine.parsing.reader import parse_reply
from rlm_integrations.engine.parsing.reply import CodeBlock, Note, NoteKind, Reply
from rlm_integrations.engine.parsing.structured import SCHEMA, parse_structured

__all__ = [
    "SCHEMA",
    "CodeBlock",
    "Note",
    "NoteKind",
    "ProseFinal",
    "Reply",
    "parse_reply",
    "parse_structured",
]
