"""Every error that the library raises on purpose.

RLMError
├── InputError (also ValueError)       an argument that cannot work: wrong type, empty, out of
range, unknown name │   ├── ContextError                   a context that cannot be read: wrong
type, missing file, bytes that are no text │   └── QueryError                     a store query that
does not parse; `column` points at the place ├── MissingExtraError (also ImportError)   a feature
whose packages are not installed; names the extra ├── LoopError (also RuntimeError)      a
synchronous call where it could only wait for itself ├── ModelError                         a model
could not be asked, or did not answer usably ├── IncompleteError                    a run ended
without a final answer and was told to raise; has the result │   └── BudgetExceededError
it spent its budget └── SandboxError                       model code could not be run
    ├── SandboxUnavailableError        a protection that this machine does not offer; names what can
    be chosen instead └── SandboxClosedError             the session was closed or cancelled before
    this use

A failed sub-call in a batch is no exception but a value: `records.LLMError`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult


class RLMError(Exception):
    """What all errors of this library have in common."""


class InputError(RLMError, ValueError):
    """An argument that cannot work; the message says what would."""


class ContextError(InputError):
    """A context that cannot be read as text."""


class QueryError(InputError):
    """A store query that does not parse.

    Args:
        message: What is wrong and what to write instead.
        column: Where in the query, counted from 1.
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
    """A synchronous call on the event loop that it would wait for."""


class ModelError(RLMError):
    """A model could not be asked, or its answer could not be used.

    Args:
        message: What happened, and what to do about it.
        type: The kind of failure as `LLMError.type` names it, such as "rate_limit" or "timeout".
        retryable: Whether the same request may succeed later.
        retry_after: How many seconds the provider asked to wait, if it did.
        sent: Whether the request may have reached the provider, which may then want to be paid for
            it.
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
        result: The `RLMResult`: `partial` has the best answer so far, `stop_reason` the reason.
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
    """A layer of protection is missing here, and nothing weaker is chosen in silence."""


class SandboxClosedError(SandboxError):
    """The session was closed or cancelled before this use."""
