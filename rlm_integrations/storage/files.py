"""Files that are written completely or not at all: in a local folder, or in an object store."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from rlm_integrations.errors import (
    InputError,
    MissingExtraError,
    StorageError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class Files(Protocol):
    """Named files. Names have slashes, and never leave the folder."""

    def write(self, name: str, data: bytes, *, replace: bool = True) -> bool:
        """Write a file so that it survives a crash of the machine; no reader sees a part of it.

        Returns:
            False if it exists already and `replace` is False; it is not changed then.
        """
        ...

    def read(self, name: str) -> bytes | None:
        """The content; None if there is no such file."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """The sizes of all files in a folder and the folders below, by name, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove the file, if it exists."""
        ...

    def path_of(self, name: str) -> Path:
        """The file's path; in an object store its key."""
        ...


def open_files(place: str | os.PathLike[str]) -> Files:
    """The files of a folder, or of an object store if the place is a URL.

    Raises:
        InputError: The URL is of an unknown kind.
        MissingExtraError: The package for object stores is not installed.
    """
    text = os.fspath(place)
    scheme = urlsplit(text).scheme
    if len(scheme) < 2 or "://" not in text:  # a path, on Windows also `C:\…`
        return LocalFiles(Path(text).expanduser())
    return ObjectFiles.from_url(text)


class LocalFiles:
    """Files in a local folder, readable by their user alone."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def path_of(self, name: str) -> Path:
        """The file's path."""
        return self._root / check_name(name)

    def write(self, name: str, data: bytes, *, replace: bool = True) -> bool:
        """Write to a temporary file, sync it, give it its name, and sync the folder."""
        path = self.path_of(name)
        with self._clear_errors(name):
            _make_folder(path.parent)
            aside = path.with_name(f".{secrets.token_hex(8)}.tmp")
            try:
                _write_synced(aside, data)
                if replace:
                    aside.replace(path)
                else:
                    os.link(aside, path)
            except FileExistsError:
                return False
            finally:
                aside.unlink(missing_ok=True)
            _sync_folder(path.parent)
        return True

    def read(self, name: str) -> bytes | None:
        """The content; None if there is no such file."""
        with self._clear_errors(name):
            try:
                return self.path_of(name).read_bytes()
            except FileNotFoundError:
                return None

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        with self._clear_errors(name):
            return self.path_of(name).is_file()

    def sizes(self, folder: str) -> dict[str, int]:
        """The sizes of all files in a folder and the folders below, by name, sorted."""
        with self._clear_errors(folder):
            found = {}
            for path in sorted(self.path_of(folder).rglob("[!.]*")):
                with suppress(FileNotFoundError):  # removed meanwhile
                    if stat.S_ISREG((seen := path.stat()).st_mode):
                        found[path.relative_to(self._root).as_posix()] = seen.st_size
            return found

    def delete(self, name: str) -> None:
        """Remove the file, if it exists."""
        with self._clear_errors(name):
            self.path_of(name).unlink(missing_ok=True)

    @contextmanager
    def _clear_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            advice = (
                "the disk is full; free some space and call again"
                if error.errno in {errno.ENOSPC, errno.EDQUOT}
                else f"{error.strerror}; check the permissions of the folder"
            )
            raise StorageError(f"file {name!r} in {str(self._root)!r}: {advice}") from error


class ObjectFiles:
    """Files in an object store, by `obstore`: S3 and what speaks its protocol, Azure, Google Cloud.

    Args:
        store: A store of obstore.
        url: How messages name it.
    """

    def __init__(self, store: "ObjectStore", url: str) -> None:
        self._store = store
        self._url = url

    @classmethod
    def from_url(cls, url: str) -> "ObjectFiles":
        """The store of a URL such as `s3://bucket/prefix`; credentials come from the environment.

        Raises:
            InputError: The URL is of an unknown kind.
            MissingExtraError: obstore is not installed.
        """
        try:
            from obstore import exceptions
            from obstore.store import from_url
        except ImportError:
            raise MissingExtraError("a lake in an object store", "s3") from None
        shown = urlsplit(url)._replace(query="").geturl().rpartition("@")[2]
        try:
            return cls(from_url(url), shown)
        except (ValueError, exceptions.BaseError) as error:
            raise InputError(
                f"lake {shown!r} cannot be opened; write a folder, or a URL such as "
                f"s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
            ) from error

    def __str__(self) -> str:
        return self._url

    def path_of(self, name: str) -> Path:
        """The file's key, relative to the store's prefix."""
        return Path(check_name(name))

    def write(self, name: str, data: bytes, *, replace: bool = True) -> bool:
        """Write an object; the store shows it only when it is complete."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        mode: Any = "overwrite" if replace else "create"
        with self._clear_errors(name):
            try:
                obstore.put(self._store, check_name(name), data, mode=mode)
            except AlreadyExistsError:
                return False
        return True

    def read(self, name: str) -> bytes | None:
        """The content; None if there is no such object."""
        import obstore

        with self._clear_errors(name):
            try:
                return bytes(obstore.get(self._store, check_name(name)).bytes())
            except FileNotFoundError:  # obstore's NotFoundError is one
                return None

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        import obstore

        with self._clear_errors(name):
            try:
                obstore.head(self._store, check_name(name))
            except FileNotFoundError:
                return False
        return True

    def sizes(self, folder: str) -> dict[str, int]:
        """The sizes of all objects below a prefix, by name, sorted."""
        import obstore

        with self._clear_errors(folder):
            pages = obstore.list(self._store, prefix=check_name(folder))
            return dict(sorted((each["path"], each["size"]) for page in pages for each in page))

    def delete(self, name: str) -> None:
        """Remove the object, if it exists."""
        import obstore

        with self._clear_errors(name):
            try:
                obstore.delete(self._store, check_name(name))
            except FileNotFoundError:
                return

    @contextmanager
    def _clear_errors(self, name: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except BaseError as error:
            raise StorageUnavailableError(
                f"object {name!r} in {self._url!r}: {type(error).__name__}; check the bucket, the "
                "credentials and the network, and call again"
            ) from error


def check_name(name: str) -> str:
    """The name, if it stays within its folder.

    Raises:
        InputError: It does not.
    """
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name or "\0" in name:
        raise InputError(f"file name {name[:80]!r} leaves its folder")
    return name


def _write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())


def _make_folder(folder: Path) -> None:
    """Create the folder and those above it; each is synced, or a crash could lose the files too."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
