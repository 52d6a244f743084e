"""Attacks on the sandbox: how long each takes in the host, and for how long it blocks the event
loop.
"""

import time

from tests.bench.table import Row
from tests.sandbox.arena import Arena
from tests.sandbox.attacks.every import EVERY
from tests.sandbox.wrappers import identity


async def run() -> list[Row]:
    pauses: dict[str, float] = {}
    spent: dict[str, float] = {}
    async with Arena(identity("user")) as arena:
        for attack in EVERY:
            begun = time.perf_counter()
            pauses[attack.name] = (await arena.run(attack)).pause
            spent[attack.name] = time.perf_counter() - begun
    longest, slowest = max(pauses, key=pauses.__getitem__), max(spent, key=spent.__getitem__)
    return [
        Row(f"longest hold of the event loop: {longest}", pauses[longest], 1, "s"),
        Row(f"slowest attack: {slowest}", spent[slowest], 12, "s"),
    ]
