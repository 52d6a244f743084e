"""The documents and models of a run, as its record names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# How runs end that can be resumed
RESUMABLE: Final = frozenset({"cancelled", "failed", "model_error", "sandbox_lost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """One document of the context, as the run read it.

    Attributes:
        name: Its name in citations, such as `context_0`.
        length: Its length in characters.
        sha256: The SHA-256 of its text in UTF-8, in hexadecimal.
        file: The name of its file, without the folder; None if it was not a file.
        id: The document's own id; None if it has no id.
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
        subs: The models that code may call: the name that code uses, and the provider's name.
        default: The key in `subs` of the model that is used if code names none.
    """

    root: str = ""
    subs: Mapping[str, str] = field(default_factory=dict, hash=False)
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What a run was made with, as its record and its storage have it.

    Attributes:
        question: The question.
        sources: The documents.
        models: The names of the models.
        options: The other options, as plain JSON.
        version: The version of this library.
        started: When the run began, in seconds since 1970.
        continues_session: Whether the run began with the variables and messages of an earlier
            question of its session.
    """

    question: str
    sources: tuple[SourceInfo, ...]
    models: ModelNames
    options: Mapping[str, Any]
    version: str
    started: float
    continues_session: bool = False
