"""The text files of a folder, by their relative paths."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from rlm_integrations.corpus.ignoring import DEFAULT, IgnoreRules, is_ignored, path_pattern
from rlm_integrations.corpus.source import is_name
from rlm_integrations.errors import ContextError

MAX_FILES: Final = 200_000
MAX_FOLDER_BYTES: Final = 2_000_000_000  # of the texts
MAX_FILE_BYTES: Final = 20_000_000  # a larger file is left out
OVER_LIMIT: Final = f"over {MAX_FILE_BYTES // 1_000_000} MB"
_MAX_SHOWN: Final = 1_000  # names of files that are left out
_MAX_IGNORE_BYTES: Final = 1_000_000  # of a .gitignore
_MAGIC: Final = re.compile(r"[*?[]")


def split_pattern(path: "str | os.PathLike[str]") -> tuple[Path, str] | None:
    """The folder at this path, or in which this glob pattern looks, and the pattern of files in it.
    None for the path of a file.
    """
    found = Path(os.fsdecode(path))
    try:
        if found.is_dir():
            return found, "**"
        if not _MAGIC.search(str(found)) or found.is_symlink() or found.exists():
            return None
    except ValueError:  # a zero byte in the path
        return None
    fixed = next(number for number, part in enumerate(found.parts) if _MAGIC.search(part))
    return Path(*found.parts[:fixed]), "/".join(found.parts[fixed:])


def count_reasons(left_out: Mapping[str, str]) -> str:
    """How many files are left out, and why."""
    counts = Counter(left_out.values()).most_common()
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts)
    return f"{len(left_out):,} file{'s are' if len(left_out) > 1 else ' is'} left out ({reasons})"


def describe_left_out(left_out: Mapping[str, str]) -> dict[str, Any]:
    """The entry of the REPL's `context_metadata` on the files that are left out, if there are."""
    if not left_out:
        return {}
    shown = dict(islice(left_out.items(), _MAX_SHOWN))
    return {
        "left_out": {
            "files": len(left_out),
            "reasons": dict(Counter(left_out.values()).most_common()),
            "names": shown,
        }
    }


class Folder:
    """The files of a folder, without ignored ones. It is read at once; files are not opened.

    Attributes:
        root: The folder.
        files: The relative paths of the files, sorted.
        sizes: The bytes of each of `files`, by its path.
        left_out: The files that are left out, by relative path, and the reason for each.
    """

    def __init__(self, root: Path, pattern: str = "**") -> None:
        self.root = root
        self.files: list[str] = []
        self.sizes: dict[str, int] = {}
        self.left_out: dict[str, str] = {}
        matches = path_pattern(pattern)
        self._matches = (lambda _: None) if matches is None else matches.fullmatch
        self._real = root.resolve()
        self._walk()
        self.files.sort()

    @classmethod
    def of(cls, path: "str | os.PathLike[str]") -> "Folder | None":
        """The folder at this path, or the files that match it as a glob pattern; None for the path
        of a file.

        Raises:
            ContextError: The folder cannot be read, has too many files, or no file matches.
        """
        parts = split_pattern(path)
        if parts is None:
            return None
        folder = cls(*parts)
        if not folder.files and not folder.left_out:
            raise ContextError(f"there is no file in {os.fsdecode(path)!r}, or all are ignored")
        return folder

    def check_size(self, size: int) -> None:
        """Refuse more than `MAX_FOLDER_BYTES` bytes of texts.

        Raises:
            ContextError: There are more.
        """
        if size > MAX_FOLDER_BYTES:
            raise ContextError(
                f"{str(self.root)!r} has more than {MAX_FOLDER_BYTES / 1e9:g} GB of text: pass a "
                "smaller folder, or a pattern such as Path('src/**/*.py')"
            )

    def _walk(self) -> None:
        pending = [("", (IgnoreRules("", DEFAULT), *_rules_above(self._real)))]
        while pending:
            base, rules = pending.pop()
            try:
                with os.scandir(self.root / base) as entries:
                    found = list(entries)
            except OSError as error:
                if not base:
                    raise ContextError(
                        f"{str(self.root)!r} cannot be read: {error.strerror}"
                    ) from error
                self.left_out[base] = "unreadable"
                continue
            if any(entry.name == ".gitignore" for entry in found):
                rules = (*rules, IgnoreRules(base, _lines(self.root / base / ".gitignore")))
            for entry in found:
                path = f"{base}{entry.name}"
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_ignored(rules, path, is_folder=is_folder):
                    continue
                if is_folder:
                    pending.append((f"{path}/", rules))
                elif self._matches(path):
                    self._add(path, entry)

    def _add(self, path: str, entry: "os.DirEntry[str]") -> None:
        if not is_name(path):
            shown = os.fsencode(path).decode(errors="backslashreplace")
            self.left_out[shown if is_name(shown) else ascii(shown)[1:-1]] = "unprintable name"
            return
        try:
            if entry.is_symlink() and not self._leads_inside(entry):
                self.left_out[path] = "link out of the folder"
                return
            info = entry.stat()
        except OSError:
            self.left_out[path] = "unreadable"
            return
        if stat.S_ISDIR(info.st_mode):  # a link: its files are in the folder anyway
            return
        if not stat.S_ISREG(info.st_mode):
            self.left_out[path] = "not a regular file"
        elif info.st_size > MAX_FILE_BYTES:
            self.left_out[path] = OVER_LIMIT
        elif len(self.files) == MAX_FILES:
            raise ContextError(
                f"{str(self.root)!r} has more than {MAX_FILES:,} files: pass a smaller folder, or a"
                " pattern such as Path('src/**/*.py')"
            )
        else:
            self.files.append(path)
            self.sizes[path] = info.st_size

    def has(self, path: str) -> bool:
        """Whether a relative path is in the folder, and no link leads out of it."""
        return Path(os.path.realpath(self.root / path)).is_relative_to(self._real)

    def _leads_inside(self, link: "os.DirEntry[str]") -> bool:
        # Not Path.resolve: for a circle of links it raises another error in each version of Python
        return Path(os.path.realpath(link.path, strict=True)).is_relative_to(self._real)


def _rules_above(root: Path) -> Iterator[IgnoreRules]:
    """The `.gitignore` files of the repository above a folder in it, the outermost first."""
    inside = [*root.parents]
    top = next((at for at, each in enumerate([root, *inside]) if (each / ".git").exists()), 0)
    for folder in reversed(inside[:top]):
        below = f"{root.relative_to(folder).as_posix()}/"
        yield IgnoreRules("", _lines(folder / ".gitignore"), below=below)


def _lines(path: Path) -> list[str]:
    """The lines of an ignore file; none if it cannot be read, as in git."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_IGNORE_BYTES:
            return []
        return path.read_text(errors="surrogateescape").split("\n")
    except OSError:
        return []
