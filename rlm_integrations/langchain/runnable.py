"""A run as a LangChain Runnable: from a question and a document to an answer with its evidence."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, Self

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.utils import AddableDict
from pydantic import BaseModel, PrivateAttr
from typing_extensions import override

from rlm_integrations import RLM, Prompt
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.runtime import offload
from rlm_integrations.errors import ContextError
from rlm_integrations.events import Hook, RunFinished
from rlm_integrations.faces.progress import is_progress, progress_of
from rlm_integrations.langchain import kept_stores
from rlm_integrations.langchain.fast import warn_of_slow
from rlm_integrations.langchain.functions import function_of
from rlm_integrations.langchain.inputs import AskedDocument, Question, RLMInput, asked, bound_to
from rlm_integrations.langchain.message import answer_message
from rlm_integrations.langchain.models import model_of
from rlm_integrations.langchain.outputs import output_of, output_schema
from rlm_integrations.langchain.portal_runnable import PortalRunnable
from rlm_integrations.langchain.progress import ProgressReporter
from rlm_integrations.langchain.run_ids import ChosenId
from rlm_integrations.langchain.trace import ChainRun, Trace, traced
from rlm_integrations.records import Budget, Limits

OWN: Final = frozenset({"name", "context", "stream_tokens"})  # fields that are not options of `RLM`


class RLMRunnable(PortalRunnable[dict[str, Any]]):
    """Answers questions over documents that are too large for any model's context window.

    The input is a question, a dict of `question` (or `input`) and `context`, or messages: the last
    human message is the question, and the root model sees the earlier ones. The output is a dict of
    `input`, `answer`, `context` (the evidence as Documents), `usage_metadata` by model and `rlm`
    (ids, counts, cost, time); `.pick("answer")` selects the answer. A run that does not finish
    returns the best partial answer, and `rlm["stop_reason"]` says why; with `on_incomplete="raise"`
    it raises, so that `with_fallbacks` and `with_retry` see it. With an `output_type` the answer is
    of that type or None. `stream` yields the output once, when it is known; closing the stream
    early ends the run.

    `max_concurrency` of a configuration also limits the concurrent model calls of a run, and
    `{"configurable": {"rlm_run_id": "…"}}` chooses the run's id; see `RLM.acompletion`. Changing
    an option, by assignment, `model_copy`, `bind` or a configuration, takes effect at the next run.

    Args:
        root_llm: The model that writes code: a chat model, any other Runnable that returns an
            `AIMessage`, a name such as "gpt-5-mini" or "anthropic:claude-sonnet-5", or any other
            model that `RLM` accepts.
        sub_llm: The model that its code calls; `root_llm` by default. A dict registers several by
            name.
        context: The document to use for inputs without one. It is read once, at the first question.
            A retriever finds documents for each question.
        stream_tokens: Whether the models' tokens are streamed: in `astream_events`, and in the
            messages of a graph.
        name: The name in traces.
        options: The options of `RLM`. `tools` may also hold LangChain tools, retrievers and other
            runnables.

    Raises:
        InputError: An argument is invalid.
    """

    root_llm: Any
    sub_llm: Any = None
    context: Any = None
    stream_tokens: bool = False
    max_iterations: int = 20
    max_depth: int = 1
    max_parallel_calls: int = 10
    store_mode: Literal["auto", "shared", "none"] = "auto"
    instructions: str | None = None
    prompt: Prompt | None = None
    structured: bool = False
    budget: Budget | None = None
    limits: Limits | None = None
    retry: Any = None
    on_incomplete: Literal["partial", "raise"] = "partial"
    output_type: Any = None
    sandbox: Any = "process"
    tools: Sequence[Any] = ()
    require_coverage: float | None = None
    storage: Any = None
    store: Any = None
    cache: bool = False
    show_progress: bool = False
    verbose: bool = False
    on_event: Hook | None = None

    _cached: tuple[dict[str, Any], RLM] | None = PrivateAttr(None)

    def __init__(
        self,
        root_llm: object,
        sub_llm: object = None,
        *,
        context: object = None,
        stream_tokens: bool = False,
        name: str | None = None,
        **options: Any,
    ) -> None:
        # Names are resolved once, here: a new model for each call would open new connections each
        # time.
        root = model_of(root_llm)
        sub = (
            {name: model_of(model) for name, model in sub_llm.items()}
            if isinstance(sub_llm, Mapping)
            else model_of(sub_llm)
        )
        rlm = _traced_rlm({"root_llm": root, "sub_llm": sub, **options})
        bound = None if context is None else bound_to(context)
        super().__init__(
            **{
                "root_llm": root,
                "sub_llm": sub,
                "context": bound,
                "stream_tokens": stream_tokens,
                "name": name,
                **options,
            }
        )
        self._cached = (self._options(), rlm)

    @classmethod
    def from_rlm(cls, rlm: RLM, context: object = None) -> Self:
        """A runnable with the models and options of an `RLM`."""
        return cls(**rlm.options, context=context)

    def with_context(self, context: object) -> Self:
        """A copy that is bound to a document: a string, a path, a Document, a retriever, or a list
        of these.
        """
        return self.model_copy(update={"context": bound_to(context)})

    def as_message(self) -> Runnable[Any, AIMessage]:
        """This runnable with its output as an `AIMessage` whose content carries the citations; see
        `rlm_integrations.langchain.answer_message`.
        """
        return self | RunnableLambda(answer_message)

    @property
    @override
    def InputType(self) -> Any:
        """The type of the input."""
        return str | dict[str, Any] | list[Any]

    @property
    @override
    def OutputType(self) -> Any:
        """The type of the output."""
        return dict[str, Any]

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The schema of the input."""
        return RLMInput

    @override
    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The schema of the output."""
        return output_schema(self.output_type)

    def _parse_input(self, given: Any) -> tuple[Question, dict[str, Any]]:
        question = asked(given, self.context)
        return question, question.preview

    async def _whole(
        self, asked: Question, manager: ChainRun, config: RunnableConfig
    ) -> dict[str, Any]:
        async with aclosing(self._parts(asked, manager, config)) as chunks:
            return dict(await anext(chunks))

    async def _parts(
        self, asked: Question, manager: ChainRun, config: RunnableConfig
    ) -> AsyncGenerator[dict[str, Any], None]:
        """One run: read the document, report the run's events to LangChain, yield the output.

        The output is a single chunk: LangChain falls back to another runnable only before the first
        one.
        """
        chosen = ChosenId(config)
        trace = Trace(manager, stream_tokens=self.stream_tokens)
        trace.enter()
        reporter = ProgressReporter(config, has_handlers=bool(manager.handlers))
        rlm = self._bounded(config.get("max_concurrency"))
        document = (
            asked.document
            if isinstance(asked.document, AskedDocument)
            else await _retrieve_document(asked.document, asked.question, config)
        )
        corpus = await document.corpus(self.limits or Limits())
        try:
            run_id = await chosen.of(rlm, asked.query, corpus)
            events = rlm.astream(asked.query, corpus, only=is_progress, run_id=run_id)
            async with aclosing(events):
                async for event in events:
                    await trace.note(event)
                    if (progress := progress_of(event)) is not None:
                        await reporter.report(progress)
                    if isinstance(event, RunFinished):
                        result = event.result
            kept_stores.keep(result)
            output = await offload(output_of, result, corpus)
        except BaseException as error:
            await trace.abandon(error)
            raise
        finally:
            if asked.is_ours:
                await finish_despite_cancel(offload(corpus.close))
        yield AddableDict(input=asked.question, **output)

    def _bounded(self, max_concurrency: int | None) -> RLM:
        """The RLM, limited to the configuration's number of concurrent calls."""
        rlm = self._current()
        most = min(self.max_parallel_calls, max_concurrency or self.max_parallel_calls)
        warn_of_slow([rlm.options["root_llm"], *rlm.options["sub_llm"].values()], most)
        return rlm if most == self.max_parallel_calls else rlm.replace(max_parallel_calls=most)

    def _current(self) -> RLM:
        """The RLM for the current options."""
        options = self._options()
        if self._cached is None or any(
            value is not self._cached[0][name] for name, value in options.items()
        ):
            self._cached = (options, _traced_rlm(options))
        return self._cached[1]

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name not in OWN}


def _traced_rlm(options: Mapping[str, Any]) -> RLM:
    """An RLM whose model calls LangChain traces, and whose code can call LangChain tools."""
    sub = options.get("sub_llm")
    named = (
        {name: model_of(model) for name, model in sub.items()}
        if isinstance(sub, Mapping)
        else model_of(sub)
    )
    tools = options.get("tools", ())
    if isinstance(tools, list | tuple | set | frozenset):
        tools = [function_of(each) for each in tools]
    rlm = RLM(
        **{**options, "root_llm": model_of(options["root_llm"]), "sub_llm": named, "tools": tools}
    )
    models = {name: traced(lm) for name, lm in rlm.options["sub_llm"].items()}
    return rlm.replace(root_llm=traced(rlm.options["root_llm"]), sub_llm=models)


async def _retrieve_document(
    retriever: Runnable[Any, Any], question: str, config: RunnableConfig
) -> AskedDocument:
    """The documents that a retriever finds for the question."""
    found = await retriever.ainvoke(question, config)
    if not isinstance(found, list) or not all(isinstance(each, Document | str) for each in found):
        raise ContextError(
            f"the retriever returned {type(found).__name__}, not a list of Documents"
        )
    return AskedDocument(found or "")
