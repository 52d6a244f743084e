"""The command line: options, help, and input that is invalid."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from rlm_integrations.cli import main
from tests._cli import FACT, NO_MODEL, QUESTION, Shell, bare_environment, run, server, started

__all__ = ["bare_environment", "run", "server"]  # fixtures


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report.txt", ""], "the question is empty"),
        (["report.txt", " \n"], "the question is empty"),
        (["report.txt"], "a file and a question are needed"),
        (["missing.txt", "q"], "'missing.txt' cannot be read: No such file"),
        (["-", "-", "q"], "stdin ('-') can be read once"),
        (
            ["bytes.txt", "q"],
            (
                "is not valid utf-8: byte 0xff at offset 3, line 1 (invalid start byte);"
                " give its --encoding, or --errors replace"
            ),
        ),
        (["empty", "q"], "there is no file in 'empty', or all are ignored"),
        (["/dev/zero", "q"], "'/dev/zero' is not a regular file: name a file or a pipe"),
        (["empty.txt", "q"], "there is no text in empty.txt"),
        (["empty.txt", "empty.txt", "q"], "there is no text in empty.txt, empty.txt"),
        (
            ["report.txt", "q", "--encoding", "utf-99"],
            "unknown encoding: utf-99: choose an --encoding such as utf-8",
        ),
        (["report.txt", "q", "--errors", "hope"], "hope"),
        (
            ["report.txt", "q", "--max-calls", "0"],
            "--max-calls: must be an integer of at least 1, not '0'",
        ),
        (
            ["report.txt", "q", "--max-tokens", "many"],
            "--max-tokens: must be an integer of at least 1, not 'many'",
        ),
        (
            ["report.txt", "q", "--max-parallel", "-1"],
            "--max-parallel: must be an integer of at least 1, not '-1'",
        ),
        (
            ["report.txt", "q", "--max-depth", "0"],
            "--max-depth: must be an integer of at least 1, not '0'",
        ),
        (
            ["report.txt", "q", "--max-cost", "inf"],
            "--max-cost: must be a number greater than 0, not 'inf'",
        ),
        (
            ["report.txt", "q", "--require-coverage", "90%"],
            "--require-coverage: must be a number from 0 to 1, not '90%'",
        ),
        (
            ["report.txt", "q", "--max-seconds", "0"],
            "--max-seconds: must be a number greater than 0, not '0'",
        ),
        (["report.txt", "q", "--sandbox", "none"], "invalid choice: 'none'"),
        (["report.txt", "q", "--store-mode", "disk"], "invalid choice: 'disk'"),
        (["report.txt", "--modle", "x", "q"], "there is no option --modle"),
        (["report.txt", "q", "--max", "3"], "there is no option --max"),
        (["report.txt", "q", "--verbose", "--quiet"], "not allowed with"),
        (
            ["report.txt", "q", "--save", "no/such/folder.json"],
            "--save 'no/such/folder.json' cannot be written",
        ),
        (["report.txt", "q", "--save", "."], "--save '.' cannot be written"),
        (["report.txt", "q", "--base-url", "http://127.0.0.1:1/v1"], "--base-url needs --model"),
        (["report.txt", "q", "--base-url", "ftp://x", "--model", "m"], "a --base-url looks like"),
        (
            ["report.txt", "q", "--base-url", "http://me:secret@x/v1", "--model", "m"],
            "must not contain a user or password: set OPENAI_API_KEY",
        ),
        (
            ["report.txt", "q", "--base-url", "http://127.0.0.1:1/v1", "--model", "offline"],
            "'offline', which sends no requests",
        ),
        (
            ["report.txt", "q", "--model", "gpt-5"],
            "no key for OpenAI: set OPENAI_API_KEY, or use --model offline",
        ),
        (["report.txt", "q", "--model", "vllm:llama"], "a model is a name at OpenAI"),
    ],
)
def test_invalid_input(words: list[str], told: str, run: Callable[..., Shell]) -> None:
    """Exit code 2 with a message that says what is wrong, nothing on stdout, no traceback, and
    before any model is created.
    """
    Path("bytes.txt").write_bytes(b"abc\xff")
    Path("empty.txt").touch()
    Path("empty").mkdir()
    code, out, err = run("ask", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert NO_MODEL not in err


def test_no_command(run: Callable[..., Shell]) -> None:
    """Exit code 2 without a command, with an overview of all or of the group's; and with an unknown
    one.
    """
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "answer a question about one or several files" in err
    assert 'rlm-integrations ask archive.txt "Who approved the Ravenna dam?"\n' in err
    assert "  130  interrupted by Ctrl-C\n" in err
    code, out, err = run("storage")
    assert (code, out) == (2, "")
    assert "read everything, and report what is damaged" in err
    code, out, err = run("answer")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_stdin_with_invalid_bytes() -> None:
    """Exit code 2, with the position of the byte; another encoding reads it."""
    given = {"stdin": subprocess.PIPE, "errors": "surrogateescape"}
    process = started("ask", "-", "q", **given)
    _, err = process.communicate("abc\udcff")
    assert (process.returncode, "stdin is not valid utf-8: byte 0xff at offset 3" in err) == (
        2,
        True,
    )
    process = started("ask", "-", "What is the código?", "--encoding", "latin-1", **given)
    out, _ = process.communicate("El c\udcf3digo es 7.")
    assert (process.returncode, out.splitlines()[0]) == (0, "El código es 7.")


def test_invalid_bytes_can_be_replaced(run: Callable[..., Shell]) -> None:
    """`--errors replace` reads bytes that `strict` refuses."""
    Path("bytes.txt").write_bytes(b"The \xff code is 48213.")
    assert run("ask", "bytes.txt", "What is the code?", "--errors", "replace")[:2] == (
        0,
        ('The \ufffd code is 48213.\n\n[1] bytes.txt:1 0-20: "The \ufffd code is 48213."\n'),
    )


def test_arguments_after_two_dashes(run: Callable[..., Shell]) -> None:
    """Arguments after '--' are not options."""
    code, out, _ = run("ask", "--quiet", "--", "report.txt", f"--- {QUESTION}")
    assert (code, out.splitlines()[0]) == (0, FACT)


def test_help_and_version(run: Callable[..., Shell]) -> None:
    """Both exit with 0; the help documents every exit code."""
    assert run("--version") == (0, f"rlm-integrations {version('rlm-integrations')}\n", "")
    code, out, _ = run("ask", "--help")
    assert code == 0
    assert [line.split()[0] for line in out.partition("exit codes:\n")[2].splitlines()] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "130",
        "141",
    ]


def test_the_command_is_installed() -> None:
    """`rlm-integrations` and `python -m rlm_integrations` are the same."""
    (script,) = entry_points(group="console_scripts", name="rlm-integrations")
    assert script.load() is main


def test_help_is_quick_to_load() -> None:
    """Parsing the command line loads no client, no sandbox and no progress bar."""
    heavy = ["openai", "tqdm", "pydantic", "asyncio"]
    code = (
        "import sys, rlm_integrations.cli as cli; cli.build_parser();"
        f" print([name for name in {heavy} if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
