"""The command line: its stdout, its stderr, and every exit code."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from rlm_integrations.cli import main
from rlm_integrations.result import RLMResult
from tests.standin import Fault, Reply, StandIn, serve_in_thread
from tests.standin.settings import Usage

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


def started(*words: str, **options: object) -> "subprocess.Popen[str]":
    """The command in a new process."""
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


def test_an_answer_with_its_citations(run: Callable[..., Shell]) -> None:
    """The answer is on stdout, with one line per citation; stderr says that no language model was
    used, and has the spending.
    """
    code, out, err = run("ask", "report.txt", QUESTION)
    start = len(FILLER) + 1
    assert code == 0
    assert out == f'{FACT}\n\n[1] context_0 (report.txt) {start}-{start + len(FACT)}: "{FACT}"\n'
    assert err.startswith(f"rlm-integrations: {NO_MODEL}")
    assert err.splitlines()[-1].startswith("rlm-integrations: final, 3 turns, ")


def test_several_files_are_a_list_of_sources(run: Callable[..., Shell]) -> None:
    """Each file is a separate source, in the given order; options may be between them."""
    code, out, _ = run("ask", "other.txt", "--max-calls", "50", "report.txt", QUESTION)
    assert code == 0
    assert "[1] context_1 (report.txt) " in out


def test_stdin_is_a_file_too() -> None:
    """'-' reads stdin, in the given encoding; offsets count characters."""
    process = started(
        "ask", "-", "other.txt", QUESTION, "--encoding", "utf-8", stdin=subprocess.PIPE
    )
    out, _ = process.communicate(f"Ünïcödé, \U0001f512.\n\n{FACT}\n")
    assert process.returncode == 0
    assert out == f'{FACT}\n\n[1] context_0 13-{13 + len(FACT)}: "{FACT}"\n'


def test_json_stands_alone_on_stdout(run: Callable[..., Shell], server: StandIn) -> None:
    """`--json` prints only the result, and `--save` writes the same; both can be loaded."""
    words = [
        "report.txt",
        "q",
        "--model",
        "root",
        "--base-url",
        server.base_url,
        "--json",
        "--save",
        "saved.json",
        "--quiet",
    ]
    code, out, err = run("ask", *words)
    assert (code, err) == (0, "")
    result = RLMResult.from_dict(json.loads(out))
    assert (result.answer, result.stop_reason, result.total_calls) == ("found it", "final", 3)
    assert json.loads(Path("saved.json").read_text()) == json.loads(out)


def test_models_and_their_address(run: Callable[..., Shell], server: StandIn) -> None:
    """`--model` writes code and `--sub-model` answers it, both at `--base-url`; the price of
    unknown ones is unknown.
    """
    words = [
        "report.txt",
        "q",
        "--model",
        "root",
        "--sub-model",
        "sub",
        "--base-url",
        server.base_url,
    ]
    code, out, err = run("ask", *words)
    assert (code, out) == (0, "found it\n")
    assert [call.model for call in server.calls()] == ["root", "sub", "root"]
    assert err.endswith(" s, cost unknown\n")


def test_a_key_chooses_a_model_and_says_which(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With OPENAI_API_KEY and without `--model`, gpt-5-mini is used, and stderr says so, with the
    cost.
    """
    with serve_in_thread(scripts={"gpt-5-mini": [block("FINAL('yes')")]}) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        code, out, err = run("ask", "report.txt", "q")
        assert [call.model for call in server.calls()] == ["gpt-5-mini"]
    assert (code, out) == (0, "yes\n")
    assert err.startswith(
        "rlm-integrations: no --model: asking gpt-5-mini, because OPENAI_API_KEY is set\n"
    )
    assert ", $0.0" in err


def test_quiet_says_nothing_but_never_hides_the_stand_in(run: Callable[..., Shell]) -> None:
    """With `--quiet` stderr is empty, unless offline is used without being requested."""
    assert run("ask", "report.txt", QUESTION, "--quiet", "--model", "offline")[2] == ""
    assert NO_MODEL in run("ask", "report.txt", QUESTION, "--quiet")[2]
    assert (
        "offline is not a language model"
        in run("ask", "report.txt", QUESTION, "--model", "offline")[2]
    )


def test_verbose_shows_turns_on_stderr(run: Callable[..., Shell]) -> None:
    """`--verbose` shows the code of each turn on stderr; stdout has only the answer."""
    _, out, err = run("ask", "report.txt", QUESTION, "--verbose")
    assert "# Step 1 of 3" in err
    assert "Turn 3" in err
    assert out.startswith(FACT)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--max-calls", "2"], "budget_calls"),
        (["--max-tokens", "50000"], "budget_tokens"),
        (["--max-iterations", "1"], "max_iterations"),
    ],
)
def test_a_limit_ends_with_the_best_answer_so_far(
    words: list[str], reason: str, run: Callable[..., Shell], server: StandIn
) -> None:
    """Exit code 3: stdout has the partial answer, stderr the limit."""
    said = [
        Reply(block(f"print('partly', 'known')  # {turn}"), usage=Usage(input=9_000, output=1_000))
        for turn in range(9)
    ]
    server.change(scripts={"root": said})
    code, out, err = run(
        "ask", "report.txt", "q", "--model", "root", "--base-url", server.base_url, *words
    )
    assert (code, out) == (3, "partly known\n")
    assert f"stopped by a limit ({reason}); this is the best answer so far" in err


def test_time_and_cost_are_limits_too(run: Callable[..., Shell]) -> None:
    """`--max-seconds` ends a run; `--max-cost` is refused for a model without a price, before any
    call.
    """
    with serve_in_thread(
        scripts={"root": [block("llm_query('slow')")]}, faults=[Fault("hang", match="slow")]
    ) as server:
        words = ["ask", "report.txt", "q", "--model", "root", "--base-url", server.base_url]
        code, _, err = run(*words, "--max-seconds", "0.5")
        assert (code, "(budget_seconds)" in err) == (3, True)
        server.reset()
        code, _, err = run(*words, "--max-cost", "1")
        assert (
            code,
            "--max-cost cannot hold: there is no known price of 'root';"
            " limit --max-tokens or --max-calls" in err,
        ) == (2, True)
        assert server.stats().calls == 0


def test_a_model_that_cannot_be_asked(run: Callable[..., Shell], server: StandIn) -> None:
    """Exit code 4: with nothing on stdout at the first call, later with the partial answer."""
    words = [
        "ask",
        "report.txt",
        "q",
        "--model",
        "root",
        "--sub-model",
        "sub",
        "--base-url",
        server.base_url,
    ]
    server.change(faults=[Fault("auth", at=(0,))])
    code, out, err = run(*words)
    assert (code, out) == (4, "")
    assert err.startswith("rlm-integrations: 'root' at ")
    server.reset()
    server.change(faults=[Fault("auth", at=(2,))])
    code, out, err = run(*words)
    assert code == 4
    assert out.startswith("answer ")
    assert "model_error: Error: auth: " in err


def test_a_sandbox_that_is_lost(run: Callable[..., Shell], server: StandIn) -> None:
    """Exit code 5 if model code keeps killing its process."""
    server.change(
        scripts={"root": [block(f"import os\nos._exit({number})") for number in range(9)]}
    )
    code, _, err = run("ask", "report.txt", "q", "--model", "root", "--base-url", server.base_url)
    assert code == 5
    assert "rlm-integrations: sandbox_lost: the REPL and its variables are gone" in err


def test_a_sandbox_that_this_machine_does_not_have(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 5, with the alternatives; `--sandbox inprocess` is one, and warns in one line."""
    monkeypatch.setattr(sys, "platform", "darwin")
    code, out, err = run("ask", "report.txt", QUESTION)
    assert (code, out) == (5, "")
    assert "needs Linux" in err
    code, out, err = run("ask", "report.txt", QUESTION, "--sandbox", "inprocess")
    assert (code, out.splitlines()[0]) == (0, FACT)
    assert "rlm-integrations: sandbox='inprocess' runs model code inside this process" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report.txt", ""], "the question is empty"),
        (["report.txt", " \n"], "the question is empty"),
        (["report.txt"], "a file and a question are needed"),
        (["missing.txt", "q"], "'missing.txt' cannot be read: No such file"),
        ([".", "q"], "'.' is a directory"),
        (["-", "-", "q"], "stdin ('-') can be read once"),
        (
            ["bytes.txt", "q"],
            (
                "is not valid utf-8: byte 0xff at offset 3, line 1 (invalid start byte);"
                " give its --encoding, or --errors replace"
            ),
        ),
        ([".", "q"], "'.' is a directory: name its files"),
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
        (["report.txt", "q", "--model", "anthropic:claude"], "a model is a name at OpenAI"),
    ],
)
def test_bad_input(words: list[str], told: str, run: Callable[..., Shell]) -> None:
    """Exit code 2 with a message that says what is wrong, nothing on stdout, no traceback, and
    before any model is created.
    """
    Path("bytes.txt").write_bytes(b"abc\xff")
    Path("empty.txt").touch()
    code, out, err = run("ask", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert NO_MODEL not in err


def test_no_command(run: Callable[..., Shell]) -> None:
    """Exit code 2 without a command, or with an unknown one."""
    assert run()[0] == 2
    assert run("resume", "x")[0] == 2


def test_stdin_that_is_no_text() -> None:
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


def test_bytes_that_are_no_text_can_be_replaced(run: Callable[..., Shell]) -> None:
    """`--errors replace` reads bytes that `strict` refuses."""
    Path("bytes.txt").write_bytes(b"The \xff code is 48213.")
    assert run("ask", "bytes.txt", "What is the code?", "--errors", "replace")[:2] == (
        0,
        (
            "The \ufffd code is 48213.\n\n"
            '[1] context_0 (bytes.txt) 0-20: "The \ufffd code is 48213."\n'
        ),
    )


def test_words_that_begin_with_a_dash_go_after_two(run: Callable[..., Shell]) -> None:
    """Arguments after '--' are not options."""
    code, out, _ = run("ask", "--quiet", "--", "report.txt", f"--- {QUESTION}")
    assert (code, out.splitlines()[0]) == (0, FACT)


def descendants(root: int) -> set[int]:
    """The processes below this one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
    found: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in {root, *found}} - found:
        found |= more
    return found


def is_there(pid: int) -> bool:
    """Whether this process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_leaves_nothing_behind() -> None:
    """Exit code 130 within seconds and without a traceback; calls are cancelled and no process is
    left.
    """
    with serve_in_thread(
        scripts={"root": [block("llm_batch(['slow'] * 5)")]}, faults=[Fault("hang", match="slow")]
    ) as server:
        process = started(
            "ask",
            "report.txt",
            "q",
            "--model",
            "root",
            "--base-url",
            server.base_url,
            start_new_session=True,
        )
        until(lambda: server.stats().in_flight == 5)
        below = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        until(lambda: server.stats().in_flight == 0)
    assert (process.returncode, out) == (130, "")
    told, last = err.splitlines()
    assert told.startswith("rlm-integrations: cancelled, 1 turn, 6 calls, ")
    assert last == "rlm-integrations: interrupted"
    assert len(below) >= 2  # the server of the sandbox and a session
    until(lambda: not [pid for pid in below if is_there(pid)])


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reader_that_goes_away_is_no_error() -> None:
    """With a closed pipe on stdout there is no traceback, and the exit code is that of the run."""
    reading, writing = os.pipe()
    os.close(reading)
    process = started(
        "ask", "report.txt", QUESTION, "--model", "offline", "--quiet", stdout=writing
    )
    os.close(writing)
    assert (process.communicate()[1], process.returncode) == ("", 0)


def test_a_result_that_cannot_be_written() -> None:
    """Exit code 1 if the disk is full, with the reason and no traceback; the answer is printed
    before it is saved.
    """
    with Path("/dev/full").open("w") as full:
        process = started(
            "ask", "report.txt", QUESTION, "--model", "offline", "--quiet", stdout=full
        )
        err = process.communicate()[1]
    assert (process.returncode, err) == (
        1,
        "rlm-integrations: [Errno 28] No space left on device\n",
    )
    process = started(
        "ask", "report.txt", QUESTION, "--model", "offline", "--quiet", "--save", "/dev/full"
    )
    out, err = process.communicate()
    assert (process.returncode, out.splitlines()[0]) == (1, FACT)
    assert err == "rlm-integrations: [Errno 28] No space left on device\n"


def test_a_terminal_gets_a_bar_and_no_control_characters(run: Callable[..., Shell]) -> None:
    """A terminal shows a bar, and control characters of a model are escaped; a pipe gets the
    unchanged answer.
    """
    with serve_in_thread(scripts={"root": [block("FINAL('\\x1b[31mred')")]}) as server:
        words = ["ask", "report.txt", "q", "--model", "root", "--base-url", server.base_url]
        terminal, other = pty.openpty()
        termios.tcsetwinsize(other, (24, 120))
        process = subprocess.Popen(
            [sys.executable, "-m", "rlm_integrations", *words],
            stdout=other,
            stderr=other,
            stdin=other,
        )
        os.close(other)
        shown = b""
        while piece := _read(terminal):
            shown += piece
        os.close(terminal)
        assert process.wait() == 0
        piped = run(*words, "--quiet")[1]
    assert b"models: 1 calls" in shown
    assert b"\\x1b[31mred\r\n" in shown
    assert b"\x1b[31m" not in shown
    assert piped == "\x1b[31mred\n"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other side is closed
        return b""


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
    ]


def test_the_command_is_installed() -> None:
    """`rlm-integrations` and `python -m rlm_integrations` are the same."""
    (script,) = entry_points(group="console_scripts", name="rlm-integrations")
    assert script.load() is main


def test_help_is_quick_to_load() -> None:
    """Parsing the command line loads no client, no sandbox and no progress bar."""
    heavy = ["openai", "tqdm", "pydantic", "asyncio"]
    code = (
        "import sys, rlm_integrations.cli as cli; cli.parsers();"
        f" print([name for name in {heavy} if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
