"""The runnable as a LangGraph node. LangGraph itself is not imported: a node is any Runnable from a
state to an update.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig

from rlm_integrations.errors import InputError
from rlm_integrations.langchain.outputs import answer_text, plain_output
from rlm_integrations.langchain.run_ids import with_visit


class RLMNode(Runnable[Any, dict[str, Any]]):
    """The node that `as_node` creates. It is not traced itself: tracers see the runnable's run."""

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
        return self._update(
            self._runnable.invoke(self._runnable_input(input), with_visit(config), **kwargs)
        )

    async def ainvoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The update of the state."""
        return self._update(
            await self._runnable.ainvoke(self._runnable_input(input), with_visit(config), **kwargs)
        )

    def _runnable_input(self, state: Any) -> dict[str, Any]:
        question = _value_in(state, self._question_key)
        if question is None:
            raise InputError(
                f"the state has no {self._question_key!r}: give as_node(…, question_key=…) "
                "the key of the question"
            )
        asked = {"messages" if isinstance(question, list) else "question": question}
        if self._context_key is not None:
            asked["context"] = _value_in(state, self._context_key)
            if asked["context"] is None:
                asked["context"] = _value_in(_runtime_context(), self._context_key)
            if asked["context"] is None:
                raise InputError(
                    f"there is no document under {self._context_key!r} in the state or the "
                    "graph's runtime context"
                )
        return asked

    def _update(self, output: dict[str, Any]) -> dict[str, Any]:
        """The answer, ids, spans and counts in plain JSON; also the answer as a message if the
        question was in messages.
        """
        made = plain_output(output)
        update = {self._answer_key: made["answer"]}
        if self._rlm_key is not None:
            update[self._rlm_key] = made["rlm"]
        if self._collect:
            update = {key: [value] for key, value in update.items()}
        if self._question_key == "messages":
            update["messages"] = [AIMessage(answer_text(made), name="rlm")]
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
    """A node for `graph.add_node("ask", …)`: it reads the question from the state, and writes the
    answer and `rlm`.

    `rlm` holds the ids of the run and its store, counts, and the spans that support the answer. The
    only document text in the update, and so in a checkpoint, is what the answer itself quotes.

    With `storage=`, the run has an id of its visit in the thread of a graph with a checkpointer. A
    graph that goes on after a crash resumes the run inside as well. `durability="sync"` makes
    sure that the visit is known after any crash.

    Args:
        runnable: An `RLMRunnable`, or a Runnable derived from one.
        question_key: The key of the question in the state: a string, or messages, whose last human
            message is the question. With "messages" the answer is also added as a message.
        context_key: The key of the document, in the state or in the graph's runtime context; by
            default the runnable's bound document is used.
        answer_key: The key of the answer.
        rlm_key: The key of `rlm`; None to leave it out.
        collect: Whether to write one-item lists, for keys with a reducer such as `Annotated[list,
            operator.add]`. Then any number of these nodes can run in one step, with `Send` or in
            parallel.

    Raises:
        InputError: `runnable` is not a Runnable.
    """
    if not isinstance(runnable, Runnable):
        raise InputError(
            "a node needs a runnable, such as RLMRunnable(…) or "
            f"RLMRunnable.from_rlm(rlm), not {type(runnable).__name__}"
        )
    return RLMNode(runnable, question_key, context_key, answer_key, rlm_key, collect=collect)


def _value_in(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def _runtime_context() -> Any:
    if "langgraph.runtime" in sys.modules:
        with suppress(RuntimeError, KeyError):  # outside of a graph
            from langgraph.runtime import get_runtime

            return get_runtime().context
    return None
