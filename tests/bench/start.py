"""The start of a process: importing, the sandbox's server, the command line and a first run, with
nothing loaded before. A scripted root over real HTTP; the server is a separate process.
"""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.engine import LATENCY, LOOP, at_server, text_of
from tests.bench.table import Row, median
from tests.standin import RemoteStandIn, serve_in_process

# As installed: with bytecode, which the first of several runs writes
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}

IMPORT = """
    import time
    {code}
    print(time.process_time())
"""

MODEL = """
    import sys, time
    begun = time.perf_counter()
    import rlm_integrations
    rlm_integrations.RLM(rlm_integrations.OpenAILM("gpt-5-mini", api_key="x"))
    print(time.perf_counter() - begun)
    assert "openai" not in sys.modules
"""

SERVER = """
    import sys, time
    from rlm_integrations.sandbox.forkserver import ForkServer
    begun = time.perf_counter()
    server = ForkServer(sys.executable)
    print(time.perf_counter() - begun)
    server.close()
"""

FIRST = """
    import sys, time
    from pathlib import Path
    text = Path(sys.argv[2]).read_text()
    begun = time.monotonic()
    import asyncio
    if len(sys.argv) > 3:
        import rlm_integrations
        rlm_integrations.warm()
        begun = time.monotonic()
    from rlm_integrations import RLM, Limits, OpenAILM
    model = {"base_url": sys.argv[1], "api_key": "x"}
    limits = Limits(memory=8 << 30)
    rlm = RLM(OpenAILM("root", **model), OpenAILM("sub", **model), max_parallel_calls=20, limits=limits)
    result = asyncio.run(rlm.acompletion("What is it about?", text))
    print(begun, time.monotonic())
    assert (result.stop_reason, result.total_calls) == ("final", 23), result
"""


def printed(code: str, *arguments: str) -> list[float]:
    """The numbers that a new interpreter prints when it runs this."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return [float(word) for word in done.stdout.split()]


def first_run(server: RemoteStandIn, document: Path, *after: str) -> float:
    """The overhead of the first run in a process, imports included, in seconds; or after `warm`."""
    server.reset()
    begun, ended = printed(FIRST, server.base_url, str(document), *after)
    return ended - begun - at_server(server.calls(), begun, ended)


def to_first_request(server: RemoteStandIn, document: Path) -> float:
    """Seconds from the start of the command line's process to its first request at the server."""
    server.reset()
    command = [sys.executable, "-m", "rlm_integrations", "ask", str(document), "What is it about?"]
    options = ["--model", "root", "--base-url", server.base_url, "--quiet"]
    begun = time.monotonic()
    subprocess.run(
        [*command, *options],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**ENVIRONMENT, "OPENAI_API_KEY": "x"},
    )
    return min(call.arrived for call in server.calls()) - begun


def run() -> list[Row]:
    bare = median(lambda: printed(IMPORT.format(code=""))[0], 7)
    loaded = median(lambda: printed(IMPORT.format(code="import rlm_integrations"))[0], 7)
    rows = [
        Row("import rlm_integrations, processor time", (loaded - bare) * 1e3, 150, "ms"),
        Row(
            'RLM("gpt-5-mini"), import included', median(lambda: printed(MODEL)[0]) * 1e3, 120, "ms"
        ),
        Row(
            "the sandbox's server, until it forks",
            median(lambda: printed(SERVER)[0]) * 1e3,
            90,
            "ms",
        ),
    ]
    with (
        TemporaryDirectory() as folder,
        serve_in_process(latency=LATENCY, scripts={"root": LOOP}) as server,
    ):
        document = Path(folder) / "document.txt"
        document.write_text(text_of(1_000_000))
        spent = median(lambda: to_first_request(server, document))
        rows.append(
            Row("command line, 1 MB file: until the first request arrives", spent, 0.6, "s")
        )
        for size, goal in ((200_000, 0.45), (10_000_000, 0.5), (100_000_000, 0.7)):
            document.write_text(text_of(size))
            spent = median(lambda: first_run(server, document))
            rows.append(
                Row(
                    f"first run of a process, {size / 1e6:g} MB: overhead with imports",
                    spent,
                    goal,
                    "s",
                )
            )
        document.write_text(text_of(200_000))
        spent = median(lambda: first_run(server, document, "warm"))
        rows.append(Row("first run after warm(), 0.2 MB: overhead", spent, 0.06, "s"))
    return rows
