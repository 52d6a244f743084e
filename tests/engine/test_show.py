"""The turns that runs print to stderr, based on events only."""

import asyncio
import io
import re
import subprocess
import sys
import threading

import pytest

from rlm_integrations import RLM
from rlm_integrations.engine.display import display_hooks
from rlm_integrations.engine.progress import RunLines
from rlm_integrations.engine.show import Turns, cut_for_display, summary
from rlm_integrations.errors import ModelError
from rlm_integrations.events import CallRetried, TurnStarted
from rlm_integrations.records import Completion, LLMError, Request, Usage
from rlm_integrations.result import RLMResult
from rlm_integrations.terminal import print_whole, printable


class Scripted:
    """A user's model: as root it gives its replies in turn; as sub-model it hangs, fails or
    answers, depending on the prompt.
    """

    name = "scripted"
    context_window = None

    def __init__(self, *replies: str, child: str = "```repl\nFINAL('of the child')\n```") -> None:
        self.replies = replies
        self.child = child
        self.hanging = 0

    async def complete(self, request: Request) -> Completion:
        asked = request.messages[-1].content
        if request.role == "root":
            turn = sum(message.role == "assistant" for message in request.messages)
            text = self.replies[turn] if request.depth == 0 else self.child
        elif asked == "hang":
            self.hanging += 1
            await asyncio.Event().wait()
        elif asked == "fail":
            raise ModelError("no", type="refusal")
        else:
            text = f"answer to {asked}"
        return Completion(text, Usage(input_tokens=1_200, output_tokens=30), self.name, "stop")


def block(code: str) -> str:
    return f"```repl\n{code}\n```"


ASKS = block("replies = llm_batch(['a', 'fail', 'b'])\nprint(replies[0])")
HANGS = block("llm_batch(['a', 'hang', 'hang'])")


def test_each_turn_is_shown_with_its_code_its_output_and_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`verbose` prints question, code, output, status, calls, tokens and times of a run, in order,
    and nothing on stdout.
    """
    RLM(Scripted(ASKS, block("FINAL('42')")), verbose=True).completion("How  many?", "some text")
    shown = capsys.readouterr()
    run = re.match(r"\[(run-\d+)\]", shown.err)
    assert run is not None
    lines = [
        re.sub(r"\d+\.\d\d s", "T s", line.removeprefix(f"[{run[1]}] "))
        for line in shown.err.splitlines()
    ]
    assert lines == [
        "How many? (9 characters)",
        "Turn 1",
        "Block 1:",
        "    replies = llm_batch(['a', 'fail', 'b'])",
        "    print(replies[0])",
        "Block 1: ok, T s, 3 calls (1 failed)",
        "    answer to a",
        "Turn 1 took T s, 1,200 tokens read and 30 written",
        "Turn 2",
        "Block 2:",
        "    FINAL('42')",
        "Block 2: ok, T s",
        "Turn 2 took T s, 1,200 tokens read and 30 written",
        "final, 2 turns, 5 calls, T s",
    ]
    assert shown.out == ""


def test_replies_without_code_and_errors_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A turn without a block shows the reply; a block that raises shows its traceback."""
    RLM(
        Scripted("I am thinking.", block("print(1)\n1 / 0"), block("FINAL(1)")), verbose=True
    ).completion("q", "text")
    shown = capsys.readouterr().err
    assert "    I am thinking.\n" in shown
    assert "Block 1: error, " in shown
    assert "    ZeroDivisionError: division by zero\n" in shown


def test_children_are_indented_and_have_their_own_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """A child's lines are indented more than its parent's, with its own id and its answer."""
    root = Scripted(block("print(recursive_lm('of what?', context[:4]))"), block("FINAL('done')"))
    RLM(root, max_depth=2, verbose=True).completion("q", "some text")
    heads = re.findall(r"^( *)\[(run-\d+)\] (.*)", capsys.readouterr().err, re.MULTILINE)
    depths = {run: {len(indent) for indent, each, _ in heads if each == run} for _, run, _ in heads}
    assert list(depths.values()) == [{0}, {2}]
    told = [text for indent, _, text in heads if indent]
    assert told[0] == "of what? (4 characters)"
    assert told[-1] == "Child run finished: final"


class Writes(io.StringIO):
    """A stderr that records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


async def test_runs_at_the_same_time_never_mix_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every group of lines is one write that begins with its run's id and contains only that run's
    lines.
    """
    monkeypatch.setattr(sys, "stderr", writes := Writes())
    rlm = RLM(Echo(), verbose=True)
    await asyncio.gather(*(rlm.acompletion(f"mark-{number}", "text") for number in range(8)))
    groups = [text for text in writes.writes if text]
    assert all(re.match(r"\[run-\d+\] ", text) and text.endswith("\n") for text in groups)
    marks: dict[str, set[str]] = {}
    for text in groups:
        marks.setdefault(text.split()[0], set()).update(re.findall(r"mark-\d", text))
    assert sorted(mark for each in marks.values() for mark in each) == [
        f"mark-{number}" for number in range(8)
    ]


class Echo(Scripted):
    """Its program prints the question."""

    async def complete(self, request: Request) -> Completion:
        code = f"for _ in range(20):\n    print({request.query!r})\nFINAL({request.query!r})"
        return Completion(block(code), Usage(1, 1), self.name, "stop")


def test_threads_take_turns_at_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread writes, another one waits."""
    inside, met = [], threading.Event()

    class Slow(Writes):
        def write(self, text: str) -> int:
            inside.append(text)
            if len(inside) == 2:
                met.set()
            met.wait(0.1)
            inside.remove(text)
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", slow := Slow())
    threads = [
        threading.Thread(target=print_whole, args=(f"line {number}\n",)) for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(text for text in slow.writes if text) == ["line 0\n", "line 1\n"]
    assert not met.is_set()


def test_long_texts_are_shortened_and_counted() -> None:
    """Long texts keep their beginning and end, with the number of omitted characters and lines."""
    long = cut_for_display("a" * 10_000 + "z")
    assert long.startswith("aaa")
    assert long.endswith("z\n")
    assert "… 6,001 characters left out …" in long
    many = cut_for_display("\n".join(map(str, range(100))))
    assert many.splitlines()[44:47] == ["44", "… 40 lines left out …", "85"]
    assert cut_for_display("short\ntext\n\n") == "short\ntext\n"
    assert cut_for_display(" \n") == cut_for_display("") == ""


def test_control_characters_are_escaped() -> None:
    """No text of a model or a document can move the cursor, set colours or reverse text: control
    characters are escaped.
    """
    assert printable("a\x1b[2Jb\rc\u202ed\x07\te\r\nf") == "a\\x1b[2Jb\\rc\\u202ed\\x07\te\nf"


def test_summary_of_a_result() -> None:
    """One line: the stop reason, the spending, and the error."""
    result = RLMResult(
        answer="",
        stop_reason="model_error",
        iterations=1,
        total_calls=2,
        error="Error: timeout:\nlate",
        elapsed=1.5,
    )
    assert summary(result) == "model_error, 1 turn, 2 calls, 1.50 s, Error: timeout: late"


@pytest.mark.parametrize("stream", [None, "closed", "broken"])
def test_an_unusable_stderr_breaks_nothing(
    stream: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run continues if stderr is missing, closed, or a pipe without a reader."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    streams: dict[str | None, io.StringIO | None] = {
        None: None,
        "closed": io.StringIO(),
        "broken": Broken(),
    }
    if stream == "closed":
        streams["closed"].close()
    monkeypatch.setattr(sys, "stderr", streams[stream])
    assert RLM(Scripted(block("FINAL('42')")), verbose=True).completion("q", "text").answer == "42"
    assert caplog.records == []


def test_hooks_are_created_on_request() -> None:
    """Nothing is shown unless it is requested; unknown events are ignored."""
    assert [type(each) for each in display_hooks(verbose=True, progress=True)] == [Turns, RunLines]
    assert list(display_hooks(verbose=False, progress=False)) == []
    Turns()(TurnStarted(id="run-1", iteration=1))


def test_a_silent_run_loads_no_bar() -> None:
    """Without `show_progress`, tqdm is not imported; nor is OpenTelemetry without its hook."""
    run = "from rlm_integrations import RLM; RLM('offline', verbose=True).completion('Who?', 'Anna did.')"
    code = f"import sys; {run}; print({{'tqdm', 'opentelemetry'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def retried(number: int, at: float, kind: str = "connection") -> CallRetried:
    return CallRetried(
        id=f"call-{number}",
        parent="run-1",
        at=at,
        error=LLMError(kind, "it refuses connections", 2),
        delay=0.5,
    )


def test_retries_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """With `verbose`, retries are shown with the reason: the first one at once, then one per
    second.
    """
    show = Turns()
    for number in range(100):
        show(retried(number, 100.0 + number / 50))
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    told = "A call failed and is retried in 0.5 s (attempt 3): Error: connection: it refuses connections"
    assert lines == [f"[call-{number}] {told}" for number in (0, 50)]
