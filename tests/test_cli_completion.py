"""Completion of commands in shells."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_integrations.cli.completion import SCRIPTS
from tests._cli import QUESTION, Shell, bare_environment, run

__all__ = ["bare_environment", "run"]  # fixtures

# A line of each shell has what it completes, between brackets
ASKED = {
    "bash": """
        source completion
        completed() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _rlm_integrations "$1"; echo "[${COMPREPLY[*]}]"
        }
        completed rlm-integrations stora
        completed rlm-integrations report oth
        completed rlm-integrations ask a --sandbox = in
    """,
    # What belongs to its completion system is replaced: `_describe -o` takes options only
    "zsh": """
        compdef() { }
        _files() { print -r -- "[other.txt]" }
        _describe() { print -r -- "[${${(P)@[-1]}[1]%%:*}]${${(M)1:#-o}:+ options}" }
        source ./completion
        completed() { words=("$@") CURRENT=$#; _rlm_integrations }
        completed rlm-integrations stora
        completed rlm-integrations report oth
        completed rlm-integrations ask a --sandbox in
    """,
    "fish": """
        source completion
        for words in stora "report oth" "ask a --sandbox in"
            echo "["(complete -C "rlm-integrations $words" | string split \\t)[1]"]"
        end
    """,
}


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_a_shell_completes(
    run: Callable[..., Shell], shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script that is printed completes commands, files and choices in the shell itself."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    Path("program").mkdir()
    command = Path("program/rlm-integrations")
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rlm_integrations "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent.resolve()}:{os.environ['PATH']}")
    code, script, err = run("--print-completion", shell)
    assert (code, err) == (0, "")
    Path("completion").write_text(script)
    plain = {"zsh": ["-f"], "fish": ["--no-config"], "bash": ["--norc"]}[shell]
    done = subprocess.run(
        [program, *plain, "-c", ASKED[shell]],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.stdout.split() == ["[storage]", "[other.txt]", "[inprocess]"], done.stderr


def test_what_comes_next(run: Callable[..., Shell]) -> None:
    """Commands, options, choices, files and ids of runs are offered where they can be, and nothing
    where anything can be.
    """
    run("ask", "report.txt", QUESTION, "--storage", "runs")
    (run_id,) = (line.split()[0] for line in run("runs")[1].splitlines())
    for words, expected in [
        (["sho"], ["show"]),
        (["storage", ""], ["check", "stats", "prune", "forget"]),
        (["--vers"], ["--version"]),
        (["storage", "prune", "--old"], ["--older-than"]),
        (["ask", "a.txt", "--sandbox", ""], ["process", "inprocess"]),
        (["ask", "a.txt", "--store-mode", "=", "s"], ["shared"]),
        (["ask", "a.txt", ""], [":files"]),
        (["ask", "a.txt", "--max-calls", ""], []),
        (["ask", "--quiet", ""], [":files"]),
        (["show", ""], [run_id]),
        (["show", run_id, ""], []),
        (["show", "--storage", ""], [":files"]),
        (["show", "--storage", "none", ""], []),
        (["show", "--storage", ".", ""], []),
        (["diff", "run.json", ""], [run_id, ":files"]),
        (["diff", "run.json", run_id[:4]], [run_id, ":files"]),
        (["store", "search", run_id, "--document", "a.txt", ""], [":files"]),
        (["store", "search", run_id, ""], []),
        (["store", "search", "--shared", ""], [":files"]),
        (["jobs", "--status", "run"], ["running"]),
        ([], ["ask", "resume"]),
    ]:
        code, out, err = run("--complete", *words)
        assert (code, err) == (0, "")
        found = [line.split("\t")[0] for line in out.splitlines()]
        assert found[: len(expected) or None] == expected, words


def test_what_completes_is_safe(run: Callable[..., Shell]) -> None:
    """What a run was asked is shown beside its id on one line, without control characters."""
    run("ask", "report.txt", "a\tb\nc\x1b[2J", "--storage", "runs", "--model", "offline")
    code, out, _ = run("--complete", "show", "")
    assert code == 0
    assert out.rstrip("\n").partition("\t")[2] == "a b c\\x1b[2J"
