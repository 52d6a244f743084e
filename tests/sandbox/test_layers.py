"""A layer that is missing, fails or only pretends to hold leads to a refusal that names it, or to
fewer permissions; never to less protection. The kernels that lack a layer are simulated by a filter
around the server that answers for this kernel (see `launcher.py`).
"""

import errno
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import SandboxUnavailableError
from rlm_integrations.sandbox.base import HostCallError, Opening
from tests.sandbox.arena import Arena
from tests.sandbox.attacks.case import QUICK, Attack
from tests.sandbox.attacks.every import EVERY, named
from tests.sandbox.wrappers import IDENTITIES, ROOT, Answer, World, identity

module_loop = pytest.mark.asyncio(loop_scope="module")

NO_LANDLOCK = tuple(
    Answer(call=f"landlock_{call}", error=errno.ENOSYS)
    for call in ("create_ruleset", "add_rule", "restrict_self")
)
ADDRESS_SPACE, DESCRIPTORS, FILE_SIZE = 9, 7, 1


def set_limit(which: int) -> Answer:
    return Answer(call="prlimit64", error=errno.EPERM, when=((1, which), (2, None)))


def prctl(option: int) -> Answer:
    return Answer(call="prctl", error=errno.EINVAL, when=((0, option),))


# Each layer, by the calls that apply it.
PUT_ON = {
    "rlimits": [set_limit(ADDRESS_SPACE), set_limit(DESCRIPTORS), set_limit(FILE_SIZE)],
    "no_new_privs": [prctl(38)],
    "capabilities": [Answer(call="capset", error=errno.EPERM)],
    "not_dumpable": [prctl(4)],
    "parent_death": [prctl(1)],
    "landlock": [Answer(call="landlock_restrict_self", error=errno.E2BIG)],
    "seccomp": [Answer(call="seccomp", error=errno.ENOSYS)],
}
CASES = [
    pytest.param(layer, answer, id=f"{layer}-{place}")
    for layer, calls in PUT_ON.items()
    for place, answer in enumerate(calls)
]


async def no_gate(*_: Any) -> Any:
    raise HostCallError("nothing is to be called")


async def refusal(world: World) -> str:
    """The error for a session in this world."""
    with (
        world.sandbox() as sandbox,
        Corpus.build("x") as corpus,
        pytest.raises(SandboxUnavailableError) as refused,
    ):
        await sandbox.open(Opening(corpus, [], no_gate, QUICK))
    return str(refused.value)


@pytest.mark.parametrize(("layer", "answer"), CASES)
async def test_a_layer_that_cannot_be_put_on_is_named(layer: str, answer: Answer) -> None:
    """If the kernel refuses a layer, no session starts, and the error names the layer, the reason
    and the alternatives.
    """
    said = await refusal(World(user=identity("user").user, answers=(answer,)))
    assert re.search(rf"model code here: {layer}: .*sandbox='inprocess'", said), said


@pytest.mark.parametrize(("layer", "answer"), CASES)
async def test_a_layer_that_only_pretends_to_hold_is_detected(layer: str, answer: Answer) -> None:
    """If the kernel reports success without applying a layer, the check from the inside fails, and
    no session starts.
    """
    if layer in {"no_new_privs", "capabilities"} and not ROOT:
        pytest.skip(
            "an ordinary user has no capabilities, and cannot lay a filter around the server without no_new_privs"
        )
    said = await refusal(World(answers=(Answer(call=answer.call, error=0, when=answer.when),)))
    assert f"model code here: {layer}: it was applied but does not hold" in said


async def test_a_landlock_that_only_pretends_is_detected() -> None:
    """The same if every call of Landlock reports success."""
    said = await refusal(
        World(answers=tuple(Answer(call=each.call, error=0) for each in NO_LANDLOCK))
    )
    assert "model code here: landlock: it was applied but does not hold" in said


async def test_an_unknown_machine_is_refused() -> None:
    """Without a table of system calls for this architecture there is no filter, and no session
    starts.
    """
    said = await refusal(World(machine="riscv64"))
    assert "model code here: seccomp: there is no table of system calls for 'riscv64'" in said


# Without Landlock.


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=IDENTITIES)
async def closed(request: pytest.FixtureRequest) -> AsyncIterator[Arena]:
    """Sessions on a kernel without Landlock."""
    async with Arena(World(user=identity(request.param).user, answers=NO_LANDLOCK)) as made:
        yield made


@module_loop
async def test_every_layer_is_tried(closed: Arena) -> None:
    """These tests remove every layer that sessions report; without Landlock no file can be opened,
    and the session reports that.
    """
    session = await closed.open(QUICK)
    assert session.layers.keys() - {"files"} == PUT_ON.keys()
    assert (session.layers["landlock"], session.layers["files"]) == (
        "missing (landlock_create_ruleset: Function not implemented)",
        "none",
    )
    assert {session.layers[layer] for layer in PUT_ON if layer != "landlock"} == {"on"}
    await session.close()


@module_loop
@pytest.mark.parametrize(
    "attack", named([each for each in EVERY if each.kind in {"files", "introspection"}])
)
async def test_attacks_on_files_fail_without_landlock(closed: Arena, attack: Attack) -> None:
    """Without Landlock, the attacks that it stops fail as well."""
    await closed.assert_held(attack)


@module_loop
async def test_without_landlock_not_even_the_library_can_be_read(closed: Arena) -> None:
    """Without Landlock no path can be opened, listed or queried: no file of the library, no device,
    not the root folder.
    """
    session = await closed.open(QUICK)
    code = """
        paths = [json.__file__, os.__file__, "/dev/null", "/dev/urandom", "/etc/localtime", "/usr/share/zoneinfo/UTC", "/", "."]
        about = ctypes.create_string_buffer(256)
        attempt(
            *[lambda path=path, use=use: use(path) for path in paths for use in (open, os.stat, os.listdir, os.lstat)],
            lambda: syscall("newfstatat", -100, b"/etc/passwd", about, 0x1000),
            lambda: syscall("statx", -100, b"/etc/passwd", 0x1000, 0, about),
        )
    """
    result = await session.execute(closed.code(code), 1)
    assert (result.error and result.error.type, result.stdout) == ("PermissionError", "")
    await session.close()


@module_loop
async def test_ordinary_code_works_without_landlock(closed: Arena) -> None:
    """Code that uses only preloaded modules works: imports, regexes, codecs, dates, asyncio,
    threads.
    """
    session = await closed.open(QUICK)
    code = """
        import asyncio, base64, collections, csv, dataclasses, datetime, decimal, difflib, email.message, enum, fractions, hashlib, html
        import importlib, io, itertools, json, random, re, sqlite3, statistics, string, textwrap, threading, unicodedata
        import xml.etree.ElementTree
        from concurrent.futures import ThreadPoolExecutor
        forkserver = sys.modules["rlm_integrations.sandbox.forkserver"]
        missing = []
        for name in forkserver.FIRST + forkserver.LATER:
            try:
                importlib.import_module(name)
            except ImportError:
                missing.append(name)
        print(missing)

        @dataclasses.dataclass
        class Found:
            year: int

        print([Found(int(m[1])) for m in re.finditer(r"(?P<year>\\d{4})", "in 1999 and 2004")])
        print(json.loads(json.dumps({"é": [1.5, None]})), base64.b64encode("é".encode("utf-16-le")), hashlib.sha256(b"x").hexdigest()[:8])
        print(datetime.datetime.strptime("3 Mar 2020", "%d %b %Y").isoformat(), decimal.Decimal("0.1") * 3, statistics.median([3, 1, 2]))
        print(list(csv.reader(io.StringIO("a,b\\n1,2"))), xml.etree.ElementTree.fromstring("<a><b/></a>")[0].tag, unicodedata.name("é"))

        async def twice(n):
            await asyncio.sleep(0.001)
            return n * 2

        print(await asyncio.gather(*map(twice, range(3))), asyncio.run(twice(4)))
        with ThreadPoolExecutor(4) as pool:
            print(list(pool.map(lambda n: llm_query(str(n)), range(3))))
        database = sqlite3.connect(":memory:")
        print(database.execute("select 6 * 7").fetchone(), "é".encode("cp1252"), 1 / 3)
        1 / 0
    """
    result = await session.execute(closed.code(code), 1)
    assert result.stdout.splitlines() == [
        "['encodings.mbcs']",
        "[Found(year=1999), Found(year=2004)]",
        "{'é': [1.5, None]} b'6QA=' 2d711642",
        "2020-03-03T00:00:00 0.3 2",
        "[['a', 'b'], ['1', '2']] b LATIN SMALL LETTER E WITH ACUTE",
        "[0, 2, 4] 8",
        "['echo: 0', 'echo: 1', 'echo: 2']",
        "(42,) b'\\xe9' 0.3333333333333333",
    ], result.error
    assert result.error is not None
    assert (result.error.type, "1 / 0" in result.error.traceback) == ("ZeroDivisionError", True)
    await session.close()
