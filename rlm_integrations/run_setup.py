"""The version of this library; the id, the documents and the models of a run, as its record has
them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rlm_integrations.errors import InputError, quote_value

VERSION = "0.1.0"  # of this library; pyproject.toml refers to it

# How runs end that can be resumed
RESUMABLE: Final = frozenset({"cancelled", "failed", "model_error", "sandbox_lost"})

# Such an id is also a safe file name
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_run_id(run_id: object) -> str:
    """The id, if it can be that of a run.

    Raises:
        InputError: It cannot.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise InputError(
            "a run_id must be 1 to 64 letters and digits of ASCII, '.', '_' and '-', and begin "
            f"with a letter or digit, not {quote_value(run_id)}"
        )
    return run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """One document of the context, as the run read it.

    Attributes:
        name: Its name in citations, such as `context_0`.
        length: Its length in characters; in bytes for a file of a large folder that was not read.
        sha256: The SHA-256 of its text in UTF-8, in hexadecimal; "" if it was not read.
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
class PreviousRun:
    """The question of a session before a run, as it had ended when the run began. It may have been
    resumed since.

    Attributes:
        run_id: Its id.
        records: How many records its journal had.
        stop_reason: Why it had ended; see `RLMResult`.
        elapsed: How many seconds it had taken.
    """

    run_id: str
    records: int
    stop_reason: str
    elapsed: float


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
        previous: The question of its session before it, whose variables and messages it began
            with; None for a run without a session, and for the first question of one.
    """

    question: str
    sources: tuple[SourceInfo, ...]
    models: ModelNames
    options: Mapping[str, Any]
    version: str
    started: float
    previous: PreviousRun | None = None
