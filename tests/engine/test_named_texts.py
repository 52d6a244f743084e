"""Texts by name: a mapping in the REPL, and citations that say the name and the line."""

from pathlib import Path

import pytest

from rlm_integrations import RLM
from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.locations import find_locations
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.result import RLMResult
from rlm_integrations.storage import Storage
from tests.engine.conftest import Scripted, code, run

CONTRACT = "Contract\n\nThe rent is 800 a month.\nIt is due on the first.\n"
ANNEX = (
    "Annex\nThe garden belongs to the ground floor.\n" + "\n" * 40 + "The rent is paid in coins.\n"
)


def texts(folder: Path) -> dict[str, object]:
    (folder / "annex.md").write_text(ANNEX)
    return {"contract.txt": CONTRACT, "annexes/annex.md": folder / "annex.md"}


async def test_a_dict_is_a_mapping_in_the_repl(tmp_path: Path) -> None:
    """`context` is a dict by name in the given order, `context_0` and so on are its texts, and the
    metadata and the question have the names.
    """
    root = Scripted(
        [
            code(
                "print(list(context), context['contract.txt'] == context_0, len(context_1))",
                "print(context_metadata['type'], [s['name'] for s in context_metadata['sources']])",
                "FINAL('x')",
            )
        ]
    )
    result = await run(root, texts(tmp_path))
    names = "['contract.txt', 'annexes/annex.md']"
    assert result.repl_history[0].stdout == f"{names} True {len(ANNEX)}\ntexts by name {names}\n"
    question = root.requests[0].messages[-1].content
    assert "a dict of 2 texts by name" in question
    assert f"contract.txt: {len(CONTRACT)}, annexes/annex.md: {len(ANNEX)}." in question
    assert [source.name for source in result.sources] == ["contract.txt", "annexes/annex.md"]


@pytest.mark.parametrize(
    "evidence",
    [
        "cite('The rent is paid')",
        "cite('The rent is paid', source='annexes/annex.md')",
        "cite('The rent is paid', source='context_1')",
        "'The rent is paid'",
        "SpanRef('context_1', len(context_1) - 27, len(context_1) - 11)",
    ],
)
async def test_citations_say_name_and_line(tmp_path: Path, evidence: str) -> None:
    """However code names the source, the citation has its name, and the line on which it begins."""
    result = await run(Scripted([code(f"FINAL('x', evidence=[{evidence}])")]), texts(tmp_path))
    (found,) = result.citations
    assert (found.source, found.location) == ("annexes/annex.md", "annexes/annex.md:43")
    assert ANNEX[found.start : found.end] == found.quote == "The rent is paid"
    assert "[1] annexes/annex.md:43 'The rent is paid'" in str(result)
    assert RLMResult.from_dict(result.to_dict()).citations == result.citations


async def test_children_have_the_names(tmp_path: Path) -> None:
    """A child over a dict has its names, and what it cites is a place in the root's texts."""
    root = Scripted(
        {
            "root?": [code("FINAL(recursive_lm('child?', dict(context)))")],
            "child?": [
                code(
                    "FINAL(sorted(context), evidence=[cite('The garden', 'annexes/annex.md')])",
                )
            ],
        }
    )
    result = await run(root, texts(tmp_path), "root?", max_depth=2)
    assert result.answer == '["annexes/annex.md", "contract.txt"]'
    (call,) = result.repl_history[0].subcalls
    assert [each.location for each in call.citations] == ["annexes/annex.md:2"]


async def test_a_stored_document_keeps_its_names(tmp_path: Path) -> None:
    """A run that is read back from a storage has the same mapping, hash and labels."""
    with Storage(tmp_path / "runs") as storage:
        result = await run(Scripted([code("FINAL('x')")]), texts(tmp_path), storage=storage)
        with (
            storage.document(result.run_id) as again,
            Corpus.build(texts(tmp_path)) as corpus,
        ):
            assert (again.kind, again.sha256) == ("texts by name", corpus.sha256)
            assert [(each.name, each.label) for each in again.sources] == [
                (name, name) for name in texts(tmp_path)
            ]
        assert result.sources == storage.run(result.run_id).sources


def test_lines_are_counted_across_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are counted from 1, in texts longer than a step; a text without a name has none."""
    monkeypatch.setattr("rlm_integrations.corpus.locations._STEP_CHARS", 7)
    text = "".join(f"line {number}\n" for number in range(1, 60))
    spans = [SpanRef("a", at, at + 4) for at in (0, text.index("line 2"), text.index("line 59"))]
    with Corpus.build({"a": text}) as corpus, Corpus.build(text) as plain:
        assert [*find_locations(corpus, spans).values()] == ["a:1", "a:2", "a:59"]
        assert find_locations(plain, [SpanRef("context_0", 0, 1)]) == {}


async def test_grep_finds_lines_with_their_spans(tmp_path: Path) -> None:
    """`grep` returns path, line, text and span of each matching line once, in chosen texts, up to a
    limit; its spans are evidence, and code that changes `context` does not change it.
    """
    root = Scripted(
        [
            code(
                "print(grep('rent|RENT', limit=1))",
                "print([(f.path, f.line) for f in grep(re.compile('the', re.I), 'annexes/')])",
                "print(len(grep('^', limit=3)), len(grep('', '*.txt')), grep('x.y', ['nowhere']))",
                "context.clear()",
                "FINAL('x', evidence=[f.span for f in grep('coins.$')])",
            )
        ]
    )
    result = await run(root, texts(tmp_path))
    assert result.repl_history[0].stdout.splitlines() == [
        "[contract.txt:3: The rent is 800 a month.]",
        "[('annexes/annex.md', 2), ('annexes/annex.md', 43)]",
        "3 5 []",
    ]
    assert [each.location for each in result.citations] == ["annexes/annex.md:43"]
    assert "`grep(pattern, paths=None)` finds lines" in root.requests[0].messages[-1].content


@pytest.mark.filterwarnings("ignore:sandbox='inprocess':RuntimeWarning")
async def test_a_folder_is_read_cited_and_kept(tmp_path: Path) -> None:
    """A run over a folder cites path and line, in any sandbox; what is left out is in the metadata,
    in the question and in the stored document; and a changed file is noticed.
    """
    src = tmp_path / "src"
    src.mkdir()
    (src / "app.py").write_text("import os\n\n\ndef main(): ...\n")
    (src / "logo").write_bytes(b"\0")
    script = [
        code(
            "print(context_metadata['left_out'])",
            "FINAL(list(context), evidence=[cite('def main')])",
        )
    ]
    with Storage(tmp_path / "runs") as storage:
        for sandbox in ("process", "inprocess"):
            root = Scripted(script)
            result = await run(root, tmp_path / "src", storage=storage, sandbox=sandbox)
            assert result.answer == '["app.py"]'
            assert [each.location for each in result.citations] == ["app.py:4"]
            told = "{'files': 1, 'reasons': {'binary': 1}, 'names': {'logo': 'binary'}}\n"
            assert result.repl_history[0].stdout == told
            assert "1 file is left out (1 binary)" in root.requests[0].messages[-1].content
        with storage.document(result.run_id) as again:
            assert again.left_out == {"logo": "binary"}
        (src / "app.py").write_text("import sys\n")
        with pytest.raises(InputError, match="its document is another one"):
            await RLM(root, storage=storage, sandbox=sandbox).acompletion(
                "What is it?", src, run_id=result.run_id
            )
