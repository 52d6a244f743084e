"""Progress of runs as events of LangChain and LangGraph.

Each step is a `Progress` (see `rlm_integrations.faces.progress`), reported as a dict of its fields:

- a custom event named `rlm.turn_started`, `rlm.batch_progress` and so on, which `astream_events`
and `on_custom_event` of a callback see; - where a LangGraph node or tool runs, a piece of
`stream_mode="custom"`; - where an agent's tool runs, an output delta of `stream_mode="tools"`.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.runnables import RunnableConfig

from rlm_integrations.faces.progress import Progress
from rlm_integrations.langchain.trace import notify


class ProgressReporter:
    """Reports the progress of one run or batch.

    Args:
        config: The configuration for child runs: its callbacks are those of the run.
        has_handlers: Whether any callback handler receives custom events.
    """

    def __init__(self, config: RunnableConfig, *, has_handlers: bool) -> None:
        self._config = config
        self._has_handlers = has_handlers
        self._writers = [
            writer for writer in (_stream_writer(), _tool_deltas()) if writer is not None
        ]

    async def report(self, progress: Progress) -> None:
        """Report one step to every receiver."""
        name, data = f"rlm.{progress.kind}", progress.to_dict()
        for write in self._writers:
            write({"type": name, **data})
        if self._has_handlers:
            is_async = isinstance(self._config["callbacks"], AsyncCallbackManager)
            await notify(
                adispatch_custom_event if is_async else dispatch_custom_event,
                name,
                data,
                config=self._config,
            )


def _tool_deltas() -> Callable[[Any], None] | None:
    """LangGraph's writer of tool output deltas, or None; LangGraph finds the running tool call
    itself.
    """
    node = sys.modules.get("langgraph.prebuilt.tool_node")
    # Older versions of LangGraph have no `emit_output_delta`
    emit = getattr(getattr(node, "ToolRuntime", None), "emit_output_delta", None)
    return None if emit is None else partial(emit, None)


def _stream_writer() -> Callable[[Any], None] | None:
    """LangGraph's stream writer, or None outside of a graph."""
    if "langgraph.config" not in sys.modules:  # then no graph runs in this process
        return None
    with suppress(RuntimeError, KeyError):  # outside of a graph
        from langgraph.config import get_stream_writer

        return get_stream_writer()
    return None
