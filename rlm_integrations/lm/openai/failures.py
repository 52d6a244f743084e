"""Turns the SDK's errors into `ModelError`s. Imported on first use: it loads openai."""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import openai

from rlm_integrations.errors import ModelError
from rlm_integrations.lm._statuses import status_error
from rlm_integrations.lm.openai.transport import OtherHostError, httpx

# OpenSSL's reasons for a server that answers the handshake in plain text.
_NO_TLS = {
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
}
WRITE_HTTP = "the server does not speak TLS on this port: write http:// in base_url"
WRITE_HTTPS = "the server speaks TLS on this port: write https:// in base_url"
# Raised before a request is sent; `DirectClient` raises the first two likewise (see
# `errors_of_httpx`).
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def model_error(
    error: Exception, where: str, url: str, *, is_answering: bool = False
) -> ModelError:
    """The `ModelError` of a failure of the SDK.

    Args:
        error: The failure.
        where: Names the model in the message.
        url: The address of the request.
        is_answering: Whether the server has answered before.
    """
    if isinstance(error, openai.APIStatusError):
        return status_error(error.status_code, error.body, where, error.response.headers)
    # In the middle of a stream, openai 2 raises errors of httpx.
    if isinstance(error, openai.APIConnectionError | httpx.TransportError):  # timeouts too
        return _connection_error(error, where, url, is_answering=is_answering)
    if isinstance(error, openai.APIError):  # an error event in a stream
        return status_error(None, error.body, where)
    return ModelError(
        f"{where} sent a reply that cannot be parsed: {error!r}",
        type="bad_response",
        retryable=True,
    )


def _connection_error(error: Exception, where: str, url: str, *, is_answering: bool) -> ModelError:
    chain = list(_chain(error))
    sent = not any(isinstance(each, _UNSENT) for each in chain)

    def failed(why: str, *, retryable: bool = False) -> ModelError:
        return ModelError(
            f"{where} cannot be reached: {why}", type="connection", retryable=retryable, sent=sent
        )

    proxy = _proxy_of(url)
    if proxy and not sent:
        what = f"the proxy {proxy}, from the environment,"
        if proxy.startswith("socks") and any(
            isinstance(each, aiohttp.ClientError) for each in chain
        ):
            return failed(
                f"{what} is a SOCKS proxy, which transport='aiohttp' cannot use: set "
                "transport='sdk'"
            )
        return failed(f"{what} {_reason(chain)}")
    for each in chain:
        # Some subclasses of ssl.SSLError lack its attributes
        if isinstance(each, aiohttp.ClientError):
            continue
        match each:
            case OtherHostError():
                return failed(
                    f"{each}, which would receive the prompt: if that is intended, set it as "
                    "base_url"
                )
            case httpx.TooManyRedirects():
                return failed("the server redirects in a loop (check base_url)")
            case ssl.SSLCertVerificationError():
                trust = "set SSL_CERT_FILE to a file of trusted certificates"
                return failed(f"its certificate is not trusted: {each.verify_message} ({trust})")
            case ssl.SSLError() if not isinstance(
                each, ssl.SSLWantReadError | ssl.SSLWantWriteError
            ):
                return failed(
                    WRITE_HTTP if each.reason in _NO_TLS else f"TLS failed: {each.reason or each}",
                    retryable=is_answering,
                )
            case socket.gaierror(errno=socket.EAI_NONAME):
                return failed(f"it {_reason(chain)} (check base_url)", retryable=is_answering)
    if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
        what = "did not answer in time" if sent else "could not be connected to in time"
        return ModelError(f"{where} {what}", type="timeout", retryable=True, sent=sent)
    return failed(f"it {_reason(chain)}", retryable=True)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _reason(chain: list[BaseException]) -> str:
    """What the server did, without a client's own wording."""
    for each in chain:
        match each:
            case ConnectionRefusedError():
                return "refuses connections"
            case socket.gaierror():
                return f"has a host name that does not resolve: {each.strerror or each}"
            case aiohttp.ServerDisconnectedError() | httpx.RemoteProtocolError():
                return "closed the connection without an answer"
            case TimeoutError() if not each.strerror:
                return "did not take the connection in time"
    last = chain[1] if len(chain) > 1 else chain[0]
    said = [each.strerror for each in chain if isinstance(each, OSError) and each.strerror]
    return f"broke the connection: {said[-1] if said else str(last) or type(last).__name__}"


def _proxy_of(url: str) -> str | None:
    """The environment's proxy for this address, without its user and password."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    scheme, _, rest = proxy.rpartition("://")
    return f"{scheme or 'http'}://{rest.rpartition('@')[2]}"
