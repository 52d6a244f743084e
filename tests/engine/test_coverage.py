"""What a run read: recorded exactly, and required before a final answer is taken."""

import random
from pathlib import Path

import pytest

from rlm_integrations import RLM, Budget, InputError, Limits, RLMResult, SpanRef, verify
from rlm_integrations.corpus import reading
from rlm_integrations.records import Request
from rlm_integrations.storage import Storage
from tests.engine.conftest import Scripted, code, final, run
from tests.engine.coverage_runs import check_all

READ_ALL = code(
    "texts = context if isinstance(context, list) else [context]",
    "chunks = [text[at:at + 1000] for text in texts for at in range(0, len(text), 1000)]",
    "replies = llm_batch(['What is in here?\\n' + chunk for chunk in chunks])",
)


def words(count: int, seed: int = 1) -> str:
    draw = random.Random(seed)
    return " ".join(
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9)))
        for _ in range(count)
    )


async def test_coverage_is_what_the_provider_was_sent() -> None:
    """For random runs with batches, printed parts and children, the characters read are those that
    a provider finds in its requests, call by call; `make coverage` checks more runs.
    """
    results = await check_all(range(6))
    assert any(
        turn.turns for result in results for each in result.repl_history for turn in each.subcalls
    )


async def test_a_final_is_sent_back_until_all_was_read() -> None:
    """The model is told beforehand, and after a final answer which parts are unread; what it prints
    counts, and so do a short rest and a part that it reads later.
    """
    text = words(3000)
    root = Scripted(
        [
            code("replies = llm_batch([context[at:at + 1000] for at in range(0, 8000, 1000)])"),
            final("'too early'"),
            code("print(context_0[8000:17000])"),
            final("'early'"),
            code("reply = llm_query('The rest: ' + context_0[17000:])") + "\n" + final("'done'"),
        ]
    )
    result = await run(root, text, require_coverage=1.0)
    assert (result.answer, result.stop_reason, result.error) == ("done", "final", None)
    assert result.coverage.unread == ()
    assert "100% of the document must be read" in root.told[0]
    assert f"Unread: context_0[8000:{len(text)}]." in root.told[2]
    printed = [each for each in result.coverage.readings if each.kind == "turn"]
    assert [each.path for each in printed] == ["r:t1", "r:t4"]  # the question shows the beginning


@pytest.mark.parametrize("are_named", [False, True])
async def test_the_offline_model_reads_the_rest(are_named: bool) -> None:
    """Of many sources, some too short to be found at first and one that repeats itself, it reads what
    its first answer left unread, and its final answer is taken.
    """
    draw = random.Random(5)
    sources = [words(draw.choice([1, 5, 2_000]), seed) for seed in range(60)]
    sources[30] = "Ada Conti approved the dam.\n" + "Rain fell. " * 3_000
    context = {f"a, b[{at}].py": text for at, text in enumerate(sources)} if are_named else sources
    result = await RLM("offline", require_coverage=1).acompletion("Who approved the dam?", context)
    assert (result.stop_reason, result.error, result.coverage.unread) == ("final", None, ())
    assert "Ada Conti approved the dam." in result.answer
    assert result.iterations > 3


async def test_a_part_of_the_document_can_be_enough() -> None:
    """A share below 1 is reached without the rest."""
    text = words(1000)
    root = Scripted([code("print(context[:4000])"), final("'done'")])
    result = await run(root, text, require_coverage=0.5)
    assert (result.answer, result.iterations, result.error) == ("done", 2, None)
    assert 0.5 <= result.coverage.share < 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"max_iterations": 2}, "max_iterations"), ({"budget": Budget(max_calls=2)}, "budget_calls")],
)
async def test_a_limit_ends_the_run_and_says_how_much_was_read(
    options: dict[str, object], reason: str
) -> None:
    """The closing turn's answer is taken, the run is not "final", and the error has the share."""
    root = Scripted([code("print(context[:1000])"), final("'early'"), final("'the best'")])
    result = await run(root, words(1000), require_coverage=1.0, **options)
    assert result.stop_reason == reason
    share = int(1000 * result.coverage.share) / 10
    assert result.error == f"{share:g}% of the document was read, and 100% must be"


@pytest.mark.parametrize(
    "document",
    [
        "The quick brown fox. " * 500,
        "line\n" * 3000,
        ["the same page " * 20] * 40,
        ["short one", "two", "three", "yes", "yes", "no", "no more than that in this"],
        [words(400, 1), "", "   ", words(300, 1), words(500, 2)],
    ],
    ids=["sentence", "lines", "pages", "short", "mixed"],
)
async def test_repeated_and_short_texts_can_all_be_read(document: object) -> None:
    """A model that sends every part of the document has read all of it, also where a text occurs
    several times or is short; at most it is asked again. White space alone need not be read.
    """
    root = Scripted([READ_ALL, final("1"), READ_ALL, final("2")])
    result = await run(root, document, require_coverage=1.0)
    assert (result.stop_reason, result.error) == ("final", None)
    assert sum(span.end - span.start for span in result.coverage.unread) <= 3


async def test_a_repeated_text_is_that_of_the_childs_slice() -> None:
    """Where a text occurs several times, prompts of a child run count for its own slice, and each
    reading says that the place is not certain.
    """
    page = words(100)
    text = page + words(1000, 2) + page + words(1000, 3) + page
    second = len(page) + len(words(1000, 2))
    scripts = {
        "the root": [
            code(f"recursive_lm('a child', context[{second - 500}:{second + len(page) + 9}])"),
            final("1"),
        ],
        "a child": [code(f"llm_query('# ' + context[500:500 + {len(page)}])"), final("2")],
    }
    result = await run(Scripted(scripts), text, "the root", max_depth=2, require_coverage=0)
    (reading,) = [each for each in result.coverage.readings if each.kind == "call"]
    assert reading.spans == reading.ambiguous == (SpanRef("context_0", second, second + len(page)),)
    opening = [each.spans for each in result.coverage.readings if each.kind == "turn"][1]
    assert opening == (SpanRef("context_0", second - 500, second - 300),)


async def test_a_stored_and_resumed_run_has_the_same_coverage(tmp_path: Path) -> None:
    """A run over a file that ended in the middle and is resumed from its storage has the coverage
    of a run that did not; a saved result has it too.
    """
    path = tmp_path / "document.txt"
    path.write_text(words(2000), encoding="utf-8")
    scripts = {
        "the root": [READ_ALL, code("recursive_lm('a child', context[:5000])"), final("'done'")],
        "a child": [code("print(context[100:900])"), final("1")],
    }
    options = {"max_depth": 2, "require_coverage": 1.0}
    whole = await run(Scripted(scripts), path, "the root", **options)
    with Storage(tmp_path / "runs") as storage:
        half = Scripted({**scripts, "the root": [*scripts["the root"][:2], code("1 / 0")]})
        rlm = RLM(half, storage=storage, max_iterations=2, **options)
        broken = await rlm.acompletion("the root", path)
        assert broken.stop_reason == "max_iterations"
        again = await RLM(Scripted(scripts), storage=storage, **options).acompletion(
            "the root", path, run_id="again"
        )
        kept = storage.run("again")
    assert whole.coverage == again.coverage == kept.coverage
    again.save(tmp_path / "result.json")
    loaded = RLMResult.load(tmp_path / "result.json").coverage
    assert loaded == whole.coverage
    loaded.certificate(tmp_path / "certificate.json")
    assert verify.main([str(tmp_path / "certificate.json"), str(path)]) == 0


async def test_a_changed_file_requires_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the document's file changes during the run, what is read cannot be found any more: the
    answer is taken, and the error says how much was read until then.
    """
    monkeypatch.setattr(reading, "COPIED", 0)  # read in place
    path = tmp_path / "document.txt"
    path.write_text(words(1000), encoding="utf-8")

    def change(request: Request) -> str:
        path.write_text("another text", encoding="utf-8")
        return "noted"

    root = Scripted([code("reply = llm_query(context[:1000])"), final("'done'")], change)
    result = await run(root, path, require_coverage=1.0)
    assert (result.answer, result.stop_reason) == ("done", "final")
    assert result.error is not None
    assert "of the document was read, and 100% must be" in result.error


async def test_without_the_option_turns_are_not_recorded() -> None:
    """By default a turn costs nothing more: its prompt is not searched, and nothing is required."""
    root = Scripted([code("print(context[:1000])"), final("1")])
    result = await run(root, words(1000))
    assert [turn.prompt for turn in result.trajectory] == [None, None]
    assert (result.coverage.readings, result.stop_reason) == ((), "final")
    assert "must be read" not in root.told[0]


async def test_a_document_in_one_call_is_read_whole() -> None:
    """A run of one call has read the document, and so has the next question of its session."""
    root = Scripted(["The answer.\n> nothing", "Another."])
    rlm = RLM(root, limits=Limits(single_call_below=10_000), require_coverage=1.0)
    async with rlm.session(words(500)) as chat:
        for _ in range(2):
            result = await chat.acompletion("What is it?")
            assert (result.stop_reason, result.coverage.share) == ("final", 1.0)


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "all", float("nan")])
def test_a_wrong_share_is_refused(share: object) -> None:
    """The share is a number from 0 to 1."""
    with pytest.raises(InputError, match="choose a share of the document from 0 to 1"):
        RLM("offline", require_coverage=share)  # type: ignore[arg-type]
