"""A run as a Runnable of LangChain: it takes a question and a document in whatever shape, and gives an answer with its evidence."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import AddableDict
from pydantic import BaseModel, PrivateAttr
from typing_extensions import override

from rlm_integrations import RLM
from rlm_integrations._cleanup import to_the_end
from rlm_integrations._runtime import offload
from rlm_integrations.engine.progress import is_progress, progress_of
from rlm_integrations.events import Hook, RunFinished
from rlm_integrations.langchain import stores
from rlm_integrations.langchain.doors import Doors
from rlm_integrations.langchain.events import Teller
from rlm_integrations.langchain.fast import warn_of_slow
from rlm_integrations.langchain.inputs import Asked, RLMInput, asked, bound_to
from rlm_integrations.langchain.models import model_of
from rlm_integrations.langchain.outputs import RLMOutput, output_of
from rlm_integrations.langchain.trace import ChainRun, Trace, traced
from rlm_integrations.records import Budget, Limits


class RLMRunnable(Doors[dict[str, Any]]):
    """Answers questions over documents that no model's window holds.

    The input is a question, a dict of `question` (or `input`) and `context`, or messages, whose last human one is the question. The output
    is a dict of `input`, `answer`, `context` (the evidence as Documents), `usage_metadata` by model and `rlm` (ids and counts);
    `.pick("answer")` gives the answer alone. A run that its budget stops gives the best partial answer, and `rlm["stop_reason"]` says why.
    `stream` gives these parts as they are known; closing it early ends the run.

    `max_concurrency` of a configuration bounds the calls of a run as well.

    Args:
        root_llm: The model that writes code: a chat model, a name such as "gpt-5-mini", or any other that `RLM` takes.
        sub_llm: The model that its code asks; the root's by default. A dict registers several by name.
        context: The document that is asked where an input has none. It is read once, at the first question.
        stream_tokens: Whether tokens of the models go into the messages that a graph streams to its user.
        name: What traces call it.
        options: Those of `RLM`.

    Raises:
        InputError: An argument cannot work.
    """

    root_llm: Any
    sub_llm: Any = None
    context: Any = None
    stream_tokens: bool = False
    max_iterations: int = 20
    max_depth: int = 1
    max_parallel_calls: int = 10
    store_mode: Literal["shared", "none"] = "shared"
    budget: Budget | None = None
    limits: Limits | None = None
    retry: Any = None
    on_incomplete: Literal["partial", "raise"] = "partial"
    output_type: Any = None
    sandbox: Any = "process"
    tools: Sequence[Any] = ()
    storage: Any = None
    show_progress: bool = False
    verbose: bool = False
    on_event: Hook | None = None

    _rlm: RLM = PrivateAttr()

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
        # A name is resolved here, once: a model that is made anew for each call would connect anew for each call.
        root = model_of(root_llm)
        sub = {name: model_of(model) for name, model in sub_llm.items()} if isinstance(sub_llm, Mapping) else model_of(sub_llm)
        rlm = RLM(root, sub, **options)
        bound = None if context is None else bound_to(context)
        super().__init__(**{"root_llm": root, "sub_llm": sub, "context": bound, "stream_tokens": stream_tokens, "name": name, **options})
        models = {name: traced(lm) for name, lm in rlm.options["sub_llm"].items()}
        self._rlm = rlm.replace(root_llm=traced(rlm.options["root_llm"]), sub_llm=models)

    @classmethod
    def from_rlm(cls, rlm: RLM, context: object = None) -> Self:
        """A runnable that asks in the way of an `RLM`."""
        return cls(**rlm.options, context=context)

    def with_context(self, context: object) -> Self:
        """The same, bound to a document: a text, a path, a Document, or a list of these."""
        return self.model_copy(update={"context": bound_to(context)})

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """What it takes."""
        return RLMInput

    @override
    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """What it gives."""
        return RLMOutput

    def _asked(self, given: Any) -> tuple[Asked, dict[str, Any]]:
        question = asked(given, self.context)
        return question, question.preview

    async def _whole(self, asked: Asked, manager: ChainRun, config: RunnableConfig) -> dict[str, Any]:
        output: dict[str, Any] = {}
        async with aclosing(self._parts(asked, manager, config)) as chunks:
            async for chunk in chunks:
                output |= chunk
        return output

    async def _parts(self, asked: Asked, manager: ChainRun, config: RunnableConfig) -> AsyncGenerator[dict[str, Any], None]:
        """One run: the document, the run's events as LangChain's, the output."""
        yield AddableDict(input=asked.question)
        trace = Trace(manager, stream_tokens=self.stream_tokens)
        trace.enter()
        teller = Teller(config, has_handlers=bool(manager.handlers))
        rlm = self._bounded(config.get("max_concurrency"))
        corpus = await asked.document.corpus(self.limits or Limits())
        try:
            async with aclosing(rlm.astream(asked.question, corpus, only=is_progress)) as events:
                async for event in events:
                    await trace.note(event)
                    if (progress := progress_of(event)) is not None:
                        await teller.tell(progress)
                    if isinstance(event, RunFinished):
                        result = event.result
        except BaseException as error:
            await trace.abandon(error)
            raise
        finally:
            if asked.is_ours:
                await to_the_end(offload(corpus.close))
        # A store holds its document: over a bound one it is kept with that, and over a user's own open Corpus by nobody.
        stores.keep(result, None if asked.is_ours else asked.document.stores)
        yield AddableDict(output_of(result, corpus))

    def _bounded(self, max_concurrency: int | None) -> RLM:
        """The RLM with no more calls at once than a configuration allows."""
        rlm = self._rlm
        most = min(self.max_parallel_calls, max_concurrency or self.max_parallel_calls)
        warn_of_slow([rlm.options["root_llm"], *rlm.options["sub_llm"].values()], most)
        return rlm if most == self.max_parallel_calls else rlm.replace(max_parallel_calls=most)
