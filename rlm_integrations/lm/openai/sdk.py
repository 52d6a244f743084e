"""Calls by the official SDK, for what only it does: streams, proxies, its own logs.
Imported on first use: it loads openai, which takes about a second.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import openai
from openai._base_client import get_platform

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._statuses import status_error
from rlm_integrations.lm.openai.failures import AIOHTTP, ErrorClasses, connection_error
from rlm_integrations.lm.openai.transport import (
    DirectClient,
    OtherHostError,
    httpx,
    parsed,
    redirects,
)

# All failures of a call; in the middle of a stream, openai 2 raises errors of httpx.
SDK_ERRORS = (openai.OpenAIError, httpx.TransportError, ValueError)
HTTPX = ErrorClasses(
    unsent=(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
    timeout=(httpx.TimeoutException,),
    dropped=(httpx.RemoteProtocolError, *AIOHTTP.dropped),
)


class _AsyncOpenAI(openai.AsyncOpenAI):
    """The SDK's client without its parsing of the same URL at every call."""

    def _prepare_url(self, url: str) -> httpx.URL:
        return parsed(url)


class SDK:
    """The SDK's client of one event loop.

    Args:
        base_url: The address of the API.
        key: The key, or "" to send none.
        transport: "aiohttp", or "sdk" for the SDK's default.
        timeout: Seconds that the next piece of a stream may take.
        connect_seconds: How long connecting may take, or None.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        transport: str,
        timeout: float | None,
        connect_seconds: float | None,
    ) -> None:
        self._url = f"{base_url}/chat/completions"
        self._next_piece = openai.Timeout(timeout, connect=connect_seconds)
        self._client = _AsyncOpenAI(
            base_url=base_url,
            api_key=key or "none",
            # The caller applies the timeout of a plain call
            timeout=openai.Timeout(None, connect=connect_seconds),
            max_retries=0,  # batches and runs retry, and count their retries
            http_client=DirectClient()
            if transport == "aiohttp"
            else openai.DefaultAsyncHttpxClient(**redirects()),
        )
        # The SDK would compute it at the first call, in the loop's default executor, whose threads
        # may all be waiting for this library.
        self._client._platform = get_platform()  # noqa: SLF001
        own = self._client._custom_headers  # noqa: SLF001 - those of OPENAI_CUSTOM_HEADERS
        sends_none = not key and "authorization" not in {name.lower() for name in own}
        self._headers: dict[str, Any] = {"Authorization": openai.Omit()} if sends_none else {}

    async def post(self, body: bytes, headers: Mapping[str, str]) -> "httpx.Response":
        """The response, which has a status of success.

        Raises:
            openai.OpenAIError: There is none.
        """
        return await self._client.post(
            self._url,
            cast_to=httpx.Response,
            content=body,
            options={"headers": {**self._headers, **headers}},
        )

    async def stream(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Any, None]:
        """The JSON of each event as it arrives; or one response, read in full, of a server that
        does not stream.

        Raises:
            SDK_ERRORS: The stream cannot be opened, or breaks.
        """
        stream = await self._client.post(
            self._url,
            cast_to=object,
            content=body,
            options={"headers": {**self._headers, **headers}, "timeout": self._next_piece},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        try:
            kind = stream.response.headers.get("content-type", "")
            if "json" in kind or "html" in kind:  # not a stream, but a plain reply or a page
                await stream.response.aread()
                yield stream.response
            else:
                async for event in stream:
                    yield event
        finally:
            await stream.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def sdk_failure(
    error: Exception, where: str, *, proxy: str | None, is_answering: bool
) -> ModelError:
    """The `ModelError` of one of `SDK_ERRORS`; the arguments are those of `connection_error`."""
    if isinstance(error, openai.APIStatusError):
        return status_error(error.status_code, error.body, where, error.response.headers)
    if isinstance(error, openai.APIConnectionError | httpx.TransportError):  # timeouts too
        cause = error.__cause__ if isinstance(error, openai.OpenAIError) else None
        if isinstance(cause, OtherHostError | httpx.TooManyRedirects):
            why = (
                f"{cause}, which would receive the prompt: if that is intended, set it as base_url"
                if isinstance(cause, OtherHostError)
                else "the server redirects in a loop (check base_url)"
            )
            return ModelError(f"{where} cannot be reached: {why}", type="connection")
        return connection_error(
            cause or error, HTTPX, where, proxy=proxy, is_answering=is_answering
        )
    if isinstance(error, openai.APIError):  # an error event in a stream
        return status_error(None, error.body, where)
    return ModelError(
        f"{where} sent a reply that cannot be parsed: {error!r}",
        type="bad_response",
        retryable=True,
    )
