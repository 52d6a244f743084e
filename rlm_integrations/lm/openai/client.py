"""The client of one event loop. Imported on first use: it loads aiohttp, and openai only when a call
needs it.
"""

import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp

from rlm_integrations._concurrency.per_loop import PerLoop
from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.errors import ModelError
from rlm_integrations.lm._secrets import hide_secrets
from rlm_integrations.lm._statuses import status_error
from rlm_integrations.lm.openai.endpoint import Endpoint
from rlm_integrations.lm.openai.failures import (
    AIOHTTP,
    WRITE_HTTP,
    WRITE_HTTPS,
    connection_error,
    proxy_of,
)
from rlm_integrations.lm.openai.probe import speaks_http, speaks_tls
from rlm_integrations.lm.openai.wire import RedirectError, Wire

if TYPE_CHECKING:
    from rlm_integrations.lm.openai.sdk import SDK

CONNECT_SECONDS = 15.0  # seconds for a connection; they count towards the call's timeout
OFFLOAD_ABOVE_BYTES = 500_000  # bytes of a response: parsing more would block the loop


class OpenAIClient:
    """Sends chat completions and returns parsed JSON; every failure is a `ModelError`.

    A plain call needs only aiohttp. The SDK is loaded for streams, and makes plain calls too with a
    user's client, over a proxy, with `transport="sdk"`, and with OPENAI_LOG, for its logs.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._key = endpoint.key
        self._url = endpoint.url
        self._where = endpoint.where
        self._proxy = proxy_of(self._url)
        self._is_answering = False
        connect_seconds = endpoint.timeout and min(endpoint.timeout, CONNECT_SECONDS)
        needs_sdk = (
            endpoint.client is not None
            or endpoint.transport == "sdk"
            or self._proxy is not None
            or bool(os.environ.get("OPENAI_LOG"))
        )
        self._wire = None if needs_sdk else Wire(self._url, self._key, connect_seconds)
        self._sdk = PerLoop(partial(_open_sdk, endpoint, connect_seconds), _close_sdk)

    async def prepare(self) -> None:
        """Load what plain calls need."""
        if self._wire is None:
            await self._sdk.get()

    async def ask(self, body: bytes, headers: Mapping[str, str]) -> Any:
        """The response's JSON."""
        if self._wire is None:
            return await self._ask_sdk(body, headers)
        try:
            response, content = await self._wire.post(body, headers)
        except RedirectError as error:
            failure = ModelError(f"{self._where} cannot be reached: {error}", type="connection")
        # RuntimeError: the session was closed. ValueError: an invalid header or location
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            failure = connection_error(error, AIOHTTP, self._where, is_answering=self._is_answering)
            failure = await self._diagnose(self._caused(failure, error))
        else:
            if response.status < 300:
                self._is_answering = True
                return await self._parse(content, response.headers)
            text = content.decode(response.get_encoding(), "replace").strip()
            failure = hide_secrets(
                status_error(response.status, _error_in(text), self._where, response.headers),
                [self._key],
            )
        # Outside the except block: aiohttp's error would be its context
        raise failure

    async def _ask_sdk(self, body: bytes, headers: Mapping[str, str]) -> Any:
        sdk = await self._sdk.get()
        from rlm_integrations.lm.openai.sdk import SDK_ERRORS

        try:
            response = await sdk.post(body, headers)
        except SDK_ERRORS as error:
            failure = await self._failure_of_sdk(error)
        else:
            self._is_answering = True
            return await self._parse(response.content, response.headers)
        # Outside the except block: the SDK's error, which may show the key, would be its context
        raise failure

    async def stream(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Any, None]:
        """The JSON of each event as it arrives."""
        sdk = await self._sdk.get()
        from rlm_integrations.lm.openai.sdk import SDK_ERRORS
        from rlm_integrations.lm.openai.transport import httpx

        try:
            async with aclosing(sdk.stream(body, headers)) as events:
                async for event in events:
                    if isinstance(event, httpx.Response):
                        yield await self._parse(event.content, event.headers)
                    else:
                        yield event
        except SDK_ERRORS as error:
            failure = await self._failure_of_sdk(error)
        else:
            self._is_answering = True
            return
        raise failure

    async def close(self) -> None:
        """Close the connections; the SDK's are closed by themselves."""
        if self._wire is not None:
            await self._wire.close()

    async def _parse(self, content: bytes, headers: Mapping[str, str]) -> Any:
        try:
            body = (
                await offload(json.loads, content)
                if len(content) > OFFLOAD_ABOVE_BYTES
                else json.loads(content)
            )
        except (ValueError, RecursionError):
            kind = headers.get("content-type", "no content type")
            if "json" in kind:
                raise ModelError(
                    f"{self._where} sent truncated or invalid JSON",
                    type="bad_response",
                    retryable=True,
                ) from None
            raise ModelError(
                f"{self._where} sent {kind} instead of JSON (check base_url)", type="bad_response"
            ) from None
        if isinstance(body, dict) and body.get("error"):
            raise hide_secrets(status_error(None, body["error"], self._where), [self._key])
        return body

    async def _failure_of_sdk(self, error: Exception) -> ModelError:
        from rlm_integrations.lm.openai.sdk import sdk_failure, secrets_of

        failure = sdk_failure(
            error, self._where, proxy=self._proxy, is_answering=self._is_answering
        )
        return await self._diagnose(self._caused(failure, error, *secrets_of(error)))

    def _caused(self, failure: ModelError, error: Exception, *secrets: str) -> ModelError:
        failure.__cause__ = error
        return hide_secrets(failure, [self._key, *secrets])

    async def _diagnose(self, failure: ModelError) -> ModelError:
        """The failure, or a permanent one if the scheme of the address is wrong."""
        if (
            self._is_answering
            or failure.type not in {"connection", "timeout"}
            or not failure.retryable
        ):
            return failure
        why = None
        if self._url.startswith("http://") and failure.sent and failure.type == "connection":
            why = WRITE_HTTPS if await speaks_tls(self._url) else None
        elif self._url.startswith("https://") and not failure.sent and failure.type == "timeout":
            why = WRITE_HTTP if await speaks_http(self._url) else None
        if why is None:
            return failure
        diagnosed = ModelError(
            f"{self._where} cannot be reached: {why}", type="connection", sent=False
        )
        diagnosed.__cause__ = failure.__cause__
        return diagnosed


def _error_in(text: str) -> Any:
    """The provider's error object in the body of a response, or the text itself."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return body.get("error", body) if isinstance(body, dict) else body


def _open_sdk(endpoint: Endpoint, connect_seconds: float | None) -> "SDK":
    from rlm_integrations.lm.openai.sdk import SDK

    return SDK(endpoint, connect_seconds)


async def _close_sdk(sdk: "SDK") -> None:
    await sdk.close()
