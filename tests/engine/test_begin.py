"""The beginning of a run: without a sandbox nothing is paid, and an available sandbox costs no
waiting.
"""

import sys
from typing import Any

import pytest

from rlm_integrations import RLM
from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import SandboxUnavailableError
from rlm_integrations.events import BatchFinished, BatchProgress, BatchStarted, Event
from rlm_integrations.sandbox.process import ProcessSandbox
from tests.engine.conftest import Scripted, code, final, run


async def test_a_missing_sandbox_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no sandbox can be opened, the run fails before the root model is called."""
    monkeypatch.setattr(sys, "platform", "darwin")
    runtime.forget("sandboxes that opened", runtime.shared("sandboxes that opened", set))
    root = Scripted([final("'never'")])
    with pytest.raises(SandboxUnavailableError, match="darwin"):
        await run(root)
    assert root.requests == []


async def test_a_sandbox_is_prepared_before_the_document_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run prepares its sandbox first, so that its server starts while the document is read."""
    steps: list[str] = []
    build = Corpus.build

    class Prepared(ProcessSandbox):
        def prepare(self) -> None:
            steps.append("prepare")

    def noted(*args: Any, **kwargs: Any) -> Corpus:
        steps.append("read")
        return build(*args, **kwargs)

    monkeypatch.setattr(Corpus, "build", noted)
    await run(Scripted([final("'done'")]), sandbox=Prepared())
    assert steps == ["prepare", "read"]


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
