"""Runs in a storage: recorded, killed, resumed, and paid for once."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations import InputError, RunBusyError
from rlm_integrations.storage.run_table import RunTable
from tests.standin import StandIn, serve_in_thread
from tests.storage import _runs
from tests.storage._runs import DOCUMENT, QUESTION, SUB_CALLS, facts, rlm_of, runs_of

ROOT = Path(__file__).parents[2]


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
    whole = facts(await rlm_of(provider.base_url, None).acompletion(QUESTION, DOCUMENT))
    provider.reset()
    rlm = rlm_of(provider.base_url, runs)
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    while len(provider.calls()) < 90:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (info,) = runs.infos()
    assert info.status == "cancelled"
    result = await rlm.aresume(info.run_id)
    assert facts(result) == whole
    assert set(prompts(provider).values()) == {1}


def program(url: str, folder: Path, provider: StandIn, run_id: str | None) -> subprocess.Popen[str]:
    given = {"url": url, "folder": str(folder), "base_url": provider.base_url, "run_id": run_id}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage._runs", json.dumps(given)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_run_survives_the_kill_of_its_process(
    url: str, tmp_path: Path, provider: StandIn
) -> None:
    """Killed with -9 several times, and resumed in a new process each time, it ends with the same
    answer, citations, trajectory and store; of the answers that had come, none is asked for again.
    `make soak` does this at random moments.
    """
    killed_and_resumed(url, tmp_path, provider, [5, 70, 150] if "sqlite" in url else [62, 130])


def killed_and_resumed(url: str, tmp_path: Path, provider: StandIn, moments: list[int]) -> None:
    """A run whose process is killed once the server has got so many calls, each time."""
    whole = facts(rlm_of(provider.base_url, None).completion(QUESTION, DOCUMENT))
    provider.reset()
    run_id: str | None = None
    for moment in moments:
        process = program(url, tmp_path, provider, run_id)
        reached = len(provider.calls()) + 1 if run_id is not None else 1
        while len(provider.calls()) < max(moment, reached):
            assert process.poll() is None, process.communicate()[1][-3_000:]
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        runs = runs_of(url, tmp_path)
        (info,) = runs.infos()
        runs.close()
        assert info.status == "running"
        run_id = info.run_id
    process = program(url, tmp_path, provider, run_id)
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors[-3_000:]
    assert json.loads(output) == whole
    # An answer that was on its way when the process was killed may be asked for again.
    again = sum(count - 1 for count in prompts(provider).values())
    assert again <= 10 * len(moments)
    assert len(prompts(provider)) == SUB_CALLS + 4 + 4 * 2


def test_a_run_is_resumed_by_one_process_at_a_time(
    url: str, tmp_path: Path, provider: StandIn
) -> None:
    """While one has it, another one is told which, and nothing is asked twice."""
    process = program(url, tmp_path, provider, None)
    while len(provider.calls()) < 20:
        time.sleep(0.002)
    runs = runs_of(url, tmp_path)
    (info,) = runs.infos()
    assert info.is_owned
    with pytest.raises(
        RunBusyError, match=rf"is being run by process {process.pid} on this machine"
    ):
        rlm_of(provider.base_url, runs).resume(info.run_id)
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors[-3_000:]
    assert set(prompts(provider).values()) == {1}
    assert facts(rlm_of(provider.base_url, runs).resume(info.run_id)) == json.loads(output)
    runs.close()


async def test_what_differs_is_said_before_anything_is_spent(
    runs: RunTable, provider: StandIn, tmp_path: Path, url: str
) -> None:
    """An unknown id names the nearest; another document, model, tool or type of answer is refused."""
    rlm = rlm_of(provider.base_url, runs)
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    while len(provider.calls()) < 30:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
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
    ]:
        with pytest.raises(InputError, match=told):
            await other.aresume(info.run_id)
    with pytest.raises(InputError, match="its document is another one"):
        await rlm.aresume(info.run_id, "another document")
    with pytest.raises(InputError, match="resume needs a storage"):
        await rlm.replace(storage=None).aresume(info.run_id)
    assert len(provider.calls()) == asked
    assert (await rlm.aresume(info.run_id, DOCUMENT)).stop_reason == "final"


def _named(name: str, provider: StandIn) -> Any:
    from rlm_integrations import OpenAILM

    return OpenAILM(name, base_url=provider.base_url, api_key="none")


async def test_documents_need_not_be_kept(url: str, tmp_path: Path, provider: StandIn) -> None:
    """Then a resume needs the document, and checks that it is the same."""
    runs = runs_of(url, tmp_path, keep_documents=False)
    rlm = rlm_of(provider.base_url, runs)
    task = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT))
    while len(provider.calls()) < 30:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    (info,) = runs.infos()
    with pytest.raises(InputError, match="does not keep documents"):
        await rlm.aresume(info.run_id)
    assert (await rlm.aresume(info.run_id, DOCUMENT)).stop_reason == "final"
    runs.close()


async def test_no_secret_is_kept(runs: RunTable, provider: StandIn, tmp_path: Path) -> None:
    """The key of a model is in no file of the storage."""
    secret = f"sk-{random.getrandbits(200):x}"
    lm = _keyed(secret, provider)
    rlm = rlm_of(provider.base_url, runs).replace(root_llm=lm)
    await rlm.acompletion(QUESTION, DOCUMENT)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file.name


def _keyed(key: str, provider: StandIn) -> Any:
    from rlm_integrations import OpenAILM

    return OpenAILM("stand-in", base_url=provider.base_url, api_key=key)
