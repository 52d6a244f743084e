"""Derived artifacts, their manifests, and raw responses, as files with telling names.

{base_dir}/manifests/{manifest_id}.json
{base_dir}/artifacts/{task_type}/{timestamp}_{manifest_id}.json
{base_dir}/raw_responses/{timestamp}_{manifest_id}.txt
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rlm_integrations._json import to_plain
from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.storage.files import Files, open_files
from rlm_integrations.storage.manifest import Manifest, check_file_name

_TIMESTAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """One file of an `ArtifactStore`.

    Attributes:
        path: The file; in an object store its key.
        manifest_id: The manifest that it was derived by.
        written_at: When it was written, in UTC.
        task_type: The kind of task; None for a raw response.
    """

    path: Path
    manifest_id: str
    written_at: datetime
    task_type: str | None = None


class ArtifactStore:
    """Writes and reads artifacts, manifests and raw responses.

    A file is there completely or not at all, and survives a crash of the machine.

    Args:
        base_dir: A folder, which is created at the first write; or the URL of an object store, such
            as `s3://bucket/prefix` (extra `s3`), whose credentials come from the environment.
        pretty_print: Whether JSON is indented, for readers.
    """

    def __init__(
        self, base_dir: str | os.PathLike[str] | Files, *, pretty_print: bool = True
    ) -> None:
        self._files = open_files(base_dir) if isinstance(base_dir, str | os.PathLike) else base_dir
        self._indent = 2 if pretty_print else None

    def write_manifest(self, manifest: Manifest) -> Path:
        """Write a manifest; one of the same id is replaced. Returns its path."""
        name = f"manifests/{manifest.manifest_id}.json"
        self._files.write(name, self._json(manifest.model_dump(mode="json")))
        return self._files.path_of(name)

    def write_artifact(
        self, manifest_id: str, task_type: str, data: Any, *, at: datetime | None = None
    ) -> Path:
        """Write an artifact, as JSON, and return its path. None is ever replaced.

        Args:
            manifest_id: The manifest that it was derived by.
            task_type: The kind of task, which names the folder.
            data: What was derived: JSON's types, records and pydantic models; other values become
                strings.
            at: The time in its name, with a time zone; by default now. The same data with the same
                time is the same artifact: whoever writes it again gets its path.
        """
        check_file_name("task_type", task_type)
        content = self._json(to_plain(data))
        return self._write_new(f"artifacts/{task_type}", manifest_id, "json", content, at)

    def write_raw_response(self, manifest_id: str, text: str) -> Path:
        """Write what a model replied, as it is, and return its path. None is ever replaced."""
        if not isinstance(text, str):
            raise InputError(f"a raw response must be a string, not a {type(text).__name__}")
        content = text.encode("utf-8", "surrogatepass")
        return self._write_new("raw_responses", manifest_id, "txt", content)

    def read_manifest(self, manifest_id: str) -> Manifest:
        """The manifest with this id.

        Raises:
            InputError: There is none.
            DamagedDataError: The file is not a manifest.
        """
        name = f"manifests/{check_file_name('manifest_id', str(manifest_id))}.json"
        return Manifest.from_json(self._read(name), name)

    def read_artifact(self, path: str | os.PathLike[str]) -> Any:
        """The data of an artifact.

        Args:
            path: What `write_artifact` returned or `list_artifacts` shows, or the path below
                `base_dir`.
        """
        name = self._name_of(path)
        content = self._read(name)
        try:
            return json.loads(content)
        except ValueError as error:
            raise DamagedDataError(f"artifact {name!r} is not JSON: {error}") from None

    def read_raw_response(self, path: str | os.PathLike[str]) -> str:
        """The text of a raw response, named as for `read_artifact`."""
        return self._read(self._name_of(path)).decode("utf-8", "surrogatepass")

    def list_manifests(self) -> list[str]:
        """The ids of all manifests, sorted."""
        return [Path(name).stem for name in self._files.sizes("manifests")]

    def list_artifacts(
        self, task_type: str | None = None, manifest_id: str | None = None
    ) -> list[StoredArtifact]:
        """The artifacts, oldest first; of one kind of task, or of one manifest."""
        folder = (
            "artifacts"
            if task_type is None
            else f"artifacts/{check_file_name('task_type', task_type)}"
        )
        return self._list(folder, manifest_id)

    def list_raw_responses(self, manifest_id: str | None = None) -> list[StoredArtifact]:
        """The raw responses, oldest first; or those of one manifest."""
        return self._list("raw_responses", manifest_id)

    def sizes(self) -> dict[str, int]:
        """The sizes of all files, by their names below `base_dir`."""
        folders = ("artifacts", "manifests", "raw_responses")
        return {name: size for each in folders for name, size in self._files.sizes(each).items()}

    def _list(self, folder: str, manifest_id: str | None) -> list[StoredArtifact]:
        found = []
        for name in self._files.sizes(folder):
            file = Path(name)
            stamp, _, own_id = file.stem.partition("_")
            try:
                written_at = datetime.strptime(stamp, _TIMESTAMP).replace(tzinfo=UTC)
            except ValueError:  # a file of another program
                continue
            if manifest_id is None or own_id == str(manifest_id):
                task_type = file.parts[1] if file.parts[0] == "artifacts" else None
                found.append(
                    StoredArtifact(self._files.path_of(name), own_id, written_at, task_type)
                )
        return sorted(found, key=lambda each: (each.written_at, each.manifest_id))

    def _write_new(
        self,
        folder: str,
        manifest_id: str,
        ending: str,
        content: bytes,
        at: datetime | None = None,
    ) -> Path:
        check_file_name("manifest_id", str(manifest_id))
        time = datetime.now(UTC) if at is None else at.astimezone(UTC)
        while True:
            name = f"{folder}/{time.strftime(_TIMESTAMP)}_{manifest_id}.{ending}"
            if self._files.write(name, content, replace=False) or (
                at is not None and self._files.read(name) == content
            ):
                return self._files.path_of(name)
            time += timedelta(microseconds=1)  # another was written in the same microsecond

    def _read(self, name: str) -> bytes:
        content = self._files.read(name)
        if content is None:
            raise InputError(f"no file {name!r} in {self._files}")
        return content

    def _name_of(self, path: str | os.PathLike[str]) -> str:
        """The name of a file below the base."""
        base = self._files.path_of("manifests").parent.absolute()
        found = Path(path)
        if found.absolute().is_relative_to(base):
            found = found.absolute().relative_to(base)
        elif found.is_absolute():
            raise InputError(f"{str(path)!r} is not in {self._files}")
        return found.as_posix()

    def _json(self, value: Any) -> bytes:
        text = json.dumps(value, indent=self._indent, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "surrogatepass") + b"\n"
