"""The queue of derive jobs: order, leases, and no job lost or done by two workers at once."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import make_url, select, update

from rlm_integrations.errors import DamagedDataError, InputError
from rlm_integrations.storage import owner
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.job import DeriveJobStatus
from rlm_integrations.storage.manifest import Manifest
from rlm_integrations.storage.queue import SqlQueueStore
from rlm_integrations.storage.shared_database import SharedDatabase, open_database
from tests._forked import Forked

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Clock:
    """A time that only the test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(opened: SharedDatabase, clock: Clock) -> SqlQueueStore:
    return SqlQueueStore(opened, worker="first", clock=clock)


@pytest.fixture
def other(opened: SharedDatabase, clock: Clock) -> SqlQueueStore:
    """The same queue, as another worker sees it."""
    return SqlQueueStore(opened, worker="second", clock=clock)


def manifest(**fields: Any) -> Manifest:
    return Manifest(**{"task_type": "notes", **fields})


def test_a_job_goes_through_the_queue(queue: SqlQueueStore, clock: Clock) -> None:
    """A job waits, runs and is completed, with its manifest, its times and its artifact."""
    wanted = manifest(question="Who?", llm_model="gpt-5")
    job_id = queue.enqueue(wanted)
    waiting = queue.get(job_id)
    assert (waiting.status, waiting.priority, waiting.attempts) == ("pending", 100, 0)
    job = queue.dequeue(lease_seconds=30)
    assert job is not None
    assert (job.job_id, job.manifest) == (job_id, wanted)
    assert (job.status, job.worker, job.attempts) == ("running", "first", 1)
    assert job.started_at is not None
    assert job.lease_until == job.started_at + timedelta(seconds=30)
    assert queue.get(job_id) == job
    queue.update_status(
        job_id, DeriveJobStatus.COMPLETED, artifact_path=Path("artifacts/a.json"), run_id="run-1"
    )
    done = queue.get(job_id)
    assert (done.status, done.artifact_path, done.run_id) == (
        DeriveJobStatus.COMPLETED,
        "artifacts/a.json",
        "run-1",
    )
    assert done.finished_at == clock.now
    assert queue.dequeue() is None


def test_the_manifests_table_has_the_outcome(queue: SqlQueueStore, opened: SharedDatabase) -> None:
    """`DeriveManifests` has the columns of the original design filled."""
    wanted = manifest(llm_provider="openai", llm_model="gpt-5")
    job_id = queue.enqueue(wanted)
    queue.dequeue()
    queue.update_status(job_id, DeriveJobStatus.COMPLETED, artifact_path="artifacts/x.json")
    table = opened.database.schema.manifests
    row = opened.database.read(lambda each: each.execute(select(table)).one())
    assert str(row.manifest_id) == wanted.manifest_id
    assert (row.manifest_version, row.llm_provider, row.llm_model) == ("1.0", "openai", "gpt-5")
    assert (row.status, row.artifact_path) == ("completed", "artifacts/x.json")


def test_smaller_priorities_come_first_then_older_jobs(queue: SqlQueueStore) -> None:
    """Jobs leave by priority, and among equals in the order in which they came."""
    for question, priority in [("c", 100), ("d", 100), ("a", 5), ("e", 200), ("b", 5)]:
        queue.enqueue(manifest(question=question), priority)
    queue.enqueue_many([manifest(question=each) for each in "fgh"], 300)
    order = "".join(job.manifest.question for job in queue.dequeue_many(3))
    while job := queue.dequeue():
        order += job.manifest.question
    assert order == "abcdefgh"


def test_two_statements_take_the_same_jobs(queue: SqlQueueStore, clock: Clock) -> None:
    """A database whose UPDATE returns no rows takes the same jobs in the same order."""
    queue._table._take_next = None
    ids = [queue.enqueue(manifest(), priority) for priority in (3, 1, 2)]
    taken = queue.dequeue_many(2)
    assert [job.job_id for job in taken] == [ids[1], ids[2]]
    assert [queue.get(job.job_id) for job in taken] == list(taken)
    assert {job.attempts for job in taken} == {1}
    assert [job.job_id for job in queue.dequeue_many(2)] == [ids[0]]
    assert queue.dequeue() is None


def test_a_job_that_is_handed_back_can_wait(queue: SqlQueueStore, clock: Clock) -> None:
    """It is not given out before its time; with an error its attempt counts, and is told."""
    job_id = queue.enqueue(manifest())
    for attempt, error in [(1, None), (1, "no answer"), (2, None)]:
        job = queue.dequeue()
        assert job is not None
        assert job.attempts == attempt
        queue.release(job_id, delay_seconds=30, error=error)
        assert queue.dequeue() is None
        waiting = queue.get(job_id)
        assert (waiting.status, waiting.error) == ("pending", error)
        clock.pass_seconds(31)
    later = queue.enqueue(manifest(), job_id=str(uuid4()))
    assert queue.enqueue(manifest(), job_id=later) == later  # nothing is added
    assert len(queue.list()) == 2


def test_the_jobs_of_a_process_that_has_ended_are_lost_at_once(
    opened: SharedDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same machine nobody waits for a lease; the job of a living process stays its own."""
    with monkeypatch.context() as patched:
        patched.setattr(owner, "own_name", lambda: f"{owner.this_machine()} {os.getpid()} 1")
        gone = SqlQueueStore(opened, clock=clock)
    living, heir = (SqlQueueStore(opened, clock=clock, worker=name) for name in (None, "heir"))
    ids = [gone.enqueue(manifest()) for _ in range(2)]
    assert [each.dequeue() is not None for each in (living, gone)] == [True, True]
    taken = heir.dequeue_many(5)
    assert [job.job_id for job in taken] == [ids[1]]


def test_one_manifest_may_have_several_jobs(queue: SqlQueueStore) -> None:
    """The same manifest is kept once and can be derived again."""
    wanted = manifest()
    ids = [*queue.enqueue_many([wanted, wanted]), queue.enqueue(wanted)]
    assert len(set(ids)) == 3
    assert {job.job_id for job in queue.dequeue_many(5)} == set(ids)


def test_a_lost_job_goes_to_another_worker(
    queue: SqlQueueStore, other: SqlQueueStore, clock: Clock
) -> None:
    """When a lease ends without a heartbeat the job waits again, and the first worker can no longer
    change it.
    """
    job_id = queue.enqueue(manifest())
    queue.dequeue(lease_seconds=60)
    clock.pass_seconds(59)
    assert other.dequeue() is None
    clock.pass_seconds(2)
    taken = other.dequeue()
    assert taken is not None
    assert (taken.job_id, taken.worker, taken.attempts) == (job_id, "second", 2)
    assert not queue.heartbeat(job_id)
    with pytest.raises(InputError, match="belongs to 'second' now"):
        queue.update_status(job_id, DeriveJobStatus.COMPLETED)
    other.update_status(job_id, DeriveJobStatus.COMPLETED)
    assert queue.get(job_id).status == "completed"


def test_a_heartbeat_keeps_the_lease(
    queue: SqlQueueStore, other: SqlQueueStore, clock: Clock
) -> None:
    """A worker that renews its lease keeps its job for as long as it lives."""
    job_id = queue.enqueue(manifest())
    queue.dequeue(lease_seconds=60)
    for _ in range(5):
        clock.pass_seconds(50)
        assert queue.heartbeat(job_id, lease_seconds=60)
        assert other.dequeue() is None
    clock.pass_seconds(61)
    assert other.dequeue() is not None


def test_lost_attempts_are_bounded(queue: SqlQueueStore, clock: Clock) -> None:
    """A job that kills its workers fails after its attempts, and says so; the queue goes on."""
    job_id = queue.enqueue(manifest(), max_attempts=2)
    for attempt in (1, 2):
        job = queue.dequeue()
        assert job is not None
        assert job.attempts == attempt
        clock.pass_seconds(61)
    assert queue.dequeue() is None
    failed = queue.get(job_id)
    assert failed.status == "failed"
    assert failed.error == "lost by its worker 2 times, the last time by 'first'"
    queue.retry(job_id)
    again = queue.dequeue()
    assert again is not None
    assert (again.attempts, again.error) == (1, None)


def test_a_released_job_is_nobodys(queue: SqlQueueStore, other: SqlQueueStore) -> None:
    """A worker that hands a job back has not used up an attempt, and another may take it."""
    job_id = queue.enqueue(manifest(), max_attempts=1)
    queue.dequeue()
    other.release(job_id)  # not this worker's: no effect
    assert queue.get(job_id).worker == "first"
    queue.release(job_id)
    job = other.dequeue()
    assert job is not None
    assert (job.attempts, job.worker) == (1, "second")


def test_cancelled_jobs_are_not_given_out(queue: SqlQueueStore) -> None:
    """A waiting job that is cancelled never runs; a running one is refused its next heartbeat; one
    that is over stays as it is.
    """
    waiting, running = queue.enqueue(manifest(), 200), queue.enqueue(manifest(), 1)
    assert queue.dequeue() is not None
    assert queue.cancel(waiting)
    assert queue.cancel(running)
    assert not queue.cancel(running)
    assert queue.dequeue() is None
    assert not queue.heartbeat(running)
    assert [queue.get(each).status for each in (waiting, running)] == ["cancelled"] * 2


def test_jobs_are_counted_and_listed(queue: SqlQueueStore) -> None:
    """Counts have every status; lists are the newest first, by status and by task. A job whose
    manifest is damaged is among them, with the damage.
    """
    ids = [queue.enqueue(manifest(task_type=each)) for each in ("a", "b", "a", "b")]
    queue.dequeue_many(2)
    queue.update_status(ids[0], DeriveJobStatus.FAILED, error="no key")
    assert queue.counts() == {
        "pending": 2,
        "running": 1,
        "completed": 0,
        "failed": 1,
        "cancelled": 0,
    }
    assert [job.job_id for job in queue.list()] == ids[::-1]
    assert [job.job_id for job in queue.list(DeriveJobStatus.PENDING)] == [ids[3], ids[2]]
    assert [job.job_id for job in queue.list(task_type="a", limit=1)] == [ids[2]]
    assert [job.error for job in queue.list(DeriveJobStatus.FAILED)] == ["no key"]
    manifests = queue._shared.database.schema.manifests
    first = UUID(queue.get(ids[0]).manifest.manifest_id)
    damage = update(manifests).where(manifests.c.manifest_id == first).values(manifest="{")
    queue._shared.writer.submit(lambda each: each.execute(damage).rowcount).result()
    *fine, damaged = queue.list()
    assert [job.job_id for job in fine] == ids[:0:-1]
    assert {job.damage for job in fine} == {None}
    assert f"the manifest of job {ids[0]} is not a manifest" in str(damaged.damage)
    assert (damaged.status, damaged.error, damaged.manifest.task_type) == ("failed", "no key", "a")
    with pytest.raises(DamagedDataError, match="is not a manifest"):
        queue.get(ids[0])


def test_what_cannot_work_is_refused(queue: SqlQueueStore) -> None:
    """Unknown jobs, wrong types and impossible changes are errors that say what is valid."""
    job_id = queue.enqueue(manifest())
    for use in (queue.get, queue.cancel, queue.retry, queue.release):
        for unknown in (UNKNOWN, "job-1"):
            with pytest.raises(InputError, match=f"no job has the id '{unknown}'"):
                use(unknown)
    with pytest.raises(InputError, match="only failed and cancelled jobs"):
        queue.retry(job_id)
    with pytest.raises(InputError, match="needs a Manifest, not a dict"):
        queue.enqueue({"task_type": "a"})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="priority must be an integer, not 'high'"):
        queue.enqueue(manifest(), "high")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_attempts must be an integer of at least 1"):
        queue.enqueue(manifest(), max_attempts=0)
    with pytest.raises(InputError, match="count must be an integer of at least 1"):
        queue.dequeue_many(0)
    with pytest.raises(ValueError, match="'done' is not a valid"):
        queue.update_status(job_id, "done")  # type: ignore[arg-type]
    assert queue.enqueue_many([]) == []
    assert queue.counts()[DeriveJobStatus.PENDING] == 1


def test_a_queue_opens_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SqlQueueStore()` is the queue of the folder `runs/`, and another process finds its jobs."""
    monkeypatch.chdir(tmp_path)
    with SqlQueueStore() as queue:
        job_id = queue.enqueue(manifest())
    with SqlQueueStore("runs") as again:
        assert again.get(job_id).status == "pending"
    again.close()  # a second time, without effect
    assert (tmp_path / "runs" / "storage.sqlite").exists()


WORKER = """
import json, sys
from sqlalchemy import make_url
from rlm_integrations.storage.database_errors import Target
from rlm_integrations.storage.job import DeriveJobStatus
from rlm_integrations.storage.queue import SqlQueueStore
from rlm_integrations.storage.shared_database import open_database
shared = open_database(Target(make_url(sys.argv[1])))
queue = SqlQueueStore(shared, worker=sys.argv[2])
done = 0
print("ready", flush=True)
sys.stdin.readline()
while jobs := queue.dequeue_many(int(sys.argv[3]), lease_seconds=600):
    for job in jobs:
        print(json.dumps(job.job_id), flush=True)
        queue.update_status(job.job_id, DeriveJobStatus.COMPLETED)
        done += 1
        if done == int(sys.argv[4]):
            print("done", flush=True)
            sys.stdin.read()
shared.release()
"""


@pytest.fixture
def database(url: str) -> Iterator[tuple[str, SharedDatabase]]:
    shared = open_database(Target(make_url(url)))
    yield url, shared
    shared.release()


def test_no_job_is_lost_or_done_twice(database: tuple[str, SharedDatabase]) -> None:
    """Three processes that take jobs at once, one by one and by several, get each job exactly once."""
    url, shared = database
    queue = SqlQueueStore(shared)
    ids = queue.enqueue_many([manifest() for _ in range(100)])
    workers = [
        Forked("-c", WORKER, url, f"worker-{number}", str(1 + 3 * number), "0")
        for number in range(3)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    done = [json.loads(line) for worker in workers for line in worker.communicate()[0].split()]
    assert [worker.returncode for worker in workers] == [0] * 3
    assert Counter(done) == Counter(ids)
    assert queue.counts()[DeriveJobStatus.COMPLETED] == 100


def test_a_killed_workers_jobs_go_to_others(database: tuple[str, SharedDatabase]) -> None:
    """The jobs of a worker that is killed with -9 are taken by another once their lease ends, and
    those that it completed are not done again.
    """
    url, shared = database
    late = Clock()
    late.now = datetime.now(UTC) + timedelta(hours=1)
    queue = SqlQueueStore(shared, worker="heir", clock=late)
    ids = SqlQueueStore(shared).enqueue_many([manifest() for _ in range(30)])
    worker = Forked("-c", WORKER, url, "killed", "10", "13")
    worker.stdin.write("go\n")
    worker.stdin.flush()
    while worker.stdout.readline() != "done\n":
        pass
    worker.kill()
    worker.communicate()
    completed = {job.job_id for job in queue.list(DeriveJobStatus.COMPLETED)}
    taken = [job.job_id for job in queue.dequeue_many(100)]
    assert sorted([*taken, *completed]) == sorted(ids)
    assert len(completed) == 13
