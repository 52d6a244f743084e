"""Plain calls over aiohttp alone. What is the same for every call is built once: the address, the
headers, the timeouts, the certificates.

Imported on first use: it loads aiohttp, but not openai.
"""

import io
import os
import ssl
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from urllib.parse import quote, urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from rlm_integrations.run_setup import VERSION

# As the SDK's own HTTP client: more calls wait, and an idle connection is closed before servers do
MAX_CONNECTIONS = 1000
IDLE_SECONDS = 5.0
# Aiohttp warns of plain bytes above this size: they would be written in one piece
MAX_PLAIN_BYTES = 2**20
# Statuses of a redirect; the others than these two turn a POST into a GET
REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEPS_METHOD = frozenset({307, 308})
MAX_REDIRECTS = 5
# In the path of an address, besides letters, digits and "-._~": as httpx writes it
SAFE_IN_PATH = "%/:;=@&+,!$'()*[]\\^|"
# Variables of the SDK for headers
HEADERS_BY_VARIABLE = {
    "OpenAI-Organization": "OPENAI_ORG_ID",
    "OpenAI-Project": "OPENAI_PROJECT_ID",
}


class RedirectError(Exception):
    """A redirect that is not followed."""


class Wire:
    """The connections of one event loop to one address.

    Args:
        url: Where all requests go.
        key: The key, or "" to send none.
        connect_seconds: How long connecting may take, or None.
    """

    def __init__(self, url: str, key: str, connect_seconds: float | None) -> None:
        path = quote(urlsplit(url).path, safe=SAFE_IN_PATH)
        self._url = URL(url).with_path(path, encoded=True)
        self._headers = fixed_headers(key, os.environ)
        # Not among the session's: a redirect may drop it
        key_header = self._headers.popall("Authorization", [])
        self._key_header = CIMultiDict([("Authorization", value) for value in key_header])
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        self._tls = trusted_certificates() if self._url.scheme == "https" else True
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, body: bytes, headers: Mapping[str, str]
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """The response to this JSON, of any status but a redirect's, and its content.

        Redirects are followed as by the SDK's HTTP client, but not to another host.

        Raises:
            aiohttp.ClientError: There is no response.
            OSError, RuntimeError, ValueError: Likewise.
            RedirectError: A redirect is not followed.
        """
        session = self._session or self._open()
        method, url = "POST", self._url
        own = self._key_header
        if headers:
            own = own.copy()
            own.update(headers)
        for _ in range(MAX_REDIRECTS + 1):
            async with session.request(
                method,
                url,
                data=_payload(body) if method == "POST" else None,
                headers=own,
                allow_redirects=False,
            ) as response:
                content = await response.read()
            if response.status not in REDIRECTS or "location" not in response.headers:
                return response, content
            try:
                target = url.join(URL(response.headers["location"]))
            except ValueError:
                raise RedirectError("the server redirects to an invalid address") from None
            if target.host != url.host:
                raise RedirectError(
                    f"the server redirects to another host, {target.host}, which would receive "
                    "the prompt: if that is intended, set it as base_url"
                )
            if response.status not in KEEPS_METHOD:
                method = "GET"
            if target.origin() != url.origin() and not _is_upgrade(url, target):
                own = own.copy()
                own.popall("Authorization", None)
            url = target
        raise RedirectError("the server redirects in a loop (check base_url)")

    def _open(self) -> aiohttp.ClientSession:
        """The session, which only the loop's own thread can make."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=IDLE_SECONDS, ssl=self._tls
            ),
            headers=self._headers,
            timeout=self._timeout,
        )
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _payload(body: bytes) -> bytes | io.BytesIO:
    return body if len(body) <= MAX_PLAIN_BYTES else io.BytesIO(body)


def _is_upgrade(url: URL, target: URL) -> bool:
    """Whether a redirect to the same host is one to TLS, at the default ports."""
    return (url.scheme, url.port, target.scheme, target.port) == ("http", 80, "https", 443)


def fixed_headers(key: str, environment: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of every call; those of OPENAI_CUSTOM_HEADERS replace others, as in the SDK."""
    headers = CIMultiDict(
        {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": f"rlm-integrations/{VERSION}",
        }
    )
    if key:
        headers["Authorization"] = f"Bearer {key}"
    for name, variable in HEADERS_BY_VARIABLE.items():
        if variable in environment:
            headers[name] = environment[variable]
    for line in environment.get("OPENAI_CUSTOM_HEADERS", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def trusted_certificates() -> ssl.SSLContext:
    """What the HTTP client of the installed SDK trusts: SSL_CERT_FILE, SSL_CERT_DIR, or its own
    default.
    """
    if not version("openai").startswith("2."):
        context: ssl.SSLContext = import_module("httpx2").create_ssl_context()
        return context
    # What `httpx.create_ssl_context()` does; importing httpx takes longer than a call
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folder:
        file = import_module("certifi").where()
    return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
