"""All attacks."""

from typing import Any

import pytest

from tests.sandbox.attacks import (
    exhaustion,
    files,
    forgery,
    introspection,
    kernel,
    network,
    processes,
    protocol,
    signals,
)
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


def named(attacks: list[Attack]) -> list[Any]:
    """Attacks as parameters of a test."""
    return [
        pytest.param(attack, id=f"{attack.kind}-{attack.name}".replace(" ", "_"))
        for attack in attacks
    ]
