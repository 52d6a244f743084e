"""The side effects of a call, which the gate and the journal record."""

from dataclasses import dataclass

from rlm_integrations.records import SpanRef
from rlm_integrations.store.log import StoreEvent


@dataclass(frozen=True, slots=True)
class AmbiguousQuote:
    """`cite` found the words in several places; `span` is the first one."""

    span: SpanRef


@dataclass(frozen=True, slots=True)
class UncheckedQuote:
    """`cite` could not look up a quote, because the document's file has changed."""


CallNote = StoreEvent | AmbiguousQuote | UncheckedQuote
