"""The system calls that model code may make, as a seccomp program in classic BPF."""

import errno
import os
import platform
from collections.abc import Iterable

from ._syscalls import AUDIT_ARCH, FILE_READS, NUMBERS, PLAIN

# Classic BPF: load a word, jump if equal / at least / any bit set, return, mask the accumulator.
_LD, _JEQ, _JGE, _JSET, _RET, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
# Placeholder for the child's process id, which only the child knows
PID = 0xFFFFFFFE

Rule = tuple[int, int, int, int]


def _refuse(number: int) -> int:
    return 0x00050000 | number


def _low(argument: int) -> int:
    return 16 + 8 * argument


def _high(argument: int) -> int:
    return 20 + 8 * argument


def seccomp_program(*, files: bool) -> list[Rule]:
    """The allow-list as classic BPF: all other system calls fail with EPERM.

    Args:
        files: Whether files may be opened for reading (Landlock then restricts which); otherwise no
            file can be opened.
    """
    allow: list[Rule] = [(_RET, 0, 0, _ALLOW)]
    rules: list[Rule] = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, AUDIT_ARCH),
        (_RET, 0, 0, _KILL),
        (_LD, 0, 0, 0),
    ]
    if platform.machine() == "x86_64":
        rules += [(_JGE, 0, 1, 0x40000000), (_RET, 0, 0, _KILL)]  # the x32 variants of all calls

    def on(name: str, body: list[Rule]) -> None:
        if name in NUMBERS:
            rules.append((_JEQ, 0, len(body), NUMBERS[name]))
            rules.extend(body)

    def refuse(number: int) -> Rule:
        return (_RET, 0, 0, _refuse(number))

    def unless_any(argument: int, bits: int, number: int, then: list[Rule] = allow) -> list[Rule]:
        return [(_LD, 0, 0, _low(argument)), (_JSET, 0, 1, bits), refuse(number), *then]

    def only(
        argument: int, values: Iterable[int], number: int, then: list[Rule] = allow
    ) -> list[Rule]:
        values = list(values)
        checks = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
        return [(_LD, 0, 0, _low(argument)), *checks, refuse(number), *then]

    def no_other(bits: int) -> int:
        return 0xFFFFFFFF & ~bits

    def null(argument: int, number: int) -> list[Rule]:
        return [
            (_LD, 0, 0, _low(argument)),
            (_JEQ, 0, 2, 0),
            (_LD, 0, 0, _high(argument)),
            (_JEQ, 1, 0, 0),
            refuse(number),
            *allow,
        ]

    for name in PLAIN:
        on(name, allow)
    for name in FILE_READS:
        on(name, allow if files else [refuse(errno.EACCES)])
    # No O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE, and no O_PATH, which Landlock does
    # not check.
    writing = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000 | 0o10000000
    on("open", unless_any(1, writing, errno.EACCES) if files else [refuse(errno.EACCES)])
    on("openat", unless_any(2, writing, errno.EACCES) if files else [refuse(errno.EACCES)])
    on("mmap", unless_any(2, 0x4, errno.EPERM))  # no PROT_EXEC: only Python's own code runs
    on("mprotect", unless_any(2, 0x4, errno.EPERM))
    # TCGETS, FIONBIO, FIOCLEX, FIONCLEX, FIONREAD
    on("ioctl", only(1, [0x5401, 0x5421, 0x5451, 0x5450, 0x541B], errno.ENOTTY))
    # Duplicating and flags; no owner, lease, seal or pipe size
    on("fcntl", only(1, [0, 1, 2, 3, 4, 1030], errno.EPERM))
    stream_pair = [
        (_LD, 0, 0, _low(1)),
        (_AND, 0, 0, 0xF),
        (_JEQ, 1, 0, 1),
        refuse(errno.EACCES),
        *allow,
    ]
    # AF_UNIX, SOCK_STREAM: event loops
    on("socketpair", [(_LD, 0, 0, _low(0)), (_JEQ, 1, 0, 1), refuse(errno.EACCES), *stream_pair])
    # Only connected sockets and the flags MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL, MSG_NOSIGNAL:
    # out-of-band data allowed an escape from other sandboxes (CVE-2025-38236).
    plain_flags = no_other(0x2 | 0x40 | 0x100 | 0x4000)
    on("sendto", unless_any(3, plain_flags, errno.EACCES, null(4, errno.EACCES)))
    on("recvfrom", unless_any(3, plain_flags, errno.EACCES))
    # no watch queues
    on("pipe2", unless_any(1, no_other(os.O_CLOEXEC | os.O_NONBLOCK), errno.EPERM))
    # Not CLOSE_RANGE_UNSHARE, which gives a thread its own descriptor table
    on("close_range", only(2, [0, 4], errno.EPERM))
    # Only threads that share memory, descriptors and all the rest; no processes, no namespaces, no
    # extra descriptor tables.
    threads = 0x10000 | 0x100 | 0x400 | 0x800  # CLONE_THREAD, CLONE_VM, CLONE_FILES, CLONE_SIGHAND
    # Flags that C libraries add: FS, SYSVSEM, thread ids
    library = threads | 0x200 | 0x40000 | 0x80000 | 0x100000 | 0x200000 | 0x400000
    is_thread = [
        (_LD, 0, 0, _low(0)),
        (_AND, 0, 0, threads),
        (_JEQ, 1, 0, threads),
        refuse(errno.EPERM),
        *allow,
    ]
    on("clone", unless_any(0, no_other(library), errno.EPERM, is_thread))
    # A filter cannot read its flags; the C library falls back to clone
    on("clone3", [refuse(errno.ENOSYS)])
    on("prctl", only(0, [15, 16, 0x53564D41], errno.EPERM))  # names of threads and of memory areas
    # Queries about processes are allowed for this process only. A negative clock id refers to a
    # process or a device.
    on("prlimit64", only(0, [0, PID], errno.EPERM, null(2, errno.EPERM)))  # reading limits
    on("sched_getaffinity", only(0, [0, PID], errno.EPERM))
    for name in ("clock_gettime", "clock_getres", "clock_nanosleep"):
        on(name, unless_any(0, 0x80000000, errno.EINVAL))
    on("tgkill", [(_LD, 0, 0, _low(0)), (_JEQ, 1, 0, PID), refuse(errno.EPERM), *allow])
    return [*rules, refuse(errno.EPERM)]
