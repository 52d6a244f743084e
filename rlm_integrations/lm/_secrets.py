"""Keeps keys out of errors: some gateways repeat the key that they were sent."""

from collections.abc import Iterable, Iterator

from rlm_integrations.errors import ModelError

MIN_SECRET_CHARS = 8  # hiding a shorter key, such as "x" or "none", would garble messages
_MAX_CHAIN = 5  # errors


def exception_chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors that it was raised from: integrations wrap the errors of SDKs."""
    seen: list[BaseException] = []
    while error is not None and error not in seen and len(seen) < _MAX_CHAIN:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def hide_secrets(failure: ModelError, secrets: Iterable[str]) -> ModelError:
    """The failure without these keys; if it or its causes show one, its cause is dropped too."""
    texts = [
        str(failure),
        *(f"{each} {each!r}" for each in exception_chain(failure.__cause__)),
    ]
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARS and any(secret in text for text in texts):
            failure.args = (str(failure).replace(secret, "[key]"),)
            failure.__cause__ = None
    return failure
