"""The first messages of a run, made from its options: the system prompt and the question."""

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.data_shape import describe_data
from rlm_integrations.corpus.folder import count_reasons
from rlm_integrations.corpus.lazy import LazyCorpus
from rlm_integrations.engine import prompts
from rlm_integrations.engine.answer import AnswerType
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.tree import Tree


def system_prompt(tree: Tree, depth: int, typed: AnswerType) -> str:
    """The system prompt of a run at this depth with this type of answer."""
    settings = tree.settings
    return prompts.system(
        prompt=settings.prompt,
        form=settings.form.prompt,
        shown=settings.limits.stdout_shown,
        rules=settings.sandbox.rules,
        sub_window=settings.sub.context_window,
        width=settings.max_parallel_calls,
        children=depth + 1 < settings.max_depth,
        models=list(settings.subs),
        tools=[tool.spec for tool in settings.tools],
        store=tree.store is not None and settings.offers_store,
        schema=typed.schema,
        instructions=settings.instructions,
    )


def first_question(tree: Tree, repl: LazySession, query: str, depth: int) -> str:
    """The question, with a description of the context and of the budget."""
    corpus = repl.corpus
    first = corpus.sources[0] if corpus.sources else None
    opening = None
    if not isinstance(corpus, LazyCorpus):
        most = min(prompts.OPENING, first.length) if first is not None else 0
        opening = corpus.text(first.name, 0, most) if first is not None else ""
    asked = prompts.question(
        query,
        template=tree.settings.prompt.question,
        sources={each.name: each.length for each in corpus.sources[: prompts.SOURCES_LISTED]},
        count=len(corpus.sources),
        characters=corpus.characters,
        kind=corpus.kind,
        data=_objects_of(corpus),
        left_out=count_reasons(corpus.left_out) if corpus.left_out else "",
        opening=opening,
        turns=tree.settings.max_iterations,
        budget={kind: left for kind, (left, _) in tree.purse.remaining().items()},
    )
    share = tree.settings.require_coverage
    required = [prompts.must_be_read(share)] if share and not depth else []
    renewed = [prompts.NEW_REPL] if repl.is_renewed else []
    return "\n\n".join([asked, *required, *renewed])


def _objects_of(corpus: Corpus) -> dict[str, str]:
    """The first objects of the context, as code names them, and what they are."""
    found: dict[str, str] = {}
    for number, source in enumerate(corpus.sources[: prompts.SOURCES_LISTED]):
        if source.is_object:
            key = repr(source.name) if corpus.is_named else str(number)
            name = f"context[{key}]" if corpus.is_list else "context"
            found[name] = describe_data(source.metadata)
    return found
