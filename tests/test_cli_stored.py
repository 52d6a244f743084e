"""The commands about stored runs: `ask --storage`, `runs` and `resume`."""

import dataclasses
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.run_setup import ModelNames, RunSetup
from rlm_integrations.storage import Storage
from tests._cli import FACT, QUESTION, Shell, bare_environment, block, forked, run, until
from tests.standin import Fault, serve_in_thread

__all__ = ["bare_environment", "run"]  # fixtures


def test_a_stored_run_is_listed_and_printed_again(run: Callable[..., Shell]) -> None:
    """`resume` of a run that has ended prints its result; `runs` shows the newest first."""
    code, out, _ = run("ask", "report.txt", QUESTION, "--storage", "runs/")
    assert code == 0
    run("ask", "report.txt", "Who counted the barrels?", "--storage", "runs/")
    code, listed, _ = run("runs")
    assert code == 0
    newest, oldest = listed.splitlines()
    assert newest.endswith("final           Who counted the barrels?")
    assert oldest.endswith(f"final           {QUESTION}")
    run_id = oldest.split()[0]
    assert run("resume", run_id)[:2] == (0, out)
    code, found, _ = run("runs", "lisbon", "--json")
    assert [each["run_id"] for each in json.loads(found)] == [run_id]
    assert stat.S_IMODE(Path("runs").stat().st_mode) == 0o700


def test_a_cached_run_makes_no_call(run: Callable[..., Shell]) -> None:
    """With `--cache` the same question again is answered from the storage, and the summary says so;
    without `--storage` there is nowhere to keep replies.
    """
    words = ["ask", "report.txt", QUESTION, "--cache"]
    code, out, said = run(*words, "--storage", "runs/")
    assert (code, "from the cache" in said) == (0, False)
    code, again, said = run(*words, "--storage", "runs/")
    assert (code, again) == (0, out)
    assert "0 calls, 8 from the cache" in said
    code, _, said = run(*words)
    assert code == 2
    assert "--cache needs --storage" in said


def test_a_run_whose_process_was_killed_goes_on() -> None:
    """The command is killed in the middle of a batch; another one ends the run, and no answered
    prompt is asked again.
    """
    script = [
        block("replies = llm_batch([f'prompt {n}' for n in range(30)], max_concurrent=5)"),
        block("FINAL(sum(not each.startswith('Error') for each in replies))"),
    ]
    with serve_in_thread(scripts={"root": script}, latency=0.05, keep_requests=True) as server:
        words = ["ask", "report.txt", QUESTION, "--storage", "runs", "--model", "root"]
        address = ["--base-url", server.base_url]
        process = forked(*words, *address)
        until(lambda: len(server.calls()) > 10)
        process.kill()
        process.communicate()
        listing = forked("runs")
        (line,) = listing.communicate()[0].splitlines()
        assert "interrupted" in line
        going_on = forked("resume", line.split()[0], *address)
        out, err = going_on.communicate()
        assert (going_on.returncode, out) == (0, "30\n"), err
        asked = [kept.body["messages"][-1]["content"] for kept in server.requests()]
        prompts = [each for each in asked if each.startswith("prompt ")]
        assert len(set(prompts)) == 30
        assert len(prompts) <= 30 + 5  # those that were on their way


def test_a_model_of_a_provider_is_named_again(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a model that LangChain creates can be resumed with its whole name: a record does
    not choose the provider.
    """
    script = [block("print(llm_query('hello'))"), block("FINAL('found it')")]
    words = ["--model", "anthropic:claude-sonnet-5"]
    with serve_in_thread(scripts={"claude-sonnet-5": script}, faults=[Fault("auth")]) as server:
        monkeypatch.setenv("ANTHROPIC_API_URL", server.base_url.removesuffix("/v1"))
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-0123456789")
        code, _, err = run("ask", "report.txt", QUESTION, "--storage", "runs", *words)
        assert (code, "claude-sonnet-5" in err) == (4, True), err
        run_id = run("runs")[1].split()[0]
        server.change(faults=[])
        assert run("resume", run_id, *words)[:2] == (0, "found it\n")


def test_wrong_use_is_told_before_anything_is_opened(run: Callable[..., Shell]) -> None:
    """An unknown run, a folder that is not a storage, and an unknown option exit with 2."""
    run("ask", "report.txt", FACT, "--storage", "runs")
    for words, message in [
        (("resume", "no-such-run"), "there is no run 'no-such-run' in this storage"),
        (("runs", "--storage", "."), "is not a storage folder"),
        (("runs", "--storage", "postgre://host/db"), "did you mean 'postgresql'"),
        (("runs", "--limit", "0"), "must be an integer of at least 1"),
        (("resume", "a", "b"), "unrecognized arguments: b"),
    ]:
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert message in err


def test_a_run_of_another_version_is_told_apart(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options that this version does not know end with an error that names the version."""
    run("ask", "report.txt", QUESTION, "--storage", "runs")
    run_id = run("runs")[1].split()[0]
    known = Storage.setup

    def other(self: Storage, run_id: str) -> RunSetup:
        setup = known(self, run_id)
        return dataclasses.replace(setup, version="9.9", options={"budget": {"max_beers": 3}})

    monkeypatch.setattr(Storage, "setup", other)
    code, out, err = run("resume", run_id)
    assert (code, out) == (2, "")
    assert "was stored by version 9.9 with options that this version does not have" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"sandbox": "inprocess"}}, "began with --sandbox inprocess"),
        ({"models": ModelNames(root="openai:m@http://host/v1")}, "names the model 'openai:m@http"),
        (
            {"models": ModelNames(root="litellm:m")},
            "the model 'litellm:m' with an address",
        ),
    ],
)
def test_a_record_chooses_neither_a_sandbox_nor_an_address(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    """A run of others cannot have its code run unrestricted, or this user's key sent elsewhere."""
    run("ask", "report.txt", QUESTION, "--storage", "runs")
    run_id = run("runs")[1].split()[0]
    known = Storage.setup
    monkeypatch.setattr(
        Storage, "setup", lambda *words: dataclasses.replace(known(*words), **change)
    )
    code, out, err = run("resume", run_id)
    assert (code, out) == (2, "")
    assert message in err


def test_a_stored_run_is_shown(run: Callable[..., Shell]) -> None:
    """`show` prints question, status, document and usage, then the answer with its citations."""
    _, answer, _ = run("ask", "report.txt", QUESTION, "--storage", "runs")
    run_id = run("runs")[1].split()[0]
    code, out, err = run("show", run_id)
    assert (code, err) == (0, "")
    head, shown = out.split("\n\n", 1)
    rows = dict(line.split(maxsplit=1) for line in head.splitlines())
    assert shown == answer
    assert (rows["question"], rows["status"], rows["model"]) == (QUESTION, "final", "offline")
    assert rows["document"].startswith("context_0 (report.txt), ")
    assert "tokens in" in rows["usage"]
    code, out, _ = run("show", run_id, "--json")
    plain = json.loads(out)
    assert (plain["run_id"], plain["result"]["run_id"]) == (run_id, run_id)
    code, out, err = run("show", f"{run_id[:-1]}x")
    assert (code, out) == (2, "")
    assert f"the nearest are '{run_id}'" in err


def test_a_storage_is_kept_in_order(run: Callable[..., Shell]) -> None:
    """`storage check | stats | prune | forget`, each also as JSON; a damaged storage exits with 1."""
    run("ask", "report.txt", QUESTION, "--storage", "runs")
    run_id = run("runs")[1].split()[0]
    code, out, _ = run("storage", "check")
    assert (code, out.splitlines()[-1]) == (0, "no problem")
    assert json.loads(run("storage", "stats", "--json")[1])["runs"] == {"final": 1}
    assert run("storage", "stats")[1].startswith("runs: 1 final\n")
    assert run("storage", "prune", "--older-than", "1h")[:2] == (
        0, "removed: 0 runs, 0 blobs (0 B of content)\n",
    )  # fmt: skip
    code, _, err = run("storage", "prune", "--older-than", "soon")
    assert code == 2
    assert "--older-than must be like 12h, 30d or 2w, not 'soon'" in err
    with Storage("runs") as storage:
        table = storage._shared.database.schema.records
        storage._shared.writer.submit(
            lambda each: each.execute(table.update().values(body=b"s12345"))
        ).result()
    code, out, _ = run("storage", "check")
    assert (code, "is damaged" in out) == (1, True)
    report = json.loads(run("storage", "check", "--json")[1])
    assert (report["is_sound"], report["problems"][0]["run_id"]) == (False, run_id)
    removed = json.loads(run("storage", "forget", run_id, "--json")[1])
    assert removed["runs"] == 1
    assert run("storage", "forget", run_id)[0] == 2
    assert run("runs")[1] == ""


def test_a_run_is_carried_by_a_file(run: Callable[..., Shell]) -> None:
    """`export` writes it, `import` prints its id, and the other storage shows the same."""
    run("ask", "report.txt", QUESTION, "--storage", "runs")
    run_id = run("runs")[1].split()[0]
    assert run("export", run_id, "run.zip")[:2] == (0, "run.zip\n")
    assert run("import", "run.zip", "--storage", "other")[:2] == (0, f"{run_id}\n")
    shown = [run("show", run_id, "--storage", place)[1] for place in ("runs", "other")]
    assert shown[0] == shown[1]
    Path("bad.zip").write_bytes(Path("run.zip").read_bytes()[:-30])
    for words, message in [
        (("import", "run.zip", "--storage", "other"), "there is a run"),
        (("import", "bad.zip"), "is not a zip file"),
        (("export", run_id, "nowhere/run.zip"), "cannot be written"),
        (("show", run_id, "--storage", "nowhere"), "there is no storage in 'nowhere'"),
    ]:
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert message in err
    assert not Path("nowhere").exists()
