"""The command line: its stdout, its stderr, and every exit code."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_integrations.result import RLMResult
from tests._cli import (
    FACT,
    FILLER,
    NO_MODEL,
    QUESTION,
    Shell,
    bare_environment,
    block,
    run,
    server,
    started,
)
from tests.standin import Fault, Reply, StandIn, serve_in_thread
from tests.standin.settings import Usage

__all__ = ["bare_environment", "run", "server"]  # fixtures


def test_an_answer_with_its_citations(run: Callable[..., Shell]) -> None:
    """The answer is on stdout, with one line per citation; stderr says that no language model was
    used, and has the spending.
    """
    code, out, err = run("ask", "report.txt", QUESTION)
    start = len(FILLER) + 1
    assert code == 0
    assert (
        out
        == f'{FACT}\n\n[1] report.txt:{FILLER.count(chr(10)) + 2} {start}-{start + len(FACT)}: "{FACT}"\n'
    )
    assert err.startswith(f"rlm-integrations: {NO_MODEL}")
    assert err.splitlines()[-1].startswith("rlm-integrations: final, 3 turns, ")


def test_instructions_are_an_option_of_the_run(run: Callable[..., Shell]) -> None:
    """`--instructions` are the run's; empty ones are refused before any call, as is `--structured`
    with a model that has no schemas.
    """
    _, out, _ = run("ask", "report.txt", QUESTION, "--instructions", "Be brief.", "--json")
    assert json.loads(out)["options"]["instructions"] == "Be brief."
    code, _, err = run("ask", "report.txt", QUESTION, "--structured", "--model", "offline")
    assert (code, "needs a root model that can answer in a JSON schema" in err) == (2, True)
    code, out, err = run("ask", "report.txt", QUESTION, "--instructions", "")
    assert (code, out) == (2, "")
    assert "instructions must be a string that is not empty" in err


def test_several_files_are_a_list_of_sources(run: Callable[..., Shell]) -> None:
    """Each file is a separate source, in the given order; options may be between them."""
    code, out, _ = run("ask", "other.txt", "--max-calls", "50", "report.txt", QUESTION)
    assert code == 0
    assert "[1] report.txt:" in out


def test_stdin_is_a_file_too() -> None:
    """'-' reads stdin, in the given encoding; offsets count characters."""
    process = started(
        "ask", "-", "other.txt", QUESTION, "--encoding", "utf-8", stdin=subprocess.PIPE
    )
    out, _ = process.communicate(f"Ünïcödé, \U0001f512.\n\n{FACT}\n")
    assert process.returncode == 0
    assert out == f'{FACT}\n\n[1] stdin:3 13-{13 + len(FACT)}: "{FACT}"\n'


def test_json_prints_only_the_result(run: Callable[..., Shell], server: StandIn) -> None:
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


def test_a_key_selects_a_model(run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_quiet_never_hides_the_stand_in(run: Callable[..., Shell]) -> None:
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


def test_an_answer_may_require_that_all_was_read(
    run: Callable[..., Shell], server: StandIn
) -> None:
    """With `--require-coverage 1` an early answer is not taken, and a limit says what was read."""
    read_all = "replies = llm_batch([context[at:at + 900] for at in range(0, len(context), 900)])"
    turns = [block("FINAL('early')"), block(read_all), block("FINAL('late')")]
    server.change(scripts={"root": turns})
    words = ["ask", "report.txt", "q", "--model", "root", "--base-url", server.base_url]
    code, out, _ = run(*words, "--require-coverage", "1", "--json")
    assert code == 0
    assert json.loads(out)["answer"] == "late"
    code, out, err = run(*words, "--require-coverage", "1", "--max-iterations", "1")
    assert (code, out) == (3, "early\n")
    assert err.count("of the document was read, and 100% must be") == 1


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
