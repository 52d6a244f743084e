"""Workers of a queue on the actors of a cluster."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.pool import pool
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import RLMError
from rlm_integrations.jobs import Worker
from rlm_integrations.jobs.worker import JobOutcome
from rlm_integrations.ray.actor import WorkTask
from rlm_integrations.ray.batch import pickled_for_actors, sendable
from rlm_integrations.ray.cluster import ACTOR_ENDED, Actors
from rlm_integrations.storage import Manifest, Storage


async def work_off(
    actors: Actors,
    storage: Storage,
    rlm: RLM[Any] | Callable[[Manifest], RLM[Any]] | None,
    options: Mapping[str, Any],
    *,
    until_empty: bool,
) -> Counter[JobOutcome]:
    """Work off a queue with a worker on every actor; see `RayExecutor.awork`."""
    Worker(storage, rlm, **options)  # refuses what is invalid
    maker = sendable(rlm) if isinstance(rlm, RLM) else rlm
    pickled = pickled_for_actors((storage, maker, dict(options)), storage)
    counts = Counter[JobOutcome]()

    async def one(_number: int, _: int) -> None:
        while (ended := await _work(actors, pickled, until_empty=until_empty)) is None:
            continue
        counts.update(ended)

    await pool(range(len(actors)), one, len(actors))
    return counts


async def _work(
    actors: Actors, pickled: bytes, *, until_empty: bool
) -> Mapping[JobOutcome, int] | None:
    """The counts of one worker, or None if its actor has ended."""
    actor, has_ended = await actors.take(), False
    task = WorkTask(key=secrets.token_hex(8), pickled=pickled, until_empty=until_empty)
    try:
        counts: Mapping[JobOutcome, int] | RLMError = await actor.work.remote(task)
    except asyncio.CancelledError:
        with suppress(*ACTOR_ENDED):
            await finish_despite_cancel(actor.stop.remote(task.key))
        raise
    except ACTOR_ENDED:
        has_ended = True  # or it only could not be reached, and works still
        actor.stop.options(max_task_retries=-1).remote(task.key)
        return None
    finally:
        actors.release(actor, has_ended=has_ended)
    if isinstance(counts, RLMError):
        raise counts
    return counts
