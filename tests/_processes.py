"""Lists processes."""

from contextlib import suppress
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The running children of a process.

    A busy kernel may list one for some milliseconds after it has reported its end.
    """
    with suppress(FileNotFoundError):
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(each) for each in listed if not _has_ended(each)]
    return []


def _has_ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "X"
    except (FileNotFoundError, ProcessLookupError):
        return True
