"""The runnable as a node of a LangGraph graph. It needs no LangGraph: a node is any Runnable from a
state to an update.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig

from rlm_integrations.errors import InputError
from rlm_integrations.langchain.outputs import plain_output, said


class RLMNode(Runnable[Any, dict[str, Any]]):
    """The node that `as_node` makes. What tracers see of it is the runnable's own run."""

    def __init__(
        self,
        runnable: Runnable[Any, dict[str, Any]],
        question_key: str,
        context_key: str | None,
        answer_key: str,
        rlm_key: str | None,
        *,
        collect: bool,
    ) -> None:
        self._runnable = runnable
        self._question_key = question_key
        self._context_key = context_key
        self._answer_key = answer_key
        self._rlm_key = rlm_key
        self._collect = collect

    def invoke(
        self,
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The update of the state."""
        return self._update(self._runnable.invoke(self._asked(input), config, **kwargs))

    async def ainvoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The update of the state."""
        return self._update(await self._runnable.ainvoke(self._asked(input), config, **kwargs))

    def _asked(self, state: Any) -> dict[str, Any]:
        question = _of(state, self._question_key)
        if question is None:
            raise InputError(
                f"the state has no {self._question_key!r}: give as_node(…, question_key=…) the name that it has"
            )
        asked = {"messages" if isinstance(question, list) else "question": question}
        if self._context_key is not None:
            asked["context"] = _of(state, self._context_key)
            if asked["context"] is None:
                asked["context"] = _of(_runtime_context(), self._context_key)
            if asked["context"] is None:
                raise InputError(
                    f"there is no document under {self._context_key!r} in the state or the graph's runtime context"
                )
        return asked

    def _update(self, output: dict[str, Any]) -> dict[str, Any]:
        """Ids, places and counts, in plain JSON; and the answer as a message, where the question
        was one.
        """
        made = plain_output(output)
        update = {self._answer_key: made["answer"]}
        if self._rlm_key is not None:
            update[self._rlm_key] = made["rlm"]
        if self._collect:
            update = {key: [value] for key, value in update.items()}
        if self._question_key == "messages":
            update["messages"] = [AIMessage(said(made), name="rlm")]
        return update


def as_node(
    runnable: Runnable[Any, dict[str, Any]],
    *,
    question_key: str = "question",
    context_key: str | None = None,
    answer_key: str = "answer",
    rlm_key: str | None = "rlm",
    collect: bool = False,
) -> RLMNode:
    """What `graph.add_node("ask", …)` takes: it reads the question in the state, and writes the
    answer and `rlm` there.

    `rlm` holds the ids of the run and of its store, counts, and the places that support the answer.
    Of the document, the update and so a checkpoint hold what the answer itself quotes, and nothing
    else.

    Args:
        runnable: An `RLMRunnable`, or what was made of it.
        question_key: Where the question is in the state: a text, or messages, whose last human one
            it is. With "messages" the answer is added as a message too.
        context_key: Where the document is, in the state or in the graph's runtime context; by
            default the runnable is bound to one.
        answer_key: Where the answer goes.
        rlm_key: Where `rlm` goes; None for nowhere.
        collect: Whether to write lists of one, for keys with a reducer such as `Annotated[list,
            operator.add]`: then any number of these nodes may run in one step, by `Send` or side by
            side.

    Raises:
        InputError: This is no runnable.
    """
    if not isinstance(runnable, Runnable):
        raise InputError(
            f"a node is made of a runnable, such as RLMRunnable(…) or RLMRunnable.from_rlm(rlm), not {type(runnable).__name__}"
        )
    return RLMNode(runnable, question_key, context_key, answer_key, rlm_key, collect=collect)


def _of(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def _runtime_context() -> Any:
    if "langgraph.runtime" in sys.modules:
        with suppress(RuntimeError, KeyError):  # outside of a graph
            from langgraph.runtime import get_runtime

            return get_runtime().context
    return None
