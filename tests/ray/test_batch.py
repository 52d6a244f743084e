"""Batches of runs on actors."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray has an environment of its own: `make test-ray`")

import ray

from rlm_integrations import RLM, Budget, ClusterError, InputError, RLMResult
from rlm_integrations.events import Event, RunFailed, RunFinished, RunStarted
from rlm_integrations.ray import RayExecutor
from rlm_integrations.storage import Storage
from tests.engine.conftest import soon
from tests.ray.conftest import NODE, actors, is_actor, kill_an_actor, sandboxes
from tests.standin import StandIn
from tests.storage._postgres import Server
from tests.storage._runs import CALL, DOCUMENT, QUESTION, facts, rlm_of

TEXT = "Ada Conti approved the Ravenna dam in 1961. It cost nine million."


async def until(holds: Any) -> None:
    while not holds():
        await asyncio.sleep(0.005)


def failures(result: RLMResult) -> list[str | None]:
    """Why a run, and blocks of its code, failed."""
    blocks = [block for turn in result.trajectory for block in turn.executions]
    return [result.error, *(block.error for block in blocks if block.error is not None)]


def test_results_equal_those_of_local_runs(
    executor: RayExecutor, provider: StandIn, local: Any
) -> None:
    """Answers, citations, trajectories and stores are those of local runs, in the order of the
    questions; a run that raises leaves its error, and the others continue.
    """
    rlm = rlm_of(provider.base_url, None)
    questions = [(QUESTION, DOCUMENT), ("", DOCUMENT), (QUESTION, DOCUMENT), (QUESTION, 17)]
    first, second, third, fourth = executor.batch(rlm, questions)
    assert failures(first) == failures(third) == [None]
    assert facts(first) == facts(third) == local
    assert isinstance(second, InputError)
    assert "the question must be a string" in str(second)
    assert isinstance(fourth, InputError)
    assert len({first.run_id, third.run_id}) == 2


async def test_limits_hold_and_events_arrive(executor: RayExecutor, provider: StandIn) -> None:
    """Each run keeps within its budget and its parallel calls. Its events reach `on_event` in
    order, with ids that no other run has, and times of this process.
    """
    events: list[Event] = []
    rlm = rlm_of(
        provider.base_url,
        None,
        budget=Budget(max_calls=50),
        max_parallel_calls=4,
        on_event=events.append,
    )
    results = await executor.abatch(rlm, [(QUESTION, DOCUMENT)] * 3)
    assert [result.stop_reason for result in results] == ["budget_calls"] * 3
    assert len(provider.calls()) == sum(result.total_calls for result in results) == 150
    assert provider.stats().most_in_flight <= 12
    runs = [event for event in events if isinstance(event, RunStarted) and not event.depth]
    ends = [event for event in events if isinstance(event, RunFinished)]
    assert {event.id for event in runs} == {event.id for event in ends}
    assert len({event.id for event in runs}) == 3
    assert {end.result.run_id for end in ends} == {result.run_id for result in results}
    for run in runs:
        own = [event for event in events if event.id.partition("/")[0] == run.id.partition("/")[0]]
        assert own[0] is run
        assert [event.at for event in own] == sorted(event.at for event in own)


async def test_a_killed_actor_loses_nothing_that_is_stored(
    executor: RayExecutor, storage: Storage, provider: StandIn, local: Any
) -> None:
    """When its actor is killed with -9, a stored run continues on another one with the same
    outcome, and no call whose answer was stored is made again.
    """
    rlm = rlm_of(provider.base_url, storage)
    batch = asyncio.ensure_future(
        executor.abatch(rlm, [(QUESTION, DOCUMENT)], run_ids=["killed-twice"])
    )
    stored, asked = set[str](), 0
    for moment in (70, 150):
        await until(lambda moment=moment: len(provider.calls()) >= moment)
        kill_an_actor()
        stored, asked = stored_calls(storage), len(provider.requests())
    (result,) = await batch
    assert facts(result) == local
    assert result.run_id == "killed-twice"
    assert len(stored) > 100
    assert not stored & {request.headers[CALL] for request in provider.requests()[asked:]}


def stored_calls(storage: Storage) -> set[str]:
    return {record.call_id for record in storage._log.load("killed-twice")}


async def test_a_lost_node_loses_nothing_that_is_stored(
    cluster: Any, server: Server, provider: StandIn, local: Any
) -> None:
    """When a node is lost in the middle of a batch, its runs continue on another one from their
    records in PostgreSQL, with the same outcomes; no call whose answer was stored is made again.
    """
    cluster.add_node(**NODE, node_ip_address="127.0.0.4", resources={"spot": 2})
    places = {"num_cpus": 0, "resources": {"spot": 1}}
    ids = ["first", "second"]
    with (
        Storage(server.url()) as storage,
        RayExecutor(cluster.address, actors=2, actor_options=places) as executor,
    ):
        rlm = rlm_of(provider.base_url, storage)
        batch = asyncio.ensure_future(
            executor.abatch(rlm, [(QUESTION, DOCUMENT)] * len(ids), run_ids=ids)
        )
        await until(lambda: len(provider.calls()) >= 70 * len(ids))
        provider.change(latency=2.0)  # no run ends before its node has gone
        lost = next(node for node in cluster.worker_nodes if any(map(sandboxes, actors_on(node))))
        ending = actors_on(lost)
        await asyncio.to_thread(cluster.remove_node, lost, allow_graceful=False)
        await until(lambda: not any(map(is_actor, ending)))
        provider.change(latency=0.02)
        stored = Counter(each.call_id for run_id in ids for each in storage.load(run_id))
        asked = len(provider.requests())
        results = await batch
    assert [facts(result) for result in results] == [local] * len(ids)
    assert stored.total() > 50 * len(ids)
    again = Counter(request.headers[CALL] for request in provider.requests()[asked:])
    assert {path for path in again if again[path] + stored[path] > len(ids)} == set()
    assert again.total() > 0


def actors_on(node: Any) -> list[int]:
    return actors(node.all_processes["raylet"][0].process.pid)


async def test_a_killed_actor_without_storage_leaves_an_error(
    executor: RayExecutor, provider: StandIn
) -> None:
    """A run that is not stored is not paid twice: its outcome is an error that says what to do. Its
    events have an end.
    """
    events: list[Event] = []
    rlm = rlm_of(provider.base_url, None).replace(on_event=events.append)
    batch = asyncio.ensure_future(executor.abatch(rlm, [(QUESTION, DOCUMENT)]))
    await until(lambda: len(provider.calls()) >= 20)
    kill_an_actor()
    (outcome,) = await batch
    assert isinstance(outcome, ClusterError)
    assert "with RLM(storage=…)" in str(outcome)
    assert isinstance(events[-1], RunFailed)
    assert events[-1].id == events[0].id


def test_a_closed_executor_says_so(cluster: Any) -> None:
    """A batch of an executor that was closed has an error for each question."""
    with RayExecutor(cluster.address, actors=1) as closed:
        pass
    (outcome,) = closed.batch(RLM("offline"), [("What did it cost?", TEXT)])
    assert isinstance(outcome, ClusterError)
    assert "closed" in str(outcome)


async def test_cancelling_reaches_the_actors(executor: RayExecutor, provider: StandIn) -> None:
    """When a cancelled batch has ended, its runs have ended on the actors: no REPL is left, and no
    further call is made.
    """
    batch = asyncio.ensure_future(
        executor.abatch(rlm_of(provider.base_url, None), [(QUESTION, DOCUMENT)] * 4)
    )
    await until(lambda: len(provider.calls()) >= 40 and sandboxes())
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    asked = len(provider.calls())
    assert soon(lambda: not sandboxes())
    result = await executor.abatch(RLM("offline"), [("Who approved the dam?", TEXT)])
    assert isinstance(result[0], RLMResult)
    assert len(provider.calls()) == asked


PROGRAM = """
import os, sys
from rlm_integrations import RLM
from rlm_integrations.ray import RayExecutor

def wait():
    print("begun", flush=True)
    import time; time.sleep(1000)

from tests.engine.conftest import Scripted, code
executor = RayExecutor(sys.argv[1], actors=1)
executor.batch(RLM(Scripted([code("wait()")]), tools=[wait]), [("q", "a text")])
"""


def test_a_killed_program_leaves_nothing(executor: RayExecutor, cluster: Any) -> None:
    """When the program of an executor is killed with -9, its actors and their REPLs end."""
    assert soon(lambda: len(actors()) == len(executor._actors))  # one may be starting again
    before = set(actors())
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, cluster.address], cwd=Path(__file__).parents[2]
    )
    assert soon(lambda: bool(set(actors()) - before) and bool(sandboxes()))
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert soon(lambda: set(actors()) <= before and not sandboxes())


def test_bad_input_is_refused(executor: RayExecutor) -> None:
    """Arguments that cannot work are errors before anything is sent."""
    with pytest.raises(InputError, match="questions\\[1\\] must be a pair"):
        executor.batch(RLM("offline"), [("q", "text"), "q"])
    with pytest.raises(InputError, match="a different id for each question"):
        executor.batch(RLM("offline"), [("q", "text")] * 2, run_ids=["a", "a"])
    with pytest.raises(InputError, match="connected to the Ray cluster"):
        RayExecutor("127.0.0.9:1")
    with pytest.raises(InputError, match="runs_per_actor must be"):
        RayExecutor(runs_per_actor=0)
    lock = threading.Lock()

    def locked() -> bool:
        return lock.locked()

    with pytest.raises(InputError, match="cannot be sent to other machines"):
        executor.batch(RLM("offline", tools=[locked]), [("q", "text")])


def test_a_missing_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no cluster can be reached, the error says how to start one."""

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", unreachable)
    with pytest.raises(ClusterError, match="ray start --head"):
        RayExecutor()


def test_a_folder_on_another_machine_is_refused(
    executor: RayExecutor, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose storage is a folder does not begin on an actor that is on another machine."""
    monkeypatch.setattr(Storage, "machine", "another machine")
    (outcome,) = executor.batch(RLM("offline", storage=storage), [("What did it cost?", TEXT)])
    assert isinstance(outcome, ClusterError)
    assert "use a database on a server" in str(outcome)
    assert not storage.runs()
