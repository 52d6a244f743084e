"""What a run was made with, as its record names it: documents and models."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """One document of the context, as it was when the run read it.

    Attributes:
        name: `context_0`, `context_1` and so on, as in citations.
        length: How many characters it has.
        sha256: Of its text in UTF-8, in hexadecimal.
        file: The name of its file, without the folder; None where it was no file.
        id: The document's own id; None where it came without one.
    """

    name: str
    length: int
    sha256: str
    file: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNames:
    """The models of a run.

    Attributes:
        root: The root model.
        subs: The models that code may ask: the provider's name of each by the name that code uses.
        default: The key in `subs` of the model that answers where code names none.
    """

    root: str = ""
    subs: Mapping[str, str] = field(default_factory=dict, hash=False)
    default: str = ""
