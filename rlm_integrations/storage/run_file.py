"""The file that carries a run to another storage: a zip, which is not trusted when it is read.

run.json          the run, and the hashes of the other members
records.jsonl     the journal: a list per record, in order
blobs/{SHA-256}   the document, the setup, the result and large records
"""

import binascii
import hashlib
import json
import math
import re
import zipfile
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlm_integrations._json import read_record, to_plain
from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.run_setup import check_run_id
from rlm_integrations.storage.lake import SMALL_BYTES

FORMAT = 1
MAX_BYTES = 16 << 30  # of a file's content, unless the caller says otherwise
_MAX_MEMBERS = 200_000
_MAX_HEAD_BYTES = 32 << 20
_MAX_LINE_BYTES = 2 * SMALL_BYTES + 65_536  # a small record in base64, and the path of its call
_RUN, _RECORDS, _BLOBS = "run.json", "records.jsonl", "blobs/"
_BLOB = re.compile(r"blobs/([0-9a-f]{64})")
_STATUS = re.compile(r"[a-z_]{1,20}")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's oldest time: the same run makes the same file


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedRun:
    """A run as its file describes it.

    Attributes:
        run_id: Its id.
        status: Its status.
        setup_sha256: The blob of its setup.
        result_sha256: The blob of its result, if it has one.
        created: When it began, in seconds since 1970.
        updated: When it last changed.
        records_sha256: The SHA-256 of the journal in the file.
        blobs: Every blob that it uses.
        format: The version of the file's form.
    """

    run_id: str
    status: str
    setup_sha256: str
    result_sha256: str | None
    created: float
    updated: float
    records_sha256: str
    blobs: tuple[str, ...]
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class CarriedRecord:
    """A record of the journal.

    Attributes:
        call_id: The identity of its call.
        kept_at: When it was kept, in seconds since 1970.
        body: The record, if it is small.
        blob_sha256: Its blob, if it is large.
    """

    call_id: str
    kept_at: float
    body: bytes | None
    blob_sha256: str | None


class RunFileWriter:
    """Writes the members of a file, each once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add_blob(self, sha256: str, data: bytes) -> None:
        """Add a blob."""
        self._add(f"{_BLOBS}{sha256}", data)

    def add_records(self, records: Iterable[CarriedRecord]) -> str:
        """Add the journal, and return its SHA-256."""
        lines = [
            [each.call_id, each.kept_at, _encoded(each.body), each.blob_sha256] for each in records
        ]
        data = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
        self._add(_RECORDS, data)
        return hashlib.sha256(data).hexdigest()

    def add_run(self, run: CarriedRun) -> None:
        """Add the description of the run."""
        self._add(_RUN, json.dumps(to_plain(run), indent=1).encode())

    def _add(self, name: str, data: bytes) -> None:
        member = zipfile.ZipInfo(name, _EPOCH)
        member.compress_type = zipfile.ZIP_DEFLATED
        member.external_attr = 0o600 << 16
        self._archive.writestr(member, data)


class RunFileReader:
    """Reads a file that anybody may have made. Nothing of it is ever a path.

    Args:
        path: The file.
        max_bytes: The most bytes of its content.

    Raises:
        InputError: There is no such file, or it is no zip or too large.
        DamagedDataError: It is not the file of a run.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._name = f"file {str(path)!r}"
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise InputError(f"{self._name} cannot be read: {error.strerror}") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise InputError(f"{self._name} is not a zip file, or is cut off: {error}") from error
        try:
            self._members = self._checked_members(max_bytes)
            self.run = self._read_run()
        except BaseException:
            self._archive.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def _checked_members(self, max_bytes: int) -> Mapping[str, zipfile.ZipInfo]:
        members = self._archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise InputError(f"{self._name} has more than {_MAX_MEMBERS:,} members")
        # The sizes that it declares bound what is read: a member that is longer is damaged
        if (size := sum(each.file_size for each in members)) > max_bytes:
            raise InputError(
                f"{self._name} has {size:,} bytes of content, and at most {max_bytes:,} are read: "
                "pass a larger max_bytes"
            )
        names = [each.filename for each in members]
        for each in members:
            is_known = each.filename in {_RUN, _RECORDS} or _BLOB.fullmatch(each.filename)
            is_plain = each.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
            if not is_known or not is_plain or each.flag_bits & 0x1:
                raise self._damaged(f"it has the member {each.filename[:80]!r}")
        if len(set(names)) != len(names) or not {_RUN, _RECORDS} <= set(names):
            raise self._damaged("a member is missing, or is there twice")
        return dict(zip(names, members, strict=True))

    def _read_run(self) -> CarriedRun:
        if self._members[_RUN].file_size > _MAX_HEAD_BYTES:
            raise self._damaged(f"{_RUN} is too long")
        with self.clear_errors():
            plain = json.loads(self._read(_RUN))
            version = plain["format"]
        if version != FORMAT:
            raise InputError(
                f"{self._name} has version {str(version)[:20]!r} of this form, and this version of "
                f"rlm-integrations reads {FORMAT}: upgrade with pip install -U rlm-integrations"
            )
        with self.clear_errors():
            run: CarriedRun = read_record(CarriedRun, plain, "run")
            check_run_id(run.run_id)
        blobs = {name.removeprefix(_BLOBS) for name in self._members if name.startswith(_BLOBS)}
        used = {run.setup_sha256, *([run.result_sha256] if run.result_sha256 else [])}
        times = (run.created, run.updated)
        if set(run.blobs) != blobs or not used <= blobs:
            raise self._damaged("a blob is missing, or is not used")
        if not _STATUS.fullmatch(run.status) or not all(0 <= each < 1e11 for each in times):
            raise self._damaged("its status or its times are not valid")
        return run

    def has_blob(self, sha256: str) -> bool:
        """Whether the file has this blob."""
        return f"{_BLOBS}{sha256}" in self._members

    def blob(self, sha256: str) -> bytes:
        """A blob that the run uses.

        Raises:
            DamagedDataError: It is missing, or is not what was written.
        """
        if not self.has_blob(sha256):
            raise self._damaged(f"blob {sha256[:64]!r} is missing")
        with self.clear_errors():
            data = self._read(f"{_BLOBS}{sha256}")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._damaged(f"blob {sha256} has another hash")
        return data

    def records(self) -> Iterator[CarriedRecord]:
        """The journal, in order.

        Raises:
            DamagedDataError: It is not what was written.
        """
        hashed = hashlib.sha256()
        with self.clear_errors(), self._archive.open(self._members[_RECORDS]) as lines:
            while line := lines.readline(_MAX_LINE_BYTES):
                hashed.update(line)
                yield self._record(line)
        if hashed.hexdigest() != self.run.records_sha256:
            raise self._damaged("its journal has another hash")

    def _record(self, line: bytes) -> CarriedRecord:
        call_id, kept_at, encoded, sha256 = json.loads(line)
        body = None if encoded is None else b64decode(encoded, validate=True)
        if not isinstance(call_id, str) or not math.isfinite(kept_at):
            raise self._damaged("a record is not valid")
        if (body is None) == (sha256 is None) or not (sha256 is None or self.has_blob(sha256)):
            raise self._damaged("a record has no body")
        if body is not None and len(body) > SMALL_BYTES:
            raise self._damaged("a record is too long")
        return CarriedRecord(call_id, float(kept_at), body, sha256)

    def _read(self, name: str) -> bytes:
        with self._archive.open(self._members[name]) as member:
            return member.read()

    @contextmanager
    def clear_errors(self) -> Iterator[None]:
        """Within it, what the content of the file causes is a `DamagedDataError`."""
        try:
            yield
        except (
            InputError, KeyError, TypeError, ValueError, RecursionError, OverflowError, OSError,
            EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, binascii.Error,
        ) as error:  # fmt: skip
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> DamagedDataError:
        return DamagedDataError(f"{self._name} is damaged, or is not an exported run: {why}")


def _encoded(body: bytes | None) -> str | None:
    return None if body is None else b64encode(body).decode("ascii")
