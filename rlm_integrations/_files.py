"""Writes files completely or not at all."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path


def write_whole(
    path: str | os.PathLike[str], lines: Iterable[str], *, encoding: str = "ascii"
) -> None:
    """Write text to a file. If that fails, the file keeps its old content.

    An existing file keeps its permissions. A symbolic link stays a link, and its target is
    replaced. A file that is not regular, such as a pipe or a terminal, is written directly; a pipe
    that no process reads is refused. A file that cannot be replaced is written directly too: in a
    directory that is not writable, or a file that is a mount point, as in containers.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is None or stat.S_ISREG(mode):
        _replace(Path(os.path.realpath(path)), lines, mode, encoding)
    else:
        _write_through(path, lines, encoding)


def _replace(target: Path, lines: Iterable[str], mode: int | None, encoding: str) -> None:
    aside = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        try:
            file = aside.open("x", encoding=encoding, newline="\n")
        except OSError as error:
            if mode is None or error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise
            _write_through(target, lines, encoding)
            return
        with file:
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        try:
            aside.replace(target)
        except OSError as error:
            if mode is None or error.errno != errno.EBUSY:
                raise
            shutil.copyfile(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _write_through(path: str | os.PathLike[str], lines: Iterable[str], encoding: str) -> None:
    fd = os.open(
        path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
    )  # O_NONBLOCK: opening a pipe without a reader would wait for one
    # A descriptor, not a path
    with open(fd, "w", encoding=encoding, newline="\n") as file:  # noqa: PTH123
        os.set_blocking(fd, True)
        file.writelines(lines)
