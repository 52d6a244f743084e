"""What it costs to show a run on the terminal, and to export it."""

import time
from contextlib import redirect_stderr

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from rlm_integrations import RLM, OpenAILM
from rlm_integrations.engine.progress import RunLines
from rlm_integrations.events import Event, Hook, RunFailed, RunStarted
from rlm_integrations.otel import OTelHook
from tests._terminal import Terminal
from tests.bench.table import Row, median
from tests.standin import serve_in_process

CALLS = 1_000
ROOT = [f"```repl\nFINAL(len(llm_batch(['a'] * {CALLS}, max_concurrent=50)))\n```"]
REDRAWS = 10  # a second, at most


async def _events() -> tuple[list[Event], float]:
    """The events of a run, and the CPU seconds of this process for each of its calls."""
    with serve_in_process(scripts={"root": ROOT}) as server:
        lms = [OpenAILM(name, base_url=server.base_url, api_key="x") for name in ("root", "sub")]
        events: list[Event] = []
        rlm = RLM(*lms, max_parallel_calls=50, on_event=events.append)
        await rlm.acompletion("What is it?", "a small document")  # opens the connections
        events.clear()
        begun = time.process_time()
        await rlm.acompletion("What is it?", "a small document")
        return events, (time.process_time() - begun) / CALLS


def _per_call(hook: Hook, events: list[Event]) -> float:
    begun = time.perf_counter()
    for event in events:
        hook(event)
    return (time.perf_counter() - begun) / CALLS


def _redraw(children: int) -> float:
    """Seconds to draw a run with child runs, when every line has changed."""
    lines = RunLines(keep=False)
    for number in range(children + 1):
        parent = "run-0" if number else None
        at = {"id": f"run-{number}", "parent": parent}
        lines(RunStarted(**at, query="What?", path="r", depth=0, characters=9))
    lines._draw()

    def measure() -> float:
        for run in (lines._roots["run-0"], *lines._roots["run-0"].children.values()):
            run.turn += 1
        begun = time.perf_counter()
        lines._draw()
        return time.perf_counter() - begun

    seconds = median(measure, 50)
    lines(RunFailed(id="run-0", error=""))
    return seconds


async def run() -> list[Row]:
    events, work = await _events()
    with Terminal() as terminal, terminal.stream() as stream, redirect_stderr(stream):
        shown = median(lambda: _per_call(RunLines(keep=False), events), 15)
        alone, nested = _redraw(0), _redraw(5)
    tracers, meters = TracerProvider(), MeterProvider()
    exported = median(
        lambda: _per_call(OTelHook(tracer_provider=tracers, meter_provider=meters), events), 15
    )
    return [
        Row("CPU of a call, with its part of the run", work * 1e6, None, "us"),
        Row("counting its events for the line", shown * 1e6, None, "us"),
        Row("the same, as a share", shown / work * 100, 1, "%"),
        Row("redrawing one line, as a share of a second", alone * REDRAWS * 100, 1, "%"),
        Row("redrawing it with five child runs, likewise", nested * REDRAWS * 100, 1, "%"),
        Row("exporting the events of a call to OpenTelemetry's SDK", exported * 1e6, None, "us"),
    ]
