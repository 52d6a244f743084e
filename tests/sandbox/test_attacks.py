"""The attack suite: every attack fails, as an ordinary user and as root, and the harmless ones
succeed on an unsealed child.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from rlm_integrations.errors import SandboxError
from tests.sandbox.arena import Arena
from tests.sandbox.attacks.case import OUR_LAYERS, QUICK, SHORT, Attack
from tests.sandbox.attacks.every import EVERY, named
from tests.sandbox.wrappers import IDENTITIES, World, identity

module_loop = pytest.mark.asyncio(loop_scope="module")
MOST_OF_A_KIND = 13


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=IDENTITIES)
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[Arena]:
    """Sealed sessions, as an ordinary user and, if the tests run as root, as root."""
    async with Arena(identity(request.param)) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unsealed() -> AsyncIterator[Arena]:
    """Unsealed sessions of an ordinary user."""
    async with Arena(World(user=identity("user").user, sealed=False)) as made:
        yield made


@module_loop
@pytest.mark.parametrize("attack", named(EVERY))
async def test_attack(arena: Arena, attack: Attack) -> None:
    """The attack fails for its declared reason, and affects nothing else."""
    await arena.assert_held(attack)


@module_loop
@pytest.mark.parametrize("attack", named([each for each in EVERY if each.works]))
async def test_attack_works_where_nothing_seals(unsealed: Arena, attack: Attack) -> None:
    """The same code succeeds without the layers: the attack is real, and the layer stops it."""
    evidence = await unsealed.run(attack)
    if "BREACH" not in evidence.result.stdout and filtered_already():
        pytest.skip(
            "a filter around these tests, such as a container's, refuses this in any process"
        )
    assert "BREACH" in evidence.result.stdout, (evidence.result.status, evidence.result.error)


def filtered_already() -> bool:
    """Whether a filter of system calls already applies to this process."""
    return "Seccomp:\t0" not in Path("/proc/self/status").read_text()


@module_loop
async def test_no_secret_is_in_a_childs_memory(unsealed: Arena) -> None:
    """No page of a child's memory has strings of the host's environment or of another session's
    text.
    """
    session = await unsealed.open(QUICK)
    code = r"""
        import re
        own = "SECRE" + "T-" + "0123456789abcdef"
        pattern, found = re.compile(rb"SECRE" + rb"T-[0-9a-f]{16}"), set()
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
            for area in maps.read().splitlines():
                start, end = (int(each, 16) for each in area.split()[0].split("-"))
                try:
                    memory.seek(start)
                    found.update(pattern.findall(memory.read(end - start)))
                except (OSError, OverflowError):
                    continue
        found
    """
    result = await session.execute(unsealed.code(code), 1)
    assert result.stdout == "{b'SECRET-0123456789abcdef'}\n", result.error
    await session.close()


@module_loop
async def test_setting_variables_has_a_time_limit(arena: Arena) -> None:
    """Code that ends its block with a forged message and keeps running loses its session when
    variables are set, with an error and within a bounded time.
    """
    for ending in (
        "while True: time.sleep(1)",
        "write(b'\\xff' * 4)\ntime.sleep(30)",
        "time.sleep(0.1)\nos._exit(0)",
    ):
        session = await arena.open(SHORT)
        assert (await session.execute(arena.code(f"raw(DONE)\n{ending}"), 1)).status == "ok"
        with pytest.raises(SandboxError, match="the session was lost"):
            async with asyncio.timeout(60):
                await session.set_vars({"x": 1})
        assert (await session.execute("x", 2)).status == "lost"
        await session.close()


def test_attacks_are_many_and_varied() -> None:
    """There are at least sixty attacks, of every kind and at most thirteen of one kind, each with a
    description; half of them are shown to work without the layers.
    """
    kinds = Counter(attack.kind for attack in EVERY)
    assert len(EVERY) >= 60
    assert len(kinds) == 9
    assert max(kinds.values()) <= MOST_OF_A_KIND
    assert len({(attack.kind, attack.name) for attack in EVERY}) == len(EVERY)
    assert all(attack.must_not.endswith(".") for attack in EVERY)
    assert sum(attack.works for attack in EVERY) >= 35


@module_loop
async def test_every_attack_names_a_layer_that_exists(arena: Arena) -> None:
    """The layer of every attack is one that sessions report, or one of `OUR_LAYERS`."""
    assert {attack.layer for attack in EVERY} <= arena.attacker.layers.keys() | OUR_LAYERS.keys()
