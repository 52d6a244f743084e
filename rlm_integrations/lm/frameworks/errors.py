"""What foreign models raise, as ours: told by status codes and by the names of classes, so that no
provider's SDK need be loaded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._statuses import status_error

SECRET = 8  # characters from which a key is one worth hiding; "x" or "none" would garble messages

# Names of classes, a failure's own or of its bases: type and whether asking again may help.
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
    # What SDKs and integrations stumble over when a body is cut or lacks its answer.
    **dict.fromkeys(
        ("JSONDecodeError", "APIResponseValidationError", "IndexError", "KeyError"),
        ("bad_response", True),
    ),
    "AttributeError": ("bad_response", True),
}
# Raised before anything of a request is sent.
UNSENT = {
    "ConnectError",
    "ConnectTimeout",
    "ClientConnectorError",
    "ConnectionRefusedError",
    "gaierror",
    "SSLCertVerificationError",
    "ProxyError",
}
# No further try mends these
HOPELESS = {"SSLCertVerificationError", "TooManyRedirects", "OtherHostError"}
# What an integration (LlamaIndex's for Google) says in words alone; the text of an answer that was
# cut is lost with them.
BY_WORDS: dict[str, tuple[str, bool]] = {
    "terminated early: (SAFETY|RECITATION|BLOCKLIST|PROHIBITED_CONTENT|SPII)": ("refusal", False),
    "terminated early: MAX_TOKENS": ("empty", False),
    "Response has no candidates": ("bad_response", True),
}


def failure_of(error: Exception, where: str, *, secrets: Sequence[str] = ()) -> ModelError:
    """What a foreign model's failure is to us.

    Args:
        error: What its method raised.
        where: Names the model in the message.
        secrets: Texts that the message must not show; the failure then has no cause either.
    """
    if isinstance(error, ModelError):
        return error
    failure = _told_apart(error, where)
    texts = [str(failure), *(f"{each} {each!r}" for each in _chain(error))]
    hidden = [
        secret
        for secret in secrets
        if len(secret) >= SECRET and any(secret in text for text in texts)
    ]
    for secret in hidden:
        failure.args = (str(failure).replace(secret, "[key]"),)
    failure.__cause__ = None if hidden else error
    return failure


def _told_apart(error: Exception, where: str) -> ModelError:
    chain = list(_chain(error))
    if any("ContextOverflowError" in _names(each) for each in chain):
        return ModelError(
            f"{where} takes no prompt of this length: {_said(error)} (ask about shorter pieces)",
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
            # So LangChain hands on an error that came with status 200
            return status_error(None, dict(each.args[0]), where)
    names = {name for each in chain for name in _names(each)}
    sent = not names & UNSENT
    told = [BY_NAME[name] for each in chain for name in _names(each) if name in BY_NAME]
    told += [BY_WORDS[words] for words in BY_WORDS if re.search(words, str(error))]
    kind, retryable = told[0] if told else ("error", False)
    retryable = retryable and not names & HOPELESS
    return ModelError(
        f"{where} raised {type(error).__name__}: {_said(error)}",
        type=kind,
        retryable=retryable,
        sent=sent,
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from: integrations wrap what SDKs raise."""
    seen: list[BaseException] = []
    while error is not None and error not in seen and len(seen) < 5:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _names(error: BaseException) -> list[str]:
    return [each.__name__ for each in type(error).__mro__]


def _said(error: BaseException) -> str:
    return (str(error) or "no reason given")[:500]


def _status(error: Any) -> int | None:
    """The HTTP status that it speaks of: openai, anthropic, httpx; Google; botocore."""
    response = getattr(error, "response", None)
    # Aiohttp's, for what it could not read: its code is none that the provider sent
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
    """The error object that the provider sent, which most put under "error"."""
    for name in ("body", "details"):
        body = getattr(error, name, None)
        if isinstance(body, Mapping) and body:
            inner = body.get("error", body)
            return dict(inner) if isinstance(inner, Mapping) else {"message": str(inner)}
    return {"message": _said(error)}


def _retry_delay(error: Any) -> float | None:
    """How long Google asks to wait: "32s" among the details of its error object."""
    details = _body(error).get("details")
    for each in details if isinstance(details, list) else ():
        if isinstance(each, Mapping) and (
            match := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(each.get("retryDelay")))
        ):
            return float(match[1])
    return None
