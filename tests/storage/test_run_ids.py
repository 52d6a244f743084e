"""Runs under an id that the caller chooses: begun once, resumed after that, and never mixed up."""

import asyncio
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from rlm_integrations import RLM, InputError, RunBusyError, RunFinished, RunStarted
from rlm_integrations.storage.run_table import RunTable
from tests._forked import Forked
from tests.engine.conftest import Scripted, final
from tests.standin import StandIn, serve_in_thread
from tests.storage import _runs
from tests.storage._runs import CALL, DOCUMENT, QUESTION, facts, rlm_of, runs_of, whole


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A server that answers after a while, so that a run can be cancelled in its middle."""
    with serve_in_thread(
        scripts={"stand-in": _runs.script_of}, latency=0.02, keep_requests=True
    ) as standin:
        yield standin


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[RunTable]:
    """An empty storage."""
    made = runs_of(f"sqlite:///{tmp_path}/storage.sqlite", tmp_path)
    yield made
    made.close()


def test_a_run_without_storage_has_the_id_that_the_caller_chose() -> None:
    """The result has it; an id that is not safe in a file name or too long is refused."""
    rlm = RLM(Scripted([final("1")]))
    assert rlm.completion("Why?", "a text", run_id="thread-7.node_2").run_id == "thread-7.node_2"
    for wrong in ("", "a" * 65, "a/b", ".hidden", "a b", "ä", "a\n", 7):
        with pytest.raises(InputError, match="a run_id must be 1 to 64 letters"):
            rlm.completion("Why?", "a text", run_id=wrong)  # type: ignore[arg-type]


def test_a_run_that_has_ended_is_returned_by_its_id(runs: RunTable, provider: StandIn) -> None:
    """The same question and document under the same id give the stored result and its two events,
    and nothing is asked.
    """
    rlm = rlm_of(provider.base_url, runs)
    first = rlm.completion(QUESTION, DOCUMENT, run_id="mine")
    asked = len(provider.calls())
    assert rlm.completion(QUESTION, DOCUMENT, run_id="mine").to_dict() == first.to_dict()
    started, finished = rlm.stream(QUESTION, DOCUMENT, run_id="mine")
    assert isinstance(started, RunStarted)
    assert isinstance(finished, RunFinished)
    assert started.id == finished.id
    assert finished.result.to_dict() == first.to_dict()
    assert len(provider.calls()) == asked
    assert [info.run_id for info in runs.infos()] == ["mine"]


async def test_a_run_that_was_interrupted_goes_on_under_its_id(
    runs: RunTable, provider: StandIn
) -> None:
    """The same call again resumes it; while a task has it, another one is refused."""
    rlm = rlm_of(provider.base_url, runs)
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT, run_id="mine"))
    while len(provider.calls()) < 90:
        await asyncio.sleep(0.001)
    with pytest.raises(RunBusyError, match="run 'mine' is being run by process"):
        await rlm.acompletion(QUESTION, DOCUMENT, run_id="mine")
    task.cancel()
    await asyncio.wait([task])
    stored, asked = {record.call_id for record in runs._log.load("mine")}, len(provider.requests())
    assert facts(await rlm.acompletion(QUESTION, DOCUMENT, run_id="mine")) == whole()
    assert stored & {kept.headers[CALL] for kept in provider.requests()[asked:]} == set()
    assert len(stored) > 60


async def test_another_question_or_document_under_the_same_id_is_refused(
    runs: RunTable, provider: StandIn
) -> None:
    """Whether the run has ended or not, an error says what differs, before anything is spent; the
    other document is not kept.
    """
    rlm = rlm_of(provider.base_url, runs)
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT, run_id="mine"))
    while len(provider.calls()) < 30:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    for _ in range(2):  # unfinished, then finished
        asked = len(provider.calls())
        with pytest.raises(
            InputError, match=r"'mine' is stored.*question is 'the whole\?', not 'Wh"
        ):
            await rlm.acompletion("Why?", DOCUMENT, run_id="mine")
        with pytest.raises(InputError, match="its document is another one"):
            await rlm.acompletion(QUESTION, DOCUMENT + "more", run_id="mine")
        assert len(provider.calls()) == asked
        assert (await rlm.acompletion(QUESTION, DOCUMENT, run_id="mine")).stop_reason == "final"
    assert runs._lake.has(sha256(DOCUMENT.encode()).hexdigest())
    assert not runs._lake.has(sha256((DOCUMENT + "more").encode()).hexdigest())


def test_one_of_several_processes_begins_a_run(url: str, tmp_path: Path) -> None:
    """Of processes that begin runs of the same ids at once, exactly one begins each."""
    runs_of(url, tmp_path).close()  # the tables exist
    ids = [f"run-{number}" for number in range(40)]
    given = json.dumps({"url": url, "folder": str(tmp_path), "begin": ids})
    processes = [Forked("-m", "tests.storage._runs", given) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.close()
    begun = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(each for some in begun for each in some) == sorted(ids)
