"""The client of one event loop, on the official SDK. Imported on first use: it loads openai."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import openai
from openai._base_client import get_platform

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.errors import ModelError
from rlm_integrations.lm._secrets import hide_secrets
from rlm_integrations.lm._statuses import status_error
from rlm_integrations.lm.openai.failures import WRITE_HTTP, WRITE_HTTPS, model_error
from rlm_integrations.lm.openai.probe import speaks_http, speaks_tls
from rlm_integrations.lm.openai.transport import DirectClient, httpx, parsed, redirects

CONNECT_SECONDS = 15.0  # seconds for a connection; they count towards the call's timeout
OFFLOAD_ABOVE_BYTES = 500_000  # bytes of a response: parsing more would block the loop


class _SDK(openai.AsyncOpenAI):
    """The SDK's client without its parsing of the same URL at every call."""

    def _prepare_url(self, url: str) -> httpx.URL:
        return parsed(url)


class OpenAIClient:
    """Sends chat completions and returns parsed JSON; every failure is a `ModelError`."""

    def __init__(
        self, base_url: str, api_key: str, transport: str, timeout: float | None, where: str
    ) -> None:
        self._key = api_key
        self._url = f"{base_url}/chat/completions"
        self._where = where
        self._next_piece = openai.Timeout(
            timeout, connect=timeout and min(timeout, CONNECT_SECONDS)
        )
        self._sdk = _SDK(
            base_url=base_url,
            api_key=api_key or "none",
            # The caller applies the timeout of a plain call
            timeout=openai.Timeout(None, connect=self._next_piece.connect),
            max_retries=0,  # batches and runs retry, and count their retries
            http_client=DirectClient()
            if transport == "aiohttp"
            else openai.DefaultAsyncHttpxClient(**redirects()),
        )
        # The SDK would compute it at the first call, in the loop's default executor, whose threads
        # may all be waiting for this library.
        self._sdk._platform = get_platform()  # noqa: SLF001
        self._is_answering = False
        self._headers: dict[str, Any] = {} if api_key else {"Authorization": openai.Omit()}

    async def ask(self, body: bytes, headers: Mapping[str, str]) -> Any:
        """The response's JSON."""
        try:
            response = await self._sdk.post(
                self._url,
                cast_to=httpx.Response,
                content=body,
                options={"headers": {**self._headers, **headers}},
            )
        except openai.OpenAIError as error:
            failure = await self._diagnose(self._failure(error))
        else:
            self._is_answering = True
            return await self._parse(response)
        # Outside the except block: the SDK's error, which may show the key, would be its context
        raise failure

    async def stream(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Any, None]:
        """The JSON of each event as it arrives."""
        try:
            stream = await self._sdk.post(
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
                    yield await self._parse(stream.response)
                else:
                    async for event in stream:
                        yield event
            finally:
                await stream.close()
        except (openai.OpenAIError, httpx.TransportError, ValueError) as error:
            failure = await self._diagnose(self._failure(error))
        else:
            self._is_answering = True
            return
        raise failure

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    async def _parse(self, response: Any) -> Any:
        content = response.content
        try:
            body = (
                await offload(json.loads, content)
                if len(content) > OFFLOAD_ABOVE_BYTES
                else json.loads(content)
            )
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no content type")
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

    def _failure(self, error: Exception) -> ModelError:
        failure = model_error(error, self._where, self._url, is_answering=self._is_answering)
        failure.__cause__ = error
        return hide_secrets(failure, [self._key])

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
