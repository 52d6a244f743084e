"""What an artifact was made from: everything that is needed to make it again."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.run_setup import VERSION, SourceInfo

MODEL_CHARS: Final = 100  # of the name of a job's root model
_USUAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def check_file_name(what: str, name: object) -> str:
    """The name, if it can be a part of a file's name on every system.

    Raises:
        InputError: It is not.
    """
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        raise InputError(
            f"{what} must be 1 to 100 letters, digits, '_', '-' and '.', not {str(name)[:80]!r}"
        )
    return name


def check_manifest_id(manifest_id: object) -> str:
    """The id in its usual form, if it is a UUID.

    Raises:
        InputError: It is not.
    """
    if isinstance(manifest_id, str) and _USUAL_UUID.fullmatch(manifest_id):
        return manifest_id
    try:
        return str(UUID(str(manifest_id)))
    except ValueError:
        raise InputError(f"manifest_id must be a UUID, not {str(manifest_id)[:80]!r}") from None


def _task_type(name: str) -> str:
    return check_file_name("task_type", name)


def _in_utc(time: datetime) -> datetime:
    return time.astimezone(UTC)


class Manifest(BaseModel):
    """What a job derives, and from what.

    Attributes:
        manifest_id: A UUID; a new one by default.
        manifest_version: The version of this record.
        task_type: The kind of task, such as "entity_extraction"; a folder of artifacts is named
            after it.
        llm_provider: Whose model answers, such as "openai".
        llm_model: The root model.
        sub_models: The models that code may ask, by the names that code uses.
        question: What is asked.
        sources: The documents, with their SHA-256.
        document: The SHA-256 under which the storage has the documents; None if it does not.
        options: The options of the run, in JSON's types.
        library_version: The version of rlm-integrations.
        prompts_sha256: The SHA-256 of the library's modules with its prompts; "" if not known.
        created_at_utc: When the manifest was made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest_id: Annotated[str, AfterValidator(check_manifest_id)] = Field(
        default_factory=lambda: str(uuid4())
    )
    manifest_version: str = Field(default="1.0", max_length=20)
    task_type: Annotated[str, AfterValidator(_task_type)]
    llm_provider: str | None = Field(default=None, max_length=50)
    llm_model: str | None = Field(default=None, max_length=MODEL_CHARS)
    sub_models: dict[str, str] = Field(default_factory=dict)
    question: str = ""
    sources: tuple[SourceInfo, ...] = ()
    document: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    options: dict[str, Any] = Field(default_factory=dict)
    library_version: str = VERSION
    prompts_sha256: str = ""
    # Python's own UTC: an object of pydantic's that lives until the interpreter's end can crash it
    created_at_utc: Annotated[AwareDatetime, AfterValidator(_in_utc)] = Field(
        default_factory=lambda: datetime.now(UTC)
    )

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> "Manifest":
        """The manifest that a file or a row holds; `name` is what messages call it.

        Raises:
            DamagedDataError: It is not a manifest.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DamagedDataError(f"{name} is not a manifest: {where}: {first['msg']}") from None
