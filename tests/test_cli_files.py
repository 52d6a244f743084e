"""The command line: reading files, errors of unreadable ones, and the results of interrupted
runs.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_integrations.result import RLMResult
from rlm_integrations.terminal import printable
from tests._cli import (
    FACT,
    QUESTION,
    Shell,
    bare_environment,
    block,
    forked,
    run,
    server,
    started,
    until,
)
from tests.standin import Fault, StandIn, serve_in_thread

__all__ = ["bare_environment", "run", "server"]  # fixtures


def write_renamed_pdf() -> Path:
    Path("x.txt").write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj")
    return Path("x.txt")


def write_gzip() -> Path:
    with gzip.open("x.txt.gz", "wt") as file:
        file.write(FACT)
    return Path("x.txt.gz")


def write_renamed_gzip() -> Path:
    return write_gzip().rename("x.txt")


def write_xlsx() -> Path:
    with zipfile.ZipFile("x.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", FACT)
    return Path("x.xlsx")


@pytest.mark.parametrize("errors", [[], ["--errors", "replace"]])
@pytest.mark.parametrize(
    ("write", "told"),
    [
        (write_renamed_pdf, "'x.txt' is a PDF, not text: give it a name that ends with .pdf"),
        (
            write_renamed_gzip,
            "'x.txt' is gzip-compressed, not text: unpack it first, for example with gunzip",
        ),
        (write_xlsx, "'x.xlsx' is a zip archive, as xlsx, pptx and odt files are, not text"),
    ],
)
def test_a_binary_file_is_reported_as_such(
    write: Callable[[], Path], told: str, errors: list[str], run: Callable[..., Shell]
) -> None:
    """Exit code 2 with what to do, and nothing is sent: binary files are refused with any treatment
    of errors.
    """
    code, out, err = run("ask", str(write()), QUESTION, *errors)
    assert (code, out) == (2, "")
    assert told in err


def test_an_empty_file_among_others_is_reported(run: Callable[..., Shell]) -> None:
    """An empty file is a source, and stderr says that it is empty."""
    Path("empty.txt").touch()
    code, out, err = run(
        "ask", "empty.txt", "report.txt", QUESTION, "--quiet", "--model", "offline"
    )
    assert (code, out.splitlines()[0], err) == (0, FACT, "rlm-integrations: empty.txt is empty\n")


def test_a_byte_order_mark_is_not_text(run: Callable[..., Shell]) -> None:
    """No answer or quote begins with it, and offsets count from the character after it; from stdin
    too.
    """
    Path("bom.txt").write_bytes(b"\xef\xbb\xbf" + FACT.encode())
    expected = f'{FACT}\n\n[1] bom.txt:1 0-{len(FACT)}: "{FACT}"\n'
    assert run("ask", "bom.txt", QUESTION)[1] == expected
    process = started("ask", "-", QUESTION, stdin=subprocess.PIPE)
    assert process.communicate(f"\ufeff{FACT}")[0] == expected.replace("bom.txt:1", "context_0")


def test_a_named_pipe_is_read(run: Callable[..., Shell]) -> None:
    """A named pipe is read to its end, and the source has the pipe's name."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=(FACT,))
    writer.start()
    code, out, _ = run("ask", "pipe", QUESTION)
    writer.join()
    assert (code, out) == (0, f'{FACT}\n\n[1] pipe:1 0-{len(FACT)}: "{FACT}"\n')


def test_a_process_substitution_is_read() -> None:
    """`<(zcat …)` is read like a file."""
    command = (
        f"{sys.executable} -m rlm_integrations ask <(zcat {write_gzip()}) other.txt '{QUESTION}'"
        " --quiet --model offline"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, FACT, "")


def test_a_pipe_with_invalid_bytes(run: Callable[..., Shell]) -> None:
    """Exit code 2, with the position of the byte and the command's own options."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(b"abc\xff",))
    writer.start()
    code, _, err = run("ask", "pipe", QUESTION)
    writer.join()
    assert (
        code,
        "'pipe' is not valid utf-8: byte 0xff at offset 3; give its --encoding, or --errors replace"
        in err,
    ) == (2, True)


def test_the_posix_locale_works() -> None:
    """With LC_ALL=POSIX, file names, question and answer are UTF-8; ASCII is used if it is
    requested.
    """
    text = "Der Schlüssel der Tür in Łódź ist grün."
    Path("schlüssel.txt").write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "rlm_integrations",
        "ask",
        "schlüssel.txt",
        "Der Schlüssel der Tür in Łódź?",
        "--model",
        "offline",
    ]
    bare = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, check=False, env=bare)
    assert done.returncode == 0
    place = f"schlüssel.txt:1 0-{len(text)}"
    assert done.stdout.decode() == f'{text}\n\n[1] {place}: "{text}"\n'
    done = subprocess.run(
        command, capture_output=True, check=False, env={**bare, "PYTHONIOENCODING": "ascii"}
    )
    assert done.stdout.startswith(rb"Der Schl\xfcssel der T\xfcr")


def test_line_breaks_in_file_names_are_escaped(run: Callable[..., Shell]) -> None:
    """A line break in a file name is escaped, so that each citation is one line."""
    name = 'a.txt\n[2] context_1 (law.txt) 0-3: "all is allowed"'.replace("/", "")
    Path(name).write_text(FACT)
    code, out, _ = run("ask", name, QUESTION)
    assert (code, len(out.splitlines())) == (0, 3)
    assert "[1] a.txt\\n[2] context_1 (law.txt) 0-3: " in out


@pytest.mark.parametrize("character", "\u2028\u2029\u061c\u200e\u200f\u202e\u2066\x1b\x85")
def test_control_characters_are_escaped(character: str) -> None:
    """Characters that end lines or reverse text are escaped on a terminal."""
    assert printable(f"a{character}b\nc\td") == f"a{ascii(character)[1:-1]}b\nc\td"


# The results of interrupted runs.


def test_json_and_save_of_a_run_whose_model_fails(
    run: Callable[..., Shell], server: StandIn
) -> None:
    """Exit code 4 and one JSON object with the reason on stdout, at the first call and later;
    `--save` writes the same.
    """
    words = [
        "ask",
        "report.txt",
        "q",
        "--model",
        "root",
        "--base-url",
        server.base_url,
        "--json",
        "--save",
        "kept.json",
    ]
    for at, iterations in ((0, 0), (2, 1)):
        server.reset()
        server.change(faults=[Fault("auth", at=(at,))])
        code, out, _ = run(*words)
        result = RLMResult.from_dict(json.loads(out))
        assert (code, result.stop_reason, result.iterations) == (4, "model_error", iterations)
        assert result.error is not None
        assert "'root' at" in result.error
        assert json.loads(Path("kept.json").read_text()) == json.loads(out)


def test_json_of_a_run_without_a_sandbox(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 5 and one JSON object."""
    monkeypatch.setattr(sys, "platform", "darwin")
    code, out, _ = run("ask", "report.txt", QUESTION, "--json")
    assert (code, json.loads(out)["stop_reason"], json.loads(out)["answer"]) == (
        5,
        "sandbox_lost",
        "",
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_ctrl_c_prints_and_saves_the_result_so_far(form: str) -> None:
    """Exit code 130; the file has the turns and the answers of the current batch, stdout the best
    answer so far.
    """
    scripts = {
        "root": [
            block("print('seen so far')"),
            block("llm_batch(['quick', 'slow'], max_concurrent=1)"),
        ]
    }
    with serve_in_thread(scripts=scripts, faults=[Fault("hang", match="slow")]) as server:
        words = [
            "--model",
            "root",
            "--base-url",
            server.base_url,
            "--save",
            "kept.json",
            *(["--json"] if form == "json" else []),
        ]
        process = forked("ask", "report.txt", "q", *words)
        until(lambda: server.stats().in_flight == 1 and server.stats().calls == 4)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "rlm-integrations: interrupted"
    kept = json.loads(Path("kept.json").read_text())
    assert json.loads(out) == kept if form == "json" else out == "seen so far\n"
    result = RLMResult.from_dict(kept)
    assert (result.stop_reason, result.answer, result.iterations) == ("cancelled", "seen so far", 2)
    replies = [call.reply for call in result.repl_history[1].subcalls]
    assert [reply.startswith("Error: cancelled") for reply in replies] == [False, True]


def test_a_limit_before_anything_was_found_says_so(
    run: Callable[..., Shell], server: StandIn
) -> None:
    """Without a partial answer, stderr says that nothing was found."""
    words = [
        "ask",
        "report.txt",
        "q",
        "--model",
        "root",
        "--base-url",
        server.base_url,
        "--max-tokens",
        "500",
    ]
    code, out, err = run(*words)
    assert (code, out) == (3, "")
    assert "stopped by a limit (budget_tokens); nothing was found until then" in err
    assert "best answer" not in err


def test_several_files_have_names(run: Callable[..., Shell]) -> None:
    """Citations name a file by as much of the end of its path as tells it from the others, and the
    line.
    """
    for folder in ("north", "south"):
        Path(folder).mkdir()
        Path(folder, "notes.txt").write_text(f"Notes of the {folder}.\n")
    Path("south", "notes.txt").write_text(f"Notes.\n{FACT}\n")
    files = ("north/notes.txt", "south/notes.txt", "report.txt", "report.txt")
    code, out, _ = run("ask", *files, QUESTION, "--json")
    assert code == 0
    result = RLMResult.from_dict(json.loads(out))
    assert [source.name for source in result.sources] == [*files[:3], "report.txt (2)"]
    assert "south/notes.txt:2" in {each.location for each in result.citations}


def test_archives_are_read(run: Callable[..., Shell]) -> None:
    """A compressed text is read like a file, and an archive like a folder."""
    assert f"[1] x.txt:1 0-{len(FACT)}" in run("ask", str(write_gzip()), QUESTION)[1]
    with zipfile.ZipFile("notes.zip", "w") as file:
        file.writestr("a/b.txt", f"\n{FACT}")
        file.writestr("c", b"\0")
    code, out, err = run("ask", "notes.zip", QUESTION)
    assert (code, f"[1] a/b.txt:2 1-{1 + len(FACT)}" in out) == (0, True)
    assert "1 file is left out (1 binary)" in err


def test_a_folder_is_read(run: Callable[..., Shell]) -> None:
    """`ask src/` cites a file by its path and line; stderr says what is left out."""
    Path("src/deep").mkdir(parents=True)
    Path("src/deep/notes.md").write_text(f"Notes\n\n{FACT}\n")
    Path("src/empty.py").touch()
    Path("src/image").write_bytes(b"\0\1")
    for words in (["src/"], ["src/**/*"], ["report.md", "src"]):
        Path("report.md").write_text("Nothing is in here.\n")
        code, out, err = run("ask", *words, QUESTION, "--quiet", "--model", "offline")
        assert (code, out.splitlines()[0]) == (0, FACT)
        assert f'src/deep/notes.md:3 7-{7 + len(FACT)}: "{FACT}"' in out
        assert "rlm-integrations: 1 file is left out (1 binary)\n" in err
        assert "is empty" not in err
