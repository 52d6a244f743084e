"""Runs over large folders, whose files are read when code asks for them."""

import json
from pathlib import Path

import pytest

from rlm_integrations import RLM
from rlm_integrations.corpus import lazy
from rlm_integrations.result import RLMResult
from rlm_integrations.storage import Storage
from rlm_integrations.verify import problems
from tests.engine.conftest import Scripted, code, run
from tests.test_folders import write

APP = "import os\n\n\ndef start():\n    return 'the zebra starts é'\n"
FILES = {
    "src/app.py": APP,
    "src/other.py": "nothing here\n" * 50,
    "notes.md": "A note.\n",
    "logo.bin": b"zebra\0",
}


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "MAX_READ_FILES", 2)


def sources_of(result: RLMResult) -> dict[str, bool]:
    return {source.name: bool(source.sha256) for source in result.sources}


@pytest.mark.parametrize("sandbox", ["process", "inprocess"])
@pytest.mark.filterwarnings("ignore:sandbox='inprocess':RuntimeWarning")
async def test_code_reads_what_it_asks_for(tmp_path: Path, sandbox: str) -> None:
    """The model is told the sizes in bytes; `grep` reads only files that may match, and what it
    finds is cited by path and line. The record says which files were read; its certificate holds.
    """
    root = Scripted(
        [
            code(
                "print(len(context), context_metadata['sizes']['notes.md'], 'context_0' in globals())",
                "(hit,) = grep('the zebra')",
                "print(hit, len(llm_query('What starts? ' + context[hit.path])))",
                "try:\n    context['logo.bin']\nexcept KeyError as error:\n    print(error)",
                "FINAL('the zebra', evidence=[hit.span, 'return'])",
            )
        ]
    )
    folder = write(tmp_path / "root", FILES)
    result = await run(root, folder, sandbox=sandbox)
    question = root.requests[0].messages[-1].content
    total = sum(
        map(len, (each.encode() if isinstance(each, str) else each for each in FILES.values()))
    )
    assert f"a dict of 4 texts by name of {total:,} bytes in all" in question
    assert "It begins" not in question
    assert result.repl_history[0].stdout.splitlines() == [
        "4 8 False",
        f"src/app.py:5:     return 'the zebra starts é' {len('re: What starts? ') + len(APP)}",
        "\"'logo.bin' is left out of the context: binary\"",
    ]
    assert [each.location for each in result.citations] == ["src/app.py:5", "src/app.py:5"]
    assert sources_of(result) == {"notes.md": False, "src/app.py": True, "src/other.py": False}
    again = RLMResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.sources == result.sources
    assert [each.characters_read for each in result.coverage.sources] == [
        *(0, len(APP), 0),
    ]
    result.coverage.certificate(tmp_path / "certificate.json")
    certificate = json.loads((tmp_path / "certificate.json").read_text())
    assert list(problems(certificate, [APP])) == []
    result.to_html(tmp_path / "page.html", context=folder)


async def test_children_and_later_questions_share_what_was_read(tmp_path: Path) -> None:
    """A child gets the parts that code passes, and cites the root's file; the next question of a
    session goes on with the same texts, even if the files have changed.
    """
    write(tmp_path, FILES)
    root = Scripted(
        {
            "first?": [
                code(
                    "part = context['src/app.py']",
                    "FINAL(recursive_lm('child?', {'app': part}), evidence=['def start'])",
                )
            ],
            "child?": [code("FINAL(context['app'].split()[0], evidence=[cite('the zebra')])")],
            "second?": ["", code("FINAL(len(context['src/app.py']), evidence=['the zebra'])")],
        }
    )
    chat = RLM(root, Scripted(), max_depth=2).session(tmp_path)
    async with chat:
        first = await chat.acompletion("first?")
        write(tmp_path, {"src/app.py": "gone"})
        second = await chat.acompletion("second?")
    assert (first.answer, first.citations[0].location) == ("import", "src/app.py:4")
    assert (second.answer, second.citations[0].location) == (*(str(len(APP)), "src/app.py:5"),)


async def test_a_stored_run_reads_everything(tmp_path: Path) -> None:
    """With a storage, or where all must be read, the folder is read at once: a resumed run needs
    the same texts.
    """
    write(tmp_path / "root", FILES)
    with Storage(tmp_path / "runs") as storage:
        root = Scripted([code("FINAL(str(sorted(context)))")])
        result = await run(root, tmp_path / "root", storage=storage)
        assert sources_of(result) == dict.fromkeys(["notes.md", "src/app.py", "src/other.py"], True)
        with lazy.build_lazily(tmp_path / "root") as corpus:
            assert isinstance(corpus, lazy.LazyCorpus)
            result = await run(Scripted([code("FINAL('x')")]), corpus, storage=storage)
            assert (await RLM(Scripted(), storage=storage).aresume(result.run_id)).answer == "x"
    root = Scripted([code("FINAL('x')")])
    result = await run(root, tmp_path / "root", require_coverage=0.0)
    assert all(sources_of(result).values())


async def test_the_offline_model_finds_the_needle(tmp_path: Path) -> None:
    """Without a model, the needle of a folder is found, and cited by path and line."""
    files = {f"d{number % 7}/{number}.txt": f"Straw {number}.\n" * 30 for number in range(60)}
    files["d3/hay.txt"] = "Straw.\n" * 20 + "The secret code of the harbour is 4711.\n" + "Straw.\n"
    result = await RLM("offline").acompletion(
        "What is the secret code of the harbour?", write(tmp_path, files)
    )
    assert "4711" in result.answer
    assert result.citations[0].location == "d3/hay.txt:21"
