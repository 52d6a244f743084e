"""The text files of zip and tar archives, and compressed texts, read within limits: an archive may
be made to fill the memory.
"""

import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from rlm_integrations.corpus.fixed_width import identity, open_regular
from rlm_integrations.corpus.folder import MAX_FILE_BYTES, MAX_FILES, OVER_LIMIT
from rlm_integrations.corpus.ignoring import DEFAULT, IgnoreRules
from rlm_integrations.corpus.source import is_name
from rlm_integrations.errors import ContextError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

MAX_BYTES: Final = 500_000_000  # unpacked
MAX_RATIO: Final = 200  # unpacked to packed, of an archive that has more than the following
FREE_BYTES: Final = 50_000_000
_STEP: Final = 1 << 18

_COMPRESSED: Final = (".gz", ".bz2", ".xz")
_TARS: Final = {
    ".tgz": ".gz",
    ".tbz2": ".bz2",
    ".txz": ".xz",
    ".tar": "",
    **{f".tar{suffix}": suffix for suffix in _COMPRESSED},
}


def _broken(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """The errors of damaged files. Modules for archives are imported by the first archive."""
    from lzma import LZMAError
    from tarfile import TarError
    from zipfile import BadZipFile
    from zlib import error as zlib_error

    return (
        *(BadZipFile, TarError, zlib_error, LZMAError),
        *(EOFError, OSError, ValueError, LookupError, OverflowError, struct.error),
        NotImplementedError,
        *more,
    )


def _decompressed(file: IO[bytes], suffix: str) -> Any:
    import bz2
    import gzip
    import lzma

    if suffix == ".gz":
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if suffix == ".bz2" else lzma.LZMAFile(file)


class Unpack(Protocol):
    """Yields the members of an archive: each with its name, and its bytes or why it is left out."""

    def __call__(self, file: IO[bytes], size: int) -> Iterator[tuple[str, bytes | str]]: ...  # noqa: D102


def unpacker(path: "str | os.PathLike[str]") -> Unpack | None:
    """The reader of an archive with this name; None if it is not the name of one."""
    name = os.fsdecode(path).lower()
    if name.endswith(".zip"):
        return _unzipped
    for suffix, compression in _TARS.items():
        if name.endswith(suffix):
            return lambda file, size: _untarred(file, size, compression)
    return None


def members(path: Path, unpack: Unpack) -> Iterator[tuple[str, bytes | str]]:
    """The files in an archive that are not ignored, in its order: each with its name, and its bytes
    or, if it is left out, the reason.

    Raises:
        ContextError: The archive cannot be read, or is larger than the limits.
    """
    seen: set[str] = set()
    ignored = IgnoreRules("", DEFAULT)
    with _opened(path) as (file, size):
        for count, (raw, content) in enumerate(unpack(file, size)):
            if count == MAX_FILES:
                raise ContextError(f"has more than {MAX_FILES:,} files: unpack it, and pass a part")
            name = raw.removeprefix("./").lstrip("/")
            parts = name.split("/")
            above = ("/".join(parts[:end]) for end in range(1, len(parts)))
            if ignored.ignores(name, is_folder=False) or any(
                ignored.ignores(each, is_folder=True) for each in above
            ):
                continue
            if not is_name(name):
                yield ascii(name)[1:-1] or "(no name)", "unprintable name"
            elif name in seen:
                yield f"{name} (again)", "second file of its name"
            else:
                seen.add(name)
                yield name, content


def unpacked_name(path: "str | os.PathLike[str]") -> str | None:
    """The name of a compressed text without its last suffix; None for other files."""
    name = Path(os.fsdecode(path)).name
    if unpacker(path) is None and Path(name.lower()).suffix in _COMPRESSED:
        return Path(name).stem
    return None


def unpack_text(path: Path) -> bytes:
    """The content of a compressed text.

    Raises:
        ContextError: It cannot be read, or is larger than the limits.
    """
    with _opened(path) as (file, size):
        bounded = _Bounded(_decompressed(file, path.suffix.lower()), size)
        return b"".join(iter(bounded.read, b""))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """The file and its size. Errors of the formats become errors of ours."""
    fd, before = open_regular(path)
    with os.fdopen(fd, "rb") as file:
        try:
            yield file, before.st_size
        except ContextError as error:
            raise ContextError(f"{str(path)!r} {error}") from None
        except _broken() as error:
            raise ContextError(
                f"{str(path)!r} cannot be unpacked: it is damaged, or another kind of file"
                f" ({error})"
            ) from error
        if identity(os.fstat(fd)) != identity(before):
            raise ContextError(f"{str(path)!r} changed while it was read: start again")


class _Bounded(io.RawIOBase):
    """Reads what a decompressor yields, up to the limits of an archive of this size."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__()
        self._file = file
        self._left = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * size))

    def read(self, count: int = -1) -> bytes:
        """Up to this many bytes.

        Raises:
            ContextError: The limit is reached.
        """
        data = self._file.read(_STEP if count < 0 else count)
        self.spend(len(data))
        return data

    def spend(self, count: int) -> None:
        """Count bytes that were unpacked.

        Raises:
            ContextError: The limit is reached.
        """
        self._left -= count
        if self._left < 0:
            raise ContextError(
                f"has more than {MAX_BYTES // 1_000_000} MB, or more than {MAX_RATIO} times its"
                " packed size: unpack it, and pass the files"
            )


def _unzipped(file: IO[bytes], size: int) -> Iterator[tuple[str, bytes | str]]:
    from zipfile import ZipFile

    budget = _Bounded(file, size)
    with ZipFile(file) as archive:
        for info in archive.infolist():
            if info.filename.endswith("/"):  # `is_dir` fails if a member has no name
                continue
            if info.flag_bits & 1:
                yield info.filename, "encrypted"
            elif stat.S_ISLNK(info.external_attr >> 16):
                yield info.filename, "link"
            elif info.file_size > MAX_FILE_BYTES:
                yield info.filename, OVER_LIMIT
            else:
                yield info.filename, _member(archive, info, budget)


def _member(archive: "ZipFile", info: "ZipInfo", budget: _Bounded) -> bytes | str:
    parts: list[bytes] = []
    try:
        with archive.open(info) as member:
            while part := member.read(_STEP):
                budget.spend(len(part))
                parts.append(part)
    except ContextError:
        raise
    except _broken(RuntimeError):
        return "damaged"
    return b"".join(parts)


def _untarred(file: IO[bytes], size: int, compression: str) -> Iterator[tuple[str, bytes | str]]:
    import tarfile

    unpacked = _decompressed(file, compression) if compression else file
    bounded = _Bounded(unpacked, size)
    with tarfile.open(fileobj=bounded, mode="r|") as archive:
        for info in archive:
            if info.isdir():
                continue
            if info.issym() or info.islnk():
                yield info.name, "link"
            elif not info.isfile():
                yield info.name, "not a regular file"
            elif info.size > MAX_FILE_BYTES:
                yield info.name, OVER_LIMIT
            else:
                member = archive.extractfile(info)
                yield info.name, member.read() if member is not None else b""
            vars(archive)["members"].clear()  # it would keep each header
