"""One loop's client of the official SDK. Imported on first use: it loads openai."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import openai
from openai._base_client import get_platform

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.errors import ModelError
from rlm_integrations.lm._statuses import status_error
from rlm_integrations.lm.openai.failures import WRITE_HTTP, WRITE_HTTPS, model_error
from rlm_integrations.lm.openai.probe import speaks_http, speaks_tls
from rlm_integrations.lm.openai.transport import DirectClient, httpx, parsed, redirects

CONNECT = 15.0  # seconds for a connection, of those for the whole call
LARGE = 500_000  # bytes of a response from which reading it would hold up the loop
SECRET = 8  # characters from which a key is one worth hiding; "x" or "none" would garble messages


class _SDK(openai.AsyncOpenAI):
    """The SDK's client, which would parse our one address, given in full, at every call."""

    def _prepare_url(self, url: str) -> httpx.URL:
        return parsed(url)


class OpenAIClient:
    """Sends bodies of chat completions and gives back parsed JSON; each failure is a `ModelError`."""

    def __init__(
        self, base_url: str, api_key: str, transport: str, timeout: float | None, where: str
    ) -> None:
        self._key = api_key
        self._url = f"{base_url}/chat/completions"
        self._where = where
        self._next_piece = openai.Timeout(timeout, connect=timeout and min(timeout, CONNECT))
        self._sdk = _SDK(
            base_url=base_url,
            api_key=api_key or "none",
            # A plain call is timed as a whole, by who makes it
            timeout=openai.Timeout(None, connect=self._next_piece.connect),
            max_retries=0,  # the batch and the loop retry, and count what they do
            http_client=DirectClient()
            if transport == "aiohttp"
            else openai.DefaultAsyncHttpxClient(**redirects()),
        )
        # The SDK would ask for it at the first call, in the loop's default executor, which may be
        # full of threads that wait for us.
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
            failure = await self._diagnosed(self._failure(error))
        else:
            self._is_answering = True
            return await self._parsed(response)
        raise failure  # not where it was caught: the SDK's error would be its context, key and all

    async def stream(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Any, None]:
        """The JSON of each event as it comes."""
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
                if "json" in kind or "html" in kind:  # no stream, but a plain reply or a page
                    await stream.response.aread()
                    yield await self._parsed(stream.response)
                else:
                    async for event in stream:
                        yield event
            finally:
                await stream.close()
        except (openai.OpenAIError, httpx.TransportError, ValueError) as error:
            failure = await self._diagnosed(self._failure(error))
        else:
            self._is_answering = True
            return
        raise failure

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    async def _parsed(self, response: Any) -> Any:
        content = response.content
        try:
            body = (
                await offload(json.loads, content) if len(content) > LARGE else json.loads(content)
            )
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "nothing that it names")
            if "json" in kind:
                raise ModelError(
                    f"{self._where} sent JSON that breaks off or is none",
                    type="bad_response",
                    retryable=True,
                ) from None
            raise ModelError(
                f"{self._where} sent {kind} instead of JSON (check base_url)", type="bad_response"
            ) from None
        if isinstance(body, dict) and body.get("error"):
            raise self._hidden(status_error(None, body["error"], self._where))
        return body

    def _failure(self, error: Exception) -> ModelError:
        failure = model_error(error, self._where, self._url, is_answering=self._is_answering)
        failure.__cause__ = error
        return self._hidden(failure)

    async def _diagnosed(self, failure: ModelError) -> ModelError:
        """The failure, or that of a scheme that cannot work: no try mends it."""
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

    def _hidden(self, failure: ModelError) -> ModelError:
        """The failure without the key, which some gateways repeat in their errors; then its cause
        is left out too.
        """
        cause = failure.__cause__
        if len(self._key) >= SECRET and any(
            self._key in text
            for text in (str(failure), str(cause), repr(cause and cause.__cause__))
        ):
            failure.args = (str(failure).replace(self._key, "[key]"),)
            failure.__cause__ = None
        return failure
