"""The beginning of a run: without a sandbox nothing is paid, and an available sandbox costs no
waiting.
"""

import sys
import threading
from typing import Any

import pytest

from rlm_integrations import RLM, Retry, awarm, warm
from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ModelError, SandboxError, SandboxUnavailableError
from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, Event
from rlm_integrations.sandbox.base import Opening
from rlm_integrations.sandbox.process import ProcessSandbox, ProcessSession
from tests._script import run_script
from tests.engine.conftest import Scripted, code, final, run


async def test_a_missing_sandbox_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no sandbox can be opened, the run fails before the root model is called."""
    monkeypatch.setattr(sys, "platform", "darwin")
    runtime.forget("sandboxes that opened", runtime.shared("sandboxes that opened", set))
    root = Scripted([final("'never'")])
    with pytest.raises(SandboxUnavailableError, match="darwin"):
        await run(root)
    assert root.requests == []


async def test_a_run_prepares_its_parts_before_it_reads_the_document(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run first has its sandbox and its root model prepared; a model that cannot be prepared is
    an error of its first call.
    """
    steps: list[str] = []
    build = Corpus.build

    class Sandbox(ProcessSandbox):
        def prepare(self) -> None:
            steps.append("sandbox")

    class Root(Scripted):
        async def prepare(self) -> None:
            steps.append("model")
            raise ModelError("no client", type="connection")

    def noted(*args: Any, **kwargs: Any) -> Corpus:
        steps.append("read")
        return build(*args, **kwargs)

    monkeypatch.setattr(Corpus, "build", noted)
    with pytest.raises(ModelError, match="no client"):
        await run(Root([final("'done'")]), sandbox=Sandbox(), retry=Retry(failures=0))
    assert steps == ["sandbox", "model", "read", "model"]


async def test_warm_starts_everything_off_the_loop() -> None:
    """`awarm` opens a session of the sandbox, and loads the HTTP client but not openai's SDK, on
    another thread than the caller's.
    """
    opened: list[threading.Thread] = []

    class Sandbox(ProcessSandbox):
        async def open(self, opening: Opening) -> ProcessSession:
            opened.append(threading.current_thread())
            return await super().open(opening)

    await awarm(Sandbox())
    assert [each is threading.current_thread() for each in opened] == [False]
    code = """
import sys, rlm_integrations
rlm_integrations.warm()
print("rlm_integrations.lm.openai.client" in sys.modules, "openai" in sys.modules)
"""
    done = run_script(code)
    assert (done.stdout, done.stderr) == ("True False\n", "")


@pytest.mark.parametrize("form", ["warm", "awarm"])
async def test_a_sandbox_that_cannot_start_is_an_error_of_warm(form: str) -> None:
    """Both forms raise the sandbox's error."""
    with pytest.raises(SandboxError, match="did not start"):
        if form == "warm":
            warm(ProcessSandbox(python="/bin/true"))
        else:
            await awarm(ProcessSandbox(python="/bin/true"))


async def test_batches_of_code_emit_events() -> None:
    """A batch in the REPL emits events: the number of prompts, its progress, its end."""
    events: list[Event] = []
    await RLM(
        Scripted([code("llm_batch(['a', None, 'b'])"), final("'done'")]), on_event=events.append
    ).acompletion("q", "text")
    started, finished = [
        [each for each in events if isinstance(each, kind)]
        for kind in (BatchStarted, BatchFinished)
    ]
    assert [each.total for each in started] == [3]
    assert [each.done for each in events if isinstance(each, BatchProgress)] == [1, 2, 3]
    assert [(each.id, each.failed, each.outcome) for each in finished] == [
        (started[0].id, 1, "completed")
    ]
