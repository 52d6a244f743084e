"""Everything that the README shows is run: Python, the program of a root model, and the command
line.
"""

import asyncio
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
from tests.readme import README, blocks, with_help
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


def as_a_model_would(ask: Ask) -> str:
    """What the models of the README answer: the programs and quotes of the offline model, from
    behind a real socket.
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
    """The world of the README: two files, a key, and models that answer."""
    monkeypatch.chdir(tmp_path)
    Path("archive.txt").write_text(ARCHIVE)
    Path("letters.txt").write_text("Dear Ada, the weather is fine. " * 20)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("PYTHONPATH", str(README.parent))
    with serve_in_thread(
        scripts=dict.fromkeys(["gpt-5", "gpt-5-mini"], as_a_model_would)
    ) as standin:
        monkeypatch.setenv("OPENAI_BASE_URL", standin.base_url)
        monkeypatch.setenv("OPENAI_API_BASE", standin.base_url)  # LlamaIndex's name for it
        yield standin


# Workflows look at every attribute of an agent
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_the_python_of_the_readme(server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """All Python blocks run, one after another as a reader would type them, and their answers are
    right.
    """
    namespace: dict[str, Any] = {"__name__": "readme"}
    printed = []
    found = blocks("python")
    for number, code in enumerate(found, 1):
        exec(compile(code, f"README.md, block {number}", "exec"), namespace)
        printed.append(capsys.readouterr().out)
    # The agent's model calls no tool here
    assert asyncio.run(namespace["ask_agent"]("Who wrote the letters?")) == "NOTHING FOUND"
    where = ARCHIVE.index("The Ravenna dam")
    sentence = "The Ravenna dam was approved by Ada Conti in March 1911."
    assert printed[0] == f"{sentence}\ncontext_0 {where} {where + len(sentence)} {sentence}\n"
    assert "'The dam cost 4,200,000 lire.'" in printed[2]
    assert "Ada Conti\n" in printed
    assert any(each.startswith("final 4 ") for each in printed)
    cost = where + len(sentence) + 1
    assert f"context_0[{cost}:{cost + 28}] The dam cost 4,200,000 lire. {{}}\n0\n" in printed
    assert "about Translate into Italian: valley" in printed[-4]
    assert [each.splitlines()[0].startswith(sentence) for each in printed[-3:]] == [
        True,
        True,
        True,
    ]
    assert "archive True\nThe dam cost 4,200,000 lire.\n" in printed[-3]
    of_index = printed[-2].splitlines()
    assert of_index[1] == "archive {'file_name': 'archive.txt'} True"
    assert (
        of_index[3]
        == f'{sentence} [{{"doc_id": "archive", "source": "context_0", "start": {where}, "end": {cost - 1}}}]'
    )
    assert of_index[4:] == [
        "Ada Conti",
        *["The dam cost 4,200,000 lire."] * 2,
        sentence,
        "The dam cost 4,200,000 lire. 4",
    ]
    assert len(found) == len(printed) == 13
    assert {call.model for call in server.calls()} == {"gpt-5", "gpt-5-mini"}
    assert Path("findings.jsonl").exists()


def test_the_program_of_the_readme(server: StandIn) -> None:
    """What the README shows as a root model's code is that: it runs in the sandbox and finishes
    with a citation that holds.
    """
    (program,) = blocks("repl")

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


def commands() -> list[str]:
    lines = [line.partition(" #")[0].strip() for code in blocks("sh") for line in code.splitlines()]
    return [line for line in lines if not line.startswith(NOT_RUN)]


def test_shell_blocks_hold_what_is_run_or_named() -> None:
    """Every line of a shell block is run here, or is one of those that are not on purpose."""
    assert len(commands()) == 3
    assert all("rlm-integrations ask " in line for line in commands())
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    makefile = (README.parent / "Makefile").read_text()
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("command", commands())
def test_the_command_line_of_the_readme(
    command: str, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the README answers, with a citation; one that names no model, without a key."""
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
        assert "[1] context_0 (archive.txt) " in done.stdout


def test_the_help_is_the_programs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of `ask --help` stands in the README word for word; `python -m tests.readme` writes
    it.
    """
    monkeypatch.setenv("COLUMNS", "120")
    readme = README.read_text(encoding="utf-8")
    assert readme.count("usage: rlm-integrations ask FILE") == 1
    assert with_help(readme) == readme


def test_errors_and_readme_name_the_same_commands() -> None:
    """A missing extra is installed from an index or from a checkout: the error and the README say
    both, in the same words.
    """
    message = str(MissingExtraError("a feature", "langchain,llama-index"))
    commands = re.findall(r"pip install '.*?'", message)
    assert commands == [
        "pip install 'rlm-integrations[langchain,llama-index]'",
        "pip install '.[langchain,llama-index]'",
    ]
    readme = README.read_text(encoding="utf-8")
    assert all(command in readme for command in commands)


def test_names_in_the_readme_are_there() -> None:
    """Every layer of a real run is explained; no public name is left out, and every extra is one of
    ours.
    """
    readme = README.read_text(encoding="utf-8")
    layers = RLM("offline").completion("Who approved the dam?", ARCHIVE).layers
    assert layers
    assert [layer for layer in layers if f"`{layer}`" not in readme] == []
    shown = " ".join([*blocks("python"), readme])
    assert [name for name in rlm_integrations.__all__ if name not in shown] == []
    pyproject = (README.parent / "pyproject.toml").read_text()
    for extras in re.findall(r"'\.\[(.*?)\]'", readme):
        assert all(
            re.search(rf"^{extra} = \[", pyproject, re.MULTILINE) for extra in extras.split(",")
        )
