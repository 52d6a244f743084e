"""Questions as jobs: submitted, answered by workers, handed back, retried and failed."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from rlm_integrations import RLM, Budget, InputError, Limits, OpenAILM, Prompt, Retry
from rlm_integrations.jobs import JobEvent, Worker, asubmit, submit
from rlm_integrations.jobs import worker as worker_module
from rlm_integrations.jobs.models import ModelsByName, models_of
from rlm_integrations.storage import DeriveJobStatus, Manifest, Storage, owner
from tests.standin import Fault, StandIn, serve_in_thread

QUESTION = "What is the code?"
DOCUMENT = "Nothing here.\n" * 3_000 + "The code is 48213.\n" + "Nothing there.\n" * 3_000


def block(*lines: str) -> str:
    return "\n".join(["```repl", *lines, "```"])


SCRIPT = [
    block("replies = llm_batch([f'prompt {n}' for n in range(20)], max_concurrent=4)"),
    block("FINAL('48213', evidence=[cite('The code is 48213.')])"),
]


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A server whose root model asks twenty prompts, then answers."""
    with serve_in_thread(scripts={"root": SCRIPT}, latency=0.02, keep_requests=True) as standin:
        yield standin


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage(tmp_path / "runs") as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt comes at once."""
    monkeypatch.setattr(worker_module, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(worker_module, "_BUSY_SECONDS", 0.0)


def rlm_of(provider: StandIn, storage: Storage | None, **options: Any) -> RLM[Any]:
    lm = OpenAILM("root", base_url=provider.base_url, api_key="none")
    return RLM(lm, storage=storage, **{"limits": Limits(single_call_below=1), **options})


def asked(provider: StandIn) -> list[str]:
    """The prompts of code, in order."""
    prompts = [kept.body["messages"][-1]["content"] for kept in provider.requests()]
    return [each for each in prompts if each.startswith("prompt ")]


def test_a_submitted_question_is_answered(url: str, provider: StandIn, tmp_path: Path) -> None:
    """The answer and its citations are an artifact with its manifest, where the storage has a place
    for files; the run has the job's id; nothing but the names of models is needed.
    """
    lake = tmp_path / "lake" if url.startswith("sqlite") else None
    with Storage(url, lake=lake) as storage:
        words = {"instructions": "Be brief.", "prompt": Prompt(question="<$question>\n$context")}
        rlm = rlm_of(provider, storage, max_iterations=7, **words)
        job_id = submit(rlm, QUESTION, DOCUMENT, priority=3)
        waiting = storage.queue.get(job_id)
        assert (waiting.status, waiting.priority) == ("pending", 3)
        assert (waiting.manifest.llm_model, waiting.manifest.llm_provider) == ("root", "openai")
        assert len(waiting.manifest.prompts_sha256) == 64
        assert provider.calls() == []
        models = ModelsByName(provider.base_url)
        worker = Worker(storage, lambda each: models.rlm(models_of(each), each.options))
        assert worker.run(until_empty=True) == {"completed": 1}
        job = storage.queue.get(job_id)
        assert (job.status, job.run_id) == ("completed", job_id)
        result = storage.run(job_id)
        assert (result.answer, result.options["max_iterations"]) == ("48213", 7)
        system, question = provider.requests()[0].body["messages"]
        assert system["content"].endswith("Be brief.\n")
        assert question["content"].startswith(f"<{QUESTION}>")
        if lake is None:
            assert job.artifact_path is None
            return
        data = storage.artifacts.read_artifact(str(job.artifact_path))
        assert (data["job_id"], data["answer"], data["stop_reason"]) == (job_id, "48213", "final")
        (citation,) = data["citations"]
        assert DOCUMENT[citation["start"] : citation["end"]] == citation["quote"]
        assert storage.artifacts.read_manifest(job.manifest.manifest_id) == job.manifest


def lookup(number: int) -> str:
    """A tool."""
    return f"looked up {number}"


async def test_an_rlm_gives_what_names_do_not_bring_back(storage: Storage) -> None:
    """A worker with an RLM does jobs for its models, with its tools and its type of answers."""
    script = [block("FINAL(len(lookup(7)))")]
    with serve_in_thread(scripts={"root": script}) as provider:
        rlm = rlm_of(provider, storage, tools=[lookup], output_type=int)
        job_id = await asubmit(rlm, QUESTION, DOCUMENT, task_type="lengths")
        assert await Worker(storage, rlm, task_types=["lengths"]).arun(until_empty=True) == {
            "completed": 1
        }
    (artifact,) = storage.artifacts.list_artifacts("lengths")
    assert storage.artifacts.read_artifact(artifact.path)["answer"] == 11
    assert storage.queue.get(job_id).artifact_path == str(artifact.path)


def test_a_job_has_one_artifact(
    storage: Storage, provider: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its worker ends after it has written the artifact and before it has completed the job, the
    next one asks nothing and writes the same artifact.
    """
    rlm, queue = rlm_of(provider, storage), storage.queue
    job_id = submit(rlm, QUESTION, DOCUMENT)
    update_status, lost = queue.update_status, list[str]()

    def ends(job_id: str, *given: Any, **known: Any) -> None:
        if lost:
            return update_status(job_id, *given, **known)
        lost.append(job_id)
        return queue.release(job_id)  # as if its lease had ended

    monkeypatch.setattr(queue, "update_status", ends)
    assert Worker(storage, rlm).run(until_empty=True) == {"completed": 2}
    (artifact,) = storage.artifacts.list_artifacts()
    assert queue.get(job_id).artifact_path == str(artifact.path)
    assert len(provider.calls()) == 22


def test_a_job_that_cannot_be_done_fails_alone(storage: Storage, provider: StandIn) -> None:
    """An unknown task, another model, an invalid option, a missing document and a damaged manifest
    each fail with an error that says why, and ask nothing; the worker goes on.
    """
    rlm, queue = rlm_of(provider, storage), storage.queue
    good = submit(rlm, QUESTION, DOCUMENT)
    fine = queue.get(good).manifest

    def job(**fields: Any) -> str:
        return queue.enqueue(Manifest(**{**dict(fine), "manifest_id": str(uuid4()), **fields}), 1)

    wrong = {
        job(task_type="other"): "its task_type is 'other', and this worker knows 'answer'",
        job(llm_model="gone"): "it is for the model 'gone' with {'root': 'root'}, and this worker",
        job(options={"max_iterations": 0}): "max_iterations must be",
        job(options={"limits": {"no_such": 1}}): "limits has an unknown field 'no_such'",
        job(options={"later": 1}): "it has the option 'later', which this version does not have",
        job(document="0" * 64): f"blob {'0' * 64} is not in the storage",
        job(document=None): "its manifest has no document",
        (damaged := job()): f"the manifest of job {damaged} is not a manifest: document",
    }
    table = storage._shared.database.schema.manifests
    stored = UUID(queue.get(damaged).manifest.manifest_id)
    change = update(table).where(table.c.manifest_id == stored)
    storage._shared.writer.submit(
        lambda each: (
            each.execute(
                change.values(manifest='{"task_type": "answer", "document": "../x"}')
            ).rowcount
        )
    ).result()
    worker = Worker(
        storage, rlm, parallel=1
    )  # a document that is missing may come back: 3 attempts
    assert worker.run(until_empty=True) == {"completed": 1, "failed": len(wrong) - 1, "released": 2}
    table_of_jobs = storage._shared.database.schema.jobs
    errors = storage._shared.database.read(
        lambda each: {
            str(row.job_id): row.error
            for row in each.execute(
                select(table_of_jobs).where(table_of_jobs.c.status == DeriveJobStatus.FAILED)
            )
        }
    )
    assert errors.keys() == wrong.keys()
    assert [errors[job_id] for job_id, why in wrong.items() if why not in errors[job_id]] == []
    assert len(provider.calls()) == 22
    assert queue.get(good).status == "completed"


def test_what_cannot_be_a_job_is_refused(
    storage: Storage, provider: StandIn, tmp_path: Path
) -> None:
    """What is wrong is said when a question is submitted, and nothing is kept."""
    rlm = rlm_of(provider, storage)
    long_name = OpenAILM("x" * 101, base_url=provider.base_url, api_key="none")
    with Storage(tmp_path / "other", keep_documents=False) as keeps_none:
        for refused, words, options, message in [
            (rlm.replace(storage=None), QUESTION, {}, "a job needs a storage"),
            (rlm.replace(storage=keeps_none), QUESTION, {}, "Storage.keep_documents=True"),
            (rlm, " ", {}, "the question must be a string that is not empty"),
            (rlm, QUESTION, {"task_type": "a/b"}, "task_type must be"),
            (rlm, QUESTION, {"priority": "high"}, "priority must be an integer"),
            (rlm, QUESTION, {"max_attempts": 0}, "max_attempts must be"),
            (rlm.replace(budget=Budget(max_cost=1.0)), QUESTION, {}, "no known price of 'root'"),
            (rlm.replace(root_llm=long_name), QUESTION, {}, "must have 1 to 100 characters"),
        ]:
            with pytest.raises(InputError, match=message):
                submit(refused, words, DOCUMENT, **options)
    for arguments, message in [
        ({"rlm": "gpt-5"}, "rlm must be an RLM or a function, not str"),
        ({"parallel": 0}, "parallel must be"),
        ({"task_types": "answer"}, "task_types must be a list"),
    ]:
        with pytest.raises(InputError, match=message):
            Worker(storage, **arguments)
    assert sum(storage.queue.counts().values()) == 0
    blobs = storage._shared.database.schema.blobs
    assert storage._shared.database.read(lambda each: each.execute(select(blobs)).all()) == []


async def test_a_run_that_another_process_has_is_waited_for(
    storage: Storage, provider: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is handed back as often as needed, does not fail and loses no attempt; once the run is
    free, it is resumed.
    """
    rlm = rlm_of(provider, storage)
    job_id = await asubmit(rlm, QUESTION, DOCUMENT, max_attempts=1)
    with monkeypatch.context() as patched:
        patched.setattr(owner, "own_name", lambda: "another-boot pid:[1] 7 8")
        run = asyncio.ensure_future(rlm.acompletion(QUESTION, DOCUMENT, run_id=job_id))
        await until(lambda: len(asked(provider)) > 5)
    events: list[JobEvent] = []
    worker = Worker(storage, rlm, on_event=events.append)
    working = asyncio.ensure_future(worker.arun(until_empty=True))
    await until(lambda: len(events) > 5)
    run.cancel()
    await asyncio.wait([run])
    await working
    assert {each.kind for each in events[:-2]} == {"started", "released"}
    released = [str(each.error) for each in events if each.kind == "released"]
    assert "is being run by process 7 on another machine" in released[0]
    job = storage.queue.get(job_id)
    assert (job.status, job.attempts) == ("completed", 1)
    assert len(set(asked(provider))) == 20
    assert len(asked(provider)) <= 20 + 4


async def test_errors_that_may_pass_are_retried(storage: Storage) -> None:
    """A provider that is down costs an attempt each time, and the job fails after its last one; an
    error that cannot pass fails it at once.
    """
    with serve_in_thread(scripts={"root": SCRIPT}) as provider:
        rlm = rlm_of(provider, storage, retry=Retry(failures=0, refusals=0, replies=0))
        worker = Worker(storage, rlm)
        provider.change(faults=[Fault("server", times=1)])
        passing = await asubmit(rlm, QUESTION, DOCUMENT)
        await worker.arun(until_empty=True)
        job = storage.queue.get(passing)
        assert (job.status, job.attempts, job.error) == ("completed", 2, None)
        assert worker.counts == {"released": 1, "completed": 1}
        provider.change(faults=[Fault("server")])
        lasting = await asubmit(rlm, QUESTION, DOCUMENT, max_attempts=2)
        await worker.arun(until_empty=True)
        job = storage.queue.get(lasting)
        assert (job.status, job.attempts) == ("failed", 2)
        assert "500" in str(job.error)
        provider.change(faults=[Fault("auth")])
        refused = await asubmit(rlm, QUESTION, DOCUMENT)
        await worker.arun(until_empty=True)
        job = storage.queue.get(refused)
        assert (job.status, job.attempts, job.run_id) == ("failed", 1, refused)
        assert "401" in str(job.error)
        provider.change(faults=[])
        storage.queue.retry(lasting)
        await worker.arun(until_empty=True)
        assert storage.queue.get(lasting).status == "completed"


async def test_a_cancelled_job_ends_its_run(storage: Storage, provider: StandIn) -> None:
    """Its worker learns of it at the next heartbeat, and makes no further call."""
    provider.change(latency=0.3)
    rlm = rlm_of(provider, storage)
    job_id = await asubmit(rlm, QUESTION, DOCUMENT)
    worker = Worker(storage, rlm, lease_seconds=1.5)
    working = asyncio.ensure_future(worker.arun(until_empty=True))
    await until(lambda: len(asked(provider)) > 0)
    storage.queue.cancel(job_id)
    assert await working == {"lost": 1}
    assert storage.queue.get(job_id).status == "cancelled"
    assert len(asked(provider)) < 20
    assert [each.status for each in storage.runs()] == ["cancelled"]


async def test_a_stopped_worker_finishes_or_hands_back(storage: Storage, provider: StandIn) -> None:
    """The first `stop` lets running jobs end and takes no other; the second one, and the end of the
    grace, hand them back without losing an attempt; the next worker pays for no call twice.
    """
    rlm = rlm_of(provider, storage)
    ids = [await asubmit(rlm, f"{QUESTION} {number}", DOCUMENT) for number in range(2)]
    for grace, second in [(250.0, True), (0.05, False)]:
        provider.change(latency=0.2)
        worker = Worker(storage, rlm, parallel=1, grace_seconds=grace)
        before = len(asked(provider))
        working = asyncio.ensure_future(worker.arun())
        await until(lambda before=before: len(asked(provider)) > before + 4)
        worker.stop()
        if second:
            worker.stop()
        assert await working == {"released": 1}
        assert [storage.queue.get(each).attempts for each in ids] == [0, 0]
    provider.change(latency=0.0)
    worker = Worker(storage, rlm, parallel=1)
    before = len(asked(provider))
    working = asyncio.ensure_future(worker.arun())
    await until(lambda: len(asked(provider)) > before)
    worker.stop()
    assert await working == {"completed": 1}
    assert [storage.queue.get(each).status for each in ids] == ["completed", "pending"]
    assert len(set(asked(provider))) == 20
    assert len(asked(provider)) <= 20 + 2 * 4


async def test_a_cancelled_worker_hands_back(storage: Storage, provider: StandIn) -> None:
    """Cancelling `arun` leaves no job with this worker, and no run."""
    provider.change(latency=0.2)
    rlm = rlm_of(provider, storage)
    ids = [await asubmit(rlm, QUESTION, DOCUMENT) for _ in range(3)]
    working = asyncio.ensure_future(Worker(storage, rlm).arun())
    await until(lambda: len(asked(provider)) > 5)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert [storage.queue.get(each).status for each in ids] == ["pending"] * 3
    assert not any(each.is_owned for each in storage.runs())


async def until(condition: Callable[[], bool], seconds: float = 250) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
