"""Run uv with what pip is configured with: `python .ci/uv.py PATH_OF_UV ARGUMENTS…`.

uv does not read pip's configuration. Behind a private index or a proxy that inspects TLS, pip works
and uv fails, so pip's indexes, certificates and proxy become uv's environment here. A variable that
is set already wins. Nothing is printed: an index address may hold a password.
"""

import ast
import os
import subprocess
import sys

# pip's option: the variables that uv and its HTTP client read.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
}


def pip_settings() -> dict[str, str]:
    """pip's options for `pip install` by name, the most specific value of each."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listed.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                found[key.removeprefix(f"{section}.").lower()] = str(ast.literal_eval(value))
    return found


def uv_environment() -> dict[str, str]:
    """What uv needs in its environment to find packages where pip finds them."""
    wanted = {"UV_SYSTEM_CERTS": "1", "UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip does
    for option, value in pip_settings().items():
        separator = "," if option == "find-links" else " "
        for variable in VARIABLES.get(option, ()):
            wanted[variable] = separator.join(value.split())
    return {**wanted, **os.environ}


if __name__ == "__main__":
    os.execve(sys.argv[1], sys.argv[1:], uv_environment())
