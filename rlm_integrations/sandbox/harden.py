"""The layers that confine the sandbox's child, with system calls only: no compiled dependency, no
root, no set-up.

The server prepares once what all children share (`Plan.make`: the list of readable paths as a
Landlock ruleset, the seccomp program); each child then seals itself (`Plan.seal`), and checks from
the inside that every layer holds. A missing layer is reported, never ignored.

The x86-64 table is tested. The aarch64 table is not: if it is wrong, the checks from the inside
fail and the session does not start.
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

from ._syscalls import NUMBERS
from .seccomp import PID, Rule, seccomp_program

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


class LayerMissingError(OSError):
    """A layer that the sandbox needs is not available, or does not hold.

    `args[1]` names it and the reason.
    """


def _call(name: str, *args: Any) -> int:
    """Make a system call by name; an error is raised as OSError."""
    result = int(_libc.syscall(NUMBERS[name], *args))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, *args: int) -> int:
    result = int(_libc.prctl(option, *args, *[0] * (4 - len(args))))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    return result


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _landlock_ruleset(paths: Iterable[str]) -> int:
    """A file descriptor of a ruleset that allows reading these files and folders and nothing
    else.
    """
    abi = _call("landlock_create_ruleset", None, 0, 1)
    access = (1 << 13) - 1  # version 1: every access to files
    for version, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        if abi >= version:
            access |= 1 << bit
    network = 0b11 if abi >= 4 else 0  # bind and connect TCP
    scoped = 0b11 if abi >= 6 else 0  # abstract sockets and signals only within the sandbox
    attributes = struct.pack("QQQ", access, network, scoped)
    ruleset = _call(
        "landlock_create_ruleset", attributes, 8 if abi < 4 else 16 if abi < 6 else 24, 0
    )
    for path in paths:
        try:
            target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # a path that does not exist needs no rule
        try:
            # Reading files, listing folders
            allowed = (1 << 2) | (1 << 3) if os.path.isdir(path) else (1 << 2)
            _call("landlock_add_rule", ruleset, 1, struct.pack("=Qi", allowed, target), 0)
        finally:
            os.close(target)
    return ruleset


def _drop_capabilities() -> None:
    """Drop every capability, including those that a root user would regain."""
    capability = 0
    while _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        if _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            # Needs CAP_SETPCAP; without it, an exec gains nothing
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _call("capset", _CAPABILITIES_OF_SELF, b"\0" * 24)


@dataclass(frozen=True, slots=True)
class Plan:
    """The data that a server prepares once for all its children.

    Attributes:
        ruleset: The Landlock ruleset's file descriptor, or None if the kernel lacks Landlock: then
            no file can be opened.
        landlock: The state of Landlock on this machine, in words.
        program: The seccomp program.
    """

    ruleset: int | None
    landlock: str
    program: tuple[Rule, ...] = field(repr=False)

    @classmethod
    def make(cls, readable: Iterable[str]) -> "Plan":
        """A plan in which only these paths can be read, or no path if Landlock is missing.

        Raises:
            LayerMissingError: There is no table of system calls for this architecture.
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
        """Apply every layer to this process, permanently, and check each from the inside.

        Args:
            parent: The parent process; this process ends with it.
            memory: How many bytes of address space may be used in addition to the current use.
            keep: The file descriptors that stay open; all others are closed, whatever code opened
                them.
            descriptors: How many file descriptors may be open at once.

        Returns:
            Each layer's name and state.

        Raises:
            LayerMissingError: A layer cannot be applied, or does not hold.
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
            struct.pack("HBBI", code, yes, no, pid if k == PID else k)
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
    """Close all other descriptors, such as those that a package opened while it was imported."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # the descriptor of the listing itself


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
        raise LayerMissingError(errno.EPERM, f"{name}: it was applied but does not hold")


def _check_before_filter(parent: int) -> None:
    """Check the layers whose state can be read only before the filter is applied."""
    _must("no_new_privs", holds=_prctl(_PR_GET_NO_NEW_PRIVS) == 1)
    held = ctypes.create_string_buffer(24)
    _call("capget", _CAPABILITIES_OF_SELF, held)
    # No capability is inheritable and permitted, so none is ambient
    _must("capabilities", holds=not any(held.raw))
    _must("not_dumpable", holds=_prctl(_PR_GET_DUMPABLE) == 0)
    signal = ctypes.c_int()
    _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(signal), 0, 0, 0)
    # The parent may have ended before
    _must("parent_death", holds=signal.value == _SIGKILL and os.getppid() == parent)


def _errno_of(name: str, *args: Any) -> int:
    """The errno of a system call that is harmless if allowed; 0 if it was allowed."""
    return 0 if _libc.syscall(NUMBERS[name], *args) >= 0 else ctypes.get_errno()


def _check_after_filter(*, files: bool, keep: frozenset[int]) -> None:
    """Check the filter and Landlock with system calls that are harmless if allowed; their errors
    show whether they were.
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
    # Flags that the kernel itself rejects with EINVAL
    _must("seccomp", holds=_errno_of("clone", 0x800, 0, 0, 0, 0) == errno.EPERM)
    _must("seccomp", holds=_errno_of("openat", -100, b"/dev/null", os.O_WRONLY, 0) == errno.EACCES)
    # The first was readable a moment ago, when limits were set; the second may be unreadable for
    # this user anyway.
    for path in (_STATM.encode(), b"/"):
        _must(
            "landlock" if files else "seccomp",
            holds=_errno_of("openat", -100, path, os.O_RDONLY, 0) == errno.EACCES,
        )
