"""The SDK's errors as ours. Imported on first use: it loads openai."""

import openai

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._direct import httpx
from rlm_integrations.lm._statuses import status_error


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
