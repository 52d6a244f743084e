"""The record of a run: its setup and its result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rlm_integrations._concurrency import runtime
from rlm_integrations._json import to_plain
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.lazy import LazyCorpus
from rlm_integrations.corpus.source import Source
from rlm_integrations.engine.loop import Run
from rlm_integrations.engine.prompts import Prompt
from rlm_integrations.engine.settings import Settings
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import quote_value
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import VERSION, ModelNames, PreviousRun, RunSetup, SourceInfo

# Options that must be the same: with others, the run's code would do something else
_FIXED = (
    "max_depth",
    "store_mode",
    "instructions",
    "prompt",
    "structured",
    "sandbox",
    "tools",
    "output_type",
    "store",
    "require_coverage",
)
_DIFFERENCE_CHARS = 200  # of options whose difference is quoted
_NAME_CHARS = 200  # of the recorded name of a type
_SOURCES_ON_LOOP = 1_000  # more sources are listed in a thread


async def setup_of(
    settings: Settings,
    corpus: Corpus,
    question: str,
    *,
    on_incomplete: str,
    started: float,
    previous: PreviousRun | None = None,
) -> RunSetup:
    """The setup of a run."""
    is_short = len(corpus.sources) <= _SOURCES_ON_LOOP
    sources = _sources(corpus) if is_short else await runtime.offload(_sources, corpus)
    models = ModelNames(
        root=settings.root.name,
        subs={name: lm.name for name, lm in settings.subs.items()},
        default=next(iter(settings.subs)),
    )
    options = to_plain(
        {
            "max_iterations": settings.max_iterations,
            "max_depth": settings.max_depth,
            "max_parallel_calls": settings.max_parallel_calls,
            "store_mode": settings.store_mode,
            "instructions": settings.instructions,
            "structured": settings.form.schema is not None,
            "prompt": None if settings.prompt == Prompt() else settings.prompt,
            "on_incomplete": on_incomplete,
            "require_coverage": settings.require_coverage,
            "budget": asdict(settings.budget),
            "limits": asdict(settings.limits),
            "retry": asdict(settings.retry),
            "sandbox": str(getattr(settings.sandbox, "name", type(settings.sandbox).__name__)),
            "tools": [tool.spec.name for tool in settings.tools],
            "output_type": _type_name(settings.output_type),
            "store": None if settings.store is None else settings.store.name,
            "cache": settings.cache is not None,
        }
    )
    return RunSetup(
        question=question,
        sources=sources,
        models=models,
        options=options,
        version=VERSION,
        started=started,
        previous=previous,
    )


def make_result(
    tree: Tree, run: Run, setup: RunSetup, layers: Mapping[str, str], recorded: Mapping[str, str]
) -> RLMResult:
    """The record of a run in its current state.

    Args:
        tree: The objects that all runs of the tree share.
        run: The root's run.
        setup: The setup of the run.
        layers: The active layers of its sandbox.
        recorded: The recorded form of messages, by their content.
    """
    outcome = run.outcome
    return RLMResult(
        answer=outcome.answer,
        partial=None if outcome.stop_reason == "final" else outcome.partial,
        citations=tuple(outcome.citations),
        stop_reason=outcome.stop_reason,
        iterations=len(outcome.turns),
        total_calls=tree.purse.calls,
        spent=tree.purse.tally(),
        trajectory=tuple(outcome.turns),
        messages=tuple(
            replace(each, content=recorded.get(each.content, each.content))
            for each in outcome.messages
        ),
        run_id=tree.run_id,
        dropped=tuple(outcome.dropped),
        dropped_citations=outcome.dropped_citations,
        error=outcome.error,
        elapsed=tree.clock.now(),
        layers=dict(layers),
        store=tree.store,
        question=setup.question,
        sources=_sources_now(tree.corpus, setup.sources),
        models=setup.models,
        options=setup.options,
        version=setup.version,
        started=setup.started,
    )


def differences(stored: RunSetup, now: RunSetup, *, has_ended: bool = False) -> Sequence[str]:
    """What keeps a run from going on as it began, each as a sentence; or, if it has ended, its
    result from being the answer.
    """
    found = []
    if stored.question != now.question:
        found.append(
            f"its question is {quote_value(stored.question)}, not {quote_value(now.question)}"
        )
    if [source.sha256 for source in stored.sources] != [source.sha256 for source in now.sources]:
        found.append("its document is another one")
    if has_ended:
        return found
    if stored.models.root != now.models.root:
        found.append(f"its root model is {stored.models.root!r}, not {now.models.root!r}")
    if stored.models.subs != now.models.subs:
        names = (
            ", ".join(map(repr, each.values())) for each in (stored.models.subs, now.models.subs)
        )
        found.append("its sub-models are {}, not {}".format(*names))
    for name in _FIXED:
        before, after = stored.options.get(name), now.options.get(name)
        if before != after:
            is_short = len(f"{before!r}{after!r}") <= _DIFFERENCE_CHARS
            told = f"{before!r}, not {after!r}" if is_short else "another one"
            found.append(f"its {name} is {told}")
    return found


def _sources(corpus: Corpus) -> tuple[SourceInfo, ...]:
    return tuple(map(_source_info, corpus.sources))


def _sources_now(corpus: Corpus, sources: tuple[SourceInfo, ...]) -> tuple[SourceInfo, ...]:
    """The sources of a run, with what is known of those that were read since it began; without
    files that turned out not to be text.
    """
    if not isinstance(corpus, LazyCorpus):
        return sources
    now = list(sources)
    for number in corpus.read_numbers:
        now[number] = _source_info(corpus.sources[number])
    return tuple(each for each in now if each.name not in corpus.left_out)


def _source_info(source: Source) -> SourceInfo:
    file = source.metadata.get("file")
    return SourceInfo(
        name=source.name,
        length=source.length,
        sha256=source.sha256,
        file=file if isinstance(file, str) else None,
        id=source.document_id,
    )


def _type_name(kind: Any) -> str | None:
    """The name of the `output_type`, or None without one."""
    if kind is None:
        return None
    name = kind.__qualname__ if isinstance(kind, type) else str(kind)
    return name[:_NAME_CHARS]
