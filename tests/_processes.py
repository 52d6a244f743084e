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


def descendants_of(pid: int) -> set[int]:
    """The running processes below a process, whichever of its threads have started them."""
    found = set[int]()
    with suppress(FileNotFoundError, ProcessLookupError):
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                found.update(int(each) for each in listed.read_text().split())
    return found.union(*map(descendants_of, found))


def is_running(pid: int) -> bool:
    """Whether a process is there, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "XZ"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _has_ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "X"
    except (FileNotFoundError, ProcessLookupError):
        return True
