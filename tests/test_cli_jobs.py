"""The commands `submit`, `worker` and `jobs`; workers that are killed and stopped."""

import json
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rlm_integrations.storage import Storage
from tests._cli import FACT, QUESTION, Shell, bare_environment, block, forked, run, started, until
from tests.standin import StandIn, serve_in_thread

__all__ = ["bare_environment", "run"]  # fixtures

SCRIPT = [
    block(
        "replies = llm_batch([f'{context[:7]} {n}' for n in range(30)], max_concurrent=5)",
    ),
    block("FINAL(sum(not each.startswith('Error') for each in replies))"),
]


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a command in a new process, which does not outlive the test."""
    processes = []

    def start_one(*words: str) -> "subprocess.Popen[str]":
        processes.append(started(*words))
        return processes[-1]

    yield start_one
    for each in processes:
        each.kill()
        each.communicate()


def prompts(server: StandIn) -> Counter[str]:
    """How often each prompt of code was asked."""
    asked = [kept.body["messages"][-1]["content"] for kept in server.requests()]
    return Counter(each for each in asked if each.startswith("file "))


def submitted(run: Callable[..., Shell], count: int) -> list[str]:
    """A job for each of so many files."""
    for number in range(count):
        Path(f"{number}.txt").write_text(f"file {number:02}\n" + "Nothing here.\n" * 4_000)
    files = [f"{number}.txt" for number in range(count)]
    code, out, _ = run("submit", *files, "How many?", "--each", "--model", "root", "--quiet")
    assert code == 0
    return out.split()


def test_a_question_is_submitted_answered_and_listed(run: Callable[..., Shell]) -> None:
    """`submit` prints the id of a job; `worker --until-empty` answers it, `resume` prints its
    answer, and `jobs` lists, cancels and retries; also a job whose manifest is damaged.
    """
    code, out, err = run("submit", "report.txt", QUESTION)
    assert code == 0
    assert "using offline" in err
    job_id = out.strip()
    code, out, err = run("submit", "report.txt", "other.txt", "Who?", "--each", "--json")
    assert [each["files"] for each in json.loads(out)] == [["report.txt"], ["other.txt"]]
    cancelled = json.loads(out)[1]["job_id"]
    assert run("jobs", "--cancel", cancelled)[0] == 0
    code, out, err = run("worker", "--until-empty")
    assert (code, out) == (0, "")
    assert "2 pending, 1 cancelled; Ctrl-C ends the worker" in err
    assert f"job {job_id} completed after" in err
    assert "ended: 2 completed" in err
    code, out, _ = run("resume", job_id)
    assert (code, out.splitlines()[0]) == (0, FACT)
    assert run("jobs", "--retry", cancelled)[0] == 0
    code, out, err = run("jobs", "--status", "completed")
    assert out.splitlines()[-1].endswith(f"completed  {QUESTION}")
    assert "1 pending, 0 running, 2 completed, 0 failed, 0 cancelled" in err
    code, out, _ = run("jobs", "--json", "--limit", "1")
    (newest,) = json.loads(out)
    assert (newest["job_id"], newest["status"]) == (cancelled, "pending")
    assert newest["manifest"]["sources"][0]["file"] == "other.txt"
    with closing(sqlite3.connect("runs/storage.sqlite")) as database, database:
        database.execute("UPDATE llm_DeriveManifests SET manifest = '{'")
    code, out, _ = run("jobs")
    assert (code, out.count("(its manifest is damaged)")) == (0, 3)
    assert "is not a manifest" in json.loads(run("jobs", "--json")[1])[0]["damage"]


def test_what_a_worker_cannot_do_is_told(run: Callable[..., Shell]) -> None:
    """A model with an address is refused when it is submitted, also an unknown storage or job; a job
    without a key for its model fails, with that reason, and the worker's exit code is 1.
    """
    for words, message in [
        (("submit", "report.txt", "Who?", "--model", "openai:x@http://host/v1"), "that its worker"),
        (("submit", "report.txt", "Who?", "--model", "anthropic:x"), "that its worker"),
        (("submit", "none.txt", "Who?", "--model", "x"), "none.txt"),
        (("submit", "report.txt", "Who?", "--model", "x", "--max-cost", "1"), "no known price"),
        (("submit", "report.txt", " "), "the question is empty"),
        (("worker", "--storage", "."), "is not a storage folder"),
        (("worker", "-n", "0"), "must be an integer of at least 1"),
        (("jobs", "--retry", "x"), "no job has the id 'x'"),
    ]:
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert message in err
    run("submit", "report.txt", "Who?", "--model", "gpt-5-mini")
    code, _, err = run("worker", "--until-empty", "--quiet")
    assert code == 1
    assert "failed after" in err
    assert "set OPENAI_API_KEY" in run("jobs", "--json")[1]


def test_the_jobs_of_a_killed_worker_go_to_others(run: Callable[..., Shell]) -> None:
    """Two workers share the jobs, none of them twice; when one is killed with -9, the other resumes
    its runs, and no answered prompt is asked again.
    """
    with serve_in_thread(scripts={"root": SCRIPT}, latency=0.03, keep_requests=True) as server:
        ids = submitted(run, 6)
        words = ["worker", "-n", "2", "--until-empty", "--base-url", server.base_url]
        killed, heir = forked(*words), forked(*words)
        with Storage("runs") as storage:
            until(lambda: len(prompts(server)) > 20 and len(_owners(storage)) == 2)
            killed.kill()
            killed.communicate()
            err = heir.communicate()[1]
            assert heir.returncode == 0, err
            jobs = [storage.queue.get(each) for each in ids]
            assert {(job.status, storage.run(job.job_id).answer) for job in jobs} == {
                ("completed", "30")
            }
            assert {job.attempts for job in jobs} <= {1, 2}
        asked = prompts(server)
        assert len(asked) == 6 * 30
        assert sum(asked.values()) <= 6 * 30 + 2 * 5  # those that were on their way


def _owners(storage: Storage) -> set[str | None]:
    return {job.worker for job in storage.queue.list() if job.status == "running"}


def test_a_signal_stops_a_worker(
    run: Callable[..., Shell], start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """SIGTERM and SIGINT do the same: after the first one no job is taken, at the second one running
    jobs are handed back at once; the worker exits with 0, and the next one pays for nothing twice.
    """
    with serve_in_thread(scripts={"root": SCRIPT}, latency=0.3, keep_requests=True) as server:
        ids = submitted(run, 2)
        words = ["worker", "-n", "1", "--base-url", server.base_url]
        process = start(*words, "--grace", "200")
        until(lambda: len(prompts(server)) > 5)
        process.send_signal(signal.SIGTERM)
        lines = iter(process.stderr or [])
        assert any("stopping; the next signal" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert "ended: 1 released" in "".join(lines)
        assert process.wait() == 0
        server.change(latency=0.0)
        assert run(*words, "--until-empty")[0] == 0
        with Storage("runs") as storage:
            assert [storage.queue.get(each).status for each in ids] == ["completed"] * 2
        asked = prompts(server)
        assert len(asked) == 2 * 30
        assert sum(asked.values()) <= 2 * 30 + 5
