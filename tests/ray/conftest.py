"""A Ray cluster of two nodes on this machine, for all tests here, and storages."""

import gc
import importlib.util
import os
import secrets
import signal
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.storage import Storage
from tests.standin import StandIn, serve_in_thread
from tests.storage import _runs
from tests.storage._postgres import server

__all__ = ["server"]  # a fixture

if importlib.util.find_spec("ray") is not None:
    # Ray reads its settings as it is imported. It listens on all interfaces, so it needs a token.
    os.environ.update(
        OPENAI_API_KEY="none",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(16),
        RAY_USAGE_STATS_ENABLED="0",
    )


NODE = {"num_cpus": 2, "object_store_memory": 100_000_000}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two nodes with loopback addresses of their own. A lost node is noticed within seconds."""
    import ray
    from ray.cluster_utils import Cluster

    head = {
        **NODE,
        "node_ip_address": "127.0.0.2",
        "include_dashboard": False,
        "_system_config": {
            "health_check_initial_delay_ms": 500,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 3,
        },
    }
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    try:
        cluster.add_node(**NODE, node_ip_address="127.0.0.3", resources={"spot": 2})
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        with warnings.catch_warnings():  # Ray does not wait for the processes that it kills
            warnings.simplefilter("ignore", ResourceWarning)
            del cluster
            gc.collect()


@pytest.fixture(scope="session")
def executor(cluster: Any) -> Iterator[Any]:
    """An executor with an actor on each node."""
    from rlm_integrations.ray import RayExecutor

    with RayExecutor(cluster.address, actors=2) as executor:
        yield executor


@pytest.fixture(scope="session")
def local() -> Any:
    """What a local run leaves."""
    with serve_in_thread(scripts={"stand-in": _runs.script_of}) as standin:
        rlm = _runs.rlm_of(standin.base_url, None)
        return _runs.facts(rlm.completion(_runs.QUESTION, _runs.DOCUMENT))


@pytest.fixture
def provider() -> Iterator[StandIn]:
    """A server that answers after a while, so that a run lasts long enough to be killed in it."""
    with serve_in_thread(
        scripts={"stand-in": _runs.script_of}, latency=0.02, keep_requests=True
    ) as standin:
        yield standin


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage(tmp_path / "runs") as storage:
        yield storage


def below(pid: int) -> list[int]:
    """The processes that any thread of this one has started."""
    with suppress(FileNotFoundError, ProcessLookupError):
        threads = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
        listed = [Path(f"/proc/{pid}/task/{each}/children") for each in threads]
        return [int(child) for each in listed for child in each.read_text().split()]
    return []


def is_actor(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ActorProcess")
    return False


def actors(root: int | None = None) -> list[int]:
    """The processes of actors of this process's cluster."""
    children = below(os.getpid() if root is None else root)
    return [pid for child in children for pid in ([child] if is_actor(child) else actors(child))]


def sandboxes(actor: int | None = None) -> list[int]:
    """The processes of REPLs on this actor, or on all."""
    servers = [server for each in ([actor] if actor else actors()) for server in below(each)]
    return [pid for server in servers for pid in below(server)]


def kill_an_actor() -> None:
    """End the process of an actor that has a REPL; Ray starts it again."""
    os.kill(next(actor for actor in actors() if sandboxes(actor)), signal.SIGKILL)
