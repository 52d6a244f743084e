"""Storage from a configuration file: the keys of the original design, and ours beside them."""

from datetime import timedelta
from pathlib import Path

import pytest

from rlm_integrations.errors import InputError
from rlm_integrations.storage import Storage
from rlm_integrations.storage.settings import StorageSettings, read_settings

ORIGINAL = """
llm:
  provider: openai
storage:
  artifact_lake:
    enabled: true
    base_dir: "local/llm_artifacts"
    pretty_print: true

  sql_server:
    enabled: false
    schema: "llm"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "llm.yaml"


def test_the_originals_configuration_works(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original's file opens a storage in its `base_dir`; other sections belong to others."""
    monkeypatch.chdir(tmp_path)
    config.write_text(ORIGINAL)
    with Storage.from_config("llm.yaml") as storage:
        path = storage.artifacts.write_artifact("m1", "notes", {"a": 1})
    assert path.is_relative_to(tmp_path / "local" / "llm_artifacts" / "artifacts" / "notes")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert (tmp_path / "local" / "llm_artifacts" / "storage.sqlite").exists()


def test_our_keys_are_beside_them(config: Path) -> None:
    """A database, a lake and a retention are named beside the original's keys; variables come from
    the environment.
    """
    config.write_text(
        "storage:\n"
        "  database_url: postgresql+psycopg://${USER}:${SECRET}@db/rlm\n"
        "  lake_url: s3://${BUCKET}/runs\n"
        "  retention: 30d\n"
        "  keep_documents: ${KEEP}\n"
        "  artifact_lake: {pretty_print: false}\n"
        "  sql_server: {enabled: true, schema: team}\n"
    )
    environment = {"USER": "me", "SECRET": "p@ss/word", "BUCKET": "b", "KEEP": "false"}
    assert read_settings(config, environment) == StorageSettings(
        pretty_print=False,
        sql_server_enabled=True,
        schema="team",
        database_url="postgresql+psycopg://me:p%40ss%2Fword@db/rlm",
        lake_url="s3://b/runs",
        retention=timedelta(days=30),
        keep_documents=False,
    )


def test_a_variable_may_be_the_whole_url(config: Path) -> None:
    """A variable that is the whole URL is taken as it is, and the server counts as enabled."""
    config.write_text("storage:\n  database_url: ${URL}\n")
    settings = read_settings(config, {"URL": "postgresql://u:p%40@h/d"})
    assert settings.database_url == "postgresql://u:p%40@h/d"
    assert settings.sql_server_enabled


def test_a_configured_server_is_opened(config: Path, postgres_url: str, tmp_path: Path) -> None:
    """With a database on a server, `base_dir` is the lake, and the schema is the configured one."""
    config.write_text(
        f"storage:\n  database_url: {postgres_url}\n  artifact_lake: {{base_dir: {tmp_path}/lake}}\n"
        "  sql_server: {schema: team}\n"
    )
    with Storage.from_config(config) as storage:
        storage.artifacts.write_raw_response("m1", "x")
        assert storage._shared.database.names.schema == "team"
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["raw_responses"]


WRONG = {
    "storage: {artefact_lake: {}}": "unknown key storage.artefact_lake; did you mean storage.artifact_lake?",
    "storage: {artifact_lake: {base_directory: x}}": "storage.artifact_lake.base_directory; did you mean storage.artifact_lake.base_dir?",
    "storage: {sql_server: {scheme: x}}": "did you mean storage.sql_server.schema?",
    "storage: {database: x}": "did you mean storage.database_url?",
    "storage: {artifact_lake: runs}": "storage.artifact_lake must have keys and values, not 'runs'",
    "storage: {artifact_lake: {enabled: maybe}}": "artifact_lake.enabled must be true or false, not 'maybe'",
    "storage: {artifact_lake: {base_dir: 7}}": "artifact_lake.base_dir must be a string, not 7",
    "storage: {retention: 30 years}": "storage.retention must be like 12h, 30d or 2w",
    "storage: {lake_url: 's3://${NOT_THERE}/x'}": "storage.lake_url needs the environment variable NOT_THERE: it is not set",
    "storage: {sql_server: {enabled: true}}": "storage.database_url must name the database",
    "storage: {database_url: 'sqlite:///x', sql_server: {enabled: false}}": "storage.sql_server.enabled is false: set it to true",
    "storage: {artifact_lake: {enabled: false}}": "both disabled: enable at least one",
    "llm: {}": "has no section 'storage:'",
    "": "has no section 'storage:'",
    "storage: {a: [}": "line 1: this is not valid YAML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_configuration_says_what_is_right(config: Path, text: str) -> None:
    """An unknown key names the nearest one; a wrong value its whole key and what is valid."""
    config.write_text(text)
    with pytest.raises(InputError) as raised:
        read_settings(config, {})
    assert WRONG[text] in str(raised.value)


def test_a_missing_file_says_so(config: Path) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(InputError, match=r"llm\.yaml' cannot be read: No such file"):
        Storage.from_config(config)
