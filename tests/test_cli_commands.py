"""What every command of the command line has in common."""

import glob
import io
import json
import os
import re
import shlex
import shutil
import sys
import webbrowser
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from rlm_integrations import RLM
from rlm_integrations.cli import build_parser, main
from rlm_integrations.cli.parser import Parser, commands_of
from rlm_integrations.cli.schemas import type_of
from rlm_integrations.storage import Storage
from tests._cli import QUESTION, Shell, bare_environment, block, run
from tests.report._page import browse
from tests.standin import serve_in_thread

__all__ = ["bare_environment", "run"]  # fixtures

WHOLE = build_parser()
COMMANDS = commands_of(WHOLE)
RUN_ID = "1f0c9a3e57d24b1c"  # of the examples
JOB_ID = "7b0f6a52-7d0c-4d5e-9d55-0f3a2f1f5b1e"
EVIL = "\x1b]0;owned\x07\x1b[2J\u202eevil\u2066\x9b31m\r"
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the examples name: files, a storage with a run and a cancelled job, and a model."""
    readers = ThreadPoolExecutor(1)

    def open_page(url: str) -> bool:
        if url.startswith("http"):
            readers.submit(browse, url)
        return True

    monkeypatch.setattr(webbrowser, "open", open_page)
    Path("letters").mkdir()
    for file in ("archive.txt", "letters/a.txt", "letters/b.txt"):
        shutil.copy("report.txt", file)
    with Storage("runs") as storage:
        rlm = RLM("offline", storage=storage)
        result = rlm.completion(QUESTION, Path("archive.txt"), run_id=RUN_ID)
        rlm.replace(store=storage.store("letters")).completion(QUESTION, Path("archive.txt"))
    for file in ("run.json", "other.json"):
        result.save(file)
    with serve_in_thread(scripts={"gpt-5-mini": [block("FINAL('yes')")]}) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield
    readers.shutdown()


def words_of(example: str, job_id: str) -> list[str]:
    """The words of an example, as a shell has them."""
    words = shlex.split(example.replace(JOB_ID, job_id).partition(" < ")[0])
    return [found for word in words for found in sorted(glob.glob(word)) or [word]]  # noqa: PTH207


def test_each_command_has_examples_that_work(
    run: Callable[..., Shell], files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of a command's help run as they stand; with `--json` each prints what
    `--json-schema` describes, and nothing that it does not.
    """
    job_id = run("submit", "archive.txt", QUESTION, "--model", "offline", "--quiet")[1].strip()
    assert run("jobs", "--cancel", job_id)[0] == 0
    shutil.copytree("runs", "before")
    for more in ([], ["--json"]):
        shutil.rmtree("team", ignore_errors=True)
        shutil.rmtree("runs")
        shutil.copytree("before", "runs")
        for command in COMMANDS if more else [WHOLE, *COMMANDS]:
            assert command.examples, command.prog
            for example in command.examples:
                stdin = io.TextIOWrapper(io.BytesIO(Path("archive.txt").read_bytes()))
                monkeypatch.setattr(sys, "stdin", stdin)
                words = words_of(example, job_id)
                assert f"rlm-integrations {example}\n" in command.format_help()
                assert words[: len(command.path.split())] == command.path.split()
                code, out, err = run(*words, *more)
                assert code == 0, (words, err)
                if more:
                    check_described(command, out)


def check_described(command: Parser, out: str) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(type_of(command.path))
    read = adapter.validate_json(out)
    again = adapter.dump_json(read, by_alias=True, exclude_unset=True)
    plain: TypeAdapter[object] = TypeAdapter(object)
    assert plain.validate_json(again) == plain.validate_json(out), command.prog


def test_each_command_prints_its_schema(run: Callable[..., Shell]) -> None:
    """`--json-schema` needs nothing else."""
    for command in COMMANDS:
        code, out, err = run(*command.path.split(), "--json-schema")
        assert (code, err) == (0, "")
        assert TypeAdapter(dict[str, object]).validate_json(out)["type"] in {"object", "array"}


def test_a_defect_is_told_in_one_line(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that no one expects ends with 1 and names `--debug`, which every command has, and
    which shows the traceback.
    """

    def fail(*_: object) -> None:
        raise TypeError("two\nlines")

    monkeypatch.setattr("rlm_integrations.cli.runs.existing_storage", fail)
    code, out, err = run("runs")
    assert (code, out) == (1, "")
    assert err == (
        "rlm-integrations: a defect of this program: TypeError: two lines; run it again with "
        "--debug, and report the traceback\n"
    )
    code, out, told = run("runs", "--debug")
    assert (code, out) == (1, "")
    assert told.endswith(err)
    assert "Traceback (most recent call last):\n" in told
    assert all("--debug" in command.format_help() for command in COMMANDS)


def test_expected_errors_have_a_traceback_too(run: Callable[..., Shell]) -> None:
    """With `--debug` an error has its traceback before its line, and the same exit code."""
    code, out, err = run("show", "x", "--storage", "none")
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, out, told = run("show", "x", "--storage", "none", "--debug")
    assert (code, out) == (2, "")
    assert told.startswith("rlm-integrations: Traceback")
    assert told.endswith(err)


def test_every_command_tells_bad_input_in_one_line(run: Callable[..., Shell]) -> None:
    """What is no run, no file or no storage exits with 2 and one line, which says what to do,
    whatever command is given it; nothing is created.
    """
    run("ask", "report.txt", QUESTION, "--storage", "kept", "--save", "run.json")
    saved = json.loads(Path("run.json").read_text())
    Path("later.json").write_text(json.dumps({**saved, "schema": 9}))
    Path("list.json").write_text("[1]")
    Path("deep.json").write_text("[" * 100_000)
    os.mkfifo("pipe.json")
    stored = ["show", "resume", "export", "storage forget", "store search", "store summary"]
    both = ["report", "diff run.json", "store search", "store summary", "store export"]
    listing = ["runs", "jobs", "storage check", "storage stats", "storage prune --older-than 1d"]
    cases = [
        *[
            (command, name, "kept", f"there is no run {name!r} in this storage")
            for command in (*stored, *both)
            for name in ("gone", "", "a/b")
        ],
        *[(each, "gone", "kept", "; `rlm-integrations runs` lists them") for each in stored],
        *[(each, "\udcff", "kept", "'\\udcff' is not valid UTF-8") for each in stored],
        *[(each, "gone.json", "kept", "there is no file 'gone.json'") for each in both],
        *[(each, "later.json", "kept", "this is of schema 9: read it with the") for each in both],
        *[(each, "list.json", "kept", "but this is not a saved result") for each in both],
        *[(each, "deep.json", "kept", "'deep.json' is not a saved result") for each in both],
        *[(each, "pipe.json", "kept", "is not a regular file") for each in both],
        *[(each, "x", "none", "a storage in 'none'") for each in ("report", "diff run.json")],
        *[(each, "x", "none", "no storage in 'none': name its") for each in stored],
        *[(each, None, "none", "no storage in 'none': name its folder") for each in listing],
        *[(each, None, ".", "is not a storage folder") for each in listing],
        ("import", "list.json", "kept", "'list.json' is not a zip file"),
        ("import", "gone.zip", "none", "there is no file 'gone.zip'"),
        ("jobs --cancel", "gone", "kept", "no job has the id 'gone'"),
    ]
    for command, name, place, message in cases:
        words = [*command.split(), *([] if name is None else [name])]
        words += ["x.zip"] if command == "export" else []
        code, out, err = run(*words, "--storage", place)
        assert (code, out, err.count("\n")) == (2, "", 1), (words, place, err)
        assert message in err, (words, place)
    assert not Path("none").exists()
    assert not Path("x.zip").exists()


def test_a_terminal_is_safe(
    run: Callable[..., Shell], files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control characters and bidi in questions, answers, names of models and files, and arguments
    are escaped on a terminal, whatever command prints them.
    """
    name = f"{EVIL.replace('/', '')}.txt"
    Path(name).write_text(f"The code is 48213{EVIL}.")
    run("ask", name, f"What is the code{EVIL}?", "--model", "offline", "--storage", "evil")
    run_id = run("runs", "--storage", "evil")[1].split()[0]
    with Storage("evil") as storage:
        worker = storage.store("vaults").worker("w")
        found = worker.create("claim", f"{EVIL}\n{EVIL}", EVIL, tags=["x"])
        worker.invalidate(found, EVIL)
    run("submit", name, f"Who{EVIL}?", "--model", f"m{EVIL}", "--storage", "evil")
    for words in (
        ["ask", name, f"What is the code{EVIL}?", "--model", "offline"],
        ["ask", name, "What?", f"--{EVIL}"],
        ["show", run_id],
        ["show", EVIL],
        ["resume", run_id],
        ["runs"],
        ["runs", "--limit", EVIL],
        ["diff", run_id, RUN_ID],
        ["diff", run_id, "run.json"],
        ["report", run_id, "-o", f"{EVIL.replace('/', '')}.html"],
        ["jobs"],
        ["worker", "--until-empty"],
        ["store", "search", run_id],
        ["store", "search", "vaults", "invalid=any", "--shared"],
        ["store", "summary", "vaults", "invalid=any", "--shared"],
        ["store", "export", "vaults", "--shared"],
        ["store", "search", EVIL, EVIL],
        ["storage", "check"],
        ["storage", "forget", EVIL],
        [EVIL],
    ):
        # The captured stdout is another one in each run
        monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
        place = [] if words[0] in {EVIL, "ask"} else ["--storage", "evil"]
        quiet = (
            ["--quiet"] if words[0] in {"ask", "resume"} else []
        )  # no bar, which moves the cursor
        _, out, err = run(*words, *place, *quiet)
        assert not UNSAFE.findall(out + err), (words, out, err)
        assert out + err


def test_the_reader_of_stdout_may_leave(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, files: None
) -> None:
    """Help and lists end with 141 and without a message when nobody reads them."""
    for words in (["--help"], ["runs", "--help"], ["runs"], ["runs", "--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            assert main(words) == 141
        assert capfd.readouterr() == ("", "")


def test_any_encoding_of_stdout_will_do(monkeypatch: pytest.MonkeyPatch, files: None) -> None:
    """What an encoding does not have is escaped, in help and in lists."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for words in (["runs", "Lisbon"], ["submit", "--help"]):
        taken = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(taken, encoding="ascii"))
        try:
            main(words)
        except SystemExit as end:
            assert end.code in {0, None}
        assert taken.getvalue().isascii()
        assert taken.getvalue()
