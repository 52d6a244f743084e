"""Runs in a storage: recorded, killed, resumed, and paid for once."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import (
    RLM,
    Corpus,
    Event,
    InputError,
    Prompt,
    RunBusyError,
    RunFailed,
    StorageError,
)
from rlm_integrations.run_setup import ModelNames, RunSetup
from rlm_integrations.storage import owner
from rlm_integrations.storage.owned_run import OwnedRun
from rlm_integrations.storage.run_table import RunTable
from tests._cli import until
from tests._forked import Forked
from tests._processes import descendants_of, is_running
from tests.standin import StandIn, serve_in_thread
from tests.storage import _runs
from tests.storage._runs import CALL, DOCUMENT, QUESTION, SUB_CALLS, facts, rlm_of, runs_of, whole


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A server that answers after a while, so that a run lasts long enough to be killed in it."""
    with serve_in_thread(
        scripts={"stand-in": _runs.script_of}, latency=0.02, keep_requests=True
    ) as standin:
        yield standin


@pytest.fixture
def runs(url: str, tmp_path: Path) -> Iterator[RunTable]:
    """An empty storage on each kind of database."""
    made = runs_of(url, tmp_path)
    yield made
    made.close()


def paths_from(provider: StandIn, first: int) -> set[str]:
    """The calls that the server was asked from this one on."""
    return {kept.headers[CALL] for kept in provider.requests()[first:]}


def stored_paths(runs: RunTable, run_id: str) -> set[str]:
    """Everything in the journal of a run."""
    return {record.call_id for record in runs._log.load(run_id)}


def prompts(provider: StandIn) -> Counter[str]:
    """How often the server answered each prompt to its end."""
    answered = [call.number for call in provider.calls() if call.status == 200 and not call.aborted]
    requests = provider.requests()
    return Counter(json.dumps(requests[number].body["messages"]) for number in answered)


async def test_a_finished_run_is_not_run_again(runs: RunTable, provider: StandIn) -> None:
    """Its stored result is what `resume` returns: the same in everything, and nothing is asked."""
    rlm = rlm_of(provider.base_url, runs)
    first = await rlm.acompletion(QUESTION, DOCUMENT)
    asked = len(provider.calls())
    again = await rlm.aresume(first.run_id)
    assert len(provider.calls()) == asked == first.total_calls
    assert again.to_dict() == first.to_dict()
    (info,) = runs.infos()
    assert (info.run_id, info.status, info.question, info.is_owned) == (
        first.run_id,
        "final",
        QUESTION,
        False,
    )


async def test_a_cancelled_run_goes_on(runs: RunTable, provider: StandIn) -> None:
    """What it had paid for is not asked again, and it ends as if nothing had happened."""
    rlm = rlm_of(provider.base_url, runs)
    await cancelled(rlm, provider, 90)
    (info,) = runs.infos()
    assert info.status == "cancelled"
    stored, asked = stored_paths(runs, info.run_id), len(provider.requests())
    result = await rlm.aresume(info.run_id)
    assert facts(result) == whole()
    # An answer that was on its way when the run was cancelled may be asked for again.
    assert stored & paths_from(provider, asked) == set()
    assert len(stored) > 60
    assert sum(count - 1 for count in prompts(provider).values()) <= 10


def program(
    url: str,
    folder: Path,
    provider: StandIn,
    run_id: str | None,
    store: str | None = None,
    **more: Any,
) -> Forked:
    """Begins or resumes a run in a process."""
    return Forked(*command(url, folder, provider, run_id, store=store, **more))


def command(
    url: str, folder: Path, provider: StandIn, run_id: str | None, **more: Any
) -> tuple[str, str, str]:
    """What begins or resumes a run, with the options of `_runs.main`."""
    given = {"url": url, "folder": str(folder), "base_url": provider.base_url, "run_id": run_id}
    return "-m", "tests.storage._runs", json.dumps({"store": None, **given, **more})


def test_a_run_survives_the_kill_of_its_process(
    url: str, tmp_path: Path, provider: StandIn
) -> None:
    """Killed with -9 several times, and resumed in a new process each time, it ends with the same
    answer, citations, trajectory and store; of the answers that had come, none is asked for again.
    `make soak` does this at random moments.
    """
    killed_and_resumed(url, tmp_path, provider, [5, 70, 150] if "sqlite" in url else [62, 130])


@pytest.mark.exhaustive
def test_a_killed_run_writes_to_its_shared_store_once(
    url: str, tmp_path: Path, provider: StandIn
) -> None:
    """With a store that outlives it, a run that is killed while it writes leaves the same findings,
    each once: a write and the record of its call are one unit.
    """
    killed_and_resumed(
        url, tmp_path, provider, [120] if "sqlite" in url else [63], store="findings"
    )
    store = _runs.store_in(url, "findings")
    assert store is not None
    events = store.events_since(0, 1_000)
    ids = [event["id"] for event in events if event["op"] == "create"]
    assert len(ids) == len(set(ids)) == 5 + 1 + 40 + 1 + 4
    assert [event["op"] for event in events].count("link") == 1
    store._shared.release()


def killed_and_resumed(
    url: str, tmp_path: Path, provider: StandIn, moments: list[int], store: str | None = None
) -> None:
    """A run whose process is killed once the server has got so many calls, each time; none of the
    processes that it had started is left.
    """
    expected = whole()
    if store is not None:
        other = _runs.store_in(url, f"{store}-whole")
        rlm = rlm_of(provider.base_url, None, store=other)
        expected = facts(rlm.completion(QUESTION, DOCUMENT))
        other._shared.release()
        provider.reset()
    run_id: str | None = None
    stored, asked, below = set[str](), 0, set[int]()
    for moment in moments:
        process = program(url, tmp_path, provider, run_id, store)
        reached = len(provider.calls()) + 1 if run_id is not None else 1
        while len(provider.calls()) < max(moment, reached):
            assert process.poll() is None, process.communicate()[1][-3_000:]
            time.sleep(0.002)
        below |= descendants_of(process.pid)
        process.kill()
        process.communicate()
        until_ended(below)
        runs = runs_of(url, tmp_path)
        (info,) = runs.infos()
        assert info.status == "running"
        assert stored & paths_from(provider, asked) == set()
        run_id = info.run_id
        stored, asked = stored_paths(runs, run_id), len(provider.requests())
        runs.close()
    process = program(url, tmp_path, provider, run_id, store)
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-3_000:]
    assert json.loads(output) == expected
    assert stored & paths_from(provider, asked) == set()
    # An answer that was on its way when the process was killed may be asked for again.
    again = sum(count - 1 for count in prompts(provider).values())
    assert again <= 10 * len(moments)
    assert len(prompts(provider)) == SUB_CALLS + 4 + 4 * 2
    assert len(below) > 1  # a fork server and a sandbox


async def cancelled(rlm: RLM[Any], provider: StandIn, calls: int) -> None:
    """Begin the run, and cancel it once the server has got so many calls."""
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    while len(provider.calls()) < calls:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def until_ended(pids: set[int]) -> None:
    until(lambda: not any(map(is_running, pids)))


def test_two_processes_resume_a_run_at_once(url: str, tmp_path: Path, provider: StandIn) -> None:
    """One of them does it, and no stored answer is asked for again; the other one, and this one,
    are told which process has it.
    """
    runs = runs_of(url, tmp_path)
    rlm = rlm_of(provider.base_url, runs)
    asyncio.run(cancelled(rlm, provider, 20))
    (info,) = runs.infos()
    stored, asked = stored_paths(runs, info.run_id), len(provider.requests())
    both = [program(url, tmp_path, provider, info.run_id, waits=True) for _ in range(2)]
    until(lambda: any(each.poll() is not None for each in both))
    winner, loser = sorted(both, key=lambda each: each.poll() is not None)
    busy = f"run '{info.run_id}' is being run by process {winner.pid} on this machine"
    assert f"RunBusyError: {busy}" in loser.communicate()[1]
    with pytest.raises(RunBusyError, match=busy):
        rlm.resume(info.run_id)
    output, errors = winner.communicate()  # it has waited after its first event
    assert winner.returncode == 0, errors[-3_000:]
    assert stored & paths_from(provider, asked) == set()
    assert facts(rlm.resume(info.run_id)) == json.loads(output)
    runs.close()


async def test_what_differs_is_said_before_anything_is_spent(
    runs: RunTable, provider: StandIn, tmp_path: Path, url: str
) -> None:
    """An unknown id names the nearest; another document, model, tool or type of answer is refused,
    and the run stays as it was.
    """
    rlm = rlm_of(provider.base_url, runs)
    await cancelled(rlm, provider, 30)
    (info,) = runs.infos()
    asked = len(provider.calls())
    wrong = info.run_id[:-1] + "x"
    with pytest.raises(InputError, match=rf"no run '{wrong}'.*the nearest are '{info.run_id}'"):
        await rlm.aresume(wrong)
    for other, told in [
        (
            rlm.replace(root_llm=_named("other", provider)),
            "its root model is 'stand-in', not 'other'",
        ),
        (rlm.replace(tools=[]), r"its tools is \['lookup'\], not \[\]"),
        (rlm.replace(output_type=int), "its output_type is None, not 'int'"),
        (rlm.replace(max_depth=1), "its max_depth is 2, not 1"),
        (rlm.replace(instructions="x"), "its instructions is None, not 'x'"),
        (rlm.replace(prompt=Prompt(closing="$finish")), "its prompt is another one"),
    ]:
        with pytest.raises(InputError, match=told):
            await other.aresume(info.run_id)
    with pytest.raises(InputError, match="its document is another one"):
        await rlm.aresume(info.run_id, "another document")
    with pytest.raises(InputError, match="resume needs a storage"):
        await rlm.replace(storage=None).aresume(info.run_id)
    assert len(provider.calls()) == asked
    assert info.status == "cancelled"
    assert runs.infos() == [info]
    assert (await rlm.aresume(info.run_id, DOCUMENT)).stop_reason == "final"


def _named(name: str, provider: StandIn) -> Any:
    from rlm_integrations import OpenAILM

    return OpenAILM(name, base_url=provider.base_url, api_key="none")


async def test_documents_need_not_be_kept(url: str, tmp_path: Path, provider: StandIn) -> None:
    """Then a resume needs the document, and checks that it is the same."""
    runs = runs_of(url, tmp_path, keep_documents=False)
    rlm = rlm_of(provider.base_url, runs)
    await cancelled(rlm, provider, 30)
    (info,) = runs.infos()
    with pytest.raises(InputError, match="does not keep documents"):
        await rlm.aresume(info.run_id)
    assert (await rlm.aresume(info.run_id, DOCUMENT)).stop_reason == "final"
    runs.close()


async def test_a_cancelled_resume_can_be_resumed(runs: RunTable, provider: StandIn) -> None:
    """The run is free again for the next one, which goes on where the cancelled one was."""
    rlm = rlm_of(provider.base_url, runs)
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    stored, asked = set[str](), 0
    for reached in (30, 80, 130):
        while len(provider.calls()) < reached:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        (info,) = runs.infos()
        assert (info.status, info.is_owned) == ("cancelled", False)
        assert stored & paths_from(provider, asked) == set()
        stored, asked = stored_paths(runs, info.run_id), len(provider.requests())
        task = asyncio.ensure_future(rlm.aresume(info.run_id))
    assert (await task).stop_reason == "final"
    assert stored & paths_from(provider, asked) == set()


async def test_a_result_that_cannot_be_stored_ends_the_run_with_an_event(
    runs: RunTable, provider: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised, the last event has the record, and the run can be resumed without
    another call.
    """

    def full(self: OwnedRun, stop_reason: str, result: bytes) -> None:
        raise StorageError("the disk is full")

    rlm = rlm_of(provider.base_url, runs)
    events: list[Event] = []
    with monkeypatch.context() as patched:
        patched.setattr(OwnedRun, "_finish", full)
        with pytest.raises(StorageError, match="the disk is full"):
            await rlm.replace(on_event=events.append).acompletion(QUESTION, DOCUMENT)
    assert isinstance(events[-1], RunFailed)
    assert events[-1].result is not None
    assert events[-1].result.stop_reason == "failed"
    (info,) = runs.infos()
    assert (info.status, info.is_owned) == ("running", False)
    asked = len(provider.calls())
    result = await rlm.aresume(info.run_id)
    assert (result.stop_reason, len(provider.calls())) == ("final", asked)


async def test_a_run_that_another_machine_took_is_not_written_to(
    runs: RunTable, provider: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was not heard of for so long that its lease ended loses its run: its next
    record is refused, and the other process goes on.
    """
    setup, corpus = _setup(), Corpus.build("a document")
    kept = await runs.begin("the-run", setup, corpus)
    with pytest.raises(RunBusyError, match=r"being run by process .* on this machine"):
        await runs.take("the-run")
    with monkeypatch.context() as patched:
        patched.setattr(owner, "own_name", lambda: "another-boot pid:[1] 7 8")
        with pytest.raises(RunBusyError):
            await runs.take("the-run")  # its lease has not ended
        kept.extend_lease(timedelta(seconds=-1))
        (info,) = runs.infos()
        assert not info.is_owned
        taken = await runs.take("the-run")
    assert taken.kept is not None
    kept.extend_lease(timedelta(seconds=30))
    with pytest.raises(RunBusyError, match="was taken by another process"):
        await kept.append("r:t1", b"{}")
    await taken.kept.append("r:t1", b"{}")
    with pytest.raises(RunBusyError, match="process 7 on another machine"):
        await runs.take("the-run")
    for each in (kept, taken.kept):
        each.let_go()


async def test_a_process_that_has_ended_loses_its_run_at_once(
    runs: RunTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same machine nobody waits for a lease: not if the process is gone, nor if another one
    has its number now.
    """
    with monkeypatch.context() as patched:
        patched.setattr(owner, "own_name", lambda: _other_start(owner.this_machine(), os.getpid()))
        kept = await runs.begin("the-run", _setup(), Corpus.build("a document"))
    taken = await runs.take("the-run")
    assert taken.kept is not None
    for each in (kept, taken.kept):
        each.let_go()


def _other_start(machine: str, process: int) -> str:
    return f"{machine} {process} 1"


def _setup() -> RunSetup:
    models = ModelNames(root="root", subs={"root": "root"}, default="root")
    return RunSetup(question="q", sources=(), models=models, options={}, version="1", started=1.0)
