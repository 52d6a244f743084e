"""A text that was added to a document that grows."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_NOT_IN_LABELS: Final = re.compile(r"[^A-Za-z0-9_.]+")
_MAX_LABEL_CHARS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedSource:
    """One text of a document that grows, without the text.

    Attributes:
        number: Its number; later texts of the document have higher ones.
        label: What it is, such as the name of a tool.
        characters: Its length.
        sha256: The hash of its UTF-8 bytes in hexadecimal.
        metadata: What is known about it, in JSON's types.
    """

    number: int
    label: str
    characters: int
    sha256: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The name by which models read and cite it, such as `search_web-12`."""
        return f"{self.label}-{self.number}"


def number_in(source_id: str) -> int | None:
    """The number in the id of a source; None if there is none."""
    digits = source_id.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 18 else None


def label_of(name: str) -> str:
    """The name as a label: up to 40 letters, digits, dots and underscores."""
    return _NOT_IN_LABELS.sub("_", name)[:_MAX_LABEL_CHARS].strip("_") or "text"


def source_identity(label: str, key: str, sha256: str) -> str:
    """What makes a source the same: its label, the caller's key and its text, as a hash."""
    return hashlib.sha256(json.dumps([label, key, sha256]).encode()).hexdigest()
