"""The data of a page, as JSON inside a document of HTML."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Final

from rlm_integrations._json import to_plain
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.spans import Locator
from rlm_integrations.coverage import Coverage
from rlm_integrations.engine.prompts.observation import cut_output, output_shares
from rlm_integrations.errors import InputError
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import SpanRef, Usage
from rlm_integrations.result import SCHEMA, RLMResult
from rlm_integrations.run_setup import ModelNames, SourceInfo
from rlm_integrations.trajectory import Citation, Execution, FunctionCall, Iteration, SubCall

MAX_TEXT_CHARS: Final = 50_000_000  # of the document in a page: browsers hold no more with ease
_DEFAULT_SHOWN: Final = 10_000  # `Limits.stdout_shown`, for a record without options

# "<" could end the element, and a lone surrogate cannot be encoded.
_UNSAFE: Final = re.compile("[<\u2028\u2029\ud800-\udfff]")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def embedded_json(value: Any) -> str:
    """JSON that may stand in a `script` element: no value can end the element or be markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# What the page's scripts fill in again, by the names that they use
_RECORDS: Final = {
    "run": RLMResult,
    "turn": Iteration,
    "block": Execution,
    "call": SubCall,
    "function": FunctionCall,
    "prompt": PromptPieces,
    "span": SpanRef,
    "citation": Citation,
    "usage": Usage,
    "source": SourceInfo,
    "models": ModelNames,
}
_KINDS: Final = frozenset(_RECORDS.values())


def is_record(value: Any) -> bool:
    """Whether the page knows this kind of record."""
    return type(value) in _KINDS


def record_of(result: RLMResult) -> dict[str, Any]:
    """The result as plain JSON, which `RLMResult.from_dict` reads."""
    record: dict[str, Any] = {"schema": SCHEMA, **compact_record(result)}
    return record


def compact_record(value: Any) -> Any:
    """A record as plain JSON without the fields that have their default, which `from_dict` and the
    page fill in.
    """
    if isinstance(value, tuple):
        return [compact_record(each) for each in value]
    kind: Any = type(value)
    if kind not in _KINDS:
        return to_plain(value)
    given = ((name, getattr(value, name), default) for name, default in _defaults_of(kind))
    return {name: compact_record(each) for name, each, default in given if each != default}


def record_defaults() -> dict[str, Any]:
    """The defaults of the fields of each record, as plain JSON."""
    return {
        name: {
            field: to_plain(default)
            for field, default in _defaults_of(kind)
            if default is not MISSING
        }
        for name, kind in _RECORDS.items()
    }


@cache
def _defaults_of(kind: Any) -> list[tuple[str, Any]]:
    """The name and the default of each field."""
    return [
        (
            each.name,
            each.default if each.default_factory is MISSING else each.default_factory(),
        )
        for each in fields(kind)
    ]


def check_document(result: RLMResult, corpus: Corpus) -> None:
    """Check that this is the document of the run.

    Raises:
        InputError: It is another one, or too large for a page.
    """
    # Files of a large folder that the run did not read do not matter
    unread = {each.name for each in result.sources if not each.sha256}
    one, other = (
        [(each.name, each.length, each.sha256) for each in sources if each.name not in unread]
        for sources in (result.sources, corpus.sources)
    )
    if one != other:
        raise InputError("this is not the document of the run: its text differs")
    if corpus.characters > MAX_TEXT_CHARS:
        raise InputError(
            f"the document has {corpus.characters:,} characters, and a page holds at most "
            f"{MAX_TEXT_CHARS:,}: make the page without it"
        )


def reading_data(result: RLMResult, corpus: Corpus | None) -> dict[str, Any]:
    """What was read of each source: `readings` has the row's kind and number, the source's index,
    and the offsets; `sources` the parts with the number of prompts that had them.
    """
    coverage = Coverage.of(result, None if corpus is None else _shown_parts(result, corpus))
    numbers = {source.name: number for number, source in enumerate(result.sources)}
    return {
        "readings": [
            [reading.kind, reading.number, numbers[span.source], span.start, span.end]
            for reading in coverage.readings
            for span in reading.spans
            if span.source in numbers
        ],
        "sources": [
            [[part.start, part.end, part.times] for part in source.parts]
            for source in coverage.sources
        ],
    }


def _shown_parts(result: RLMResult, corpus: Corpus) -> Callable[[Iteration], Iterator[SpanRef]]:
    """A function that finds the document's parts in the output that the next turn was shown."""
    limits = result.options.get("limits")  # a file may have anything here
    shown = limits.get("stdout_shown") if isinstance(limits, Mapping) else None
    shown = shown if isinstance(shown, int) else _DEFAULT_SHOWN
    locator = Locator(corpus)

    def parts(turn: Iteration) -> Iterator[SpanRef]:
        ran = turn.executions
        shares = output_shares([len(each.output) + each.dropped for each in ran], shown)
        for each, share in zip(ran, shares, strict=True):
            yield from locator.locate(
                cut_output(each.output.rstrip("\n"), share, each.dropped)
            ).spans

    return parts


def texts_of(corpus: Corpus) -> dict[str, str]:
    """The text of each source. Surrogates, which no browser can show, are replaced."""
    return {
        source.name: _LONE_SURROGATE.sub("\ufffd", corpus.text(source.name))
        for source in corpus.sources
    }
