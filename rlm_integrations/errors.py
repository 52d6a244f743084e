"""Every error that the library raises on purpose.

    RLMError
    ├── InputError (also ValueError)           an invalid argument: type, value or name
    │   ├── ContextError                       a context that cannot be read as text
    │   ├── RunExistsError                     a storage has a run of this id already
    │   └── QueryError                         a malformed store query; `column` is the position
    ├── MissingExtraError (also ImportError)   a feature whose packages are not installed
    ├── LoopError (also RuntimeError)          a synchronous call that would wait for itself
    ├── ModelError                             a model call failed, or its reply is unusable
    ├── IncompleteError                        a run without a final answer; has the result
    │   └── BudgetExceededError                it spent its budget
    ├── JournalError                           the record of a run cannot be written or followed
    │   └── ReplayDivergedError                a replay made a call that is not in the record
    ├── SandboxError                           model code could not be run
    │   ├── SandboxUnavailableError            this machine lacks a layer of protection
    │   └── SandboxClosedError                 the session was closed or cancelled
    ├── ClusterError                           a Ray cluster cannot be reached, or an actor ended
    └── StorageError                           stored data cannot be opened, read or written
        ├── StorageUnavailableError            the database or the lake cannot be reached now
        ├── RunBusyError                       another process has the run
        └── DamagedDataError                   stored data is not what was written

A failed call in a batch raises nothing: its result is a value, `records.LLMError`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult


class RLMError(Exception):
    """Base class of every error of this library."""

    def __reduce__(self) -> tuple[Any, ...]:
        """The class, the arguments and the attributes; not a call of the constructor, whose
        arguments may have other names.
        """
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[RLMError], args: tuple[Any, ...], attributes: dict[str, Any]) -> RLMError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class InputError(RLMError, ValueError):
    """An invalid argument; the message says what is valid."""


class ContextError(InputError):
    """A context that cannot be read as text."""


class RunExistsError(InputError):
    """A storage has a run of this id already."""


class JournalError(RLMError):
    """An answer could not be recorded in the journal of its run, so it was not used."""


class ReplayDivergedError(JournalError):
    """A block that had ended made another call in the replay of its run.

    Args:
        path: The call's place in the run.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the run cannot be resumed: its code made the call {path}, which is not in its "
            "record. Code that depends on the time, on chance or on other machines may do so; "
            "start the run anew"
        )
        self.path = path


class QueryError(InputError):
    """A malformed store query.

    Args:
        message: What is wrong and what to write instead.
        column: The position in the query, counted from 1.
    """

    def __init__(self, message: str, *, column: int) -> None:
        super().__init__(message)
        self.column = column


class MissingExtraError(RLMError, ImportError):
    """A feature whose packages are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        install = (
            f"pip install 'rlm-integrations[{extra}]', or in a checkout pip install '.[{extra}]'"
        )
        super().__init__(f"{feature} needs packages that are not installed: {install}")
        self.extra = extra


class LoopError(RLMError, RuntimeError):
    """A synchronous call, made on the event loop that it would wait for."""


class ModelError(RLMError):
    """A model call failed, or its reply is unusable.

    Args:
        message: What happened, and what to do about it.
        type: The kind of failure as `LLMError.type` names it, such as "rate_limit" or "timeout".
        retryable: Whether the same request may succeed later.
        retry_after: How many seconds the provider asked to wait, or None.
        sent: Whether the request may have reached the provider, which may then charge for it.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str,  # noqa: A002 - the field's name is the contract
        retryable: bool = False,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.retryable = retryable
        self.retry_after = retry_after
        self.sent = sent


class IncompleteError(RLMError):
    """A run ended without a final answer, and `on_incomplete="raise"` was given.

    Args:
        message: Why it ended.
        result: The `RLMResult`: `partial` is the best answer so far, `stop_reason` the reason.
    """

    def __init__(self, message: str, *, result: "RLMResult") -> None:
        super().__init__(message)
        self.result = result


class BudgetExceededError(IncompleteError):
    """A run spent its budget, and `on_incomplete="raise"` or `Budget(on_exceeded="raise")` was
    given.
    """


class SandboxError(RLMError):
    """Model code could not be run."""


class SandboxUnavailableError(SandboxError):
    """This machine lacks a layer of protection; a weaker one is never chosen silently."""


class SandboxClosedError(SandboxError):
    """The session was closed or cancelled before this use."""


class ClusterError(RLMError):
    """A Ray cluster cannot be reached, or an actor ended during its work."""


class StorageError(RLMError):
    """Stored data cannot be opened, read or written."""


class StorageUnavailableError(StorageError):
    """The database or the lake cannot be reached; the same call may succeed later."""


class RunBusyError(StorageError):
    """Another process has the run."""


class DamagedDataError(StorageError):
    """Stored data differs from the written data: its hash or its form is wrong."""


def quote_value(value: object) -> str:
    """A value as error messages quote it: of limited length, and without running unknown code."""
    if isinstance(value, str):
        return repr(str.__str__(value) if len(value) <= 80 else f"{value[:80]}…")
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    return (
        repr(value)
        if value is None or isinstance(value, int | float)
        else f"a {type(value).__name__}"
    )


def check_text(name: str, value: object) -> str:
    """The value, if it is a string that is not empty and is valid Unicode.

    Raises:
        InputError: It is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} must be a string that is not empty, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has half of a surrogate pair at character {error.start}, "
            "which is not valid Unicode"
        ) from None
    return value


def check_count(name: str, value: object, *, most: int | None = None) -> int:
    """The value, if it is an integer of at least 1.

    Args:
        name: The argument's name, for the message.
        value: What the caller passed.
        most: The largest valid value; None for no bound.

    Raises:
        InputError: It is not.
    """
    if type(value) is not int or value < 1 or (most is not None and value > most):
        bound = "" if most is None else f" and at most {most:,}"
        raise InputError(
            f"{name} must be an integer of at least 1{bound}, not {quote_value(value)}"
        )
    return value
