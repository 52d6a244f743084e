"""Turns the exceptions of frameworks' models into `ModelError`s, by status codes and class names,
so that no provider's SDK needs to be loaded.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._secrets import exception_chain, hide_secrets
from rlm_integrations.lm._statuses import status_error

# Names of the class of an error or of its bases: type and whether a retry may help.
BY_NAME: dict[str, tuple[str, bool]] = {
    **dict.fromkeys(
        ("RateLimitError", "ModelRateLimitError", "ResourceExhausted", "TooManyRequests"),
        ("rate_limit", True),
    ),
    **dict.fromkeys(
        ("ModelTimeoutError", "APITimeoutError", "TimeoutException", "Timeout", "TimeoutError"),
        ("timeout", True),
    ),
    **dict.fromkeys(
        ("DeadlineExceeded", "ReadTimeoutError", "ConnectTimeoutError"), ("timeout", True)
    ),
    **dict.fromkeys(
        ("ModelConnectionError", "APIConnectionError", "TransportError", "ClientConnectionError"),
        ("connection", True),
    ),
    **dict.fromkeys(
        ("ConnectionError", "HTTPClientError", "ClientPayloadError"), ("connection", True)
    ),
    "ServiceUnavailable": ("overloaded", True),
    **dict.fromkeys(("ModelAPIError", "InternalServerError"), ("server", True)),
    **dict.fromkeys(
        ("AuthenticationError", "ModelAuthenticationError", "ModelPermissionDeniedError"),
        ("auth", False),
    ),
    "ModelNotFoundError": ("not_found", False),
    "ModelInvalidRequestError": ("bad_request", False),
    # Errors of SDKs and integrations when a body is truncated or lacks its answer.
    **dict.fromkeys(
        ("JSONDecodeError", "APIResponseValidationError", "IndexError", "KeyError"),
        ("bad_response", True),
    ),
    "AttributeError": ("bad_response", True),
}
# Raised before any part of a request is sent.
UNSENT = {
    "ConnectError",
    "ConnectTimeout",
    "ClientConnectorError",
    "ConnectionRefusedError",
    "gaierror",
    "SSLCertVerificationError",
    "ProxyError",
}
# Permanent: a retry cannot help
PERMANENT = {"SSLCertVerificationError", "TooManyRedirects", "OtherHostError"}
# Messages of an integration (LlamaIndex's for Google) without a code; the text of a truncated
# answer is lost.
BY_WORDS: dict[str, tuple[str, bool]] = {
    "terminated early: (SAFETY|RECITATION|BLOCKLIST|PROHIBITED_CONTENT|SPII)": ("refusal", False),
    "terminated early: MAX_TOKENS": ("empty", False),
    "Response has no candidates": ("bad_response", True),
}


def failure_of(error: Exception, where: str, *, secrets: Sequence[str] = ()) -> ModelError:
    """The `ModelError` of an exception that a framework's model raised.

    Args:
        error: The exception.
        where: Names the model in the message.
        secrets: Keys that the message must not show; a failure that shows one has no cause.
    """
    if isinstance(error, ModelError):
        return error
    failure = _classify(error, where)
    failure.__cause__ = error
    return hide_secrets(failure, secrets)


def _classify(error: Exception, where: str) -> ModelError:
    chain = list(exception_chain(error))
    if any("ContextOverflowError" in _names(each) for each in chain):
        return ModelError(
            (
                f"{where} does not accept a prompt of this length: {_message(error)} (send "
                "shorter pieces)"
            ),
            type="context_length",
        )
    for each in chain:
        if (status := _status(each)) is not None:
            failure = status_error(
                status,
                _body(each),
                where,
                getattr(getattr(each, "response", None), "headers", None),
            )
            failure.retry_after = (
                _retry_delay(each) if failure.retry_after is None else failure.retry_after
            )
            return failure
        if isinstance(each, ValueError) and each.args and isinstance(each.args[0], Mapping):
            # LangChain's form of an error that came with status 200
            return status_error(None, dict(each.args[0]), where)
    names = {name for each in chain for name in _names(each)}
    sent = not names & UNSENT
    found = [BY_NAME[name] for each in chain for name in _names(each) if name in BY_NAME]
    found += [BY_WORDS[words] for words in BY_WORDS if re.search(words, str(error))]
    kind, retryable = found[0] if found else ("error", False)
    retryable = retryable and not names & PERMANENT
    return ModelError(
        f"{where} raised {type(error).__name__}: {_message(error)}",
        type=kind,
        retryable=retryable,
        sent=sent,
    )


def _names(error: BaseException) -> list[str]:
    return [each.__name__ for each in type(error).__mro__]


def _message(error: BaseException) -> str:
    return (str(error) or "no reason given")[:500]


def _status(error: Any) -> int | None:
    """The HTTP status in an error of openai, anthropic, httpx, Google or botocore."""
    response = getattr(error, "response", None)
    # Aiohttp's, for a malformed response: the code is not from the provider
    if "HttpProcessingError" in _names(error):
        return None
    for found in (
        getattr(error, "status_code", None),
        getattr(error, "code", None),
        getattr(response, "status_code", None),
    ):
        if isinstance(found, int) and 400 <= found < 600:
            return int(found)
    if isinstance(response, Mapping):
        found = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    return None


def _body(error: Any) -> Any:
    """The provider's error object, which most put under "error"."""
    for name in ("body", "details"):
        body = getattr(error, name, None)
        if isinstance(body, Mapping) and body:
            inner = body.get("error", body)
            return dict(inner) if isinstance(inner, Mapping) else {"message": str(inner)}
    return {"message": _message(error)}


def _retry_delay(error: Any) -> float | None:
    """The wait that Google asks for: "32s" in the details of its error object."""
    details = _body(error).get("details")
    for each in details if isinstance(details, list) else ():
        if isinstance(each, Mapping) and (
            match := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(each.get("retryDelay")))
        ):
            return float(match[1])
    return None
