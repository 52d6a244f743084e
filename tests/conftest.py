"""Fixtures for every test: connections are allowed to this machine only."""

import fcntl
import gc
import ipaddress
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests._forked import starter

# Collection loads a million objects, and makes hardly any garbage.
gc.disable()

LOOPBACK_NAMES = {"localhost", None, ""}


def _is_loopback(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _close_network(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook, which no client can avoid: connections and look-ups of other machines fail."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = args[1]
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            raise RuntimeError(f"tests reach only this machine, not {address[0]!r}")
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"} and not _is_loopback(args[0]):
        raise RuntimeError(f"tests reach only this machine, not {args[0]!r}")


sys.addaudithook(_close_network)

# No test speaks TLS, yet each HTTP client reads the machine's hundreds of certificates as it is
# made: half of the suite's processor time. A single certificate, whose key does not exist, is enough.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("authority.pem"))

# A shell's background job ignores Ctrl-C, and so do its children: tests that press it would wait in
# vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The time for generating or running an example is meaningless on a shared machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Let one worker import everything first: it compiles what the others then load."""
    if not hasattr(session.config, "workerinput"):
        return (yield)
    environment = os.open(sys.prefix, os.O_RDONLY)
    try:
        fcntl.flock(environment, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(environment, fcntl.LOCK_SH)
    try:
        return (yield)
    finally:
        fcntl.flock(environment, fcntl.LOCK_UN)
        os.close(environment)


def pytest_collection_finish() -> None:
    """Exclude the million objects loaded by collection, mostly of frameworks, from later garbage
    collections.
    """
    gc.collect()  # what is frozen is kept, documents in garbage of the collection too
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """Fork off what starts the tests' other processes, before any test."""
    with starter():
        return (yield)
