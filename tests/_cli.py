"""Helpers of the tests of the command line."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlm_integrations.cli import main
from tests._forked import Forked
from tests.standin import StandIn, serve_in_thread

FILLER = "The clerk counted the barrels before noon. " * 500
FACT = "The access code of the Lisbon vault is 48213."
QUESTION = "What is the access code of the Lisbon vault?"
NO_MODEL = "no --model and no OPENAI_API_KEY: using offline. offline is not a language model"
Shell = tuple[int, str, str]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    Path("report.txt").write_text(f"{FILLER}\n{FACT}\n{FILLER}")
    Path("other.txt").write_text(FILLER)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Shell]:
    """Run a command in this process; returns its exit code and its output."""

    def run_one(*words: str) -> Shell:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:  # as argparse exits
            code = int(str(end.code))
        return code, *capsys.readouterr()

    return run_one


def forked(*words: str) -> Forked:
    """The command in another process."""
    return Forked("-m", "rlm_integrations.__main__", *words)


def started(*words: str, **options: object) -> "subprocess.Popen[str]":
    """The command in a new interpreter, as a shell starts it."""
    command = [sys.executable, "-m", "rlm_integrations", *words]
    return subprocess.Popen(
        command,
        text=True,
        encoding="utf-8",
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **options},
    )


def block(code: str) -> str:
    return f"```repl\n{code}\n```"


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve_in_thread(
        scripts={"root": [block("print(llm_query('hello'))"), block("FINAL('found it')")]}
    ) as standin:
        yield standin


def until(condition: Callable[[], bool], seconds: float = 250) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
