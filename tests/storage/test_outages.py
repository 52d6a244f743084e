"""What a run needs is killed or goes away in the middle of it: nothing that was stored is paid twice."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from rlm_integrations import Corpus, JournalError, RLMResult, RunBusyError
from rlm_integrations.storage.database import Database
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.files import open_files
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.run_log import RunLog
from rlm_integrations.storage.run_table import RunTable
from rlm_integrations.storage.shared_database import SharedDatabase
from tests._processes import children_of
from tests.sandbox.process_state import server as fork_server
from tests.standin import StandIn, serve_in_thread
from tests.standin.settings import Ask
from tests.storage import _runs
from tests.storage._postgres import Server
from tests.storage._runs import DOCUMENT, QUESTION, code, facts, rlm_of, runs_of, whole
from tests.storage.test_forgetting import setup_of
from tests.storage.test_resume import command, paths_from, prompts, stored_paths

ROOT = Path(__file__).parents[2]


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A server that answers after a while, so that something can happen in a run."""
    with serve_in_thread(
        scripts={"stand-in": _runs.script_of}, latency=0.01, keep_requests=True
    ) as standin:
        yield standin


async def until_calls(provider: StandIn, count: int) -> None:
    while len(provider.calls()) < count:
        await asyncio.sleep(0.001)


BATCH = code("replies = llm_batch([f'{{n}} of {0}' for n in range(40)])", "print(len(replies))")
LOSSES = [BATCH.format("one"), BATCH.format("two"), BATCH.format("three"), code("FINAL(replies)")]


def loses(ask: Ask) -> str:
    is_root = ask.body["messages"][0]["role"] == "system"
    return LOSSES[ask.turn] if is_root else f"re: {ask.prompt}"


def kill_code() -> None:
    """Kill the process that runs the code."""
    for child in children_of(fork_server()._process.pid):
        os.kill(child, 9)


def kill_fork_server() -> None:
    """Kill the process that starts those of the code, and them with it."""
    fork_server()._process.kill()


async def outlived(
    runs: RunTable, disturbances: Sequence[tuple[int, Callable[[], None]]], cancelled_at: int
) -> RLMResult[Any]:
    """The result of a run of three batches. In each of the first two something happens once so many
    of its calls came; in the third one the run is cancelled. It is resumed, and no stored answer is
    asked for again.
    """

    async def until_asked(batch: str, count: int) -> None:
        while sum(prompt.endswith(f" of {batch}") for prompt in asked_of(provider)) < count:
            assert not task.done(), task
            await asyncio.sleep(0.001)

    with serve_in_thread(scripts={"stand-in": loses}, latency=0.01, keep_requests=True) as provider:
        rlm = rlm_of(provider.base_url, runs).replace(max_depth=1)
        task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
        for batch, (calls, disturb) in zip(("one", "two"), disturbances, strict=True):
            await until_asked(batch, calls)
            await asyncio.to_thread(disturb)
        await until_asked("three", cancelled_at)
        task.cancel()
        await asyncio.wait([task])
        info = runs.infos()[0]
        stored, asked = stored_paths(runs, info.run_id), len(provider.requests())
        result = await rlm.aresume(info.run_id)
        assert stored & paths_from(provider, asked) == set()
        assert len(stored) > 3
    assert json.loads(str(result.answer)) == [f"re: {n} of three" for n in range(40)]
    return result


def asked_of(provider: StandIn) -> list[str]:
    return [kept.body["messages"][-1]["content"] for kept in provider.requests()]


async def test_a_run_outlives_its_sandboxes(sqlite_url: str, tmp_path: Path) -> None:
    """The process of the code is killed in one block and the fork server in the next: the model
    goes on in a new one. Cancelled later and resumed, the run has the same blocks and its answer,
    and no stored answer is asked for again. `make soak` does this at random moments.
    """
    runs = runs_of(sqlite_url, tmp_path)
    result = await outlived(runs, [(15, kill_code), (15, kill_fork_server)], 15)
    runs.close()
    blocks = [block for turn in result.trajectory for block in turn.executions]
    assert [block.status for block in blocks] == ["lost", "lost", "ok", "ok"]


async def test_a_run_waits_for_a_database_that_comes_back(
    server: Server, postgres_url: str, tmp_path: Path, provider: StandIn
) -> None:
    """The server of the database crashes in the middle of a run and is started again: the run ends
    as if nothing had happened, and asks nothing twice.
    """
    runs = runs_of(postgres_url, tmp_path)
    task = asyncio.ensure_future(rlm_of(provider.base_url, runs).acompletion(QUESTION, DOCUMENT))
    await until_calls(provider, 70)
    await asyncio.to_thread(server.stop, "immediate")
    await asyncio.to_thread(server.start)
    assert facts(await task) == whole()
    assert set(prompts(provider).values()) == {1}
    runs.close()


async def test_a_run_whose_database_stays_away_is_resumed_later(
    server: Server, postgres_url: str, tmp_path: Path, provider: StandIn
) -> None:
    """It ends with an error once patience is over. When the database is back, the same process
    resumes it at once, with every answer that was stored.
    """
    shared = SharedDatabase((postgres_url,), Database(Target(make_url(postgres_url)), patience=0.2))
    lake = Lake(shared, open_files(tmp_path / "lake"))
    runs = RunTable(shared, lake, RunLog(shared, lake))
    rlm = rlm_of(provider.base_url, runs)
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    await until_calls(provider, 70)
    await asyncio.to_thread(server.stop, "immediate")
    with pytest.raises(JournalError, match=r"could not be kept: .* cannot be reached now"):
        await task
    await asyncio.to_thread(server.start)
    (info,) = runs.infos()
    assert (info.status, info.is_owned) == ("running", False)
    stored, asked = stored_paths(runs, info.run_id), len(provider.requests())
    assert facts(await rlm.aresume(info.run_id)) == whole()
    assert stored & paths_from(provider, asked) == set()
    assert len(stored) > 40
    shared.release()


def test_a_run_moves_to_another_machine(
    postgres_url: str, tmp_path: Path, provider: StandIn
) -> None:
    """A run of a machine that is gone, in a tree of processes of its own, is resumed here once its
    lease has ended, and not before.
    """
    machine = in_namespace("--pid", "--fork", "--kill-child", "--mount-proc")
    words = command(postgres_url, tmp_path, provider, None, lease=1.0)
    process = subprocess.Popen(
        [*machine, sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(provider.calls()) < 70:
        assert process.poll() is None, process.communicate()[1][-3_000:]
        time.sleep(0.002)
    runs = runs_of(postgres_url, tmp_path)
    (info,) = runs.infos()
    rlm = rlm_of(provider.base_url, runs)
    with pytest.raises(RunBusyError, match="on another machine"):
        rlm.resume(info.run_id)
    process.kill()
    process.communicate()
    stored, asked = stored_paths(runs, info.run_id), len(provider.requests())
    while True:
        try:
            result = rlm.resume(info.run_id)
            break
        except RunBusyError:
            time.sleep(0.01)
    assert facts(result) == whole()
    assert stored & paths_from(provider, asked) == set()
    runs.close()


def in_namespace(*kinds: str) -> list[str]:
    """What begins a program in namespaces of its own, which end with it."""
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    prefix = ["unshare", *as_user, *kinds]
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        if os.environ.get("CI"):
            raise AssertionError(done.stderr)
        pytest.skip(f"no namespace can be made: {done.stderr}")
    return prefix


FULL_DISK = """
import json, subprocess, sys
from pathlib import Path
from rlm_integrations import CallFinished, JournalError
from tests.storage._runs import DOCUMENT, QUESTION, facts, rlm_of, runs_of

base_url, folder = sys.argv[1], Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
runs = runs_of(f"sqlite:///{folder}/storage.sqlite", folder)
finished = []

def fill(event):
    finished.append(isinstance(event, CallFinished))
    if sum(finished) == 70 and finished[-1]:
        try:
            with (folder / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            return

rlm = rlm_of(base_url, runs, on_event=fill)
try:
    rlm.completion(QUESTION, DOCUMENT)
except JournalError as error:
    print(error)
(info,) = runs.infos()
print(json.dumps([record.call_id for record in runs._log.load(info.run_id)]), flush=True)
sys.stdin.readline()
(folder / "filler").unlink()
print(json.dumps(facts(rlm.resume(info.run_id))))
runs.close()
"""


def test_a_run_outlives_a_full_disk(tmp_path: Path, provider: StandIn) -> None:
    """The disk of the storage is full in the middle of a run: it ends with an error that says so. Once
    there is room, the same process resumes it, and no stored answer is asked for again.
    """
    words = [*in_namespace("--mount"), sys.executable, "-c", FULL_DISK, provider.base_url]
    process = subprocess.Popen(
        [*words, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    error, stored = process.stdout.readline(), process.stdout.readline()
    asked = len(provider.requests())
    output, errors = process.communicate("\n", timeout=250)
    assert process.returncode == 0, errors[-3_000:]
    assert "the disk is full; free some space" in error
    assert json.loads(output) == whole()
    assert set(json.loads(stored)) & paths_from(provider, asked) == set()
    assert len(json.loads(stored)) > 40


async def test_one_of_many_that_take_a_run_gets_it(url: str, tmp_path: Path) -> None:
    """Of many tasks that take a free run at the same time one gets it, and the others are told that
    this process has it.
    """
    runs = runs_of(url, tmp_path)
    await (await runs.begin("the-run", setup_of(), Corpus.build("a document"))).release()
    takes = [asyncio.create_task(runs.take("the-run")) for _ in range(5)]
    await asyncio.wait(takes)
    (taken,) = [each.result() for each in takes if each.exception() is None]
    busy = [str(each.exception()) for each in takes if each.exception() is not None]
    assert all(f"run by process {os.getpid()} on this machine" in each for each in busy)
    assert taken.kept is not None
    taken.kept.let_go()
    runs.close()
