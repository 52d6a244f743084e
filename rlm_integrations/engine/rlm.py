"""The public class `RLM`. Each function is a coroutine; its synchronous form runs it through the
portal.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

from rlm_integrations._concurrency.portal import portal
from rlm_integrations._shared_copies import SharedCopies
from rlm_integrations.engine._originals import suggest_replacements
from rlm_integrations.engine.answer import AnswerType
from rlm_integrations.engine.answering import Answering, corpus_for
from rlm_integrations.engine.chat import Chat, steps_of
from rlm_integrations.engine.display import display_hooks, with_turns
from rlm_integrations.engine.front_types import Context, Model, RLMOptions, RLMReplacements
from rlm_integrations.engine.prompts import Prompt
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.replaying import reopen
from rlm_integrations.engine.resuming import answer_as, resume
from rlm_integrations.engine.run_storage import RunStorage, RunStore
from rlm_integrations.engine.settings import Settings
from rlm_integrations.engine.stream import Wanted, stream_events
from rlm_integrations.errors import InputError
from rlm_integrations.events import Emitter, Event, Hook
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.resolve import resolve, sub_models
from rlm_integrations.records import Budget, Limits
from rlm_integrations.result import RLMResult, T_co
from rlm_integrations.sandbox.base import Sandbox

A = TypeVar("A")


class RLM(SharedCopies, Generic[T_co]):
    """Answers questions over documents that are larger than a model's context window.

    Args:
        root_llm: The model that writes code: a name such as "gpt-5-mini", "offline", or an object;
            see `lm.resolve`.
        sub_llm: The model that its code asks; the root's by default. A dict registers several by
            name, the first being the default.
        max_iterations: Turns of the root model.
        max_depth: How deep child runs may nest. At this depth, a question of code is one call of
            the sub-model, without a REPL.
        max_parallel_calls: The maximum of concurrent model calls, of a run and all its children.
        store_mode: "shared" gives code a store for findings, and "auto" tells models of it only
            where it can help: from `max_depth` 2 on, or with `store`. "none" gives it none.
        instructions: Your own words, which are added to the system prompt.
        prompt: Templates that replace the prompt; see `Prompt`.
        structured: Whether the root answers in a JSON schema, for models that break fences.
        budget: What a run may spend; see `Budget`.
        limits: All other limits of a run; see `Limits`.
        retry: When failed model calls are retried; see `Retry`.
        on_incomplete: What happens when a run ends without a final answer: "partial" returns the
            result with the best answer so far, "raise" raises `IncompleteError`, which contains
            that result.
        output_type: The type of answers: any type that pydantic validates. By default a string.
        sandbox: Where model code runs: "process", "inprocess" (for debugging), or a `Sandbox`.
        tools: Functions, sync or async, that model code may call by their names.
        require_coverage: The share of the document, from 0 to 1, that must have been in prompts
            before an answer is taken; 0 only completes `result.coverage`. See the engine's README.
        storage: Where runs are stored, so that they can be resumed; see `storage.Storage`.
        store: A store that outlives the run and may be shared by several, as in
            `storage.store("findings")`; by default each run has its own.
        cache: Whether a call that an earlier run of this storage made is answered from its record,
            and costs nothing.
        show_progress: Whether to show a line for each run and child run, with its turn, calls,
            tokens and cost, while stderr is a terminal, or in a notebook.
        verbose: Whether to print each turn to stderr.
        on_event: Called with each event; see `events`.

    Attributes:
        options: The arguments, with models resolved.

    Raises:
        InputError: An argument is invalid.
    """

    @overload
    def __init__(
        self: "RLM[str]",
        root_llm: Model,
        sub_llm: Model | Mapping[str, Model] | None = None,
        *,
        output_type: None = None,
        on_incomplete: Literal["partial", "raise"] = "partial",
        **options: Unpack[RLMOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: "RLM[A]",
        root_llm: Model,
        sub_llm: Model | Mapping[str, Model] | None = None,
        *,
        output_type: type[A],
        on_incomplete: Literal["raise"],
        **options: Unpack[RLMOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: "RLM[A | None]",
        root_llm: Model,
        sub_llm: Model | Mapping[str, Model] | None = None,
        *,
        output_type: type[A],
        on_incomplete: Literal["partial"] = "partial",
        **options: Unpack[RLMOptions],
    ) -> None: ...
    @overload
    def __init__(  # a type that is not a class, such as `int | None`
        self: "RLM[Any]",
        root_llm: Model,
        sub_llm: Model | Mapping[str, Model] | None = None,
        *,
        output_type: object,
        on_incomplete: Literal["partial", "raise"] = "partial",
        **options: Unpack[RLMOptions],
    ) -> None: ...
    @suggest_replacements
    def __init__(
        self,
        root_llm: Model,
        sub_llm: Model | Mapping[str, Model] | None = None,
        *,
        max_iterations: int = 20,
        max_depth: int = 1,
        max_parallel_calls: int = 10,
        store_mode: Literal["auto", "shared", "none"] = "auto",
        instructions: str | None = None,
        prompt: Prompt | None = None,
        structured: bool = False,
        budget: Budget | None = None,
        limits: Limits | None = None,
        retry: Retry | None = None,
        on_incomplete: Literal["partial", "raise"] = "partial",
        output_type: Any = None,
        sandbox: str | Sandbox = "process",
        tools: Sequence[Callable[..., Any]] = (),
        require_coverage: float | None = None,
        storage: RunStorage | None = None,
        store: RunStore | None = None,
        cache: bool = False,
        show_progress: bool = False,
        verbose: bool = False,
        on_event: Hook | None = None,
    ) -> None:
        self._models = {"root_llm": root_llm, "sub_llm": sub_llm}
        root = resolve(root_llm)
        self.options = MappingProxyType(
            {
                "root_llm": root,
                "sub_llm": sub_models(sub_llm, root),
                "max_iterations": max_iterations,
                "max_depth": max_depth,
                "max_parallel_calls": max_parallel_calls,
                "store_mode": store_mode,
                "instructions": instructions,
                "prompt": prompt,
                "structured": structured,
                "budget": budget,
                "limits": limits,
                "retry": retry,
                "on_incomplete": on_incomplete,
                "output_type": output_type,
                "sandbox": sandbox,
                "tools": tools,
                "require_coverage": require_coverage,
                "storage": storage,
                "store": store,
                "cache": cache,
                "show_progress": show_progress,
                "verbose": verbose,
                "on_event": on_event,
            }
        )
        self._settings = Settings.of(self.options)
        self._typed = AnswerType(output_type, most=self._settings.limits.answer_chars)
        self._hooks: list[Hook | None] = [
            on_event,
            *display_hooks(verbose=verbose, progress=show_progress),
        ]

    # Questions.

    async def acompletion(
        self, query: str, context: Context, *, run_id: str | None = None
    ) -> RLMResult[T_co]:
        """The answer to a question over a context, on the caller's event loop.

        Args:
            query: The question.
            context: A string, a list of strings or documents, or a `pathlib.Path`; see
                `Corpus.build`.
            run_id: The id of the run: 1 to 64 letters, digits, ".", "_" and "-"; a random one by
                default. If the storage has a run of this id, its result is returned; an
                unfinished one is resumed first, as by `aresume`.

        Raises:
            InputError: The question, the context or the id is invalid; or the stored run of this
                id has another question, document, model or other option.
            RunBusyError: Another process, or another task, has the stored run.
            ModelError: The root model failed at its first call.
            IncompleteError: The run ended without a final answer, and `on_incomplete` is "raise".
            BudgetExceededError: An `IncompleteError`: the budget is spent, and `on_incomplete` or
                the budget says "raise".
        """
        return await self._complete(query, context, Emitter(*self._hooks), run_id=run_id)

    def completion(
        self, query: str, context: Context, *, run_id: str | None = None
    ) -> RLMResult[T_co]:
        """The answer to a question over a context, for scripts, threads and notebooks.

        Args:
            query: The question.
            context: A string, a list of strings or documents, or a `pathlib.Path`; see
                `Corpus.build`.
            run_id: The id of the run; see `acompletion`.

        Raises:
            RLMError: As `acompletion`, its async version.
        """
        return portal().run(self.acompletion(query, context, run_id=run_id))

    def astream(
        self,
        query: str,
        context: Context,
        *,
        only: Wanted | None = None,
        run_id: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of a run as they occur; the last one is `RunFinished`, which has the result.
        Closing it cancels the run.

        Args:
            query: The question.
            context: As for `acompletion`.
            only: A filter: returns whether to yield an event. The last event is always yielded. A
                run of a thousand calls has several thousand events.
            run_id: The id of the run; see `acompletion`.
        """

        def ask(hook: Hook) -> Awaitable[RLMResult[T_co]]:
            return self._complete(query, context, Emitter(*self._hooks, hook), run_id=run_id)

        return stream_events(ask, only)

    def stream(
        self,
        query: str,
        context: Context,
        *,
        only: Wanted | None = None,
        run_id: str | None = None,
    ) -> Iterator[Event]:
        """The events of a run as they occur, for scripts, threads and notebooks; see `astream`.
        Closing the iterator early cancels the run.
        """
        return portal().iterate(self.astream(query, context, only=only, run_id=run_id))

    async def aquery(
        self, query: str, context: Context, *, verbose: bool | None = None
    ) -> tuple[T_co, list[dict[str, Any]]]:
        """The answer, and the turns of the run as plain dicts.

        Each step has the fields of `Iteration`; `step["subcalls"]` is the number of model calls
        that the turn's code and its child runs made.

        Args:
            query: The question.
            context: As for `acompletion`.
            verbose: Whether to print each turn to stderr; by default, as in the constructor.

        Raises:
            InputError: As in `acompletion`, which also lists the other errors.
        """
        hooks = with_turns(self._hooks, verbose=verbose)
        result = await self._complete(query, context, Emitter(*hooks))
        return result.answer, steps_of(result)

    def query(
        self, query: str, context: Context, *, verbose: bool | None = None
    ) -> tuple[T_co, list[dict[str, Any]]]:
        """The answer, and the turns of the run as plain dicts, for scripts, threads and notebooks;
        see `aquery`.
        """
        return portal().run(self.aquery(query, context, verbose=verbose))

    async def aresume(self, run_id: str, context: Context | None = None) -> RLMResult[T_co]:
        """The result of a stored run. An unfinished run is resumed, without paying for a recorded
        call again.

        Its code runs again, with the recorded answers. Models, tools and `output_type` must have
        the same names as before.

        Args:
            run_id: The id of the run, `result.run_id`.
            context: The document, if the storage does not store documents.

        Raises:
            InputError: The run does not exist, or the models, options or document differ.
            StorageError: Another process has the run.
            ReplayDivergedError: Its code made a call that is not in its record.
        """
        return await resume(self._answering(Emitter(*self._hooks)), run_id, context)

    def resume(self, run_id: str, context: Context | None = None) -> RLMResult[T_co]:
        """The result of a stored run, for scripts, threads and notebooks; see `aresume`."""
        return portal().run(self.aresume(run_id, context))

    def session(self, context: Context) -> Chat:
        """Several questions over one context and one REPL, which keeps its variables. Each question
        has its own store and budget.
        """

        async def opened() -> LazySession:
            return LazySession(await corpus_for(context, self._settings), is_kept=True)

        return Chat(self._complete, opened, context, self._hooks)

    def resume_session(self, run_id: str, context: Context | None = None) -> Chat:
        """A session that goes on after one of its stored questions, in this or another process.

        At its first question, the code of its earlier ones runs again with the recorded answers:
        no model or tool is called. A question that was interrupted counts as withdrawn: for its
        answer, `resume` it.

        Args:
            run_id: The run of its latest question, `result.run_id`.
            context: The document, if the storage does not store documents.
        """
        return Chat(
            self._complete,
            lambda: reopen(self._answering(Emitter()), run_id, context),
            context,
            self._hooks,
        )

    @overload
    def replace(self, **options: Unpack[RLMReplacements]) -> Self: ...
    @overload
    def replace(
        self,
        *,
        output_type: object = None,
        on_incomplete: Literal["partial", "raise"] = "partial",
        **options: Unpack[RLMReplacements],
    ) -> "RLM[Any]": ...
    def replace(self, **options: Any) -> "RLM[Any]":
        """A new RLM with some options replaced. It shares the models and their connections.

        Raises:
            InputError: An option is invalid or unknown.
        """
        if unknown := options.keys() - self.options.keys():
            raise InputError(
                f"RLM has no option {', '.join(map(repr, sorted(unknown)))}; "
                f"there are {', '.join(self.options)}"
            )
        return type(self)(**{**self.options, **options})

    def __repr__(self) -> str:
        subs = ", ".join(f"{name}={model.name!r}" for name, model in self._settings.subs.items())
        return f"<RLM: root {self._settings.root.name!r}, sub-models {subs}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the options, with the models as they were passed.

        Options that cannot be pickled, such as a lambda in `on_event`, raise.
        """
        return _rebuild, (type(self), {**self.options, **self._models})

    # Internals.

    async def _complete(
        self,
        query: str,
        context: object,
        emit: Emitter,
        *,
        repl: LazySession | None = None,
        run_id: str | None = None,
    ) -> RLMResult[T_co]:
        answering = self._answering(emit)
        if run_id is not None:
            return await answer_as(answering, run_id, query, context)
        return await answering.answer(query, context, repl=repl)

    def _answering(self, emit: Emitter) -> Answering:
        return Answering(
            self._settings, self._typed, emit, on_incomplete=self.options["on_incomplete"]
        )


def _rebuild(kind: type[RLM], options: dict[str, Any]) -> RLM:
    return kind(**options)
