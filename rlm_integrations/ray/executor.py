"""The public class `RayExecutor`."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Self

import ray

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations._concurrency.pool import pool
from rlm_integrations._concurrency.portal import portal
from rlm_integrations.engine.front_types import Context
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import check_count
from rlm_integrations.jobs.worker import JobOutcome
from rlm_integrations.ray.batch import Outcome, RunBatch
from rlm_integrations.ray.cluster import Actors, connect
from rlm_integrations.ray.sandbox import RaySandbox
from rlm_integrations.ray.working import work_off
from rlm_integrations.storage import Manifest, Storage


class RayExecutor:
    """Actors in a Ray cluster that do the work of this library: whole runs, the REPLs of runs, and
    the jobs of a queue. Ray places them and starts them again; this class only shares out work.

    It uses the cluster that this process is connected to, or connects it. Every node needs the
    same version of this library, and the keys of the models in its environment.

    Args:
        address: The cluster, as in `ray.init`; by default the one that Ray finds.
        actors: The number of actors; by default one for each CPU of the cluster.
        runs_per_actor: How many runs of batches one actor makes at a time.
        max_restarts: How often a run or a REPL continues on another actor after its actor ended.
        actor_options: Ray's options for each actor, such as {"num_cpus": 2}.

    Raises:
        InputError: An argument is invalid.
        ClusterError: The cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        actors: int | None = None,
        runs_per_actor: int = 8,
        max_restarts: int = 2,
        actor_options: Mapping[str, Any] | None = None,
    ) -> None:
        for name, count in (("actors", actors), ("runs_per_actor", runs_per_actor)):
            if count is not None:
                check_count(name, count)
        check_count("max_restarts", max_restarts)
        connect(address)
        count = actors or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actors = Actors(count, actor_options or {})
        self._runs_per_actor = runs_per_actor
        self._max_restarts = max_restarts

    @property
    def sandbox(self) -> RaySandbox:
        """A sandbox whose REPLs, those of child runs included, are on the actors, as in
        `RLM(…, sandbox=executor.sandbox)`. Everything else of a run stays in this process: its
        budget, its model calls, its store, its tools and its journal.
        """
        return RaySandbox(self._actors, self._max_restarts)

    # Batches of runs.

    async def abatch(
        self,
        rlm: RLM[Any],
        questions: Iterable[tuple[str, Context]],
        *,
        run_ids: Iterable[str] | None = None,
    ) -> list[Outcome]:
        """The results of many runs, in the order of the questions. A run that raised leaves its
        error in its place, and the others continue.

        With `RLM(storage=…)`, a run whose actor ended is resumed on another one. Without, it leaves
        a `ClusterError`.

        Args:
            rlm: Its options. Each run has a budget of its own. Its events reach `on_event`.
            questions: Questions with their contexts. A context that several share is sent once.
            run_ids: The ids of the runs; see `RLM.acompletion`.

        Raises:
            InputError: An argument is invalid, or the RLM cannot be sent.
        """
        async with aclosing(self.abatch_iter(rlm, questions, run_ids=run_ids)) as arriving:
            outcomes = {number: outcome async for number, outcome in arriving}
        return [outcomes[number] for number in range(len(outcomes))]

    def batch(
        self,
        rlm: RLM[Any],
        questions: Iterable[tuple[str, Context]],
        *,
        run_ids: Iterable[str] | None = None,
    ) -> list[Outcome]:
        """The results of many runs, for scripts, threads and notebooks; see `abatch`."""
        return portal().run(self.abatch(rlm, questions, run_ids=run_ids))

    async def abatch_iter(
        self,
        rlm: RLM[Any],
        questions: Iterable[tuple[str, Context]],
        *,
        run_ids: Iterable[str] | None = None,
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """The number of each question and its result, as they complete; otherwise like `abatch`.
        Closing the iterator early cancels the runs, and waits for that.
        """
        batch = RunBatch(self._actors, self._max_restarts, rlm, questions, run_ids)
        count = len(self._actors) * self._runs_per_actor
        arriving: asyncio.Queue[tuple[int, Outcome] | None] = asyncio.Queue()

        async def one(number: int, item: tuple[str, Context, str]) -> None:
            arriving.put_nowait((number, await batch.answer(*item)))

        working = asyncio.ensure_future(pool(batch.items, one, min(count, len(batch.items))))
        working.add_done_callback(lambda _: arriving.put_nowait(None))
        try:
            while (arrived := await arriving.get()) is not None:
                yield arrived
            await working
        finally:
            working.cancel()
            await wait_until_done(working)

    def batch_iter(
        self,
        rlm: RLM[Any],
        questions: Iterable[tuple[str, Context]],
        *,
        run_ids: Iterable[str] | None = None,
    ) -> Iterator[tuple[int, Outcome]]:
        """The number of each question and its result, as they complete, for scripts, threads and
        notebooks; see `abatch_iter`.
        """
        return portal().iterate(self.abatch_iter(rlm, questions, run_ids=run_ids))

    # Workers.

    async def awork(
        self,
        storage: Storage,
        rlm: RLM[Any] | Callable[[Manifest], RLM[Any]] | None = None,
        *,
        until_empty: bool = False,
        **options: Any,
    ) -> Mapping[JobOutcome, int]:
        """Work off the queue of a storage with a `jobs.Worker` on every actor, until this is
        cancelled; how many jobs ended in which way.

        If an actor ends, its worker starts again on another one, and the counts of the ended one
        are lost; its jobs are resumed by the others, and no stored call is made again.

        Args:
            storage: The storage. If the actors are on several machines, it must be on a server.
            rlm: As for `Worker`.
            until_empty: Whether to end when no job is waiting or running, anywhere.
            options: Those of `Worker` that can be sent: `parallel`, `task_types`, `lease_seconds`
                and `grace_seconds`.

        Raises:
            InputError: An argument is invalid, or cannot be sent.
            StorageError: The storage cannot be used.
        """
        return await work_off(self._actors, storage, rlm, options, until_empty=until_empty)

    def work(
        self,
        storage: Storage,
        rlm: RLM[Any] | Callable[[Manifest], RLM[Any]] | None = None,
        *,
        until_empty: bool = False,
        **options: Any,
    ) -> Mapping[JobOutcome, int]:
        """Work off the queue of a storage, for scripts, threads and notebooks; see `awork`."""
        return portal().run(self.awork(storage, rlm, until_empty=until_empty, **options))

    def close(self) -> None:
        """End the actors and what they do. The process stays connected to the cluster."""
        self._actors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
