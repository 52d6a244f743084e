"""OpenAILM alone, compared with the plain SDK over aiohttp: 50 ms latency, a server in its own
process, medians of five runs in turn.

For the openai major of the interpreter that runs it: `.venv-openai3/bin/python -m tests.bench
client`.
"""

import openai

from tests.bench._peers import interleaved, median_cpu, median_cpu_ratio, median_wall, ours, sdk
from tests.bench.table import Row
from tests.standin import serve_in_process

LATENCY = 0.05
WALLS = {10: 200, 50: 1000}  # calls in flight: prompts


async def run() -> list[Row]:
    """CPU compared with the SDK; and wall time over the ideal, with the goals of the batch, which
    uses this.
    """
    version = f"openai {openai.__version__}"
    with serve_in_process(latency=LATENCY) as server:
        both = await interleaved({"ours": ours, "sdk": sdk}, server.base_url, 1000, 100, LATENCY)
        rows = [
            Row(
                f"CPU per call over the plain SDK's, c=100, {version}",
                median_cpu_ratio(both["ours"], both["sdk"]),
                0.3,
                "x",
            ),
            Row("CPU per call, OpenAILM", median_cpu(both["ours"]), None, "ms"),
            Row("CPU per call, plain SDK over aiohttp", median_cpu(both["sdk"]), None, "ms"),
        ]
        for concurrency, count in WALLS.items():
            runs = await interleaved({"ours": ours}, server.base_url, count, concurrency, LATENCY)
            rows.append(
                Row(
                    f"wall over ideal, gather and a semaphore of {concurrency}",
                    median_wall(runs["ours"]),
                    None,
                    "x",
                )
            )
        rows.append(
            Row(
                "wall over ideal, gather and a semaphore of 100",
                median_wall(both["ours"]),
                None,
                "x",
            )
        )
        rows.append(
            Row(
                "wall over ideal, plain SDK, gather and a semaphore of 100",
                median_wall(both["sdk"]),
                None,
                "x",
            )
        )
        return rows
