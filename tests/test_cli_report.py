"""The command `report`."""

import json
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest

from tests._cli import FACT, QUESTION, Shell, bare_environment, run

__all__ = ["bare_environment", "run"]  # fixtures


def test_a_stored_run_has_a_page_with_its_document(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`report RUN_ID` writes RUN_ID.html, with the text that the storage kept, and prints its
    path; `--open` shows it.
    """
    assert run("ask", "report.txt", QUESTION, "--storage", "runs/")[0] == 0
    run_id = run("runs")[1].split()[0]
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: addresses.append(url) is None)
    assert run("report", run_id, "--open") == (0, f"{run_id}.html\n", "")
    page = Path(f"{run_id}.html")
    assert addresses == [page.resolve().as_uri()]
    assert page.read_text(encoding="utf-8").count(FACT) > 3  # in the text, answer and calls
    assert 'id="data-text-context_0"' in page.read_text(encoding="utf-8")


def test_a_saved_run_has_a_page(run: Callable[..., Shell]) -> None:
    """`report FILE.json` needs no storage; `--document` adds the text of the files."""
    assert run("ask", "report.txt", QUESTION, "--save", "run.json")[0] == 0
    assert run("report", "run.json", "-o", "a.html") == (0, "a.html\n", "")
    assert "data-text-" not in Path("a.html").read_text(encoding="utf-8")
    code, _, err = run("report", "run.json", "-o", "b.html", "--document", "report.txt")
    assert (code, err) == (0, "")
    assert "data-text-context_0" in Path("b.html").read_text(encoding="utf-8")
    assert not Path("runs").exists()


def test_a_document_too_large_for_a_page_is_left_out(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of a stored run is made without it, and stderr says so."""
    run("ask", "report.txt", QUESTION, "--storage", "runs/")
    run_id = run("runs")[1].split()[0]
    monkeypatch.setattr("rlm_integrations.report.data.MAX_TEXT_CHARS", 1_000)
    code, _, err = run("report", run_id)
    assert code == 0
    assert "the page has no text of the document: the document has 43," in err
    assert "data-text-" not in Path(f"{run_id}.html").read_text(encoding="utf-8")


def test_what_has_no_page_is_told_in_one_line(run: Callable[..., Shell]) -> None:
    """A file that is no run, a run of another schema or that is gone, and another document exit
    with 2, and write nothing.
    """
    run("ask", "report.txt", QUESTION, "--save", "run.json", "--storage", "kept")
    Path("no.json").write_text("{}")
    Path("later.json").write_text(
        json.dumps({**json.loads(Path("run.json").read_text()), "schema": 9})
    )
    for words, message in [
        (("no.json",), "'no.json': a result of schema 1 is needed, but this is not a saved result"),
        (("later.json",), "but this is of schema 9: read it with the version that wrote it"),
        (("other.txt",), "'other.txt' is not a saved result"),
        (("gone.json",), "there is no file 'gone.json'"),
        (("gone",), "there is neither a file 'gone' nor a storage in 'runs/'"),
        (("gone", "--storage", "kept"), "there is no run 'gone' in this storage"),
        (("run.json", "--document", "other.txt"), "this is not the document of the run"),
        (("run.json", "-o", "no/such/folder.html"), "--output 'no/such/folder.html' cannot be"),
    ]:
        code, out, err = run("report", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
        assert message in err
    assert not list(Path().glob("*.html"))


def test_two_runs_are_compared(run: Callable[..., Shell]) -> None:
    """`diff` takes files and ids of stored runs; it prints text or JSON, or writes a page."""
    run("ask", "report.txt", QUESTION, "--save", "run.json")
    run("ask", "report.txt", QUESTION, "--storage", "runs/", "--max-calls", "9")
    run_id = run("runs")[1].split()[0]
    code, out, err = run("diff", "run.json", run_id)
    assert (code, err) == (0, "")
    assert "setting budget.max_calls: 'None' → '9'" in out
    assert "the answers are the same" in out
    code, out, _ = run("diff", run_id, run_id, "--json")
    assert (code, json.loads(out)["same"]) == (0, True)
    assert run("diff", "run.json", run_id, "-o", "diff.html") == (0, "diff.html\n", "")
    assert Path("diff.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    code, out, err = run("diff", "run.json", "gone.json")
    assert (code, out, "there is no file 'gone.json'" in err) == (2, "", True)
