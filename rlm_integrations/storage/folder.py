"""The folder of an embedded storage: one SQLite database, and the files of its lake beside it."""

import os
from pathlib import Path

from sqlalchemy import URL

from rlm_integrations.errors import InputError, StorageError
from rlm_integrations.storage.database_errors import Target

DATABASE_FILE = "storage.sqlite"
# What a lake and an `ArtifactStore` may have put there before
_LAKE_FOLDERS = frozenset({"artifacts", "blobs", "manifests", "raw_responses"})
# SQLite's write-ahead log needs memory that all processes share, which these do not offer
NETWORK_FILE_SYSTEMS = frozenset(
    "9p afs beegfs ceph cifs fuse.glusterfs fuse.s3fs fuse.sshfs gfs2 glusterfs lustre ncpfs nfs "
    "nfs4 ocfs2 smb3 smbfs".split()
)


def prepare_folder(path: str | os.PathLike[str]) -> Target:
    """The database of a storage folder, which is created if it does not exist.

    New folders and files are readable by their user alone.

    Raises:
        InputError: The path is a file, or a folder with other files.
        StorageError: The folder cannot be created, or is on a network file system.
    """
    folder = Path(path).expanduser()
    shown = str(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"storage needs a folder, and {shown!r} is a file")
    try:
        has_database = (folder / DATABASE_FILE).exists()
        if folder.is_dir() and not has_database and _has_files_of_others(folder):
            raise InputError(
                f"folder {shown!r} is not a storage folder: it has files, and no {DATABASE_FILE}; "
                "name a new or an empty folder"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepare_file(folder / DATABASE_FILE)
    except OSError as error:
        raise StorageError(
            f"storage folder {shown!r} cannot be used: {error.strerror}; check its permissions"
        ) from error
    return Target(URL.create("sqlite", database=str((folder / DATABASE_FILE).resolve())), shown)


def _has_files_of_others(folder: Path) -> bool:
    return any(path.name not in _LAKE_FOLDERS for path in folder.iterdir())


def prepare_file(file: Path) -> None:
    """Create an empty database that its user alone can read; SQLite's other files get the same
    permissions.

    Raises:
        OSError: It cannot be created.
        StorageError: It is on a network file system.
    """
    if (kind := file_system_of(file.parent)) in NETWORK_FILE_SYSTEMS:
        raise StorageError(
            f"{str(file.parent)!r} is on a network file system ({kind}), where SQLite is not safe; "
            "use a local folder, or a PostgreSQL database with lake="
        )
    if not file.exists():
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def file_system_of(folder: Path, mounts: str | None = None) -> str:
    """The type of the file system that has the folder; "" if the system does not say.

    Args:
        folder: Any folder.
        mounts: The text of Linux's table of mounts; by default that of this process.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    wanted = folder.resolve()
    best = (-1, "")
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        mounted = Path(point.replace("\\040", " "))
        if wanted.is_relative_to(mounted) and len(mounted.parts) >= best[0]:
            best = (len(mounted.parts), kind)
    return best[1]
