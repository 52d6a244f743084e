"""Runs for LlamaIndex: started from sync and async methods, reported as its events, with citations
as its nodes.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import aclosing, closing
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, NoReturn, cast

from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from pydantic import BaseModel

from rlm_integrations._concurrency.portal import portal
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import InputError
from rlm_integrations.events import Emitter, Event, RunFinished
from rlm_integrations.faces.progress import is_progress, progress_of
from rlm_integrations.llama_index._defaults import callbacks, default_llm
from rlm_integrations.llama_index.cited import EvidenceOfRun, found
from rlm_integrations.llama_index.fast import warn_of_slow
from rlm_integrations.llama_index.progress import ProgressReporter
from rlm_integrations.llama_index.results import Results
from rlm_integrations.llama_index.texts import TextSource
from rlm_integrations.llama_index.traced import traced
from rlm_integrations.llama_index.workflow_runs import run_in_workflow
from rlm_integrations.records import Limits
from rlm_integrations.result import RLMResult
from rlm_integrations.store import SharedStore

if TYPE_CHECKING:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.workflow import Context

OPTIONS = tuple(name for name in signature(RLM).parameters if name not in {"root_llm", "sub_llm"})
QUESTION = "question_template"
_PROBE_QUESTION = "a question"
_NO_OPTIONS: Mapping[str, Any] = {}


class Runs:
    """The runs of one engine or synthesizer, for its sync and async API.

    Args:
        rlm: The RLM to run.
        follow: Options to refresh from LlamaIndex's current default model before each run.

    Attributes:
        results: The latest results.
        limits: The RLM's limits.
        template: The prompt template of the question.
        callbacks: Returns the callback manager that receives calls of models which are not
            LlamaIndex's.
    """

    def __init__(self, rlm: RLM, follow: Mapping[str, Any] | None = None) -> None:
        self.limits: Limits = rlm.options["limits"] or Limits()
        self.results = Results()
        self.template: BasePromptTemplate = PromptTemplate("{query_str}")
        self.callbacks: Callable[[], CallbackManager] = partial(callbacks, None)
        self._rlm = self._followed(rlm)
        self._follow = follow
        self._default: object = None
        self._workflow: Context | None = None

    def in_workflow(self, ctx: "Context") -> "Runs":
        """These runs, inside of a workflow with this context."""
        inside = object.__new__(type(self))
        inside.__dict__.update(self.__dict__, _workflow=ctx)
        return inside

    def _followed(self, rlm: RLM) -> RLM:
        """The RLM with its model calls traced by LlamaIndex and its results kept."""
        models = {
            id(lm): traced(lm, self._listening)
            for lm in (rlm.options["root_llm"], *rlm.options["sub_llm"].values())
        }
        subs = {name: models[id(lm)] for name, lm in rlm.options["sub_llm"].items()}
        hook = Emitter(rlm.options["on_event"], self._keep)
        return rlm.replace(
            root_llm=models[id(rlm.options["root_llm"])], sub_llm=subs, on_event=hook
        )

    def _listening(self) -> "CallbackManager":
        return self.callbacks()

    def _keep(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.results.keep(event.result)

    @classmethod
    def of(
        cls,
        llm: Any,
        sub_llm: Any = None,
        output_cls: type[BaseModel] | None = None,
        options: Mapping[str, Any] = _NO_OPTIONS,
        own: Iterable[str] = (),
    ) -> "Runs":
        """Runs with these models and options. An `RLM` or another `Runs` can be passed instead of a
        model.

        Args:
            llm: The model, an `RLM`, or other runs.
            sub_llm: The model that code calls.
            output_cls: A pydantic class for typed answers.
            options: The options of `RLM`.
            own: The caller's further options, for the message about an unknown option.

        Raises:
            InputError: An argument is invalid.
        """
        if isinstance(llm, Runs):
            return llm
        if isinstance(llm, RLM):
            if given := [
                *options,
                *(["sub_llm"] if sub_llm is not None else []),
                *(["output_cls"] if output_cls is not None else []),
            ]:
                raise InputError(
                    f"an RLM already has its options: pass {', '.join(given)} to RLM(…) or "
                    "rlm.replace(…)"
                )
            return cls(llm)
        options = dict(options)
        if isinstance(llm, StructuredLLM):
            output_cls, llm = output_cls or llm.output_cls, llm.llm
        if "root_llm" in options:
            raise InputError("root_llm=…: use llm=… instead")
        if unknown := options.keys() - OPTIONS:
            known = ", ".join(
                [*own, "llm", "sub_llm", "output_cls", "streaming", "callback_manager", *OPTIONS]
            )
            raise InputError(
                f"there is no option {', '.join(map(repr, sorted(unknown)))}; there are {known}"
            )
        if output_cls is not None:
            if BaseModel not in getattr(output_cls, "__mro__", ()):
                raise InputError(
                    "output_cls must be a class derived from pydantic's BaseModel, not "
                    f"{output_cls!r}"
                )
            if options.get("output_type") is not None:
                raise InputError("output_cls and output_type are the same option: pass one of them")
            options["output_type"] = output_cls
        rlm = RLM("offline" if llm is None else llm, sub_llm).replace(**options)
        follow = None if llm is not None else {} if sub_llm is not None else {"sub_llm": None}
        return cls(rlm, follow)

    @property
    def rlm(self) -> RLM:
        """The RLM, with LlamaIndex's current default model if no model was given."""
        if self._follow is not None and (llm := default_llm()) is not self._default:
            self._rlm = self._rlm.replace(root_llm=llm, **self._follow)
            self._default = llm
        return self._rlm

    def run(self, query: QueryBundle, reading: TextSource) -> EvidenceOfRun | None:
        """Answer a question over texts, for sync methods; None if there is nothing to read."""
        if self._workflow is not None:
            raise InputError("in a workflow, ask with an asynchronous method, such as aquery")
        rlm, question, reporter = self.rlm, self.question(query), ProgressReporter()
        texts, result = portal().run(reading.open()), None
        try:
            if texts.is_blank:
                return None
            with closing(
                cast("Generator[Event]", rlm.stream(question, texts.corpus, only=is_progress))
            ) as events:
                for event in events:
                    result = self.note(event, reporter) or result
            return found(_checked(result), texts)
        finally:
            portal().run(reading.close(texts))

    async def arun(self, query: QueryBundle, reading: TextSource) -> EvidenceOfRun | None:
        """The same for async methods, on the caller's event loop."""
        rlm, question, reporter = self.rlm, self.question(query), ProgressReporter()
        warn_of_slow(
            [rlm.options["root_llm"], *rlm.options["sub_llm"].values()],
            rlm.options["max_parallel_calls"],
        )
        texts, result = await reading.open(), None
        try:
            if texts.is_blank:
                return None
            async with run_in_workflow(self._workflow, rlm, question, texts.corpus) as run_id:
                events = rlm.astream(question, texts.corpus, only=is_progress, run_id=run_id)
                async with aclosing(events):
                    async for event in events:
                        result = self.note(event, reporter) or result
            return await in_thread(found, _checked(result), texts)
        finally:
            await reading.close(texts)

    def prompts(self) -> PromptDictType:
        """The one prompt that users can change: the template of the question."""
        return {QUESTION: self.template}

    def update_prompts(self, prompts: PromptDictType) -> None:
        """Change the template of all further questions.

        Raises:
            InputError: The template has no place for the question.
        """
        template = prompts.get(QUESTION, self.template)
        if _PROBE_QUESTION not in template.format(query_str=_PROBE_QUESTION):
            raise InputError(f"{QUESTION} must contain {{query_str}}, the place of the question")
        self.template = template

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "models and documents cannot be pickled: keep the documents and options, and "
            "create the object again"
        )

    def question(self, query: QueryBundle) -> str:
        """The question, formatted with the template.

        Raises:
            InputError: It is empty, or not a string.
        """
        given: object = query.query_str
        if not isinstance(given, str) or not given.strip():
            raise InputError(f"the question must be a non-empty string, not {given!r}")
        return self.template.format(query_str=query.query_str)

    def note(self, event: Event, reporter: ProgressReporter) -> RLMResult | None:
        """Report an event to LlamaIndex; returns the result if the run has finished."""
        if isinstance(event, RunFinished):
            return event.result
        if (progress := progress_of(event)) is not None:
            reporter(progress)
        return None


class WithRuns:
    """The public view of an object's runs: the latest result and the question's prompt."""

    _runs: Runs

    @property
    def last_result(self) -> RLMResult | None:
        """The result of the latest run."""
        return self._runs.results.last

    @property
    def last_store(self) -> SharedStore | None:
        """The findings of the latest run, for an `RLMStoreRetriever`."""
        return self._runs.results.last_store

    def _get_prompts(self) -> PromptDictType:
        return self._runs.prompts()

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._runs.update_prompts(prompts)


def _checked(result: RLMResult | None) -> RLMResult:
    if result is None:
        raise RuntimeError("a stream of events ended without a result")
    return result
