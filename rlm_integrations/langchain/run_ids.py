"""Ids of runs in a configuration: one that the caller chose, or one for a visit of a graph's node.

A graph with a checkpointer that goes on after a crash makes its unfinished tasks again, with the
same ids. A task's id is a hash of its checkpoint, step, node and place among the `Send`s of the
step, and part of `checkpoint_ns`: other visits of the node have others.
"""

from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, patch_config

from rlm_integrations import RLM
from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.corpus import Corpus
from rlm_integrations.faces.run_ids import derive_run_id
from rlm_integrations.lm.frameworks.langchain import outer_config

RUN_ID: Final = "rlm_run_id"
# LangChain and LangGraph show keys that begin so in no trace and no checkpoint
_VISIT: Final = "__rlm_visit"


def with_visit(config: RunnableConfig | None, *parts: str) -> RunnableConfig | None:
    """The configuration with the task of the graph that it belongs to, if there is one.

    Args:
        config: The configuration.
        parts: What is different for each run of the task.
    """
    known = ensure_config(config).get("configurable", {})
    thread, task = known.get("thread_id"), known.get("checkpoint_ns")
    if thread is None or not task:
        return config
    visit = ("langgraph", str(thread), str(task), *parts)
    return patch_config(config, configurable={_VISIT: visit})


class ChosenId:
    """The id that a configuration chooses for its run. Create it before the run's own trace.

    Runs that the code of another run causes have none: their answers are in that run's journal.
    """

    def __init__(self, config: RunnableConfig) -> None:
        known: dict[str, Any] = config.get("configurable", {}) if outer_config.get() is None else {}
        self._chosen: str | None = known.get(RUN_ID)
        self._visit: tuple[str, ...] | None = known.get(_VISIT)

    async def of(self, rlm: RLM, question: str, corpus: Corpus) -> str | None:
        """The id, or None for a random one. A visit counts only for runs that are stored."""
        if self._chosen is not None or self._visit is None or rlm.options["storage"] is None:
            return self._chosen
        return await offload(derive_run_id, rlm, self._visit, question, corpus)
