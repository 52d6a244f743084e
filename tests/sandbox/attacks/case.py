"""What an attack is: code that a session runs as any other, what it must not bring about, and how
the host sees that it did not.
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

# Layers that stand outside the kernel, and where: what this names must exist. The kernel's layers
# are those that a session reports.
OUR_LAYERS = {
    "wire": decoder.Decoder.decode,  # a frame is small, strict and worth what it says
    "fields": RunningBlock.follow,  # each field of a message is checked before use
    "watch": RunningBlock._look,  # time, processor time and threads
    # Nothing of the host is in the memory from which children are forked
    "clean server": forkserver.serve,
    # One process per session: what it does to its interpreter, it does to itself
    "own process": forkserver.ForkServer.fork,
}

QUICK = Limits(memory=512 << 20, block_seconds=10, grace_seconds=0.3)
SHORT = Limits(memory=512 << 20, block_seconds=0.5, grace_seconds=0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack, and what the host checks after it.

    Always checked: `execute` raises nothing; the code did not print BREACH; nothing reached the
    listeners; no file changed; no process is left; another session still works; the host's memory
    kept within bounds. How long it took and for how long it held the event loop is measured by
    `tests.bench attacks`.

    Attributes:
        name: What it tries, in a word or two.
        kind: Which surface it tries.
        must_not: What must not happen.
        layer: What stops it: a layer that sessions report, or one of `OUR_LAYERS`.
        code: The attack. It runs after `prelude.CODE`; it prints BREACH where it gets through, and
            raises where it is refused.
        ends: The statuses in which it may end.
        says: A pattern found in what it raised, or printed: it failed for the right reason.
        keeps: Whether the same session must go on working.
        works: Whether it is harmless where nothing stops it, so that it can be shown to work there.
        limits: The session's.
        megabytes: How much the host's memory may grow at most, while it runs.
        check: What else the host checks.
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
