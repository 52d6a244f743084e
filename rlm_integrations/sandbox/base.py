"""The contract between the engine and whatever runs model code.

A sandbox only asks: `(block, function, args, kwargs)`. The engine's gate checks the
arguments, which are hostile, and answers; each call is a task of its own. A later
sandbox (another interpreter, another machine) speaks the same contract and passes the same tests.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import HostFunction, Limits

AnswerCall = Callable[[int, str, list[Any], dict[str, Any]], Awaitable[Any]]


class HostCallError(Exception):
    """Raised by a gate to refuse a call; the REPL raises the builtin exception named `type` in the
    model's code.

    Any other exception of a gate is a fault of the host: it ends the session and is raised from
    `execute`.
    """

    def __init__(self, message: str, *, type: str = "RuntimeError") -> None:  # noqa: A002 - the field's name is the contract
        super().__init__(message)
        self.type = type


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """What a block raised: the exception's type and text, and a traceback that names the model's
    lines and nothing of ours.
    """

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class FinalValue:
    """The value that code passed to FINAL, not yet checked by the engine.

    Attributes:
        value: None, bool, int, float, str, list, dict, or `wire.Opaque` for anything else.
        evidence: SpanRefs, quotes, or any other values that the code put there.
        several: Whether the code passed several different values; `value` is then their list.
    """

    value: Any
    evidence: tuple[Any, ...] = ()
    several: bool = False


Status = Literal["ok", "error", "interrupted", "lost"]


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """The result of one block.

    Attributes:
        stdout: What it printed, from the start up to `Limits.stdout_kept` characters.
        stderr: Likewise, up to `Limits.stderr_kept`.
        output: Both, in the order in which they were written.
        dropped: How many characters of both were not kept.
        error: What it raised, why it was interrupted, or how the session was lost.
        final: The value that it passed to FINAL, or None.
        locals: Its variables and what they are: "str, 2,310 characters"; never their contents.
        rebound: Names of the REPL, such as `context`, that it bound to something else. The next
            block finds them as they were.
        elapsed: Seconds that it took, calls to the host included.
        host_calls: How many calls to the host it made.
        status: "interrupted" keeps the session and its variables, "lost" has ended it.
    """

    status: Status
    stdout: str = ""
    stderr: str = ""
    output: str = ""
    dropped: int = 0
    error: ExecutionError | None = None
    final: FinalValue | None = None
    locals: Mapping[str, str] = field(default_factory=dict)
    rebound: tuple[str, ...] = ()
    elapsed: float = 0.0
    host_calls: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sandbox can do; the contract tests check that it is true.

    Attributes:
        isolated: Model code cannot reach files, network, other processes or the host's memory.
        bounded: Memory and computing time of a block are limited.
        interruptible: A running block can be ended from outside, whatever it does.
        captures_streams: `sys.stdout` and `sys.stderr` of model code are its own, not only `print`.
    """

    isolated: bool
    bounded: bool
    interruptible: bool
    captures_streams: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """What a sandbox needs to open a session.

    Attributes:
        context: The document.
        functions: What model code may call.
        answer: Answers the calls.
        limits: What bounds the session.
        seed: Seeds `random` in the session. The clock is this machine's.
    """

    context: Corpus
    functions: Sequence[HostFunction]
    answer: AnswerCall
    limits: Limits
    seed: int = 0


class Session(Protocol):
    """One REPL with its variables, on the event loop that opened it. One block at a time."""

    layers: Mapping[str, str]

    async def execute(self, code: str, block: int) -> ExecutionResult:
        """Run one block of model code. Cancelling it ends the session at once and leaves no process
        behind.

        Raises:
            SandboxClosedError: The session was closed or cancelled.
            Exception: What the gate raised, if it was not a `HostCallError`; the session is then
                closed.
        """
        ...

    async def set_vars(self, variables: Mapping[str, Any]) -> None:
        """Bind variables of the REPL to plain values."""
        ...

    async def interrupt(self) -> None:
        """End the running block and keep the session; does nothing if no block is running."""
        ...

    async def close(self) -> None:
        """End the session at once."""
        ...


class Sandbox(Protocol):
    """A place where sessions can be opened.

    Attributes:
        name: Its name in `RLM(sandbox=...)`.
        capabilities: What it can do.
        rules: What model code may use, in a sentence or two of the system prompt: libraries, files,
            the network.
    """

    name: str
    capabilities: Capabilities
    rules: str

    async def open(self, opening: Opening) -> Session:
        """A REPL in which the context is bound and the functions can be called.

        Raises:
            SandboxUnavailableError: A layer of protection is missing here.
            SandboxError: The session could not be started.
        """
        ...
