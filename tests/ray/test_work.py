"""Workers on actors."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray has an environment of its own: `make test-ray`")

from rlm_integrations import InputError
from rlm_integrations.jobs import asubmit
from rlm_integrations.ray import RayExecutor
from rlm_integrations.storage import Storage
from tests.engine.conftest import soon
from tests.ray.conftest import kill_an_actor, sandboxes
from tests.ray.test_batch import until
from tests.standin import StandIn
from tests.storage._runs import CALL, DOCUMENT, QUESTION, facts, rlm_of


async def test_the_jobs_of_a_killed_actor_are_resumed(
    executor: RayExecutor, storage: Storage, provider: StandIn, local: Any
) -> None:
    """Workers on actors answer the jobs of a queue as a local run does. When an actor is killed
    with -9, its jobs are resumed, and no call whose answer was stored is made again.
    """
    rlm = rlm_of(provider.base_url, storage)
    job = await asubmit(rlm, QUESTION, DOCUMENT)
    working = asyncio.ensure_future(executor.awork(storage, rlm, until_empty=True))
    await until(lambda: len(provider.calls()) >= 100)
    kill_an_actor()
    stored = {record.call_id for record in storage._log.load(job)}
    asked = len(provider.requests())
    assert await working == {"completed": 1}
    assert facts(storage.run(job)) == local
    assert storage.queue.get(job).status == "completed"
    assert len(stored) > 60
    assert not stored & {request.headers[CALL] for request in provider.requests()[asked:]}


async def test_cancelled_workers_hand_their_jobs_back(
    executor: RayExecutor, storage: Storage, provider: StandIn
) -> None:
    """When cancelled work has ended, the actors have handed back their jobs and have no REPL."""
    rlm = rlm_of(provider.base_url, storage)
    job = await asubmit(rlm, QUESTION, DOCUMENT)
    working = asyncio.ensure_future(executor.awork(storage, rlm))
    await until(lambda: len(provider.calls()) >= 40)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert storage.queue.get(job).status == "pending"
    assert soon(lambda: not sandboxes())
    with pytest.raises(InputError, match="parallel must be"):
        await executor.awork(storage, rlm, parallel=0)
