"""The connection to a Ray cluster, and the actors there."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError

from rlm_integrations.errors import ClusterError, InputError
from rlm_integrations.ray.actor import ActorProcess
from rlm_integrations.run_setup import VERSION

# How a call of an actor fails if its process, or its node, has ended
ACTOR_ENDED = (RayActorError, ObjectLostError)
_CALLS = 10_000  # concurrent calls of one actor: its runs and REPLs are limited elsewhere


def check_started(error: BaseException | None) -> None:
    """Raise a `ClusterError` if an actor ended because it could not start."""
    if isinstance(error, RayActorError) and error.actor_init_failed:
        reason = str(error).rstrip().rpartition("\n")[2]
        raise ClusterError(f"the actors cannot start: {reason}") from error


def connect(address: str | None) -> None:
    """Connect this process to a cluster, unless it is connected.

    Raises:
        ClusterError: The cluster cannot be reached.
        InputError: The process is connected to another cluster.
    """
    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if address not in {None, "auto", connected}:
            raise InputError(
                f"this process is connected to the Ray cluster {connected!r}, not {address!r}: "
                "call ray.shutdown() first, or leave the address out"
            )
        return
    try:
        ray.init(address or "auto", log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise ClusterError(
            "no Ray cluster can be reached: start one (`ray start --head`, or `ray.init()` in this "
            "program), and name it as in RayExecutor('10.0.0.5:6379')"
        ) from error


class Actors:
    """The actors of an executor. Ray places them, and starts them again if they end.

    Args:
        count: How many there are.
        options: Ray's options for each, such as {"num_cpus": 2}.
    """

    def __init__(self, count: int, options: Mapping[str, Any]) -> None:
        remote = ray.remote(ActorProcess).options(
            **{
                "num_cpus": 1,
                "scheduling_strategy": "SPREAD",
                "max_restarts": -1,
                "max_concurrency": _CALLS,
                **options,
            }
        )
        self._actors = [remote.remote(VERSION) for _ in range(count)]
        self._load = [0] * count
        self._ended = set[int]()  # actors that do not start again, by number
        # Actors that are not known to be running, by number, each with what ends when it is
        self._starting = {number: self._when_ready(number) for number in range(count)}

    def __len__(self) -> int:
        return len(self._actors)

    async def take(self) -> Any:
        """The running actor that has the least to do; give it back with `release`.

        Raises:
            ClusterError: The actors cannot start, or were ended.
        """
        while True:
            actor = self._actors[min(await self._running(), key=self._load.__getitem__)]
            self._load[self._actors.index(actor)] += 1
            try:
                await actor.ready.remote()
            except ACTOR_ENDED:  # while it had nothing to do
                self.release(actor, has_ended=True)
            except BaseException:
                self.release(actor)
                raise
            else:
                return actor

    def release(self, actor: Any, *, has_ended: bool = False) -> None:
        """Give an actor back. One that has ended gets no work until it is running again."""
        number = self._actors.index(actor)
        self._load[number] -= 1
        if has_ended:
            self._starting[number] = self._when_ready(number)

    async def _running(self) -> list[int]:
        while True:
            for number, ready in list(self._starting.items()):
                if ready.done():
                    self._starting.pop(number, None)
                    if (error := ready.exception()) is not None:
                        self._ended.add(number)
                        check_started(error)
            not_running = self._ended.union(self._starting)
            if running := [number for number in range(len(self)) if number not in not_running]:
                return running
            if not self._starting:
                raise ClusterError("the actors have ended: the executor was closed")
            waiting = map(asyncio.wrap_future, self._starting.values())
            await asyncio.wait(list(waiting), return_when=asyncio.FIRST_COMPLETED)

    def _when_ready(self, number: int) -> Future[None]:
        ready = self._actors[number].ready.options(max_task_retries=-1).remote()
        waiting: Future[None] = ready.future()
        return waiting

    def close(self) -> None:
        """End the actors, and what they do."""
        for actor in self._actors:
            ray.kill(actor)
