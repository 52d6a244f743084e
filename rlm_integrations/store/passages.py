"""The document's text at a place that a finding refers to."""

from typing import Final

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.store.base import Store
from rlm_integrations.store.checks import SpanText

MAX_PASSAGE_CHARS: Final = 20_000


def passage(store: Store, source: str, start: int, end: int) -> str:
    """The text from `start` to `end` of a source, given by its name in findings or by the id of its
    document.

    Raises:
        InputError: The place does not exist or is too long, or the document is not available.
    """
    corpus = store.corpus
    if corpus is None:
        raise InputError(
            "these findings have no document: only the findings themselves are available"
        )
    if end - start > MAX_PASSAGE_CHARS:
        raise InputError(
            f"{end - start:,} characters are more than can be read at once: at most "
            f"{MAX_PASSAGE_CHARS:,}"
        )
    try:
        return corpus.text(_source_name(corpus, source), start, end)
    except ContextError as error:
        raise InputError(
            f"the document is no longer in memory ({error}); a runnable or engine bound to "
            "it keeps it"
        ) from error


def _source_name(corpus: SpanText, source: str) -> str:
    """The name of a source, given by its name or by the id of its document, if no other source has
    the same id.
    """
    if not isinstance(corpus, Corpus):
        return source
    named = [each.name for each in corpus.sources if each.document_id == source]
    return (
        named[0]
        if len(named) == 1 and all(each.name != source for each in corpus.sources)
        else source
    )
