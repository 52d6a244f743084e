"""How far a run is, as LlamaIndex tells it: an instrumentation event everywhere, and an event of
the workflow inside one.
"""

import logging
from typing import Any

from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.workflow import Context, Event, WorkflowRuntimeError
from llama_index_instrumentation.span import active_span_id

from rlm_integrations._concurrency.portal import running_loop
from rlm_integrations.faces.progress import Progress
from rlm_integrations.llama_index._spans import dispatcher

logger = logging.getLogger("rlm_integrations")


class RLMProgressEvent(BaseEvent):
    """One step of a run or a batch, without the document.

    Attributes:
        progress: What `engine.progress.Progress` knows of it, as plain JSON.
        query_span_id: The span in which the run was asked for. It is not the event's own `span_id`:
            tracers warn of every event in a span whose class they do not know.
    """

    progress: dict[str, Any]
    query_span_id: str | None = None
    span_id: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """The event's name."""
        return "RLMProgressEvent"


class RLMWorkflowEvent(Event):
    """The same in the stream of the workflow in whose step the run was started; fields are read as
    attributes, `event.kind` first.
    """


class ProgressReporter:
    """Tells LlamaIndex of the progress of one run or batch.

    It is made where that was asked for, and may be called anywhere.
    """

    def __init__(self) -> None:
        self._span = active_span_id.get()
        self._loop = running_loop()
        # Only an event loop's own thread may write to a workflow's stream
        self._step: Any = _step() if self._loop is not None else None

    def __call__(self, progress: Progress) -> None:
        """Tell of a step."""
        details = progress.to_dict()
        dispatcher.event(RLMProgressEvent(progress=details, query_span_id=self._span))
        if self._loop is None or self._step is None:
            return
        if running_loop() is self._loop:
            self._write(details)
        else:  # a synchronous call inside a loop: that one hears of it when it goes on
            self._loop.call_soon_threadsafe(self._write, details)

    def _write(self, details: dict[str, Any]) -> None:
        try:
            self._step.write_event_to_stream(RLMWorkflowEvent(**details))
        except Exception:  # the step may be over, and progress never breaks a run
            logger.exception("a workflow did not take an event of a run's progress")


def _step() -> Any:
    """The workflow's step that runs here, or None. Versions of workflows before 2.18 do not say."""
    get = getattr(Context, "get_step_context", None)
    try:
        return get() if get is not None else None
    except WorkflowRuntimeError:
        return None
