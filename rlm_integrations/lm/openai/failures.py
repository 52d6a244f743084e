"""Turns failures of a connection into `ModelError`s, whichever HTTP client reports them. Imported
on first use: it loads aiohttp.
"""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from rlm_integrations.errors import ModelError

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


@dataclass(frozen=True, slots=True)
class ErrorClasses:
    """The classes of errors by which an HTTP client reports what happened.

    Attributes:
        unsent: Raised before a request is sent.
        timeout: A timeout.
        dropped: The server closed the connection without an answer.
    """

    unsent: tuple[type[Exception], ...]
    timeout: tuple[type[Exception], ...]
    dropped: tuple[type[Exception], ...]


AIOHTTP = ErrorClasses(
    unsent=(aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError),
    timeout=(TimeoutError,),
    dropped=(aiohttp.ServerDisconnectedError,),
)


def connection_error(
    error: BaseException,
    classes: ErrorClasses,
    where: str,
    *,
    proxy: str | None = None,
    is_answering: bool = False,
) -> ModelError:
    """The `ModelError` of a call that got no response.

    Args:
        error: The failure.
        classes: Those of the HTTP client that raised it.
        where: Names the model in the message.
        proxy: The environment's proxy for this address, if there is one.
        is_answering: Whether the server has answered before.
    """
    chain = list(_chain(error))
    sent = not any(isinstance(each, classes.unsent) for each in chain)

    def failed(why: str, *, retryable: bool = False) -> ModelError:
        return ModelError(
            f"{where} cannot be reached: {why}", type="connection", retryable=retryable, sent=sent
        )

    if proxy and not sent:
        what = f"the proxy {proxy}, from the environment,"
        if proxy.startswith("socks") and any(
            isinstance(each, aiohttp.ClientError) for each in chain
        ):
            return failed(
                f"{what} is a SOCKS proxy, which transport='aiohttp' cannot use: set "
                "transport='sdk'"
            )
        return failed(f"{what} {_reason(chain, classes)}")
    for each in chain:
        # Some subclasses of ssl.SSLError lack its attributes
        if isinstance(each, aiohttp.ClientError):
            continue
        match each:
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
                return failed(
                    f"it {_reason(chain, classes)} (check base_url)", retryable=is_answering
                )
    if isinstance(error, classes.timeout):
        what = "did not answer in time" if sent else "could not be connected to in time"
        return ModelError(f"{where} {what}", type="timeout", retryable=True, sent=sent)
    return failed(f"it {_reason(chain, classes)}", retryable=True)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _reason(chain: list[BaseException], classes: ErrorClasses) -> str:
    """What the server did, without a client's own wording."""
    for each in chain:
        match each:
            case ConnectionRefusedError():
                return "refuses connections"
            case socket.gaierror():
                return f"has a host name that does not resolve: {each.strerror or each}"
            case _ if isinstance(each, classes.dropped):
                return "closed the connection without an answer"
            case TimeoutError() if not each.strerror:
                return "did not take the connection in time"
    said = [each.strerror for each in chain if isinstance(each, OSError) and each.strerror]
    last = said[-1] if said else str(chain[0]) or type(chain[0]).__name__
    return f"broke the connection: {last}"


def proxy_of(url: str) -> str | None:
    """The environment's proxy for this address, without its user and password."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    scheme, _, rest = proxy.rpartition("://")
    return f"{scheme or 'http'}://{rest.rpartition('@')[2]}"
