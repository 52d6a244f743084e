"""Detects whether a server that did not answer speaks TLS or plain HTTP on its port.

No part of a request is sent.
"""

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

PROBE_SECONDS = 2.0


async def speaks_tls(url: str) -> bool:
    """Whether it answers a TLS handshake."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no secret is sent
    return await _answers(url, context, b"")


async def speaks_http(url: str) -> bool:
    """Whether it answers a plain HTTP HEAD request."""
    return await _answers(url, None, b"HEAD / HTTP/1.0\r\n\r\n")


async def _answers(url: str, context: ssl.SSLContext | None, greeting: bytes) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
            if not greeting:
                return True
            writer.write(greeting)
            return await reader.readexactly(5) == b"HTTP/"
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
