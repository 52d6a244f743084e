"""The data of a page, as JSON inside a document of HTML."""

import json
import re
from typing import TYPE_CHECKING, Any, Final

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.spans import Locator
from rlm_integrations.engine.coverage import Locate, read_parts, readings_of
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult

MAX_TEXT_CHARS: Final = 50_000_000  # of the document in a page: browsers hold no more with ease
_DEFAULT_SHOWN: Final = 10_000  # `Limits.stdout_shown`, for a record without options

# "<" could end the element, and a lone surrogate cannot be encoded.
_UNSAFE: Final = re.compile("[<\u2028\u2029\ud800-\udfff]")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def embedded_json(value: Any) -> str:
    """JSON that may stand in a `script` element: no value can end the element or be markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def check_document(result: "RLMResult", corpus: Corpus) -> None:
    """Check that this is the document of the run.

    Raises:
        InputError: It is another one, or too large for a page.
    """
    read = [(each.name, each.length, each.sha256) for each in result.sources]
    if read != [(each.name, each.length, each.sha256) for each in corpus.sources]:
        raise InputError("this is not the document of the run: its text differs")
    if corpus.characters > MAX_TEXT_CHARS:
        raise InputError(
            f"the document has {corpus.characters:,} characters, and a page holds at most "
            f"{MAX_TEXT_CHARS:,}: make the page without it"
        )


def reading_data(result: "RLMResult", corpus: Corpus | None) -> dict[str, Any]:
    """What was read of each source: `readings` has the row's kind and number, the source's index,
    and the offsets; `sources` the parts with the number of prompts that had them.
    """
    locate: Locate | None = Locator(corpus).locate if corpus is not None else None
    shown = result.options.get("limits", {}).get("stdout_shown", _DEFAULT_SHOWN)
    readings = readings_of(result.trajectory, shown=shown, locate=locate)
    numbers = {source.name: number for number, source in enumerate(result.sources)}
    spans: list[list[SpanRef]] = [[] for _ in result.sources]
    rows = []
    for reading in readings:
        for span in reading.spans:
            number = numbers.get(span.source)
            if number is not None:
                spans[number].append(span)
                rows.append([reading.kind, reading.number, number, span.start, span.end])
    parts = [
        [[part.start, part.end, part.times] for part in read_parts(own, source.length)]
        for own, source in zip(spans, result.sources, strict=True)
    ]
    return {"readings": rows, "sources": parts}


def texts_of(corpus: Corpus) -> dict[str, str]:
    """The text of each source. Surrogates, which no browser can show, are replaced."""
    return {
        source.name: _LONE_SURROGATE.sub("\ufffd", corpus.text(source.name))
        for source in corpus.sources
    }
