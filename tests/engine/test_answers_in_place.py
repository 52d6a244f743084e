"""Answers that cite in place: `[1]` in an answer points to the first piece of its evidence."""

import json

import pytest

from rlm_integrations.result import RLMResult
from tests.engine.conftest import Scripted, check_citations, code, run

TEXT = "The bridge was built in 1512. It burned in 1530.\nThe mill stands. " + "x" * 60_000
BUILT, BURNED = "cite('built in 1512')", "cite('burned in 1530')"


async def answered(value: str, evidence: str) -> RLMResult:
    """The result of a run that ends with this value and evidence."""
    result = await run(Scripted([code(f"FINAL({value}, evidence={evidence})")]), TEXT)
    assert result.stop_reason == "final"
    check_citations(result, TEXT)
    return result


def cited(result: RLMResult) -> list[tuple[str, list[str]]]:
    """The statements of the answer with their quotes."""
    return [
        (result.answer[each.start : each.end], [own.quote for own in each.citations])
        for each in result.answer_citations
    ]


async def test_numbers_point_to_the_evidence_in_order() -> None:
    """Each statement has the citations that follow it; sentences without any are known."""
    text = "'It was built in 1512 [1], and burned in 1530 [2]. Nobody knows why. It is old. [1, 2]'"
    result = await answered(text, f"[{BUILT}, {BURNED}]")
    assert cited(result) == [
        ("It was built in 1512", ["built in 1512"]),
        ("and burned in 1530", ["burned in 1530"]),
        ("It is old.", ["built in 1512", "burned in 1530"]),
    ]
    assert result.uncited == ("Nobody knows why.",)
    assert [each.numbers for each in result.answer_citations] == [(1,), (2,), (1, 2)]


@pytest.mark.parametrize(
    ("value", "evidence", "answer"),
    [
        # Dropped and repeated evidence: numbers are those of the citations that are shown
        ("'A [1]. B [2]. C [3].'", f"['invented', {BUILT}, {BURNED}]", "A. B [1]. C [2]."),
        ("'A [1]. B [2].'", f"[{BUILT}, {BUILT}]", "A [1]. B [1]."),
        ("'A [1]. B [2].'", f"[[{BUILT}, {BURNED}], cite('mill')]", "A [1][2]. B [3]."),
        ("'A [1]. B [2].'", f"[cite('not there'), {BUILT}]", "A. B [1]."),
        ("'A [2-3].'", f"[{BUILT}, {BURNED}, cite('mill')]", "A [2][3]."),
        # What only looks like a number of a citation
        ("'See x[7] and `y [1]` and [1](a) [1].'", f"[{BUILT}]", "See x[7] and `y [1]` and [1](a) [1]."),
        ("'Lines [4] and [5].'", "[]", "Lines [4] and [5]."),
        ("'The answer is 1512.'", f"[{BUILT}]", "The answer is 1512."),
    ],
)  # fmt: skip
async def test_an_answer_shows_the_numbers_of_its_citations(
    value: str, evidence: str, answer: str
) -> None:
    """A number in the answer is that of a citation of the result; without evidence, text stays as
    it is.
    """
    assert (await answered(value, evidence)).answer == answer


async def test_unknown_numbers_are_dropped_and_counted() -> None:
    """A number for which no evidence was given is not shown."""
    result = await answered("'A [1]. B [4].'", f"[{BUILT}]")
    assert (result.answer, result.dropped_citations) == ("A [1]. B.", 1)
    assert [(each.evidence, each.reason) for each in result.dropped] == [("[4]", "unknown number")]


async def test_a_final_may_be_sentences_with_their_evidence() -> None:
    """Sentences as `{"text": …, "evidence": …}` become one text with numbers."""
    first = f"{{'text': 'Built.', 'evidence': [{BUILT}]}}"
    second = f"{{'text': 'Burned.', 'evidence': [{BURNED}, {BUILT}]}}"
    sentences = f"[{first}, {second}, {{'text': 'Why?', 'evidence': []}}]"
    result = await answered(sentences, "[]")
    assert result.answer == "Built. [1] Burned. [2][1] Why?"
    assert cited(result) == [
        ("Built.", ["built in 1512"]),
        ("Burned.", ["burned in 1530", "built in 1512"]),
    ]
    assert result.uncited == ("Why?",)
    one = await answered(f"{{'text': 'Built.', 'evidence': {BUILT}}}", "[]")
    assert one.answer == "Built. [1]"


async def test_an_answer_that_code_gets_has_no_numbers() -> None:
    """The numbers of a child's answer would be taken for those of its caller's evidence."""
    root = Scripted(
        {
            "built?": [code(f"FINAL('Built [1].', evidence=[{BUILT}])")],
            "": [
                code("print(recursive_lm('built?', context[:100]))"),
                code(f"FINAL('Burned [1].', evidence=[{BURNED}])"),
            ],
        }
    )
    result = await run(root, TEXT, max_depth=2)
    assert result.repl_history[0].stdout == "Built.\n"
    assert cited(result) == [("Burned", ["burned in 1530"])]


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ("'The bridge fell in 1512'", "not found"),
        ("'The bridge built in 1512'", "found with other words between"),
        ("{'quote': 'The mill stands', 'source': 'context_7'}", "stands in another source"),
        ("5", "no evidence"),
        ("SpanRef('context_0', 5, 10**9)", "not found"),
        ("'x' * 100_001", "limit reached"),
    ],
)
async def test_what_is_dropped_says_why(evidence: str, reason: str) -> None:
    """Evidence that is not shown is listed with the reason, also in a saved record."""
    result = await answered("'A'", f"[{evidence}]")
    assert [each.reason for each in result.dropped] == [reason]
    assert result.dropped_citations == 1
    again = RLMResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.dropped == result.dropped


async def test_a_quote_of_a_child_may_stand_elsewhere() -> None:
    """A child can cite only its part of the document."""
    root = Scripted(
        {
            "mill?": [code("FINAL('x', evidence=['The mill stands'])")],
            "": [code("print(recursive_lm('mill?', context[:29]))", "FINAL('x')")],
        }
    )
    result = await run(root, TEXT, max_depth=2)
    (call,) = result.repl_history[0].subcalls
    assert (call.dropped_citations, call.citations) == (1, ())
