"""Evidence: a citation's quote is exactly the document's text; other evidence is dropped and
counted, never shown.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from rlm_integrations.corpus import Corpus
from rlm_integrations.engine.citations import MAX_CITATIONS, verify_evidence
from rlm_integrations.records import SpanRef
from rlm_integrations.sandbox.wire import Opaque
from tests.engine.conftest import Scripted, check_citations, code, run

TEXT = (
    "The bridge at Ulm\nwas closed  in 1512, “for ever”.\r\nNobody crossed it — until 1530. The bridge at Ulm stands. "
    + "x" * 50_000
)
LOOSE = "The bridge at Ulm was closed in 1512, “for ever”."


@pytest.mark.parametrize(
    ("evidence", "quotes", "dropped"),
    [
        ("cite('Nobody crossed it')", ["Nobody crossed it"], 0),
        ("[cite('Nobody crossed it'), cite('until 1530')]", ["Nobody crossed it", "until 1530"], 0),
        ("['Nobody crossed it']", ["Nobody crossed it"], 0),
        ("'Nobody crossed it'", ["Nobody crossed it"], 0),
        ("SpanRef('context_0', 4, 10)", ["bridge"], 0),
        ("[{'source': 'context_0', 'start': 4, 'end': 10}]", ["bridge"], 0),
        ("store.get(store.create('note', 'd', 'c', [cite('Nobody')])).backrefs", ["Nobody"], 0),
        (f"[{LOOSE!r}]", [TEXT[: TEXT.index("”.") + 2]], 0),
        (f"cite({LOOSE!r})", [TEXT[: TEXT.index("”.") + 2]], 0),
        ("[cite('crossed it — until'), 'crossed   it —\\n\\tuntil']", ["crossed it — until"], 0),
        ("['an invented sentence', 'Nobody crossed it']", ["Nobody crossed it"], 1),
        ("[cite('an invented sentence')]", [], 0),
        ("[cite('an invented sentence'), 'another one']", [], 1),
        (
            "[SpanRef('context_0', 0, 10**9), SpanRef('context_0', 5, 2), SpanRef('context_0', 3, 3), SpanRef('nowhere', 0, 5)]",
            [],
            4,
        ),
        ("[SpanRef('context_0', -5, 5), SpanRef('context_0', 0, 10**30)]", [], 2),
        ("[5, None, 2.5, {}, object(), '', '   ', {'source': 1}]", [], 7),
        ("[['Nobody'], ['until']]", ["Nobody", "until"], 0),
        ("[cite('Nobody')] * 5", ["Nobody"], 0),
        ("None", [], 0),
        ("[]", [], 0),
    ],
)
async def test_evidence_is_verified(evidence: str, quotes: list[str], dropped: int) -> None:
    """Spans, quotes and dicts are verified, quotes also with other white space; invented quotes and
    invalid spans are dropped and counted.
    """
    result = await run(Scripted([code(f"FINAL('x', evidence={evidence})")]), TEXT)
    assert (result.answer, result.stop_reason) == ("x", "final")
    assert [each.quote for each in result.citations] == quotes
    assert result.dropped_citations == dropped
    check_citations(result, TEXT)


@pytest.mark.parametrize(
    "finish",
    [
        "FINAL_VAR('x', evidence=[cite('Nobody')])",
        "FINAL('x', [cite('Nobody')])",
        "SUBMIT('x', evidence=['Nobody'])",
    ],
)
async def test_every_way_to_finish_takes_evidence(finish: str) -> None:
    """Evidence can be passed by name or position, and with the functions of other libraries."""
    result = await run(Scripted([code("x = 'x'", finish)]), TEXT)
    assert [each.quote for each in result.citations] == ["Nobody"]


async def test_citations_name_source_and_metadata() -> None:
    """With a list of documents, each citation has its source's name and metadata."""
    documents = [
        Document(page_content=f"Text {n} says {n * n}.", metadata={"page": n}) for n in range(20)
    ]
    result = await run(
        Scripted([code("FINAL('x', [cite('says 49'), cite('says 4', source='context_2')])")]),
        documents,
    )
    assert [(each.source, each.metadata) for each in result.citations] == [
        ("context_7", {"page": 7}),
        ("context_2", {"page": 2}),
    ]
    check_citations(result, *(document.page_content for document in documents))


async def test_citations_of_a_file_are_its_characters(tmp_path: Path) -> None:
    """Offsets count characters of the text in any encoding; line ends are not translated."""
    (tmp_path / "text").write_bytes(TEXT.encode())
    result = await run(Scripted([code("FINAL('x', [cite('until 1530')])")]), tmp_path / "text")
    check_citations(result, TEXT)
    assert result.citations[0].start == TEXT.index("until 1530")


async def test_thousands_of_pieces_are_bounded_and_counted() -> None:
    """The first thousand pieces of evidence are verified, the others counted as dropped."""
    text = "".join(f"Line {number} stands. " for number in range(3_000))
    result = await run(
        Scripted(
            [
                code(
                    "FINAL('x', [cite(f'Line {n} stands.') for n in range(1500)] + ['invented'] * 500)"
                )
            ]
        ),
        text,
    )
    assert (len(result.citations), result.dropped_citations) == (
        MAX_CITATIONS,
        2_000 - MAX_CITATIONS,
    )
    check_citations(result, text)


async def test_an_endless_quote_is_refused() -> None:
    """A quote above the length limit is refused by `cite` and dropped as evidence."""
    root = Scripted(
        [
            code("cite('x' * 100_001)"),
            code("FINAL('x', ['x' * 100_001, SpanRef('context_0', 0, 100_001)])"),
        ]
    )
    result = await run(root, "x" * 200_000)
    assert "a quote has at most 100,000 characters" in root.told[1]
    assert (result.citations, result.dropped_citations) == ((), 2)


async def test_many_quotes_that_are_nowhere_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for one answer's quotes reads a limited part of the document; spans cost nothing
    and are still verified.
    """
    monkeypatch.setattr("rlm_integrations.engine.citations._MAX_READ_CHARS", 10 * len(TEXT))
    with Corpus.build(TEXT) as corpus:
        evidence = [f"invented {n}" for n in range(50)] + ["Nobody", SpanRef("context_0", 4, 10)]
        verified = verify_evidence(evidence, corpus, corpus)
    quotes = [each.quote for each in verified.citations]
    assert (quotes, verified.dropped_count) == (["bridge"], 51)
    assert verified.dropped[-1].reason == "limit reached"


PIECES = st.one_of(
    st.text(max_size=30),
    st.builds(
        SpanRef,
        st.sampled_from(["context_0", "context_1", "x", ""]),
        st.integers(-10, 60),
        st.integers(-10, 60),
    ),
    st.builds(Opaque, st.text(max_size=5), st.text(max_size=5)),
    st.recursive(
        st.none() | st.integers() | st.floats() | st.booleans(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    ),
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["context_0", 5]),
            "start": st.integers(-5, 60),
            "end": st.integers(-5, 60),
        }
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=200)
@given(st.lists(PIECES, max_size=8), st.text(max_size=50), st.text(max_size=50))
def test_hostile_evidence_never_makes_a_wrong_citation(
    evidence: list[Any], one: str, other: str
) -> None:
    """For any hostile evidence, citations have only the document's text, and every piece is a
    citation, a duplicate or counted.
    """
    with Corpus.build([one, other]) as corpus:
        verified = verify_evidence(evidence, corpus, corpus)
    for citation in verified.citations:
        assert (
            {"context_0": one, "context_1": other}[citation.source][citation.start : citation.end]
            == citation.quote
            != ""
        )
    assert len(verified.citations) + verified.dropped_count <= sum(
        len(each) if isinstance(each, list) else 1 for each in evidence
    )


async def test_citations_survive_a_round_trip() -> None:
    """Citations are unchanged by JSON."""
    result = await run(Scripted([code("FINAL('x', [cite('“for ever”')])")]), TEXT)
    again = type(result).from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.citations == result.citations


async def test_ambiguous_quotes_are_marked() -> None:
    """A quote, or a result of `cite`, that occurs more than once is a citation of its first place,
    marked as ambiguous.
    """
    text = "The cat sat. The dog ran. The cat sat."
    root = Scripted(
        [
            code(
                "FINAL('x', evidence=[cite('The cat sat.'), 'The dog ran.', 'The cat sat.', SpanRef('context_0', 26, 38)])"
            )
        ]
    )
    result = await run(root, text)
    assert [(each.start, each.ambiguous) for each in result.citations] == [
        (0, True),
        (13, False),
        (26, False),
    ]
    check_citations(result, text)
