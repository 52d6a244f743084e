"""The layers that hold the sandbox's child, by system calls alone: no compiled dependency, no root,
no set-up.

The server prepares once what all children share (`Plan.make`: the list of readable paths as a
Landlock ruleset, the seccomp program); each child then seals itself (`Plan.seal`), and looks from
the inside whether every layer holds. What is not there is named, never passed over.

x86-64 has been run. The aarch64 table has not: the checks from the inside refuse to go on where it
is wrong.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ._syscalls import AUDIT_ARCH, FILE_READS, NUMBERS, PLAIN

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 1, 2, 3, 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = (
    23,
    24,
    38,
    39,
    47,
)
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES_OF_SELF = struct.pack("Ii", 0x20080522, 0)
_SIGKILL = 9
_F_GETFD = 1
_DESCRIPTORS_CHECKED = 1024
_STATM = "/proc/self/statm"

# Classic BPF: load a word, jump if equal / at least / any bit set, return, mask the accumulator.
_LD, _JEQ, _JGE, _JSET, _RET, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
# In the program's place for the child's own process id, which only the child knows
_PID = 0xFFFFFFFE

_Rule = tuple[int, int, int, int]


class LayerMissingError(OSError):
    """A layer that the sandbox needs is not offered here, or does not hold.

    `args[1]` says which and why.
    """


def _call(name: str, *args: Any) -> int:
    """A system call by its name; its error becomes an OSError."""
    result = int(_libc.syscall(NUMBERS[name], *args))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, *args: int) -> int:
    result = int(_libc.prctl(option, *args, *[0] * (4 - len(args))))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    return result


def _refuse(number: int) -> int:
    return 0x00050000 | number


def _low(argument: int) -> int:
    return 16 + 8 * argument


def _high(argument: int) -> int:
    return 20 + 8 * argument


def seccomp_program(*, files: bool) -> list[_Rule]:
    """The allow-list as classic BPF: what it does not name fails with EPERM.

    Args:
        files: Whether files may be opened for reading (Landlock then says which); otherwise nothing
            can be opened at all.
    """
    allow: list[_Rule] = [(_RET, 0, 0, _ALLOW)]
    rules: list[_Rule] = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, AUDIT_ARCH),
        (_RET, 0, 0, _KILL),
        (_LD, 0, 0, 0),
    ]
    if platform.machine() == "x86_64":
        rules += [(_JGE, 0, 1, 0x40000000), (_RET, 0, 0, _KILL)]  # the x32 twins of all calls

    def on(name: str, body: list[_Rule]) -> None:
        if name in NUMBERS:
            rules.append((_JEQ, 0, len(body), NUMBERS[name]))
            rules.extend(body)

    def refuse(number: int) -> _Rule:
        return (_RET, 0, 0, _refuse(number))

    def unless_any(argument: int, bits: int, number: int, then: list[_Rule] = allow) -> list[_Rule]:
        return [(_LD, 0, 0, _low(argument)), (_JSET, 0, 1, bits), refuse(number), *then]

    def only(
        argument: int, values: Iterable[int], number: int, then: list[_Rule] = allow
    ) -> list[_Rule]:
        values = list(values)
        checks = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
        return [(_LD, 0, 0, _low(argument)), *checks, refuse(number), *then]

    def no_other(bits: int) -> int:
        return 0xFFFFFFFF & ~bits

    def null(argument: int, number: int) -> list[_Rule]:
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
    # not see.
    writing = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000 | 0o10000000
    on("open", unless_any(1, writing, errno.EACCES) if files else [refuse(errno.EACCES)])
    on("openat", unless_any(2, writing, errno.EACCES) if files else [refuse(errno.EACCES)])
    on("mmap", unless_any(2, 0x4, errno.EPERM))  # PROT_EXEC: no code but Python's own
    on("mprotect", unless_any(2, 0x4, errno.EPERM))
    # TCGETS, FIONBIO, FIOCLEX, FIONCLEX, FIONREAD
    on("ioctl", only(1, [0x5401, 0x5421, 0x5451, 0x5450, 0x541B], errno.ENOTTY))
    # Duplicate and flags; no owner, lease, seal or pipe size
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
    # Connected sockets only, and no flag but MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL, MSG_NOSIGNAL:
    # out-of-band data were a way out of other sandboxes (CVE-2025-38236).
    plain_flags = no_other(0x2 | 0x40 | 0x100 | 0x4000)
    on("sendto", unless_any(3, plain_flags, errno.EACCES, null(4, errno.EACCES)))
    on("recvfrom", unless_any(3, plain_flags, errno.EACCES))
    # No watch queues
    on("pipe2", unless_any(1, no_other(os.O_CLOEXEC | os.O_NONBLOCK), errno.EPERM))
    # Not with CLOSE_RANGE_UNSHARE: a thread would have a table of its own
    on("close_range", only(2, [0, 4], errno.EPERM))
    # Threads that share memory, descriptors and all the rest; never processes, namespaces, or
    # tables of descriptors beyond the limit.
    threads = 0x10000 | 0x100 | 0x400 | 0x800  # CLONE_THREAD, CLONE_VM, CLONE_FILES, CLONE_SIGHAND
    # What C libraries add: FS, SYSVSEM, its ids
    library = threads | 0x200 | 0x40000 | 0x80000 | 0x100000 | 0x200000 | 0x400000
    is_thread = [
        (_LD, 0, 0, _low(0)),
        (_AND, 0, 0, threads),
        (_JEQ, 1, 0, threads),
        refuse(errno.EPERM),
        *allow,
    ]
    on("clone", unless_any(0, no_other(library), errno.EPERM, is_thread))
    # Its flags are out of a filter's sight; the C library falls back to clone
    on("clone3", [refuse(errno.ENOSYS)])
    on("prctl", only(0, [15, 16, 0x53564D41], errno.EPERM))  # names of threads and of memory areas
    # What could be asked about other processes is answered for this one alone. A clock below zero
    # is a process's or a device's.
    on("prlimit64", only(0, [0, _PID], errno.EPERM, null(2, errno.EPERM)))  # reading limits
    on("sched_getaffinity", only(0, [0, _PID], errno.EPERM))
    for name in ("clock_gettime", "clock_getres", "clock_nanosleep"):
        on(name, unless_any(0, 0x80000000, errno.EINVAL))
    on("tgkill", [(_LD, 0, 0, _low(0)), (_JEQ, 1, 0, _PID), refuse(errno.EPERM), *allow])
    return [*rules, refuse(errno.EPERM)]


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _landlock_ruleset(paths: Iterable[str]) -> int:
    """A ruleset that lets these files and folders be read and nothing else be touched, as a file
    descriptor.
    """
    abi = _call("landlock_create_ruleset", None, 0, 1)
    access = (1 << 13) - 1  # version 1: every access to files
    for version, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        if abi >= version:
            access |= 1 << bit
    network = 0b11 if abi >= 4 else 0  # bind and connect TCP
    scoped = 0b11 if abi >= 6 else 0  # abstract sockets and signals stay inside
    attributes = struct.pack("QQQ", access, network, scoped)
    ruleset = _call(
        "landlock_create_ruleset", attributes, 8 if abi < 4 else 16 if abi < 6 else 24, 0
    )
    for path in paths:
        try:
            target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # a path that is not there needs no rule
        try:
            # Read files, list folders
            allowed = (1 << 2) | (1 << 3) if os.path.isdir(path) else (1 << 2)
            _call("landlock_add_rule", ruleset, 1, struct.pack("=Qi", allowed, target), 0)
        finally:
            os.close(target)
    return ruleset


def _drop_capabilities() -> None:
    """Give up every capability, also those that a root user would have again."""
    capability = 0
    while _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        if _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            # Needs CAP_SETPCAP; without it there is nothing that an exec could use
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _call("capset", _CAPABILITIES_OF_SELF, b"\0" * 24)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a server prepares once for all its children.

    Attributes:
        ruleset: The Landlock ruleset's file descriptor, or None where the kernel has no Landlock:
            nothing can then be opened at all.
        landlock: What is known about Landlock here, in words.
        program: The seccomp program.
    """

    ruleset: int | None
    landlock: str
    program: tuple[_Rule, ...] = field(repr=False)

    @classmethod
    def make(cls, readable: Iterable[str]) -> "Plan":
        """A plan in which only these paths can be read, or none where Landlock is missing.

        Raises:
            LayerMissingError: There is no table of system calls for this machine.
        """
        if not NUMBERS:
            raise LayerMissingError(
                errno.ENOSYS,
                f"seccomp: there is no table of system calls for {platform.machine()!r}",
            )
        try:
            ruleset = _landlock_ruleset(readable)
        except OSError as error:
            return cls(None, f"missing ({error.strerror})", tuple(seccomp_program(files=False)))
        return cls(ruleset, "on", tuple(seccomp_program(files=True)))

    def seal(
        self, *, parent: int, memory: int, keep: Iterable[int], descriptors: int = 64
    ) -> dict[str, str]:
        """Put every layer on this process, for good, and check each from the inside.

        Args:
            parent: The process that this one must not outlive.
            memory: How many bytes of address space may be taken beyond what is in use now.
            keep: The file descriptors that stay open; all others are closed, whoever opened them.
            descriptors: How many file descriptors may be open at once.

        Returns:
            Each layer's name and state.

        Raises:
            LayerMissingError: A layer cannot be put on, or does not hold.
        """
        keep = frozenset(keep)
        _layer(
            "descriptors",
            lambda: _close_all_but(
                keep | ({self.ruleset} if self.ruleset is not None else frozenset())
            ),
        )
        _layer("rlimits", lambda: _limit(memory, descriptors))
        _layer("no_new_privs", lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1))
        _layer("capabilities", _drop_capabilities)
        _layer("not_dumpable", lambda: _prctl(_PR_SET_DUMPABLE, 0))
        _layer("parent_death", lambda: _prctl(_PR_SET_PDEATHSIG, _SIGKILL))
        _check_before_filter(parent)
        if self.ruleset is not None:
            _layer("landlock", lambda: _call("landlock_restrict_self", self.ruleset, 0))
            os.close(self.ruleset)
        _layer("seccomp", self._filter)
        _check_after_filter(files=self.ruleset is not None, keep=keep)
        names = (
            "rlimits",
            "no_new_privs",
            "capabilities",
            "not_dumpable",
            "parent_death",
            "seccomp",
        )
        return {
            **dict.fromkeys(names, "on"),
            "landlock": self.landlock,
            "files": "none" if self.ruleset is None else "standard library, read only",
        }

    def _filter(self) -> None:
        pid = os.getpid()
        program = b"".join(
            struct.pack("HBBI", code, yes, no, pid if k == _PID else k)
            for code, yes, no, k in self.program
        )
        memory = ctypes.create_string_buffer(program, len(program))
        whole = _SockFprog(len(self.program), ctypes.addressof(memory))
        _call("seccomp", 1, 1, ctypes.byref(whole))  # SECCOMP_SET_MODE_FILTER for all threads


def _layer(name: str, put_on: Any) -> None:
    try:
        put_on()
    except LayerMissingError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise LayerMissingError(errno.ENOSYS, f"{name}: {error}") from error


def _close_all_but(keep: Iterable[int]) -> None:
    """Close what a package has opened while it was imported, say."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # the list itself was open while it was made


def _limit(memory: int, descriptors: int) -> None:
    with open(_STATM, "rb", buffering=0) as statm:
        in_use = int(statm.read(256).split()[0]) * resource.getpagesize()
    _set_limit(resource.RLIMIT_AS, in_use + memory)
    _set_limit(resource.RLIMIT_NOFILE, descriptors)
    for what in (
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_CORE,
        resource.RLIMIT_MEMLOCK,
        resource.RLIMIT_MSGQUEUE,
    ):
        _set_limit(what, 0)


def _set_limit(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (value, value))
    _must("rlimits", holds=resource.getrlimit(what) == (value, value))


def _must(name: str, *, holds: bool) -> None:
    if not holds:
        raise LayerMissingError(errno.EPERM, f"{name}: it was put on and does not hold")


def _check_before_filter(parent: int) -> None:
    """The layers that can be asked for only while the calls that tell are open."""
    _must("no_new_privs", holds=_prctl(_PR_GET_NO_NEW_PRIVS) == 1)
    held = ctypes.create_string_buffer(24)
    _call("capget", _CAPABILITIES_OF_SELF, held)
    # None inheritable and permitted, so none ambient either
    _must("capabilities", holds=not any(held.raw))
    _must("not_dumpable", holds=_prctl(_PR_GET_DUMPABLE) == 0)
    signal = ctypes.c_int()
    _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(signal), 0, 0, 0)
    # The parent may have gone before
    _must("parent_death", holds=signal.value == _SIGKILL and os.getppid() == parent)


def _errno_of(name: str, *args: Any) -> int:
    """The error of a system call that would be harmless if it were let through, 0 if it was."""
    return 0 if _libc.syscall(NUMBERS[name], *args) >= 0 else ctypes.get_errno()


def _check_after_filter(*, files: bool, keep: frozenset[int]) -> None:
    """The filter and Landlock, by trying what would be harmless if it went through, and tells by
    its error whether it did.
    """
    _must(
        "descriptors",
        holds=not any(
            _libc.fcntl(each, _F_GETFD) >= 0
            for each in range(_DESCRIPTORS_CHECKED)
            if each not in keep
        ),
    )
    _must("seccomp", holds=_errno_of("socket", 2, 1, 0) == errno.EPERM)
    _must("seccomp", holds=_errno_of("kill", 0, 0) == errno.EPERM)
    _must("seccomp", holds=_errno_of("execve", None, None, None) == errno.EPERM)
    _must("seccomp", holds=_errno_of("unshare", 0) == errno.EPERM)
    # Flags that the kernel refuses with EINVAL by itself
    _must("seccomp", holds=_errno_of("clone", 0x800, 0, 0, 0, 0) == errno.EPERM)
    _must("seccomp", holds=_errno_of("openat", -100, b"/dev/null", os.O_WRONLY, 0) == errno.EACCES)
    # The first was read a moment ago, when limits were set; the second may be closed to this user
    # in any case.
    for path in (_STATM.encode(), b"/"):
        _must(
            "landlock" if files else "seccomp",
            holds=_errno_of("openat", -100, path, os.O_RDONLY, 0) == errno.EACCES,
        )
