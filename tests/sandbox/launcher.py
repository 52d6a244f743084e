"""Runs the fork server's interpreter in another world: as another user, on a kernel that lacks a
layer or only pretends to have it, or unsealed.

The wrappers of `wrappers.py` start it instead of the interpreter: `OPTIONS launcher.py WORLD -c
BOOT PACKAGE DESCRIPTOR …`, where WORLD is JSON. The library's code is unchanged: only the process
around it differs.
"""

import ctypes
import json
import os
import platform
import socket
import struct
import sys
import types
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_ARCH, _SECCOMP = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}.get(
    platform.machine(), (0, 0)
)


opened: list[socket.socket] = []


def answer_calls(answers: list[dict[str, Any]]) -> None:
    """Have the kernel answer these system calls without executing them; the error 0 reports
    success.
    """
    rules = [(0x20, 0, 0, 4), (0x15, 1, 0, _ARCH), (0x06, 0, 0, 0x7FFF0000)]
    for answer in answers:
        body = [(0x06, 0, 0, 0x00050000 | answer["error"])]
        for argument, value in reversed(answer["when"]):
            skip = len(body)
            # None: any value except 0
            test = (0x15, skip, 0, 0) if value is None else (0x15, 0, skip, value)
            body = [(0x20, 0, 0, 16 + 8 * argument), test, *body]
        rules += [(0x20, 0, 0, 0), (0x15, 0, len(body), answer["number"]), *body]
    rules.append((0x06, 0, 0, 0x7FFF0000))
    packed = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    memory = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(memory))
    if os.geteuid() != 0:
        _libc.prctl(38, 1, 0, 0, 0)
    if _libc.syscall(_SECCOMP, 1, 0, program) != 0:
        raise OSError(ctypes.get_errno(), "no filter for this test")


def become(user: int) -> None:
    """Become an ordinary user permanently, without any remaining privileges."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # The change has made the process undumpable, unlike an ordinary user's
    _libc.prctl(4, 1, 0, 0, 0)


def change_plans(package: str, user: int | None, *, sealed: bool) -> None:
    """Have the server make its plan before it becomes the ordinary user, who may be unable to read
    this interpreter's folder.
    """
    for name, path in (
        ("rlm_integrations", package),
        ("rlm_integrations.sandbox", package + "/sandbox"),
    ):
        module: Any = types.ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module
    from rlm_integrations.sandbox import forkserver, harden

    make = harden.Plan.make

    def make_and_become(readable: Any) -> harden.Plan:
        plan = make(readable)
        if user is not None:
            forkserver._load(forkserver.LATER)
            become(user)
        return plan

    harden.Plan.make = make_and_become  # type: ignore[method-assign]
    if not sealed:
        harden.Plan.seal = lambda _plan, **_options: {"files": "not sealed"}  # type: ignore[method-assign]


def main() -> None:
    world = json.loads(sys.argv[1])
    at = sys.argv.index("-c")
    boot = sys.argv[at + 1]
    sys.argv[:] = ["-c", *sys.argv[at + 2 :]]
    opened.extend(socket.socketpair())  # as a package may do when it is imported
    if world["machine"]:
        platform.machine = lambda: str(world["machine"])
    if world["answers"]:
        answer_calls(world["answers"])
    if world["user"] is not None or not world["sealed"]:
        change_plans(sys.argv[1], world["user"], sealed=world["sealed"])
    exec(boot, {"__name__": "__main__"})


main()
