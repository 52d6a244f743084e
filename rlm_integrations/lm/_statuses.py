"""Turns a provider's HTTP status and error body into a `ModelError`: plain functions for every
client.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

from rlm_integrations.errors import ModelError

# HTTP status: type and whether a retry may help. Other statuses go by their class: 4xx is
# "bad_request", 5xx "server".
BY_STATUS = {
    401: ("auth", False),
    402: ("quota", False),
    403: ("auth", False),
    404: ("not_found", False),
    408: ("timeout", True),
    409: ("server", True),
    413: ("context_length", False),
    429: ("rate_limit", True),
    503: ("overloaded", True),
    529: ("overloaded", True),
}
# The provider's error codes are more specific than the status.
BY_CODE = {
    "context_length_exceeded": ("context_length", False),
    "insufficient_quota": ("quota", False),
    "content_filter": ("refusal", False),
    "content_policy_violation": ("refusal", False),
    "rate_limit_exceeded": ("rate_limit", True),
    "model_not_found": ("not_found", False),
    "API_KEY_INVALID": ("auth", False),
}
# Phrases in messages without a code: OpenAI-compatible servers, Anthropic, Google.
TOO_LONG = (
    "context length",
    "context window",
    "prompt is too long",
    "maximum number of tokens allowed",
)
ADVICE = {
    "auth": "check the key: `api_key`, or its environment variable",
    "not_found": "check the model's name and base_url",
    "quota": "check the account's plan and billing",
    "context_length": "send shorter pieces",
}


def status_error(
    status: int | None, body: Any, where: str, headers: Mapping[str, str] | None = None
) -> ModelError:
    """The error in a body, with an HTTP status, or without one as some gateways send it."""
    fields = body if isinstance(body, dict) else {}
    message = str(fields.get("message") or body or "no reason given")[:500]
    code = fields.get("code")
    if status is None:
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
    kind, retryable = BY_STATUS.get(
        status, ("server", True) if status >= 500 else ("bad_request", False)
    )
    codes = (code, fields.get("type"), *_reasons(fields.get("details")))
    if known := [BY_CODE[each] for each in codes if isinstance(each, str) and each in BY_CODE]:
        kind, retryable = known[0]
    elif kind == "bad_request" and any(each in message for each in TOO_LONG):
        kind = "context_length"
    if headers is not None and "x-should-retry" in headers:
        retryable = headers["x-should-retry"] == "true"
    advice = f" ({ADVICE[kind]})" if kind in ADVICE else ""
    return ModelError(
        f"{where} answered {status}: {message}{advice}",
        type=kind,
        retryable=retryable,
        retry_after=retry_after(headers or {}),
    )


def _reasons(details: Any) -> list[Any]:
    """Google's reason codes, which are more specific than its status."""
    return (
        [each.get("reason") for each in details if isinstance(each, Mapping)]
        if isinstance(details, list)
        else []
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asked to wait. The header has milliseconds, seconds, or a date,
    which is compared with the provider's own clock.
    """
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    from email.utils import parsedate_to_datetime

    try:
        until = parsedate_to_datetime(headers["retry-after"]).timestamp()
    except (KeyError, ValueError):
        return None
    try:
        now = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        now = time.time()
    return max(0.0, until - now)
