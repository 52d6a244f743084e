"""Calls by the official SDK, for what only it does: streams, proxies, its own logs.
Imported on first use: it loads openai, which takes about a second.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import quote

import openai
from openai._base_client import AsyncHttpxClientWrapper, get_platform

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._statuses import status_error
from rlm_integrations.lm.frameworks.home_loop import HomeLoop, LoopIndependent, home_of_client
from rlm_integrations.lm.openai.endpoint import Endpoint
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
        endpoint: What it calls, and how.
        connect_seconds: How long connecting may take, or None.
    """

    def __init__(self, endpoint: Endpoint, connect_seconds: float | None) -> None:
        self._where = endpoint.where
        self._is_users = False
        self._home: HomeLoop | None = None
        self._headers: dict[str, Any] = {}
        self._next_piece = openai.Timeout(endpoint.timeout, connect=connect_seconds)
        self._url = "/chat/completions"
        if endpoint.client is None:
            self._client: openai.AsyncOpenAI = _own_client(endpoint, connect_seconds)
            self._url = f"{endpoint.base_url}{self._url}"
            own = self._client._custom_headers  # noqa: SLF001 - those of OPENAI_CUSTOM_HEADERS
            if not endpoint.key and "authorization" not in {name.lower() for name in own}:
                self._headers["Authorization"] = openai.Omit()
        else:
            given = endpoint.client
            if isinstance(given, openai.AsyncAzureOpenAI) and "/deployments" not in (
                given.base_url.path
            ):  # the SDK does this for bodies that it encodes itself
                self._url = f"/deployments/{quote(endpoint.model, safe='')}{self._url}"
            self._is_users = not isinstance(given._client, AsyncHttpxClientWrapper)  # noqa: SLF001
            if not self._is_users:
                self._client = given.copy(http_client=_http_client(endpoint.transport))
            else:
                self._client = given
                if not isinstance(given._client, LoopIndependent):  # noqa: SLF001
                    self._home = home_of_client(given._client)  # noqa: SLF001
        # The SDK would compute it at the first call, in the loop's default executor, whose threads
        # may all be waiting for this library.
        self._client._platform = get_platform()  # noqa: SLF001

    async def post(self, body: bytes, headers: Mapping[str, str]) -> "httpx.Response":
        """The response, which has a status of success.

        Raises:
            openai.OpenAIError: There is none.
            ModelError: The user's HTTP client belongs to another event loop.
        """
        await self._check_loop()
        return await self._client.post(
            self._url,
            cast_to=httpx.Response,
            content=body,
            options={"headers": {**self._headers, **headers}, "max_retries": 0},
        )

    async def stream(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Any, None]:
        """The JSON of each event as it arrives; or one response, read in full, of a server that
        does not stream.

        Raises:
            SDK_ERRORS: The stream cannot be opened, or breaks.
            ModelError: As for `post`.
        """
        await self._check_loop()
        stream = await self._client.post(
            self._url,
            cast_to=object,
            content=body,
            options={
                "headers": {**self._headers, **headers},
                "timeout": self._next_piece,
                "max_retries": 0,
            },
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
        """Close the connections, unless the HTTP client is the user's."""
        if not self._is_users:
            await self._client.close()

    async def _check_loop(self) -> None:
        if self._home is None:
            return
        if not await self._home.is_here():
            raise ModelError(
                f"{self._where} has a client whose http_client is in use on another event loop: "
                "leave http_client out, or pass a separate client for each loop",
                type="input",
            )
        self._home.note_client(self._client._client)  # noqa: SLF001


def _own_client(endpoint: Endpoint, connect_seconds: float | None) -> openai.AsyncOpenAI:
    return _AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key or "none",
        # The caller applies the timeout of a plain call
        timeout=openai.Timeout(None, connect=connect_seconds),
        http_client=_http_client(endpoint.transport),
    )


def _http_client(transport: str) -> httpx.AsyncClient:
    if transport == "aiohttp":
        return DirectClient()
    client: httpx.AsyncClient = openai.DefaultAsyncHttpxClient(**redirects())
    return client


def secrets_of(error: Exception) -> list[str]:
    """The keys and tokens of a failed request, of whichever kind of authentication."""
    request = getattr(error, "request", None)
    headers = {} if request is None else request.headers
    return [
        headers[name].removeprefix("Bearer ")
        for name in ("authorization", "api-key")
        if name in headers
    ]


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
