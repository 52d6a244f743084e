"""Works off the jobs of a storage: several at once, as one of any number of workers."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import acquire, finish_despite_cancel, wait_until_done
from rlm_integrations._concurrency.portal import portal
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import (
    DamagedDataError,
    InputError,
    ModelError,
    RLMError,
    RunBusyError,
    StorageError,
    StorageUnavailableError,
    check_count,
)
from rlm_integrations.jobs.models import ModelsByName, models_of, stored_options
from rlm_integrations.jobs.submitting import ANSWER
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import RESUMABLE
from rlm_integrations.storage import DeriveJobStatus, Job, Manifest, Storage
from rlm_integrations.storage.queue import LEASE_SECONDS

logger = logging.getLogger("rlm_integrations")

JobOutcome: TypeAlias = Literal["completed", "failed", "released", "lost"]
GRACE_SECONDS: Final = 20.0
_RETRY_SECONDS: Final = 10.0  # before the next attempt; twice as long before each further one
_BUSY_SECONDS: Final = 5.0  # before a run that another process has is tried again
# Types of `ModelError`: of those that are left, a key or a name is wrong
_PASSING: Final = frozenset(
    [
        "bad_response",
        "connection",
        "empty",
        "error",
        "overloaded",
        "rate_limit",
        "server",
        "timeout",
    ]
)
_FIRST_PAUSE: Final = 0.02  # between two looks at an empty queue
_LONGEST_PAUSE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """What happened to a job at a worker.

    Attributes:
        job: The job, as it was taken.
        kind: "started"; "completed"; "failed"; "released": handed back, to be taken again by this
            or another worker; "lost": cancelled, or its lease had ended.
        seconds: How long the worker had it.
        error: Why it failed, or was handed back.
    """

    job: Job
    kind: Literal["started", "completed", "failed", "released", "lost"]
    seconds: float = 0.0
    error: str | None = None


class Worker:
    """Takes jobs that `submit` has added, and answers them.

    Any number of workers, on any machines, work off one queue. The run of a job is recorded under
    the job's id: if its worker ends, another one resumes it, and pays for no call twice.

    Args:
        storage: The storage with the queue.
        rlm: Answers the jobs. An `RLM` gives its models, tools, output type and sandbox; the
            models must have the names that the job wants, and the other options are the job's. A
            function makes the RLM for a manifest. By default models are found by their names, as
            on the command line.
        parallel: How many jobs at once.
        task_types: The kinds of task that it does; others fail.
        lease_seconds: How long the jobs of a worker that is not heard of stay its own.
        grace_seconds: How long `stop` lets running jobs go on.
        on_event: Called with each event, on the event loop.

    Attributes:
        counts: How many jobs ended here in which way.
    """

    def __init__(
        self,
        storage: Storage,
        rlm: RLM[Any] | Callable[[Manifest], RLM[Any]] | None = None,
        *,
        parallel: int = 4,
        task_types: Collection[str] = (ANSWER,),
        lease_seconds: float = LEASE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        on_event: Callable[[JobEvent], None] | None = None,
    ) -> None:
        check_count("parallel", parallel, most=1_000)
        if not isinstance(storage, Storage):
            raise InputError(
                f"a worker needs a Storage, as in Storage('runs/'), not {type(storage).__name__}"
            )
        if isinstance(task_types, str):
            raise InputError(f"task_types must be a list, such as [{task_types!r}]")
        if rlm is not None and not callable(rlm) and not isinstance(rlm, RLM):
            raise InputError(f"rlm must be an RLM or a function, not {type(rlm).__name__}")
        self.counts: Counter[JobOutcome] = Counter()
        self._storage = storage
        self._queue = storage.queue
        self._rlm_for = _maker(rlm)
        self._parallel = parallel
        self._task_types = frozenset(task_types)
        self._lease_seconds = lease_seconds
        self._grace_seconds = grace_seconds
        self._on_event = on_event
        self._stops = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._jobs: dict[asyncio.Task[None], asyncio.Task[Any]] = {}

    def run(self, *, until_empty: bool = False) -> Mapping[JobOutcome, int]:
        """Work until `stop` is called, for scripts and threads; see `arun`."""
        return portal().run(self.arun(until_empty=until_empty))

    async def arun(self, *, until_empty: bool = False) -> Mapping[JobOutcome, int]:
        """Work until `stop` is called; the counts. If it is cancelled, running jobs are handed
        back.

        Args:
            until_empty: Whether to end when no job of the queue is waiting or running, anywhere.

        Raises:
            StorageError: The storage cannot be used. While it cannot be reached, the worker waits.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._take_jobs(until_empty=until_empty)
            await self._wait_for_jobs()
        finally:
            await finish_despite_cancel(self._hand_back())
            self._loop = None
        return self.counts

    def stop(self) -> None:
        """Take no further job. Running ones may finish for `grace_seconds`, then they are handed
        back; a second call hands them back at once. For signal handlers and any thread.
        """
        self._stops += 1
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._wake.set)

    async def _take_jobs(self, *, until_empty: bool) -> None:
        pause = _FIRST_PAUSE
        while not self._stops:
            self._wake.clear()
            free = self._parallel - len(self._jobs)
            jobs = await acquire(self._take(free), self._release_all) if free else ()
            for job in jobs:
                self._start(job)
            if len(jobs) == free:  # there may be more, but there is no room for them
                await self._wake_up(None)
                continue
            if until_empty and not self._jobs and await self._is_empty():
                return
            pause = _FIRST_PAUSE if jobs else min(2 * pause, _LONGEST_PAUSE)
            await self._wake_up(pause * random.uniform(0.75, 1.25))  # noqa: S311 - spreads load

    async def _take(self, count: int) -> Sequence[Job]:
        try:
            return await in_thread(
                self._queue.dequeue_many, count, lease_seconds=self._lease_seconds
            )
        except StorageUnavailableError as error:
            logger.warning("no job can be taken: %s", error)
            return ()

    async def _is_empty(self) -> bool:
        counts = await in_thread(self._queue.counts)
        return not any(number for status, number in counts.items() if not status.is_final)

    async def _wake_up(self, seconds: float | None) -> None:
        """Wait until a job has ended, the worker is stopped, or so many seconds are over."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _wait_for_jobs(self) -> None:
        """Let running jobs finish, for as long as they may."""
        try:
            async with asyncio.timeout(self._grace_seconds):
                while self._jobs and self._stops < 2:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return

    async def _hand_back(self) -> None:
        for run in self._jobs.values():
            run.cancel()
        await wait_until_done(*self._jobs)

    async def _release_all(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            await in_thread(self._queue.release, job.job_id)

    def _start(self, job: Job) -> None:
        run = asyncio.ensure_future(self._derive(job))
        work = asyncio.ensure_future(self._work(job, run))
        self._jobs[work] = run

        def ended(done: asyncio.Task[None]) -> None:
            del self._jobs[done]
            self._wake.set()
            if error := done.exception():
                logger.error("job %s is lost", job.job_id, exc_info=error)

        work.add_done_callback(ended)

    async def _work(self, job: Job, run: "asyncio.Task[RLMResult[Any]]") -> None:
        """Keep a job until its run has ended, and write how it ended."""
        begun = time.monotonic()
        self._emit(JobEvent(job=job, kind="started"))
        lease = asyncio.ensure_future(self._keep_lease(job, run))
        await wait_until_done(run)
        is_ours = not lease.done()
        lease.cancel()
        try:
            kind, error = await self._settle(job, run) if is_ours else ("lost", None)
        except RLMError as failure:  # it is lost, or will be when its lease ends
            kind, error = "lost", str(failure)
        self.counts[kind] += 1
        seconds = time.monotonic() - begun
        self._emit(JobEvent(job=job, kind=kind, seconds=seconds, error=error))

    async def _keep_lease(self, job: Job, run: "asyncio.Task[Any]") -> None:
        """Renew the lease; when the job is no longer this worker's, end its run and return."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                is_ours = await in_thread(
                    self._queue.heartbeat, job.job_id, lease_seconds=self._lease_seconds
                )
            except StorageError as error:  # it may be reached before the lease ends
                logger.warning("the lease of job %s was not renewed: %s", job.job_id, error)
                continue
            if not is_ours:
                run.cancel()
                return

    async def _derive(self, job: Job) -> RLMResult[Any]:
        """The result of the job's run, which begins or goes on."""
        manifest = job.manifest
        if manifest.task_type not in self._task_types:
            known = ", ".join(map(repr, sorted(self._task_types)))
            raise InputError(
                f"its task_type is {manifest.task_type!r}, and this worker knows {known}"
            )
        if manifest.document is None:
            raise InputError("its manifest has no document: add jobs with jobs.submit")
        rlm = self._rlm_for(manifest).replace(
            storage=self._storage, cache=manifest.options.get("cache") is True
        )
        corpus = await self._storage.read_document(manifest.document)
        try:
            return await rlm.acompletion(manifest.question, corpus, run_id=job.job_id)
        finally:
            await finish_despite_cancel(runtime.close_apart(corpus.close))

    async def _settle(
        self, job: Job, run: "asyncio.Task[RLMResult[Any]]"
    ) -> tuple[JobOutcome, str | None]:
        """Write how the job ended; with the reason, if it did not complete."""
        if run.cancelled():
            await in_thread(self._queue.release, job.job_id)
            return "released", None
        failure = run.exception()
        if isinstance(failure, RunBusyError):
            await self._release(job, _BUSY_SECONDS, None)
            return "released", str(failure)
        if failure is None:
            result = run.result()
            if result.stop_reason not in RESUMABLE:
                return await self._complete(job, result)
            error, may_pass = f"{result.stop_reason}: {result.error}", True
        else:
            error, may_pass = f"{type(failure).__name__}: {failure}", _may_pass(failure)
        return await self._fail(job, error, may_pass=may_pass)

    async def _complete(self, job: Job, result: RLMResult[Any]) -> tuple[JobOutcome, str | None]:
        try:
            path = await in_thread(self._write_artifact, job, result)
        except RLMError as failure:
            return await self._fail(job, str(failure), may_pass=True)
        await in_thread(
            self._queue.update_status,
            job.job_id,
            DeriveJobStatus.COMPLETED,
            artifact_path=path,
            run_id=job.job_id,
        )
        return "completed", None

    async def _fail(self, job: Job, error: str, *, may_pass: bool) -> tuple[JobOutcome, str]:
        """Have the job wait for its next attempt, or fail."""
        if may_pass and job.attempts < job.max_attempts:
            await self._release(job, _RETRY_SECONDS * 2 ** (job.attempts - 1), error)
            return "released", error
        await in_thread(
            self._queue.update_status,
            job.job_id,
            DeriveJobStatus.FAILED,
            error=error,
            run_id=job.job_id,
        )
        return "failed", error

    async def _release(self, job: Job, delay: float, error: str | None) -> None:
        await in_thread(self._queue.release, job.job_id, delay_seconds=delay, error=error)

    def _write_artifact(self, job: Job, result: RLMResult[Any]) -> Any:
        """Write the answer and its manifest; the path, or None without a place for it. Blocks.

        The time in its name is that of the run's end: if the worker is killed before the job is
        completed, the next one writes the same artifact.
        """
        if not self._storage.has_artifacts:
            return None
        manifest, artifacts = job.manifest, self._storage.artifacts
        artifacts.write_manifest(manifest)
        return artifacts.write_artifact(
            manifest.manifest_id,
            manifest.task_type,
            {
                "job_id": job.job_id,
                "question": manifest.question,
                "answer": result.answer,
                "partial": result.partial,
                "citations": result.citations,
                "stop_reason": result.stop_reason,
            },
            at=self._storage.info(job.job_id).updated,
        )

    def _emit(self, event: JobEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            logger.exception("on_event of the worker failed")


def _may_pass(error: BaseException) -> bool:
    """Whether a further attempt may succeed."""
    if isinstance(error, ModelError):
        return error.type in _PASSING
    return isinstance(error, StorageError) and not isinstance(error, DamagedDataError)


def _maker(rlm: RLM[Any] | Callable[[Manifest], RLM[Any]] | None) -> Callable[[Manifest], RLM[Any]]:
    """What makes the RLM of a manifest."""
    if isinstance(rlm, RLM):
        return lambda manifest: _with_options(rlm, manifest)
    if rlm is not None:
        return rlm
    models = ModelsByName()
    return lambda manifest: models.rlm(models_of(manifest), manifest.options)


def _with_options(rlm: RLM[Any], manifest: Manifest) -> RLM[Any]:
    """The RLM with the options of a job that is for its models.

    Raises:
        InputError: The job is for other models.
    """
    own = [rlm.options["root_llm"].name, {k: lm.name for k, lm in rlm.options["sub_llm"].items()}]
    if own != [manifest.llm_model, manifest.sub_models]:
        raise InputError(
            f"it is for the model {manifest.llm_model!r} with {manifest.sub_models}, and this "
            f"worker has {own[0]!r} with {own[1]}"
        )
    return rlm.replace(**stored_options(manifest.options))
