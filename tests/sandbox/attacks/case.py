"""The description of an attack: code that a session runs like any other, the outcome that must not
happen, and how the host checks that it did not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlm_integrations.records import Limits
from rlm_integrations.sandbox import decoder, forkserver
from rlm_integrations.sandbox._block import RunningBlock
from rlm_integrations.sandbox.base import ExecutionResult, Status

if TYPE_CHECKING:
    from tests.sandbox.arena import Arena

Kind = Literal[
    "processes",
    "files",
    "network",
    "signals",
    "kernel",
    "exhaustion",
    "protocol",
    "introspection",
    "forgery",
]

# Layers outside the kernel, and their place in the code, which must exist. The kernel's layers are
# those that a session reports.
OUR_LAYERS = {
    "wire": decoder.Decoder.decode,  # a frame is small, strict and never grows when decoded
    "fields": RunningBlock.follow,  # each field of a message is checked before use
    "watch": RunningBlock._look,  # time, processor time and threads
    # The memory from which children are forked has no data of the host
    "clean server": forkserver.serve,
    # One process per session: changes of the interpreter affect only this session
    "own process": forkserver.ForkServer.fork,
}

QUICK = Limits(memory=512 << 20, block_seconds=10, grace_seconds=0.3)
SHORT = Limits(memory=512 << 20, block_seconds=0.5, grace_seconds=0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack, and the host's checks after it.

    Always checked: `execute` raises nothing; the code did not print BREACH; nothing reached the
    listeners; no file changed; no process is left; another session still works; the host's memory
    stayed within its bound. `tests.bench attacks` measures how long it took and how long it blocked
    the event loop.

    Attributes:
        name: A short name of the attempt.
        kind: The attacked surface.
        must_not: The outcome that must not happen.
        layer: The layer that stops it: one that sessions report, or one of `OUR_LAYERS`.
        code: The attack. It runs after `prelude.CODE`; it prints BREACH if it succeeds, and raises
            if it is refused.
        ends: The statuses with which it may end.
        says: A pattern in its error or output, which shows that it failed for the right reason.
        keeps: Whether the same session must keep working.
        works: Whether it is harmless if nothing stops it, so that a test can show that it works
            without the layers.
        limits: The session's limits.
        megabytes: The maximum growth of the host's memory while it runs.
        check: Further checks of the host.
    """

    name: str
    kind: Kind
    must_not: str
    layer: str
    code: str
    ends: tuple[Status, ...] = ("error",)
    says: str = "PermissionError"
    keeps: bool = True
    works: bool = False
    limits: Limits = QUICK
    megabytes: int = 48
    check: "Callable[[ExecutionResult, Arena], None] | None" = None
