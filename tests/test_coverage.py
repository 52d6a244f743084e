"""What was read: computed from the record alone."""

from rlm_integrations.corpus import Corpus
from rlm_integrations.coverage import ReadPart, read_parts
from rlm_integrations.records import SpanRef
from tests.report._made import DOCUMENT, made_run


def test_readings_are_those_of_the_answered_calls() -> None:
    """Each answered call counts the spans of its prompt, at its path and its number in the record;
    a failed call and a child's question count for nothing.
    """
    with Corpus.build(DOCUMENT) as corpus:
        run = made_run(corpus)
    coverage = run.coverage
    assert [(each.kind, each.number) for each in coverage.readings] == [
        ("call", number) for number in (1, 2, 3, 4, 6, 8, 9)
    ]
    inner = coverage.readings[5]
    assert (inner.path, inner.spans) == (
        "r.b1/b00000000aa.7",
        (SpanRef("context_1", 100, 900),),
    )
    assert coverage.readings_of(SpanRef("context_1", 899, 901)) == (inner,)
    assert coverage.readings_of(SpanRef("context_1", 900, 901)) == ()


def test_read_and_unread_parts_make_the_whole_document() -> None:
    """Every character is either read or unread, and the share is that of the characters."""
    with Corpus.build(DOCUMENT) as corpus:
        coverage = made_run(corpus).coverage
    (first, second) = coverage.sources
    assert second.read == (SpanRef("context_1", 100, 900),)
    assert second.unread == (
        SpanRef("context_1", 0, 100),
        SpanRef("context_1", 900, len(DOCUMENT[1])),
    )
    assert first.read[0] == SpanRef("context_0", 0, 8_000)  # the fifth call failed
    assert coverage.unread == (*first.unread, *second.unread)
    unread = sum(span.end - span.start for span in coverage.unread)
    assert coverage.characters_read + unread == coverage.characters == sum(map(len, DOCUMENT))
    assert coverage.share == coverage.characters_read / coverage.characters
    assert str(coverage).endswith("characters, by 7 calls")


def test_parts_have_no_gaps_and_count_their_readings() -> None:
    """Every character of a source is in one part, with the number of spans that contain it."""
    spans = [SpanRef("s", 2, 6), SpanRef("s", 4, 8), SpanRef("s", 9, 99), SpanRef("s", 3, 3)]
    parts = [(part.start, part.end, part.times) for part in read_parts(spans, 12)]
    assert parts == [(0, 2, 0), (2, 4, 1), (4, 6, 2), (6, 8, 1), (8, 9, 0), (9, 12, 1)]
    assert read_parts([], 5) == (ReadPart(0, 5, 0),)
    assert read_parts(spans, 0) == ()
