"""The contract between the engine and a sandbox.

A sandbox sends calls: `(block, function, args, kwargs)`. The engine's gate checks the arguments,
which are hostile, and answers; each call is a separate task. Every sandbox (another interpreter,
another machine) follows this contract and must pass the same tests.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import HostFunction, Limits

AnswerCall = Callable[[int, str, list[Any], dict[str, Any]], Awaitable[Any]]


class HostCallError(Exception):
    """Raised by a gate to refuse a call; the REPL raises the builtin exception named `type` in the
    model's code.

    Any other exception from a gate is an error of the host: it ends the session and is raised from
    `execute`.
    """

    # The field's name is the contract
    def __init__(self, message: str, *, type: str = "RuntimeError") -> None:  # noqa: A002
        super().__init__(message)
        self.type = type


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """The exception that a block raised: its type, its message, and a traceback that shows the
    model's lines and none of this package.
    """

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class FinalValue:
    """The value that code passed to FINAL, not yet checked by the engine.

    Attributes:
        value: None, bool, int, float, str, list, dict, or `wire.Opaque` for anything else.
        evidence: SpanRefs, quotes, or any other values that the code passed as evidence.
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
        stdout: The beginning of its standard output, up to `Limits.stdout_kept` characters.
        stderr: The beginning of its standard error, up to `Limits.stderr_kept` characters.
        output: Both streams, in the order in which they were written.
        dropped: How many characters of both streams were not kept.
        error: The exception that it raised, why it was interrupted, or how the session was lost.
        final: The value that it passed to FINAL, or None.
        locals: Its variables with a description of each, such as "str, 2,310 characters"; never
            their contents.
        rebound: Reserved names, such as `context`, that it bound to other values. They are restored
            before the next block.
        elapsed: Its duration in seconds, including calls to the host.
        host_calls: How many calls to the host it made.
        status: "interrupted" keeps the session and its variables; "lost" ends the session.
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
    """The properties of a sandbox; the contract tests verify them.

    Attributes:
        isolated: Model code cannot reach files, network, other processes or the host's memory.
        bounded: Memory and computing time of a block are limited.
        interruptible: Any running block can be stopped from outside.
        captures_streams: Model code has its own `sys.stdout` and `sys.stderr`; otherwise only
            `print` is captured.
        reads_on_demand: Code reads texts of a `LazyCorpus` from the host; otherwise a session gets
            all texts when it is opened.
    """

    isolated: bool
    bounded: bool
    interruptible: bool
    captures_streams: bool
    reads_on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """The arguments for opening a session.

    Attributes:
        context: The document.
        functions: The names of the host functions that model code may call.
        answer: Answers the calls.
        limits: The limits of the session.
        seed: The seed of `random` in the session.
    """

    context: Corpus
    functions: Sequence[HostFunction]
    answer: AnswerCall
    limits: Limits
    seed: int = 0


class Session(Protocol):
    """One REPL with its variables, used on the event loop that opened it. It runs one block at a
    time.
    """

    layers: Mapping[str, str]

    async def execute(self, code: str, block: int) -> ExecutionResult:
        """Run one block of model code. Cancelling it ends the session at once and leaves no process
        behind.

        Raises:
            SandboxClosedError: The session was closed or cancelled.
            Exception: The gate raised an exception other than `HostCallError`; the session is then
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


@runtime_checkable
class Preparable(Protocol):
    """A sandbox with work to do before its first session, which then opens sooner."""

    def prepare(self) -> None:
        """Start this work in another thread, unless it was done. If it fails, `Sandbox.open` raises
        the error.
        """
        ...


class Sandbox(Protocol):
    """Opens sessions. It may be `Preparable`, too.

    Attributes:
        name: Its name in `RLM(sandbox=...)`.
        capabilities: Its properties.
        rules: One or two sentences for the system prompt on what model code may use: libraries,
            files, the network.
    """

    name: str
    capabilities: Capabilities
    rules: str

    async def open(self, opening: Opening) -> Session:
        """A new session in which the context is bound and the functions can be called.

        Raises:
            SandboxUnavailableError: A layer of protection is not available on this machine.
            SandboxError: The session could not be started.
        """
        ...
