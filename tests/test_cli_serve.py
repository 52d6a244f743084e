"""`--serve`: pages in the browser that follow runs."""

import signal
import threading
import webbrowser
from collections.abc import Callable

import pytest

from tests._cli import FACT, QUESTION, Shell, bare_environment, run
from tests.report._page import Page, connected, fetched

__all__ = ["bare_environment", "run"]  # fixtures


def opened(monkeypatch: pytest.MonkeyPatch, show: Callable[[str], object]) -> threading.Thread:
    """A browser that shows the address in a thread."""
    browser = threading.Thread(target=lambda: show(addresses[0]))
    addresses: list[str] = []

    def open_page(address: str) -> bool:
        addresses.append(address)
        browser.start()
        return True

    monkeypatch.setattr(webbrowser, "open", open_page)
    return browser


def test_ask_shows_its_run_and_waits_for_the_open_page(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer and the exit code are as ever; the command ends once the page has the finished run.
    Without a page, and without a terminal, it does not wait.
    """
    ends = []

    def show(address: str) -> None:
        page = Page(address).until(lambda page: page.has_ended)
        ends.append((page.run["stop_reason"], page.run["answer"]))
        page.close()

    browser = opened(monkeypatch, show)
    code, out, err = run("ask", "report.txt", QUESTION, "--serve", "--open", "--quiet")
    browser.join()
    assert (code, out.splitlines()[0], ends) == (0, FACT, [("final", FACT)])
    assert run("ask", "report.txt", QUESTION, "--open")[0] == 2
    code, out, err = run("ask", "report.txt", QUESTION, "--serve")
    assert (code, out.splitlines()[0]) == (0, FACT)
    told = [line for line in err.splitlines() if "http" in line]
    assert len(told) == 1
    with pytest.raises(ConnectionRefusedError):
        connected(told[0].rpartition(" ")[2])


def test_runs_are_shown_until_ctrl_c(
    run: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`runs --serve` lists the runs that its filters choose and opens them, and `resume --serve`
    shows a run that has ended already.
    """
    for question in (QUESTION, "Who counted the barrels?"):
        assert run("ask", "report.txt", question, "--storage", "kept")[0] == 0
    pages = []

    def show(address: str) -> None:
        page = Page(address).until(lambda page: page.states == 1)
        page.close()
        listed = page.data["runs"]
        pages.extend([listed, fetched(address, f"runs/{listed[0]['run_id']}/")])
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    browser = opened(monkeypatch, show)
    code, _, err = run("runs", "vault", "--serve", "--open", "--storage", "kept")
    browser.join()
    assert code == 0
    assert "until Ctrl-C, the runs are at http://127.0.0.1:" in err
    assert [each["question"] for each in pages[0]] == [QUESTION]
    assert FACT in pages[1]

    browser = opened(
        monkeypatch, lambda address: Page(address).until(lambda each: each.has_ended).close()
    )
    code, out, _ = run("resume", pages[0][0]["run_id"], "--serve", "--open", "--storage", "kept")
    browser.join()
    assert (code, out.splitlines()[0]) == (0, FACT)
