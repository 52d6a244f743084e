"""Storage as a YAML file says it: the keys of the original design, and ours beside them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import yaml

from rlm_integrations.errors import InputError, quote_value
from rlm_integrations.storage.durations import parse_duration
from rlm_integrations.storage.schema import DEFAULT_SCHEMA

T = TypeVar("T")

_KEYS = {
    "storage": {
        "artifact_lake", "database_url", "keep_documents", "lake_url", "retention", "sql_server",
    },
    "storage.artifact_lake": {"base_dir", "enabled", "pretty_print"},
    "storage.sql_server": {"enabled", "schema"},
}  # fmt: skip
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """What the section `storage` of a configuration file says.

    Attributes:
        artifact_lake_enabled: `artifact_lake.enabled`: whether artifacts and large blobs are kept
            as files.
        base_dir: `artifact_lake.base_dir`: their folder, relative to the working directory. Without
            a database on a server it also has the SQLite database.
        pretty_print: `artifact_lake.pretty_print`: whether JSON of artifacts is indented.
        sql_server_enabled: `sql_server.enabled`: whether the database is on a server, of any kind,
            which `database_url` names.
        schema: `sql_server.schema`: the schema of the tables, or the prefix of their names.
        database_url: The database's URL.
        lake_url: An object store in place of `base_dir`.
        retention: How long runs are kept: `30d`, `12h` or `2w`; None for ever.
        keep_documents: Whether documents are kept with runs.
    """

    artifact_lake_enabled: bool = True
    base_dir: str = "runs/"
    pretty_print: bool = True
    sql_server_enabled: bool = False
    schema: str = DEFAULT_SCHEMA
    database_url: str | None = None
    lake_url: str | None = None
    retention: timedelta | None = None
    keep_documents: bool = True


def read_settings(
    path: str | os.PathLike[str], environment: Mapping[str, str] | None = None
) -> StorageSettings:
    """The settings of a YAML file. `${NAME}` in a value is the variable of the environment; other
    sections than `storage` belong to others.

    Raises:
        InputError: The file cannot be read, a key is unknown, or a value is not valid.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"configuration {str(path)!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"configuration {str(path)!r}{where}: this is not valid YAML") from None
    if not isinstance(document, dict) or "storage" not in document:
        raise InputError(f"configuration {str(path)!r} has no section 'storage:'")
    reader = _Reader(os.environ if environment is None else environment)
    section = reader.section(document["storage"], "storage")
    lake = reader.section(section.get("artifact_lake"), "storage.artifact_lake")
    server = reader.section(section.get("sql_server"), "storage.sql_server")
    url = reader.value(section, "storage", "database_url", str, None)
    kept = reader.value(section, "storage", "retention", str, None)
    settings = StorageSettings(
        artifact_lake_enabled=reader.value(lake, "storage.artifact_lake", "enabled", bool, True),
        base_dir=reader.value(lake, "storage.artifact_lake", "base_dir", str, "runs/"),
        pretty_print=reader.value(lake, "storage.artifact_lake", "pretty_print", bool, True),
        sql_server_enabled=reader.value(
            server, "storage.sql_server", "enabled", bool, url is not None
        ),
        schema=reader.value(server, "storage.sql_server", "schema", str, DEFAULT_SCHEMA),
        database_url=url,
        lake_url=reader.value(section, "storage", "lake_url", str, None),
        retention=None if kept is None else parse_duration("storage.retention", kept),
        keep_documents=reader.value(section, "storage", "keep_documents", bool, True),
    )
    _check_together(settings)
    return settings


def _check_together(settings: StorageSettings) -> None:
    if settings.sql_server_enabled and settings.database_url is None:
        raise InputError(
            "storage.sql_server.enabled is true: storage.database_url must name the database, such "
            "as postgresql+psycopg://${DB_USER}:${DB_PASSWORD}@HOST/DATABASE"
        )
    if not settings.sql_server_enabled and settings.database_url is not None:
        raise InputError(
            "storage.database_url is set, and storage.sql_server.enabled is false: set it to true, "
            "or remove the URL"
        )
    if not settings.sql_server_enabled and not settings.artifact_lake_enabled:
        raise InputError(
            "storage.artifact_lake and storage.sql_server are both disabled: enable at least one"
        )


class _Reader:
    """Reads sections and values, and names what is wrong by its whole key."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def section(self, value: Any, name: str) -> dict[str, Any]:
        """A section with known keys; one that is empty or missing is `{}`."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InputError(f"{name} must have keys and values, not {quote_value(value)}")
        for key in value:
            if key not in _KEYS[name]:
                close = get_close_matches(str(key), _KEYS[name], n=1, cutoff=0.0)
                raise InputError(f"unknown key {name}.{key}; did you mean {name}.{close[0]}?")
        return value

    def value(
        self, section: dict[str, Any], name: str, key: str, kind: type[T], default: Any
    ) -> Any:
        """A value of this type, its variables replaced; the default if it is missing."""
        value = section.get(key)
        if isinstance(value, str):
            value = self._expand(value, f"{name}.{key}")
            if kind is bool and value.lower() in {"true", "false"}:  # from a variable
                value = value.lower() == "true"
        if value is None:
            return default
        if not isinstance(value, kind):
            wanted = "true or false" if kind is bool else "a string"
            raise InputError(f"{name}.{key} must be {wanted}, not {quote_value(value)}")
        return value

    def _expand(self, text: str, key: str) -> str:
        # A part of a URL is escaped: a password may have any character
        escapes = key == "storage.database_url" and not _VARIABLE.fullmatch(text)

        def replace(found: re.Match[str]) -> str:
            value = self._environment.get(found[1])
            if value is None:
                raise InputError(f"{key} needs the environment variable {found[1]}: it is not set")
            return quote(value, safe="") if escapes else value

        return _VARIABLE.sub(replace, text)
