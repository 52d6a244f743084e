"""`make soak`: a run of 200 calls whose process is killed at twenty random moments, on SQLite and on
PostgreSQL; each time it is resumed, and no finished call is asked again.
"""

import random
import sys
import tempfile
from pathlib import Path

from tests.standin import serve_in_thread
from tests.storage import _runs
from tests.storage._postgres import own_server
from tests.storage.conftest import new_database
from tests.storage.test_resume import killed_and_resumed

KILLS = 20


def main() -> None:
    """Kill and resume on both databases; the seed is the argument, or a random one."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10**6)
    random.seed(seed)
    print(f"seed {seed}")
    with own_server() as server, tempfile.TemporaryDirectory() as folder:
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


if __name__ == "__main__":
    main()
