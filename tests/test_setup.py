"""The set-up by `make` works wherever pip works."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGURED = """
[global]
index-url = https://user:word@index.invalid/simple
extra-index-url =
    https://one.invalid/simple
    https://two.invalid/simple
find-links = first second
trusted-host = index.invalid
cert = authority.pem
proxy = http://proxy.invalid:3128
[install]
timeout = 7
"""


def environment_of_uv(tmp_path: Path, **given: str) -> tuple[dict[str, str], str]:
    """The variables with which uv is started if only pip is configured, and other output."""
    configuration = tmp_path / "pip.conf"
    configuration.write_text(CONFIGURED)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "uv.py", "/usr/bin/env"],
        env={"PIP_CONFIG_FILE": str(configuration), "PATH": "/usr/bin:/bin", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines()), done.stderr


def test_uv_uses_what_pip_is_configured_with(tmp_path: Path) -> None:
    """The environment of uv gets the indexes, certificates, proxy and timeout of pip's
    configuration, and nothing is printed.
    """
    found, printed = environment_of_uv(tmp_path)
    assert (
        found.items()
        >= {
            "UV_SYSTEM_CERTS": "1",
            "UV_DEFAULT_INDEX": "https://user:word@index.invalid/simple",
            "UV_INDEX": "https://one.invalid/simple https://two.invalid/simple",
            "UV_FIND_LINKS": "first,second",
            "UV_INSECURE_HOST": "index.invalid",
            "SSL_CERT_FILE": "authority.pem",
            "HTTPS_PROXY": "http://proxy.invalid:3128",
            "UV_HTTP_TIMEOUT": "7",
        }.items()
    )
    assert printed == ""


def test_a_variable_that_is_set_wins(tmp_path: Path) -> None:
    """Variables of the environment are kept, and pip's own variables count as its configuration."""
    found, _ = environment_of_uv(
        tmp_path, UV_DEFAULT_INDEX="https://mine.invalid/simple", PIP_CERT="other.pem"
    )
    assert (found["UV_DEFAULT_INDEX"], found["SSL_CERT_FILE"]) == (
        "https://mine.invalid/simple",
        "other.pem",
    )
