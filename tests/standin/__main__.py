"""The process form: settings are a line of JSON on stdin, the address is printed to stdout, the end
of stdin stops it.
"""

import asyncio
import json
import sys

from tests.standin.server import StandIn
from tests.standin.settings import Settings


async def main() -> None:
    standin = StandIn(Settings.from_json(json.loads(sys.stdin.readline())))
    await standin.start()
    print(standin.base_url, flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: None if sys.stdin.buffer.read1(1) else ended.set())
    await ended.wait()
    loop.remove_reader(sys.stdin.fileno())
    await standin.stop()


asyncio.run(main())
