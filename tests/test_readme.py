"""Everything that the documentation shows is run: Python, the program of a root model, and the
command line.
"""

import asyncio
import dataclasses
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlm_integrations
from rlm_integrations import RLM
from rlm_integrations.errors import MissingExtraError
from rlm_integrations.lm.offline import model
from rlm_integrations.records import Message, Request
from tests.readme import (
    AGENTS,
    CLI,
    ENGINE,
    LANGCHAIN,
    LLAMA_INDEX,
    LM,
    MEMORY,
    PACKAGE,
    PAGES,
    README,
    REPORT,
    ROOT,
    STORAGE,
    all_blocks,
    blocks,
    read,
    read_all,
    with_help,
)
from tests.standin import Ask, StandIn, serve_in_thread

ARCHIVE = (
    "The valley was surveyed in 1901. " * 50
    + "The Ravenna dam was approved by Ada Conti in March 1911. "
    + "The dam cost 4,200,000 lire. "
    + "Rain fell for most of the year. " * 50
)
DAM = {"name": "Ravenna dam", "approved_by": "Ada Conti"}
# Lines of shell blocks: they would change the environment, or run these tests again
NOT_RUN = ("pip install ", "make ")
# Commands that need each other
OF_JOBS = tuple(f"rlm-integrations {name} " for name in ("submit", "worker", "jobs"))


def as_a_model_would(ask: Ask) -> str:
    """The replies of the pages' models: the programs and quotes of the offline model, over a real
    socket.
    """
    roles = {"developer": "system"}  # as LlamaIndex sends it to newer models of OpenAI's
    messages = tuple(
        Message(roles.get(each["role"], each["role"]), each["content"])
        for each in ask.body["messages"]
    )
    is_root = messages[0].role == "system"
    if is_root and "must fit this JSON schema" in messages[0].content:
        return f"```repl\nFINAL({DAM!r})\n```"
    if is_root:
        asked = re.findall(
            r"^Question: (.*)",
            "\n".join(each.content for each in messages if each.role == "user"),
            re.MULTILINE,
        )
        return model._root(Request(messages, role="root", query=asked[-1]))
    return (
        f"about {ask.prompt}" if ask.prompt.startswith("Translate") else model._sub(ask.prompt, "")
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """The environment of every page: two files, a key, and models that answer."""
    monkeypatch.chdir(tmp_path)
    Path("archive.txt").write_text(ARCHIVE)
    Path("letters.txt").write_text("Dear Ada, the weather is fine. " * 20)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with serve_in_thread(
        scripts=dict.fromkeys(["gpt-5", "gpt-5-mini"], as_a_model_would)
    ) as standin:
        monkeypatch.setenv("OPENAI_BASE_URL", standin.base_url)
        monkeypatch.setenv("OPENAI_API_BASE", standin.base_url)  # LlamaIndex's name for it
        yield standin


def run_python(page: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], list[str]]:
    """The names that the Python blocks of a page define, and the output of each block, run one
    after another.
    """
    namespace: dict[str, Any] = {"__name__": "readme"}
    printed = []
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page}, block {number}", "exec"), namespace)
        printed.append(capsys.readouterr().out)
    return namespace, printed


def test_the_landing_page_shows_what_its_snippets_print(
    server: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each Python block is followed by its real output, needs no file and no provider, and the page
    has at most 150 lines.
    """
    shown = all_blocks(README)
    promised = [after for (kind, _), (_, after) in itertools.pairwise(shown) if kind == "python"]
    _, printed = run_python(README, capsys)
    assert promised == printed
    assert len(printed) == 2
    assert server.calls() == []
    assert len(read(README).splitlines()) <= 150


def test_the_transcript_is_of_a_real_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The transcript has twelve lines of the real `verbose` output of the first snippet, in order,
    except for times and the run's number.
    """
    (shown,) = re.findall(r"<!-- transcript: .*? -->\n```text\n(.*?)```\n", read(README), re.DOTALL)
    snippet = blocks(README, "python")[0]
    assert snippet.count('"offline"') == 1
    exec(snippet.replace('"offline"', '"offline", verbose=True'), {"__name__": "readme"})
    real = iter(comparable(capsys.readouterr().err))
    lines = comparable(shown)
    assert len(lines) == 12
    # an iterator: each line after the previous one
    assert [line for line in lines if line not in real] == []


def comparable(transcript: str) -> list[str]:
    text = re.sub(r"\[run-\d+\]", "[run]", transcript)
    return re.sub(r"[\d.]+ s\b", "0 s", text).splitlines()


WHERE = ARCHIVE.index("The Ravenna dam")
SENTENCE = "The Ravenna dam was approved by Ada Conti in March 1911."
END = WHERE + len(SENTENCE)


def test_the_python_of_the_engine_page(server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks run, and their answers are right."""
    _, printed = run_python(ENGINE, capsys)
    assert printed[0] == f"{SENTENCE}\ncontext_0 {WHERE} {END} {SENTENCE}\n"
    assert "'The dam cost 4,200,000 lire.'" in printed[2]
    assert printed.pop(3) == ""  # `warm` prints nothing
    assert printed[3] == "Ada Conti\n"
    assert printed[4:6] == ["", ""]
    del printed[4:6]  # the prompt's, which print nothing
    assert printed[4].startswith("final 4 ")
    cost = END + 1
    assert printed[5] == f"context_0[{cost}:{cost + 28}] The dam cost 4,200,000 lire. {{}}\n0\n"
    assert printed[6] == "contract.txt:2\n"
    assert printed[7] == "('The dam cost 4,200,000 lire.',)\n"
    assert printed[8] == "$.items\n"
    del printed[8]
    assert "% read: " in printed[8]
    (of_code,) = [each for each in printed if "REPL output" in each]
    assert of_code.startswith(f"Ravenna dam {WHERE + 4}\n")
    assert len(printed) == 14
    assert {call.model for call in server.calls()} == {"gpt-5", "gpt-5-mini"}
    assert Path("findings.jsonl").exists()


def test_the_python_of_the_models_page(server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks run, and their answers are right."""
    _, printed = run_python(LM, capsys)
    assert printed[0] == "about Translate into Italian: dam\n"
    assert "about Translate into Italian: valley" in printed[1]
    assert len(printed) == 2
    assert {call.model for call in server.calls()} == {"gpt-5-mini"}


def test_the_python_of_the_langchain_page(
    server: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks run, and their answers are right."""
    _, (printed,) = run_python(LANGCHAIN, capsys)
    assert printed.startswith(SENTENCE)
    assert printed.endswith("archive True\nThe dam cost 4,200,000 lire.\n")
    assert {call.model for call in server.calls()} == {"gpt-5", "gpt-5-mini"}


def test_the_python_of_the_agents_page(server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks run, and the agent's model is asked once."""
    names, _ = run_python(AGENTS, capsys)
    names["memory"]._documents._storage.close()
    assert [call.model for call in server.calls()] == ["gpt-5"]


# Workflows look at every attribute of an agent
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_the_python_of_the_llama_index_page(
    server: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks run, and their answers are right; the agent of the page can be asked."""
    namespace, printed = run_python(LLAMA_INDEX, capsys)
    # The agent's model does not call a tool here
    assert asyncio.run(namespace["ask_agent"]("Who wrote the letters?")) == "NOTHING FOUND"
    first, second = printed
    lines = first.splitlines()
    assert lines[0].startswith(SENTENCE)
    assert lines[1] == "archive {'file_name': 'archive.txt'} True"
    span = f'{{"doc_id": "archive", "source": "context_0", "start": {WHERE}, "end": {END}}}'
    assert lines[3] == f"{SENTENCE} [{span}]"
    assert lines[4:] == [
        "Ada Conti",
        *["The dam cost 4,200,000 lire."] * 2,
        SENTENCE,
        "The dam cost 4,200,000 lire. 4",
    ]
    assert second.startswith(SENTENCE)
    assert {call.model for call in server.calls()} == {"gpt-5", "gpt-5-mini"}


# Workflows look at every attribute of an agent
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_the_python_of_the_memory_page(server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks run; the agent of the page can be asked, and what its tool returned is found."""
    names, _ = run_python(MEMORY, capsys)

    async def ask() -> None:
        await names["ask_agent"]("When did the pump fail?")
        await names["database"].dispose()

    asyncio.run(ask())
    assert {call.model for call in server.calls()} == {"gpt-5"}
    names["log"].call(day="Monday")
    assert str(names["block"].tools("8")[1].call(pattern="well")).startswith("read_log-1, ")
    names["storage"].close()


def test_the_python_of_the_storage_page(
    server: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks run, and their answers are right; only the block about the cache asks a model."""
    _, (first, second, resumed, answered, cached, found) = run_python(STORAGE, capsys)
    assert first == "Who approved the dam? {'answer': 'Ada Conti'}\ncompleted\n"
    assert second == "final Who approved the dam?\nTrue\n"
    assert "4,200,000 lire" in resumed
    assert answered.startswith("completed ")
    assert "Ada Conti" in answered
    assert found.endswith("by Ada Conti {'dam': 1}\n")
    assert cached == "4 0 0.0\n0 4 0.0\n['about Translate into Italian: dam']\n"
    assert len(server.calls()) == 1


def test_the_python_of_the_report_page(server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """The block runs: it writes a page with the record, what was read, one source, and a script."""
    _, printed = run_python(REPORT, capsys)
    assert printed == ["5 False\n"]
    assert Path("run.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert server.calls() == []


def test_the_configuration_of_the_storage_page(tmp_path: Path) -> None:
    """The YAML of the page is a valid configuration, and shows every key."""
    from rlm_integrations.storage.settings import StorageSettings, read_settings

    (tmp_path / "llm.yaml").write_text(blocks(STORAGE, "yaml")[0])
    settings = read_settings(tmp_path / "llm.yaml", {"DB_USER": "me", "DB_PASSWORD": "secret"})
    unset = StorageSettings()
    same = {"artifact_lake_enabled", "keep_documents", "pretty_print", "schema"}  # the defaults
    changed = {
        each.name
        for each in dataclasses.fields(settings)
        if getattr(settings, each.name) != getattr(unset, each.name)
    }
    assert changed | same == {each.name for each in dataclasses.fields(settings)}


def test_every_python_block_is_run() -> None:
    """Only the pages of the tests above have Python blocks."""
    having = [page for page in PAGES if blocks(page, "python")]
    assert having == [
        README,
        ENGINE,
        LM,
        LANGCHAIN,
        AGENTS,
        LLAMA_INDEX,
        MEMORY,
        STORAGE,
        REPORT,
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_are_valid(page: Path) -> None:
    """Each relative link names an existing file and an existing heading in it."""
    for target in re.findall(r"\]\((?!https?://)(.*?)\)", read(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)", read(file), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
        assert not anchor or anchor in anchors, target


def test_the_map_names_files_that_exist() -> None:
    """Each path in code on the map of the package exists."""
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py))", read(PACKAGE / "README.md"))
    assert named
    assert [
        each for each in named if not (PACKAGE / each).exists() and not (ROOT / each).exists()
    ] == []


def test_the_program_of_the_readme(server: StandIn) -> None:
    """The root model's program on a page runs in the sandbox and finishes with a valid citation."""
    (program,) = blocks(ENGINE, "repl")

    def obedient(ask: Ask) -> str:
        wanted, _, chunk = ask.prompt.partition("\n\n")
        assert wanted == "Quote each sentence about the Ravenna dam, or say NONE."
        return "\n".join(re.findall(r"[^.]*Ravenna dam[^.]*\.", chunk)).strip() or "NONE"

    server.change(
        scripts={"gpt-5": [f"I look and ask.\n\n```repl\n{program}```"], "gpt-5-mini": obedient}
    )
    result = RLM("gpt-5", "gpt-5-mini").completion("Who approved the Ravenna dam?", ARCHIVE)
    assert (result.stop_reason, result.iterations) == ("final", 1)
    assert result.answer == "The Ravenna dam was approved by Ada Conti in March 1911."
    assert [citation.quote for citation in result.citations] == [result.answer]
    assert "<class 'str'>" in result.repl_history[0].stdout


def shell_blocks() -> list[str]:
    return [code for page in PAGES for code in blocks(page, "sh")]


def commands() -> list[str]:
    lines = [
        line.partition(" #")[0].strip() for code in shell_blocks() for line in code.splitlines()
    ]
    return [line for line in lines if not line.startswith((*NOT_RUN, *OF_JOBS))]


def test_shell_blocks_are_run_or_listed() -> None:
    """Every line of a shell block is run here, or is listed as not run."""
    assert len(commands()) == 3
    assert all("rlm-integrations ask " in line for line in commands())
    targets = re.findall(r"^make (\w+)", "\n".join(shell_blocks()), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("command", commands())
def test_the_command_line_of_the_readme(
    command: str, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the pages answers, with a citation; one without a model works without a
    key.
    """
    if "--model" not in command:
        monkeypatch.delenv("OPENAI_API_KEY")
    command = command.replace("rlm-integrations ask", f"{sys.executable} -m rlm_integrations ask")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    if "--json" in command:
        assert json.loads(Path("run.json").read_text()) == json.loads(done.stdout)
        assert (
            json.loads(done.stdout)["citations"][0]["quote"]
            == "The Ravenna dam was approved by Ada Conti in March 1911."
        )
    else:
        assert "[1] archive.txt:" in done.stdout


def test_the_commands_of_jobs_work_together(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one command of the page submits, the next one answers, and the last one lists."""
    monkeypatch.delenv("OPENAI_API_KEY")
    Path("letters").mkdir()
    Path("letters/first.txt").write_text(ARCHIVE)
    lines = [line for code in blocks(CLI, "sh") for line in code.splitlines()]
    script = "\n".join(line for line in lines if line.startswith(OF_JOBS))
    program = f'rlm-integrations() {{ {sys.executable} -m rlm_integrations "$@"; }}\nset -e\n'
    done = subprocess.run(
        ["bash", "-c", program + script], capture_output=True, text=True, check=True
    )
    assert "ended: 2 completed" in done.stderr
    assert "0 pending, 0 running, 2 completed, 0 failed" in done.stderr


def test_the_help_is_the_programs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has the exact output of `ask --help`; `python -m tests.readme` writes it."""
    monkeypatch.setenv("COLUMNS", "120")
    page = read(CLI)
    assert page.count("usage: rlm-integrations ask FILE") == 1
    assert with_help(page) == page


def test_errors_and_readme_name_the_same_commands() -> None:
    """The error of a missing extra and the README have the same commands, from an index and from a
    checkout.
    """
    message = str(MissingExtraError("a feature", "langchain,llama-index"))
    commands = re.findall(r"pip install '.*?'", message)
    assert commands == [
        "pip install 'rlm-integrations[langchain,llama-index]'",
        "pip install '.[langchain,llama-index]'",
    ]
    readme = read(README)
    assert all(command in readme for command in commands)


def test_the_pages_explain_all_names() -> None:
    """The pages explain every layer of a real run, every public name and every extra."""
    words = read_all()
    layers = RLM("offline").completion("Who approved the dam?", ARCHIVE).layers
    assert layers
    assert [layer for layer in layers if f"`{layer}`" not in words] == []
    names = words + (PACKAGE / "REFERENCE.md").read_text(encoding="utf-8")
    assert [name for name in rlm_integrations.__all__ if not re.search(rf"\b{name}\b", names)] == []
    pyproject = (ROOT / "pyproject.toml").read_text()
    for extras in re.findall(r"'\.\[(.*?)\]'", words):
        assert all(
            re.search(rf"^{extra} = \[", pyproject, re.MULTILINE) for extra in extras.split(",")
        )
