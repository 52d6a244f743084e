"""Which process has a run: a name that says nothing of the machine to people, and enough to tell
whether the process is alive.
"""

import os
import threading
from pathlib import Path

_lock = threading.Lock()
_runs_here: set[tuple[str, str]] = set()  # what this process runs, by its name and the runs' ids

_START_TIME = 19  # the field of /proc/PID/stat after the command's name


def own_name() -> str:
    """The name of this process: boot, namespace of process ids, id and start time."""
    return f"{this_machine()} {os.getpid()} {_started(os.getpid())}"


def reserve(run_id: str) -> bool:
    """Note that this process runs it; False if it does already."""
    key = (own_name(), run_id)
    with _lock:
        is_new = key not in _runs_here
        _runs_here.add(key)
        return is_new


def give_back(name: str, run_id: str) -> None:
    """Note that the process of this name, which is this one, does not run it any more."""
    with _lock:
        _runs_here.discard((name, run_id))


def is_here(run_id: str) -> bool:
    """Whether this process runs it."""
    with _lock:
        return (own_name(), run_id) in _runs_here


def is_dead(name: str) -> bool:
    """Whether the process of this name is known to be gone: it was on this machine, in this
    namespace, and is there no more.
    """
    machine, _, process = name.rpartition(" ")[0].rpartition(" ")
    started = name.rpartition(" ")[2]
    if not machine or machine != this_machine() or not process.isdigit():
        return False
    return _started(int(process)) != started


def shown(name: str) -> str:
    """What people are told of the owner: a name that a user gave as it is."""
    if name.count(" ") < 2:
        return repr(name)
    process = name.rpartition(" ")[0].rpartition(" ")[2]
    where = "on this machine" if name.startswith(f"{this_machine()} ") else "on another machine"
    return f"process {process} {where}"


def this_machine() -> str:
    """The name of this machine, and of its namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it is no path
    except OSError:  # not Linux: leases alone decide
        return "unknown"


def _started(process: int) -> str:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "gone"
    fields = stat.rpartition(")")[2].split()
    return "gone" if fields[0] in {"Z", "X"} else fields[_START_TIME]
