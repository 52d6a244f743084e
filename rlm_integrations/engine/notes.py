"""What a call does besides giving an answer, as its gate and its journal are told."""

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
