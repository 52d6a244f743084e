"""The attack suite: what must not happen does not, as an ordinary user and as root, and does on a
child that nothing seals.
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
    """Sealed sessions, as an ordinary user and, where the tests run as root, as root."""
    async with Arena(identity(request.param)) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unsealed() -> AsyncIterator[Arena]:
    """Sessions of an ordinary user that nothing seals."""
    async with Arena(World(user=identity("user").user, sealed=False)) as made:
        yield made


@module_loop
@pytest.mark.parametrize("attack", named(EVERY))
async def test_attack(arena: Arena, attack: Attack) -> None:
    """What must not happen does not; the reason is the one that is given, and nothing else suffers."""
    await arena.assert_held(attack)


@module_loop
@pytest.mark.parametrize("attack", named([each for each in EVERY if each.works]))
async def test_attack_works_where_nothing_seals(unsealed: Arena, attack: Attack) -> None:
    """The same code gets through where no layer is on: the attack is real, and the layer is what
    stops it.
    """
    evidence = await unsealed.run(attack)
    if "BREACH" not in evidence.result.stdout and filtered_already():
        pytest.skip(
            "a filter around these tests, such as a container's, refuses this in any process"
        )
    assert "BREACH" in evidence.result.stdout, (evidence.result.status, evidence.result.error)


def filtered_already() -> bool:
    """Whether this process itself runs under a filter of system calls."""
    return "Seccomp:\t0" not in Path("/proc/self/status").read_text()


@module_loop
async def test_no_secret_is_in_a_childs_memory(unsealed: Arena) -> None:
    """Every page of a child is searched: neither the host's environment nor another session's text
    is in it, but what is its own.
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
async def test_variables_are_not_waited_for_for_ever(arena: Arena) -> None:
    """Code that ends its block by a forged message and goes on loses its session when variables are
    set, in words and in time.
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
    """At least sixty, of every kind and no more than thirteen of one, each with a sentence; half of
    them shown to work.
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
    """What is said to stop an attack is a layer that sessions report, or one of ours."""
    assert {attack.layer for attack in EVERY} <= arena.attacker.layers.keys() | OUR_LAYERS.keys()
