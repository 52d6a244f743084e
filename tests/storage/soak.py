"""`make soak`: a run of 200 calls whose process is killed at twenty random moments, on SQLite and on
PostgreSQL; each time it is resumed, and no finished call is asked again. Then runs whose sandboxes
and whose database are killed at random moments.
"""

import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests._forked import starter
from tests.standin import serve_in_thread
from tests.storage import _runs
from tests.storage._postgres import Server, own_server
from tests.storage._runs import runs_of
from tests.storage.conftest import new_database
from tests.storage.test_outages import kill_code, kill_fork_server, outlived
from tests.storage.test_resume import killed_and_resumed

KILLS = 20
ROUNDS = 10


def main() -> None:
    """Kill and resume on both databases; the seed is the argument, or a random one."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10**6)
    random.seed(seed)
    print(f"seed {seed}")
    with starter(), own_server() as server, tempfile.TemporaryDirectory() as folder:
        urls = {
            "sqlite": f"sqlite:///{folder}/storage.sqlite",
            "postgresql": new_database(server.url()),
        }
        for name, url in urls.items():
            moments = sorted(random.randrange(1, 230) for _ in range(KILLS))
            with serve_in_thread(
                scripts={"stand-in": _runs.script_of}, latency=0.02, keep_requests=True
            ) as provider:
                killed_and_resumed(url, Path(folder) / name, provider, moments)
            print(f"{name}: killed after {moments} calls, and the same result in the end")
            asyncio.run(outlive(url, Path(folder) / f"{name} of parts", server))
            print(f"{name}: {ROUNDS} runs outlived the ends of their sandboxes and databases")


async def outlive(url: str, folder: Path, server: Server) -> None:
    """Runs in which processes are killed that they need, one in each of two batches."""

    def crash() -> None:
        server.stop("immediate")
        server.start()

    runs = runs_of(url, folder)
    for _ in range(ROUNDS):
        kinds = random.choices([kill_code, kill_fork_server, crash], k=2)
        disturbances = [(random.randrange(1, 28), kind) for kind in kinds]
        await outlived(runs, disturbances, random.randrange(1, 40))
    runs.close()


if __name__ == "__main__":
    main()
