"""The SDK's aiohttp client with a shorter path to aiohttp. Imported on first use: it loads openai
and aiohttp.
"""

import importlib
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
from yarl import URL

from rlm_integrations._concurrency.per_loop import PerLoop
from rlm_integrations.lm.frameworks.home_loop import LoopIndependent

__all__ = ["DirectClient", "LoopsClient", "OtherHostError", "httpx", "parsed", "redirects"]

if TYPE_CHECKING:
    import httpx
else:
    # openai 2 is built on httpx, openai 3 on its successor httpx2.
    httpx = importlib.import_module("httpx" if openai.__version__.startswith("2.") else "httpx2")

# openai looks for httpx2 in `sys.modules` at each call, and one that another thread is importing (for
# the price list) would fail the call: if it is installed, it is loaded before the first call.
with suppress(ImportError):
    importlib.import_module("httpx2")

# Headers that aiohttp sets itself
AIOHTTP_HEADERS = {b"host", b"connection", b"content-length", b"accept-encoding"}
MAX_REDIRECTS = 5
# Aiohttp warns of plain bytes above this size: they would be written in one piece
OFFLOAD_ABOVE_BYTES = 2**20


class OtherHostError(httpx.TransportError):
    """A server redirects to another host."""


async def _stay_at_host(response: "httpx.Response") -> None:
    """Refuse a redirect to another host.

    That host would receive the prompt, and with it the document: httpx omits the key, but sends the
    body again. No provider needs it, and the SDK does not document it. The same host may redirect
    from http to https, or to another path.
    """
    if response.has_redirect_location:
        target = response.request.url.join(response.headers["location"])
        if target.host and target.host != response.request.url.host:
            raise OtherHostError(f"the server redirects to another host, {target.host}")


def redirects() -> dict[str, Any]:
    """The clients' options for redirects."""
    return {"max_redirects": MAX_REDIRECTS, "event_hooks": {"response": [_stay_at_host]}}


class DirectClient(openai.DefaultAioHttpClient):
    """Sends directly with aiohttp, in less than half of the SDK's own time.

    Proxies, redirects and other special cases use the SDK's own path. Failures are httpx's errors,
    as the SDK expects; a lost connection is a connection error here, which the SDK itself reports
    as a timeout.
    """

    def __init__(self) -> None:
        super().__init__(**redirects())

    def build_request(
        self,
        method: str,
        url: Any,
        *,
        headers: Any = None,
        timeout: Any = None,
        content: Any = None,
        **more: Any,
    ) -> "httpx.Request":
        """The SDK's request, without merging this client's own (empty) headers, cookies and
        parameters into it.
        """
        if any(more.values()) or not isinstance(content, bytes):
            return super().build_request(
                method, url, headers=headers, timeout=timeout, content=content, **more
            )
        if isinstance(url, str):
            url = parsed(url)
        limits = timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout)
        return httpx.Request(
            method, url, headers=headers, content=content, extensions={"timeout": limits.as_dict()}
        )

    async def send(
        self, request: "httpx.Request", *, stream: bool = False, **more: Any
    ) -> "httpx.Response":
        """The response, read in full unless it is a stream."""
        if more or self._transport_for_url(request.url) is not self._transport:
            return await super().send(request, stream=stream, **more)
        session = self._session()
        timeout = request.extensions["timeout"]
        body = request.content
        with errors_of_httpx(request):
            response = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=[
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in request.headers.raw
                    if name.lower() not in AIOHTTP_HEADERS
                ],
                data=io.BytesIO(body) if len(body) > OFFLOAD_ABOVE_BYTES else body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=timeout["pool"],
                    sock_connect=timeout["connect"],
                    sock_read=timeout["read"],
                ),
            )
            if 300 <= response.status < 400:
                response.release()
                return await super().send(request, stream=stream)
            headers = [
                (name, value)
                for name, value in response.raw_headers
                if name.lower() != b"content-encoding"
            ]
            if stream:
                return httpx.Response(
                    response.status,
                    headers=headers,
                    stream=_Body(request, response),
                    request=request,
                )
            async with response:
                content = await response.read()
        return httpx.Response(response.status, headers=headers, content=content, request=request)

    def _session(self) -> aiohttp.ClientSession:
        transport: Any = self._transport
        if not isinstance(transport.client, aiohttp.ClientSession):
            transport.client = transport.get_client()
        session: aiohttp.ClientSession = transport.client
        return session


@lru_cache(maxsize=64)
def parsed(url: str) -> "httpx.URL":
    """The parsed address, cached because it is the same at every call."""
    return httpx.URL(url)


class LoopsClient(DirectClient, LoopIndependent):
    """For an SDK client that event loops share: each loop has its own connections, closed by its
    shutdown.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clients = PerLoop(DirectClient, DirectClient.aclose)

    async def send(
        self, request: "httpx.Request", *, stream: bool = False, **more: Any
    ) -> "httpx.Response":
        """The response, sent on the running loop's own connections."""
        client = await self._clients.get()
        return await client.send(request, stream=stream, **more)


class _Body(httpx.AsyncByteStream):
    """A response's bytes as they arrive."""

    def __init__(self, request: "httpx.Request", response: aiohttp.ClientResponse) -> None:
        self._request = request
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with errors_of_httpx(self._request):
            async for piece in self._response.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        self._response.close()  # the connection of an unfinished stream cannot be reused


@contextmanager
def errors_of_httpx(request: "httpx.Request") -> Iterator[None]:
    """Turn aiohttp's errors into those that the SDK expects."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error), request=request) from error
    except TimeoutError as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error) or type(error).__name__, request=request) from error
