"""What each command prints with `--json`, as types, from which `--json-schema` makes its schema.

A test compares them with what the commands print.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from rlm_integrations.result import RLMResult


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)


# Fields of `RLMResult` whose classes say less about their JSON than this
_FIELDS: Final[Mapping[str, Any]] = {
    "answer": Any,
    "spent": dict[str, Any],
    "trajectory": list[dict[str, Any]],
    "store": dict[str, Any] | None,
}


def _result() -> Any:
    """A result, with the fields that `RLMResult` has."""
    kinds = {**get_type_hints(RLMResult), **_FIELDS}
    fields: dict[str, Any] = {name: (kinds[name], ...) for name in RLMResult.__slots__}
    fields["schema_"] = (int, Field(alias="schema"))
    words = (
        "The result of a run; `RLMResult` in REFERENCE.md describes each field, and "
        "`RLMResult.from_dict` reads it."
    )
    return create_model("Result", __base__=_Shape, __doc__=words, **fields)


Result: Any = _result()


class RunFile(_Shape):
    """A file that was written, or read by `import`, and the run in it."""

    run_id: str
    file: str


class Submitted(_Shape):
    """A job that was submitted, and its files."""

    job_id: str
    files: list[str]


class EndedJobs(_Shape):
    """How many jobs ended in each way; those of no job are left out."""

    completed: int = 0
    failed: int = 0
    released: int = 0
    lost: int = 0


class ComparedPlace(_Shape):
    """A place in the trees of two runs; `changed` names what differs, and a run without this place
    is null.
    """

    place: str
    level: int
    changed: list[str]
    one: dict[str, Any] | None
    other: dict[str, Any] | None


class Comparison(_Shape):
    """Two runs compared: by name, both values of what differs."""

    runs: tuple[str, str]
    same: bool
    settings: dict[str, tuple[str | None, str | None]]
    totals: dict[str, tuple[Any, Any]]
    spent: dict[str, tuple[str, str]]
    answers: tuple[str, str]
    places: list[ComparedPlace]


class QuotedPlace(_Shape):
    """A place in the document: `quote` is the document's text from `start` to `end`; null if there
    is no document.
    """

    source: str
    file: str | None
    start: int
    end: int
    quote: str | None


class Finding(_Shape):
    """A finding of a store, as `store export` writes it; `StoreObject` in REFERENCE.md describes
    each field.
    """

    id: str
    type: str
    description: str
    content: Any
    backrefs: list[QuotedPlace]
    parents: list[str]
    tags: list[str]
    worker: str
    seq: int
    ts: float
    links: list[tuple[str, str]]
    invalid: str | None


class RankedFinding(Finding):
    """A finding, and how well it matches the words of `--text`; null without them."""

    score: float | None


class FindingCard(_Shape):
    """A finding without its content, which has so many characters."""

    id: str
    type: str
    description: str
    tags: list[str]
    parents: list[str]
    worker: str
    ts: float
    chars: int
    invalid: str = ""


class FindingCounts(_Shape):
    """How many findings match, the first of them, and the most frequent types and tags."""

    total: int
    matches: list[FindingCard]
    types: dict[str, int]
    tags: dict[str, int]


class ExportedFindings(_Shape):
    """The file that was written, and how many findings it has."""

    file: str
    findings: int


def schema_of(path: str) -> dict[str, Any]:
    """The JSON schema of what a command prints, given by its words, such as "storage check"."""
    return TypeAdapter(type_of(path)).json_schema(mode="serialization")


def type_of(path: str) -> Any:
    """The type of what a command prints."""
    match path:
        case "ask" | "resume":
            return Result
        case "report" | "export" | "import":
            return RunFile
        case "diff":
            return Comparison
        case "submit":
            return list[Submitted]
        case "worker":
            return EndedJobs
        case "store search":
            return list[RankedFinding]
        case "store summary":
            return FindingCounts
        case "store export":
            return ExportedFindings
    return _stored_type(path)


def _stored_type(path: str) -> Any:
    """The types of commands that need a storage, whose packages are an extra."""
    from rlm_integrations.storage import Job, Removed, RunInfo, StorageStats
    from rlm_integrations.storage.checking import Problem

    @dataclass(frozen=True, kw_only=True)
    class ShownRun(RunInfo):
        """A run with its result."""

        result: Result

    class CheckedStorage(_Shape):
        """What was read, what is damaged or missing, and what nothing needs."""

        is_sound: bool
        checked: dict[str, int]
        problems: list[Problem]
        unused: dict[str, int]

    return {
        "runs": list[RunInfo],
        "show": ShownRun,
        "jobs": list[Job],
        "storage check": CheckedStorage,
        "storage stats": StorageStats,
        "storage prune": Removed,
        "storage forget": Removed,
    }[path]
