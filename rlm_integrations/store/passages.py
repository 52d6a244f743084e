"""The document's own words at a place that a finding names."""

from typing import Final

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.store.base import Store
from rlm_integrations.store.checks import SpanText

LONGEST: Final = 20_000  # characters of one passage


def passage(store: Store, source: str, start: int, end: int) -> str:
    """The words from `start` up to `end` of a source, which is named as findings name it or by the
    id of its document.

    Raises:
        InputError: There is no such place, it is longer than can be read at once, or the document
            is not at hand.
    """
    corpus = store.corpus
    if corpus is None:
        raise InputError("there is no document beside these findings: they are all that there is")
    if end - start > LONGEST:
        raise InputError(
            f"{end - start:,} characters are more than can be read at once: at most {LONGEST:,}"
        )
    try:
        return corpus.text(_named(corpus, source), start, end)
    except ContextError as error:
        raise InputError(f"the document is no longer at hand ({error})") from error


def _named(corpus: SpanText, source: str) -> str:
    """The source that is meant by its name, or by the id of the document that it is alone in
    having.
    """
    if not isinstance(corpus, Corpus):
        return source
    named = [each.name for each in corpus.sources if each.document_id == source]
    return (
        named[0]
        if len(named) == 1 and all(each.name != source for each in corpus.sources)
        else source
    )
