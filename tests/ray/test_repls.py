"""REPLs on actors: those of runs and their child runs in this process."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray has an environment of its own: `make test-ray`")

from rlm_integrations import Budget, Corpus
from rlm_integrations.ray import RayExecutor
from rlm_integrations.ray.sandbox import RaySandbox
from rlm_integrations.records import Limits
from rlm_integrations.sandbox.base import Opening
from tests.engine.conftest import soon
from tests.ray.conftest import kill_an_actor, sandboxes
from tests.ray.test_batch import until
from tests.sandbox.conftest import FUNCTIONS, RecordingGate
from tests.standin import StandIn
from tests.storage._runs import CALL, DOCUMENT, QUESTION, facts, rlm_of


async def test_results_equal_those_of_local_repls(
    executor: RayExecutor, provider: StandIn, local: Any
) -> None:
    """With all REPLs on actors, answer, citations, trajectory, store and calls are the same, and
    the budget and the parallel calls of the whole tree hold.
    """
    rlm = rlm_of(provider.base_url, None, sandbox=executor.sandbox, max_parallel_calls=5)
    result = await rlm.acompletion(QUESTION, DOCUMENT)
    assert facts(result) == local
    assert provider.stats().most_in_flight == 5
    assert result.layers["seccomp"]
    small = rlm.replace(budget=Budget(max_calls=150))  # it ends in the child runs
    result = await small.acompletion(QUESTION, DOCUMENT)
    assert (result.stop_reason, result.total_calls) == ("budget_calls", 150)
    assert not sandboxes()


async def test_a_killed_actor_changes_nothing(
    executor: RayExecutor, provider: StandIn, local: Any
) -> None:
    """REPLs whose actor was killed with -9 continue on another one: the outcome is the same, and no
    call is made twice, not even one that was under way.
    """
    rlm = rlm_of(provider.base_url, None, sandbox=executor.sandbox)
    run = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    for moment in (30, 160):
        await until(lambda moment=moment: len(provider.calls()) >= moment)
        kill_an_actor()
    result = await run
    assert facts(result) == local
    paths = [request.headers[CALL] for request in provider.requests()]
    assert len(paths) == len(set(paths)) == result.total_calls


async def test_cancelling_ends_the_repls(executor: RayExecutor, provider: StandIn) -> None:
    """When a cancelled run has ended, none of its REPLs is left on the actors."""
    rlm = rlm_of(provider.base_url, None, sandbox=executor.sandbox)
    run = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    await until(lambda: len(provider.calls()) >= 40)
    assert sandboxes()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert soon(lambda: not sandboxes())


async def open_session(executor: RayExecutor, gate: Any, max_restarts: int = 2) -> Any:
    corpus = Corpus.build(["the quick brown fox", "é ü 😀"])
    opening = Opening(corpus, FUNCTIONS, gate, Limits(block_seconds=100))
    return await RaySandbox(executor._actors, max_restarts).open(opening)


async def test_a_running_block_is_interrupted(executor: RayExecutor) -> None:
    """Its calls are cancelled here, and its session and its variables stay."""
    gate = RecordingGate()
    session = await open_session(executor, gate)
    running = asyncio.ensure_future(session.execute("x = len(context_1)\nslow(1000)", 1))
    await until(lambda: gate.open)
    await session.interrupt()
    assert (await running).status == "interrupted"
    assert gate.cancelled == 1
    assert (await session.execute("print(x)", 2)).output == "5\n"
    await session.close()
    assert soon(lambda: not sandboxes())


async def test_a_session_is_restored_block_by_block(executor: RayExecutor) -> None:
    """After the kill of its actor, a session has its variables again, those of blocks that failed
    or were interrupted included; calls get the answers that they got before; after one kill
    too many it is lost.
    """
    gate = RecordingGate()
    session = await open_session(executor, gate, max_restarts=1)
    await session.set_vars({"given": 1})
    await session.execute("import random\na = llm_query('p')\nchance = random.random()", 1)
    await session.execute("b = given + 1\nfail('ValueError', 'no')", 2)
    running = asyncio.ensure_future(session.execute("c = 3\nslow(1000)", 3))
    await until(lambda: gate.open)
    await session.interrupt()
    await running
    before, calls = await session.execute("print(a, b, c, chance)", 4), len(gate.calls)
    kill_an_actor()
    after = await session.execute("print(a, b, c, chance)", 5)
    assert (after.status, after.output) == ("ok", before.output)
    assert len(gate.calls) == calls
    kill_an_actor()
    result = await session.execute("print(a)", 6)
    assert (result.status, result.error and result.error.type) == ("lost", "SandboxLost")
    await session.close()


async def test_code_that_depends_on_the_time_is_not_restored(executor: RayExecutor) -> None:
    """If a block makes another call when it runs again, its session is lost, and nothing is asked
    again.
    """
    gate = RecordingGate()
    session = await open_session(executor, gate)
    await session.execute("import time\nllm_query(str(time.time_ns()))", 1)
    kill_an_actor()
    result = await session.execute("1", 2)
    assert result.status == "lost"
    assert "its code called llm_query otherwise than before" in result.error.message
    assert len(gate.calls) == 1
    await session.close()


async def test_a_fault_of_the_host_ends_the_session(executor: RayExecutor) -> None:
    """An exception of the host other than a refusal is raised from `execute`, as it is."""

    async def gate(*_: Any) -> Any:
        raise ZeroDivisionError("a fault of the host")

    session = await open_session(executor, gate)
    with pytest.raises(ZeroDivisionError, match="a fault of the host"):
        await session.execute("llm_query('p')", 1)
    assert soon(lambda: not sandboxes())
