"""The SDK's errors as ours. Imported on first use: it loads openai."""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._direct import httpx

# HTTP status: type and whether asking again may help. What is not here goes by its class: 4xx is "bad_request", 5xx "server".
BY_STATUS = {
    401: ("auth", False),
    403: ("auth", False),
    404: ("not_found", False),
    408: ("timeout", True),
    409: ("server", True),
    413: ("context_length", False),
    429: ("rate_limit", True),
    503: ("overloaded", True),
    529: ("overloaded", True),
}
# The provider's own codes say more than the status.
BY_CODE = {
    "context_length_exceeded": ("context_length", False),
    "insufficient_quota": ("quota", False),
    "content_filter": ("refusal", False),
    "content_policy_violation": ("refusal", False),
    "rate_limit_exceeded": ("rate_limit", True),
    "model_not_found": ("not_found", False),
}
ADVICE = {
    "auth": "check api_key or OPENAI_API_KEY",
    "not_found": "check the model's name and base_url",
    "quota": "check the account's plan and billing",
    "context_length": "ask about shorter pieces",
}


def model_error(error: Exception, where: str) -> ModelError:
    """What a failure of the SDK is to us; `where` names the model in the message."""
    if isinstance(error, openai.APIStatusError):
        return status_error(error.status_code, error.body, where, error.response.headers)
    # In the middle of a stream, openai 2 lets errors of httpx through.
    if isinstance(error, (openai.APITimeoutError, httpx.TimeoutException)):
        return ModelError(f"{where} did not answer in time", type="timeout", retryable=True)
    if isinstance(error, (openai.APIConnectionError, httpx.TransportError)):
        return ModelError(f"{where} cannot be reached: {error.__cause__ or error}", type="connection", retryable=True)
    if isinstance(error, openai.APIError):  # an error event in a stream
        return status_error(None, error.body, where)
    return ModelError(f"{where} sent what cannot be read: {error!r}", type="bad_response", retryable=True)


def status_error(status: int | None, body: Any, where: str, headers: Mapping[str, str] | None = None) -> ModelError:
    """What an error body means, under an HTTP status or, as some gateways send it, without one."""
    fields = body if isinstance(body, dict) else {}
    said = str(fields.get("message") or body or "no reason given")[:500]
    code = fields.get("code")
    if status is None:
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
    kind, retryable = BY_STATUS.get(status, ("server", True) if status >= 500 else ("bad_request", False))
    if known := [BY_CODE[each] for each in (code, fields.get("type")) if isinstance(each, str) and each in BY_CODE]:
        kind, retryable = known[0]
    elif kind == "bad_request" and ("context length" in said or "context window" in said):
        kind = "context_length"
    if headers is not None and "x-should-retry" in headers:
        retryable = headers["x-should-retry"] == "true"
    advice = f" ({ADVICE[kind]})" if kind in ADVICE else ""
    return ModelError(f"{where} answered {status}: {said}{advice}", type=kind, retryable=retryable, retry_after=retry_after(headers or {}))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asked to wait; it may write milliseconds, seconds or a date, which is read by its own clock."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        until = parsedate_to_datetime(headers["retry-after"]).timestamp()
    except (KeyError, ValueError):
        return None
    try:
        now = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        now = time.time()
    return max(0.0, until - now)
