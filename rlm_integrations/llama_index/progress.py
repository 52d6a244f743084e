"""Progress of runs in LlamaIndex: instrumentation events, and workflow events inside a workflow."""

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
        progress: The fields of `rlm_integrations.faces.progress.Progress`, as plain JSON.
        query_span_id: The span in which the run was started. It is not in `span_id`, because
            tracers warn about events of unknown classes inside a span.
    """

    progress: dict[str, Any]
    query_span_id: str | None = None
    span_id: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """The event's name."""
        return "RLMProgressEvent"


class RLMWorkflowEvent(Event):
    """The same in the event stream of the workflow whose step started the run. Fields are
    attributes, such as `event.kind`.
    """


class ProgressReporter:
    """Reports the progress of one run or batch to LlamaIndex.

    Create it where the run is started; it can be called from any thread.
    """

    def __init__(self) -> None:
        self._span = active_span_id.get()
        self._loop = running_loop()
        # Only the event loop's own thread may write to a workflow's stream
        self._step: Any = _step() if self._loop is not None else None

    def __call__(self, progress: Progress) -> None:
        """Report one step."""
        details = progress.to_dict()
        dispatcher.event(RLMProgressEvent(progress=details, query_span_id=self._span))
        if self._loop is None or self._step is None:
            return
        if running_loop() is self._loop:
            self._write(details)
        else:  # a sync call blocks the loop: the event is written when the loop continues
            self._loop.call_soon_threadsafe(self._write, details)

    def _write(self, details: dict[str, Any]) -> None:
        try:
            self._step.write_event_to_stream(RLMWorkflowEvent(**details))
        except Exception:  # the step may have ended, and progress must never fail a run
            logger.exception("a workflow did not accept a progress event of a run")


def _step() -> Any:
    """The workflow step that is running here, or None. Versions of workflows before 2.18 do not
    provide it.
    """
    get = getattr(Context, "get_step_context", None)
    try:
        return get() if get is not None else None
    except WorkflowRuntimeError:
        return None
