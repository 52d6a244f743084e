"""The progress of runs on a terminal, through the command line and through Python."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from rlm_integrations import RLM, llm_batch
from rlm_integrations.cli import main
from rlm_integrations.engine.progress import MAX_CHILDREN, MAX_LINES, RunLines
from rlm_integrations.errors import ModelError
from rlm_integrations.events import (
    BatchStarted,
    CallRetried,
    CallStarted,
    ChildFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    TurnStarted,
)
from rlm_integrations.lm import pricing
from rlm_integrations.lm.running_cost import RunningCost
from rlm_integrations.progress_bar import is_shown
from rlm_integrations.records import CallRecord, LLMError, Request, Usage
from rlm_integrations.result import RLMResult
from rlm_integrations.terminal import progress_screen
from tests._cli import Shell, bare_environment, block, run, until
from tests._terminal import Terminal
from tests.lm._local import Local
from tests.standin import Ask, Fault, StandIn, serve_in_thread

__all__ = ["bare_environment", "run"]  # fixtures

CHILD = "Of\x1b[2J what?"
ESCAPED = r"Of\x1b[2J what?"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Shown:
    """A command's exit code, and the terminal that it wrote to."""

    def __init__(self, code: int, terminal: Terminal) -> None:
        self.code = code
        self.terminal = terminal


class Scripts:
    """The model of the tests. Each of its root's replies waits until the terminal shows the line
    that belongs to it, if there is a terminal.
    """

    def __init__(self) -> None:
        self.terminal: Terminal | None = None
        self.awaits: dict[int, str] = {}  # by turn
        self.blocks = [
            block("llm_batch(['a', 'fail', 'b'])"),
            block(f"recursive_lm({CHILD!r}, context[:50])"),
            block("FINAL('found \x1b[31mit')"),
        ]

    def __call__(self, ask: Ask) -> str:
        if CHILD in ask.body["messages"][1]["content"]:
            self._wait(99)
            return block("FINAL('of the child')")
        self._wait(ask.turn)
        return self.blocks[ask.turn]

    def _wait(self, turn: int) -> None:
        terminal, line = self.terminal, self.awaits.get(turn, "")
        if terminal is not None:
            until(lambda: re.search(line, terminal.text) is not None)


@pytest.fixture
def scripts() -> Scripts:
    return Scripts()


@pytest.fixture
def server(scripts: Scripts) -> Iterator[StandIn]:
    faults = [Fault("bad_request", match="fail")]
    with serve_in_thread(scripts={"root": scripts}, faults=faults) as server:
        yield server


Command = Callable[..., Shown]


@pytest.fixture
def on_terminal(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process, on a terminal."""

    def run_on(*words: str, columns: int = 120, log: logging.Logger | None = None) -> Shown:
        with Terminal(columns) as terminal, monkeypatch.context() as patched:
            scripts.terminal = terminal
            with terminal.stream() as stdout, terminal.stream() as stderr:
                patched.setattr(sys, "stdout", stdout)
                patched.setattr(sys, "stderr", stderr)
                handler = logging.StreamHandler()  # as `logging.basicConfig` adds it
                if log is not None:
                    patched.setattr(log, "handlers", [handler])
                code = main(words)
                assert (sys.stdout, sys.stderr, handler.stream) == (stdout, stderr, stderr)
        return Shown(code, terminal)

    return run_on


@pytest.fixture
def ask(server: StandIn, on_terminal: Command) -> Command:
    """Run `ask` in this process, on a terminal."""
    return partial(on_terminal, *_words(server))


def _words(server: StandIn) -> list[str]:
    models = ["--model", "root", "--sub-model", "sub", "--base-url", server.base_url]
    return ["ask", "report.txt", "Who\x1b[2J?", *models, "--max-depth", "2"]


def test_a_run_on_a_terminal(ask: Command, scripts: Scripts) -> None:
    """One line shows turn, calls, tokens, cost, rate and time; a child run has a line below it;
    nothing of both remains; and no escape of a model reaches the terminal.
    """
    scripts.awaits = {
        1: r"turn 2, 4/5 calls, .*1 failed.*tokens, cost unknown, \d+\.\d calls/s, \d:\d\d",
        99: rf"\n\r  {re.escape(ESCAPED)}: turn 1, 0/1 calls, 0:",
        2: r"turn 3, 6/7 calls.* tokens.*, 1 child run",
    }
    shown = ask()
    answer, told = shown.terminal.screen
    assert (shown.code, answer) == (0, r"found \x1b[31mit")
    assert told.startswith("rlm-integrations: final, 3 turns, 7 calls, ")
    assert "\x1b[31m1 failed\x1b[0m" in shown.terminal.text


def test_no_colour_on_request(
    ask: Command, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NO_COLOR there are lines without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    scripts.awaits = {1: "turn 2, 4/5 calls, 1 failed"}
    assert "\x1b[3" not in ask().terminal.text


def test_a_narrow_terminal(ask: Command, scripts: Scripts) -> None:
    """No line wraps: the least important parts are left out."""
    scripts.awaits = {1: r"turn 2, 4/5 calls, ", 99: r"\n\r  Of\\x1b\[2J.*turn 1"}
    lines = re.split(r"[\r\n]+", ask(columns=30).terminal.text)
    drawn = [re.sub(r"\x1b\[\d*[A-Za-z]", "", line) for line in lines if "turn" in line]
    assert max(map(len, drawn[:-1])) <= 29  # the last one is the command's summary


@pytest.mark.parametrize("words", [["--quiet"], ["TERM=dumb"]])
def test_a_silent_terminal(words: list[str], ask: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is drawn with `--quiet`, nor on a terminal that cannot redraw one."""
    if words == ["TERM=dumb"]:
        monkeypatch.setenv("TERM", "dumb")
        words = []
    shown = ask(*words)
    assert shown.terminal.screen[0] == r"found \x1b[31mit"
    assert "turn 1" not in shown.terminal.text


def test_a_pipe(run: Callable[..., Shell], server: StandIn) -> None:
    """Where stderr is no terminal, there is no line."""
    _, out, err = run(*_words(server))
    assert out == "found \x1b[31mit\n"
    assert "turn 1" not in err
    assert "\r" not in err


def test_a_run_that_fails(ask: Command, server: StandIn) -> None:
    """The line is gone when the error is reported."""
    server.change(faults=[Fault("auth", rate=1.0)])
    shown = ask(columns=300)
    assert shown.code == 4
    assert "turn 0, 0/0 calls" in shown.terminal.text
    (told,) = shown.terminal.screen
    assert told.startswith("rlm-integrations: 'root' at http://127.0.0.1:")


def test_what_others_write_goes_above_the_line(
    ask: Command, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log records, output and prompts of the process do not mix with the line, and are complete."""
    log = logging.getLogger("tests.progress")
    monkeypatch.setattr(log, "propagate", False)
    before = scripts._wait

    def wait(turn: int) -> None:
        before(turn)
        if turn == 1:
            log.warning("logged")
            print("on", "stdout")
            sys.stderr.writelines(["in ", "parts\n"])
            sys.stderr.write("a prompt: ")
            sys.stderr.flush()
            sys.stdout.write("left open")
            assert sys.stdout.isatty()

    monkeypatch.setattr(scripts, "_wait", wait)
    lines = ask(log=log).terminal.screen
    assert lines[:5] == ["logged", "on stdout", "in parts", "a prompt:", "left open"]
    assert lines[5] == r"found \x1b[31mit"


def test_workers_and_resumed_runs(server: StandIn, scripts: Scripts, on_terminal: Command) -> None:
    """A worker has a line for each job, with its question, below what it says about its jobs;
    `resume` has one, too.
    """
    scripts.blocks = [block("FINAL(1)")]
    scripts.awaits = {0: r"\?: turn 1, [^\n]*\n\r[^\n]*\?: turn 1, "}
    for question in ("Who?", "When?"):
        submitted = on_terminal("submit", "report.txt", question, "--model", "root")
    job = submitted.terminal.screen[0]
    words = ["worker", "--until-empty", "--base-url", server.base_url]
    lines = on_terminal(*words).terminal.screen
    assert all(line.startswith("rlm-integrations: ") for line in lines)
    assert sum(" completed after " in line for line in lines) == 2
    resumed = on_terminal("resume", job, "--base-url", server.base_url)
    assert "turn 0, 0/0 calls" in resumed.terminal.text
    assert resumed.terminal.screen[0] == "1"
    assert "turn 1" not in on_terminal(*words, "--quiet").terminal.text


def test_ctrl_c_on_a_terminal(server: StandIn, scripts: Scripts) -> None:
    """Ctrl-C removes the line, also what the terminal echoes on it."""
    scripts.blocks = [block("llm_batch(['slow'] * 5)")]
    server.change(faults=[Fault("hang", match="slow")])
    with Terminal() as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlm_integrations", *_words(server)],
            start_new_session=True,
            stdout=terminal.end,
            stderr=terminal.end,
        )
        until(lambda: "turn 1, 1/6 calls" in terminal.text)
        os.write(terminal.end, b"^C")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(250) == 130
    told, last = terminal.screen
    assert re.fullmatch(r"rlm-integrations: cancelled, 1 turn, 6 calls, .*cost unknown", told)
    assert last == "rlm-integrations: interrupted"


# In Python.


@contextmanager
def terminal_as_stderr() -> Iterator[Terminal]:
    """Stderr is a terminal meanwhile. Not a fixture, because pytest replaces stderr after those."""
    with (
        pytest.MonkeyPatch.context() as patched,
        Terminal() as terminal,
        terminal.stream() as stream,
    ):
        patched.setattr(sys, "stderr", stream)
        yield terminal
        assert sys.stderr is stream
    assert not [thread for thread in threading.enumerate() if "tqdm" in type(thread).__module__]


class Model(Local):
    """Its root model writes one block; its sub-model hangs, fails or answers."""

    async def complete(self, request: Request) -> Any:
        self.act = "re: {}".format
        if request.role == "root":
            self.act = lambda _: block(request.query)
        elif request.messages[-1].content == "hang":
            await asyncio.Event().wait()
        return await super().complete(request)


def test_a_run_leaves_its_summary() -> None:
    """`show_progress` in Python leaves one line at the end of each run."""
    with terminal_as_stderr() as stderr:
        rlm = RLM(Model(), show_progress=True)
        for _ in range(2):
            rlm.completion("FINAL(llm_query('a'))", "text")
        until(lambda: len(re.findall(r"final, .*\r\n", stderr.text)) == 2)
        for line in stderr.screen:
            assert re.match(r"final, 1 turn, 2 calls, \d+\.\d\d s, 5 tokens", line)


def test_a_batch_and_what_others_write() -> None:
    """What is printed during a batch goes above its bar."""
    with terminal_as_stderr() as stderr:
        lm = Local(act=lambda prompt: print("above", file=sys.stderr) or prompt)  # type: ignore[func-returns-value]
        assert llm_batch(["a", "b"], lm, show_progress=True) == ["a", "b"]
        until(lambda: "2/2" in stderr.text and stderr.text.endswith("\n"))
    assert stderr.screen[:2] == ["above", "above"]
    assert "prompts: 100%" in stderr.screen[2]


def test_a_run_that_raises() -> None:
    """The line of a run that raises is replaced by the error."""
    with terminal_as_stderr() as stderr:

        def fail(_: str) -> str:
            raise ModelError("no \x1b[2Jsuch model", type="not_found")

        class Failing(Local):
            async def complete(self, request: Request) -> Any:
                self.act = fail
                return await super().complete(request)

        with pytest.raises(ModelError, match="such model"):
            RLM(Failing(), show_progress=True).completion("q", "text")
        until(lambda: re.search(r"model_error, 0 turns, 1 call, .*\n", stderr.text) is not None)
        assert r"no \x1b[2Jsuch model" in stderr.screen[-1]


async def test_a_cancelled_run() -> None:
    """Calls of a batch that were not made are not asked for any more, and nothing is drawn after
    the end.
    """
    with terminal_as_stderr() as stderr:
        lm = Model()
        rlm = RLM(lm, show_progress=True)
        task = asyncio.ensure_future(rlm.acompletion("llm_batch(['a'] + ['hang'] * 30)", "text"))
        while "turn 1, 2/32 calls" not in stderr.text:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not re.search(r"cancelled, .*\n", stderr.text):
            await asyncio.sleep(0.01)
        assert re.fullmatch(
            r"cancelled, 1 turn, \d+ calls, \d+\.\d\d s, 5 tokens.*", *stderr.screen
        )
        assert progress_screen()._users == 0


def run_started(number: int, parent: str | None = None) -> RunStarted:
    return RunStarted(
        id=f"run-{number}",
        parent=parent,
        query=f"question {number}",
        path="r",
        depth=int(parent is not None),
        characters=4,
    )


async def test_many_runs() -> None:
    """Runs at the same time have a line each, named by their questions, up to a limit; and child
    runs a limit of their own. They give their lines to others when they end.
    """
    with terminal_as_stderr() as stderr:
        lines = RunLines()
        for number in range(MAX_LINES + 5):
            lines(run_started(number))
        while not re.search(r"and 6 more runs", stderr.text):
            await asyncio.sleep(0.01)
        assert stderr.screen == [
            *(f"question {number}: turn 0, 0/0 calls, 0:00" for number in range(MAX_LINES - 1)),
            "and 6 more runs",
        ]
        for number in range(1, MAX_LINES + 5):
            lines(RunFinished(id=f"run-{number}", result=RLMResult(answer="")))
        for number in range(20, 30):
            lines(run_started(number, "run-0"))
        lines(ChildFinished(id="run-20", parent="run-0", answer="", stop_reason="final"))
        while "question 25" not in stderr.text:
            await asyncio.sleep(0.01)
        lines._draw()
        while "10 child runs" not in stderr.text:
            await asyncio.sleep(0.01)
        shown = [line for line in stderr.screen if "turn 0" in line]
        assert len(shown) == 1 + MAX_CHILDREN
        assert shown[1].startswith("  question 21: turn 0")
        lines(RunFailed(id="run-0", error="\x1b[2Jboom"))
        while not stderr.text.endswith("boom\r\n"):
            await asyncio.sleep(0.01)
        assert stderr.screen[-1] == r"question 0: failed: \x1b[2Jboom"
        assert not any("turn 0" in line for line in stderr.screen)


async def test_events_are_only_counted() -> None:
    """However many events there are, the line is drawn by a timer alone."""
    with terminal_as_stderr() as stderr:
        lines = RunLines()
        lines(run_started(1))
        while "turn 0" not in stderr.text:
            await asyncio.sleep(0.01)
        lines._next = float("inf")
        before = len(stderr.text)
        lines(TurnStarted(id="run-1", iteration=1))
        lines(BatchStarted(id="batch-1", parent="run-1", total=5_000, max_concurrent=10))
        for number in range(5_000):
            at = {"id": f"call-{number}", "parent": "batch-1"}
            lines(CallStarted(**at, model="m", request=Request(())))
            lines(CallRetried(**at, error=LLMError("\x1b[2J", "no", 1), delay=1.0))
        lines(TurnStarted(id="run-1", iteration=2))
        assert len(stderr.text) == before
        lines._draw()
        while r"turn 2, 0/5,000 calls" not in stderr.text:
            await asyncio.sleep(0.01)
        assert r"5000 retried (\x1b[2J)" in stderr.screen[0]
        lines(RunFailed(id="run-1", error="boom"))


async def test_a_terminal_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run goes on if its terminal is closed."""
    with Terminal() as terminal:
        stream = terminal.stream()
        monkeypatch.setattr(sys, "stderr", stream)
        rlm = RLM(Model(), show_progress=True)
        task = asyncio.ensure_future(rlm.acompletion("FINAL(llm_query('a'))", "text"))
        while "turn" not in terminal.text:
            await asyncio.sleep(0.01)
        stream.close()
        assert (await task).answer == "re: a"
        monkeypatch.undo()
    assert caplog.records == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_its_streams_back() -> None:
    """A process that is forked while lines are shown writes to its streams directly, even if a
    line was just being drawn.
    """
    from tqdm import tqdm

    with terminal_as_stderr() as stderr:
        stream = sys.stderr
        progress_screen().enter()
        held, done = threading.Event(), threading.Event()

        def draw() -> None:
            with tqdm.get_lock():  # type: ignore[no-untyped-call]
                held.set()
                done.wait(250)

        drawing = threading.Thread(target=draw)
        drawing.start()
        held.wait(250)
        child = os.fork()
        if not child:
            print("from the child", file=sys.stderr, flush=True)
            os._exit(0 if sys.stderr is stream else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        done.set()
        drawing.join()
        progress_screen().leave()
        until(lambda: "from the child" in stderr.text)


def test_notebooks() -> None:
    """In a notebook tqdm's widget is used, without a terminal."""
    from tqdm import notebook, std

    assert is_shown(type("Bar", (notebook.tqdm,), {}))
    assert not is_shown(type("Bar", (std.tqdm,), {}))


def test_the_running_cost() -> None:
    """It is the sum of the costs of all calls, also of long ones with a higher price; unknown if
    one of them is unknown, and nothing for a free model.
    """
    cost = RunningCost()
    usages = [Usage(n, n // 10, cached_tokens=n // 2) for n in (7, 1_000, 29_999, 300_000)]
    models = [("gemini-2.5-pro", "gemini-2.5-pro"), ("gpt-5-mini", "gpt-5-mini-2025-08-07")]
    for usage in usages:
        for asked, answering in models:
            cost.add(CallRecord(reply="yes", model=answering, usage=usage), asked)
    assert not cost.is_complete
    until(lambda: bool(cost.shown()) and cost.is_complete)
    expected = sum(pricing.call_cost(usage, *names) or 0.0 for usage in usages for names in models)
    assert cost.shown() == f"${expected:.4f}"
    cost.add(CallRecord(reply="yes", model="m", usage=usages[0]), "m")
    until(lambda: cost.shown() == "cost unknown")
    free = RunningCost()
    free.add(CallRecord(reply="yes", model="offline", usage=usages[0]), "offline")
    until(lambda: not free.shown() and free.is_complete)
