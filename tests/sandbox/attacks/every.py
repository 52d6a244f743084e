"""All attacks."""

from typing import Any

import pytest

from tests.sandbox.attacks import exhaustion, files, forgery, introspection, kernel, network, processes, protocol, signals
from tests.sandbox.attacks.case import Attack

EVERY = [
    *processes.ATTACKS,
    *files.ATTACKS,
    *network.ATTACKS,
    *signals.ATTACKS,
    *kernel.ATTACKS,
    *exhaustion.ATTACKS,
    *protocol.ATTACKS,
    *introspection.ATTACKS,
    *forgery.ATTACKS,
]

# Holes that this suite has found in the wire and in how a block is followed. Not run until they are mended: they hold or flood the host.
OPEN = {
    "a huge argument",
    "deep nesting in parts",
    "keys that grow",
    "text that decodes slowly",
    "a count beyond numbers",
    "variables that are no texts",
    "output that is empty",
    "replies that nobody reads",
}
MENDING = pytest.mark.xfail(run=False, reason="an open hole, being mended")


def named(attacks: list[Attack]) -> list[Any]:
    """Attacks as parameters of a test."""
    return [
        pytest.param(attack, id=f"{attack.kind}-{attack.name}".replace(" ", "_"), marks=[MENDING] if attack.name in OPEN else [])
        for attack in attacks
    ]
