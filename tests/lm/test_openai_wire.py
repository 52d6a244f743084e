"""The direct path to aiohttp supports what the SDK's own path does: TLS, compression, redirects,
proxies.
"""

import asyncio
import datetime as dt
import ipaddress
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.errors import ModelError
from rlm_integrations.lm.openai import OpenAILM
from tests.lm.conftest import request_of
from tests.standin import StandIn, answer_to, serve, serve_in_thread

KEY = "sk-0123456789"


async def test_a_compressed_answer(server: StandIn) -> None:
    """Compression is requested, and the answer is decompressed."""
    server.change(compress=True)
    assert (
        await OpenAILM("sub", base_url=server.base_url, api_key=KEY).complete(request_of("x"))
    ).text == answer_to("x")
    assert "gzip" in server.requests()[0].headers["accept-encoding"]


@pytest.mark.parametrize("api", ["complete", "astream"])
async def test_a_redirect_is_followed(server: StandIn, api: str) -> None:
    """The request is sent to the new location with its body."""
    lm = OpenAILM("sub", base_url=server.base_url.replace("/v1", "/moved/v1"), api_key=KEY)
    if api == "complete":
        answer = await lm.complete(request_of("x"))
    else:
        answer = [piece async for piece in lm.astream(request_of("x"))][-1]
    assert answer.text == answer_to("x")
    assert server.stats().calls == 1


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
async def test_a_proxy_from_the_environment(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, transport: Any
) -> None:
    """HTTP_PROXY is used, with the exceptions of NO_PROXY."""
    monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
    answer = await OpenAILM(
        "sub", base_url="http://model.invalid/v1", api_key=KEY, transport=transport
    ).complete(request_of("x"))
    assert answer.text == answer_to("x")
    assert server.requests()[0].headers["host"] == "model.invalid"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    await OpenAILM("sub", base_url=server.base_url, api_key=KEY, transport=transport).complete(
        request_of("x")
    )
    assert server.stats().calls == 2


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a certificate for 127.0.0.1 and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    folder: Path = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
def test_tls_over_several_runs(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, transport: Any
) -> None:
    """Encrypted connections are closed with their loop too, without a warning, and SSL_CERT_FILE is
    used.
    """
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])

    async def ask() -> list[str]:
        return [
            answer.text
            for answer in await asyncio.gather(
                *(lm.complete(request_of(str(n))) for n in range(10))
            )
        ]

    with serve_in_thread(certificate=certificate) as server:
        lm = OpenAILM("sub", base_url=server.base_url, api_key=KEY, transport=transport)
        for _ in range(2):
            assert asyncio.run(ask()) == [answer_to(str(n)) for n in range(10)]
        assert server.stats().calls == 20


async def test_an_untrusted_certificate(certificate: tuple[str, str]) -> None:
    """An untrusted certificate is a connection error that names the certificate, and nothing is
    sent.
    """
    async with serve(certificate=certificate) as server:
        with pytest.raises(ModelError, match="certificate") as caught:
            await OpenAILM("sub", base_url=server.base_url, api_key=KEY).complete(request_of("x"))
        assert caught.value.type == "connection"
        assert server.stats().calls == 0
