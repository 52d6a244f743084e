"""Pages that follow runs: the protocol over a real socket, and the page in a real browser."""

import asyncio
import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from rlm_integrations import RLM, RLMResult
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ModelError, StorageError
from rlm_integrations.records import Completion, Request, Usage
from rlm_integrations.report.live import LiveRun, PageServer, RunSite, StorageSite, server
from rlm_integrations.report.live.state import changes, plain_state, run_state
from rlm_integrations.storage import Storage
from tests._interrupting import interrupt
from tests.report._browser import Browser
from tests.report._made import FACT, made_run
from tests.report._page import GUARD, Page, connected, exchange, fetched, get

HOSTILE = "</script><img src=x onerror=window.hacked=1>"
PROMPTS = 6  # of the script
SCRIPT = [
    """I look.
```repl
id = store.create('note', 'a note', 'text')
print(llm_batch([f'Part {n}: {context[0][1000 * n:1000 * n + 900]}' for n in range(6)]))
```""",
    f"```repl\nFINAL({FACT!r}, evidence=[cite({FACT!r})])\n```",
]


class Gated:
    """A model whose calls are answered when the test says so."""

    name = "gated"
    context_window = None

    def __init__(self) -> None:
        self._free = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.error: Exception | None = None

    def answer(self, calls: int) -> None:
        self._free.release(calls)

    async def complete(self, request: Request) -> Completion:
        self.asked.release()
        while not self._free.acquire(blocking=False):
            await asyncio.sleep(0.002)
        if self.error is not None:
            raise self.error
        turn = sum(each.role == "assistant" for each in request.messages)
        text = SCRIPT[turn] if request.role == "root" else "NONE"
        return Completion(text, Usage(100, 10), "gated", "stop")


class Shown:
    """A run in a thread, and its page."""

    def __init__(self, corpus: Corpus, **options: Any) -> None:
        self.model = Gated()
        self.live = LiveRun(corpus)
        self.server = PageServer(RunSite(self.live, corpus))
        self._rlm = RLM(self.model, on_event=self.live, **options)
        self._corpus = corpus
        self._thread = ThreadPoolExecutor(1)

    def start(self, run_id: str | None = None) -> "Future[RLMResult[str]]":
        return self._thread.submit(
            self._rlm.completion, "Who approved it?", self._corpus, run_id=run_id
        )

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()
        self.model.answer(1000)
        self._thread.shutdown()


def test_only_a_get_of_its_own_address_is_answered(corpus: Corpus) -> None:
    """Another token, host, method, a body, a large head or garbage gets a refusal that says nothing;
    no answer lets another site read it.
    """
    with Shown(corpus) as shown:
        url = urlsplit(shown.server.address)
        host, path = f"Host: {url.netloc}", url.path
        other = path[:-2] + ("A" if path[-2] != "A" else "B") + "/"
        refused = {
            f"GET {other} HTTP/1.1\r\n{host}": 404,
            f"GET {path[:-1]} HTTP/1.1\r\n{host}": 404,
            f"GET / HTTP/1.1\r\n{host}": 404,
            f"GET {path}other HTTP/1.1\r\n{host}": 404,
            f"GET {path} HTTP/1.1\r\nHost: evil.example:{url.port}": 421,
            f"GET {path} HTTP/1.1\r\nAccept: */*": 421,
            f"GET {path} HTTP/1.1\r\n{host}\r\nHost: evil.example": 421,
            f"HEAD {path} HTTP/1.1\r\n{host}": 405,
            f"POST {path} HTTP/1.1\r\n{host}": 405,
            f"OPTIONS {path} HTTP/1.1\r\n{host}": 405,
            f"GET {path} HTTP/1.1\r\n{host}\r\nContent-Length: 5": 413,
            f"GET {path} HTTP/1.1\r\n{host}\r\n folded: x": 400,
            "nonsense": 400,
        }
        for request, status in refused.items():
            answer = exchange(shown.server.address, f"{request}\r\n\r\n".encode())
            head, _, body = answer.partition(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 %d " % status), (request, answer[:100])
            assert b"Access-Control" not in head
            assert len(body) < 60
        large = f"GET {path} HTTP/1.1\r\n{host}\r\nCookie: {'x' * 100_000}\r\n\r\n"
        assert exchange(shown.server.address, large.encode())[:12] in {b"", b"HTTP/1.1 431"}


def test_pages_get_the_state_once_and_then_what_changed(corpus: Corpus) -> None:
    """A page from the start, one that comes late and one that comes back all end with the run's own
    result; the late one gets the state once, the one that comes back only what it missed.
    """
    with Shown(corpus) as shown:
        early = Page(shown.server.address)
        result = shown.start()
        shown.model.answer(1 + 2)
        early.until(lambda page: page.calls() == 2)
        assert early.data["calls"] == PROMPTS - 2
        assert early.run["stop_reason"] == "running"
        assert early.run["spent"]["total"]["usage"]["input_tokens"] == 300
        assert [each["description"] for each in early.run["store"]["events"]] == ["a note"]
        late = Page(shown.server.address).until(lambda page: page.states == 1)
        assert late.calls() == 2
        shown.model.answer(1)
        late.until(lambda page: page.calls() == 3)
        late.close()
        shown.model.answer(PROMPTS + 1)
        back = Page(shown.server.address, last=late.number)
        back.data = late.data
        record = result.result(GUARD)
        for page in (early, back):
            page.until(lambda page: page.has_ended)
            assert RLMResult.from_dict(page.run) == record
            assert page.data["reading"]["readings"]
            page.close()
        assert (early.states, back.states) == (1, 0)
        assert early.changes >= 2
        shown.server.wait_until_shown(for_a_page=True)
        assert shown.server.is_shown


def test_changes_turn_any_state_into_any_other(corpus: Corpus) -> None:
    """Whatever was added, changed, removed or reordered, also inside a child run."""
    run, random, page = made_run(corpus), Random(7), Page.__new__(Page)
    turn = run.trajectory[0]
    block = turn.executions[0]
    before = run_state(run)
    page.data = plain_state(before)
    for _ in range(100):
        calls = tuple(
            dataclasses.replace(each, end=random.random(), turns=each.turns[: random.randint(0, 1)])
            if random.random() < 0.3
            else each
            for each in random.sample(block.subcalls, random.randint(0, len(block.subcalls)))
        )
        ran = dataclasses.replace(block, subcalls=calls, output=str(random.randint(0, 1)))
        turns = (dataclasses.replace(turn, executions=(ran,)), *run.trajectory[1:])
        after = dataclasses.replace(run, trajectory=turns[: random.randint(0, 2)])
        state = run_state(after)
        page.take_changes(json.loads(json.dumps(list(changes(before, state)))))
        assert RLMResult.from_dict(page.run) == after
        assert page.data["reading"] == state["reading"]
        before = state


def test_a_browser_that_never_reads_is_dropped(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not delay the run or other pages, and afterwards the port is free and no thread is
    left.
    """
    monkeypatch.setattr(server, "_SECONDS_TO_READ", 0.05)
    before = set(threading.enumerate())
    with Corpus.build("Rain fell. " * 3_000_000) as large:
        with Shown(large) as shown:
            address = shown.server.address
            dead = connected(address)
            dead.sendall(get(address))
            result = shown.start()
            shown.model.answer(1000)
            assert result.result(GUARD).stop_reason == "final"
            page = Page(shown.server.address).until(lambda page: page.has_ended)
            page.close()
            shown.server.wait_until_shown(for_a_page=True)
        with pytest.raises(ConnectionRefusedError):
            connected(address)
        dead.close()
    left = {each for each in set(threading.enumerate()) - before if each.name != "rlm-portal"}
    assert {each.name for each in left if each.name.startswith(("rlm-pages", "asyncio"))} == set()


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_page_shows_how_a_run_ended(corpus: Corpus, end: str) -> None:
    """A run that raises, or is cancelled, ends on the page like any other."""
    with Shown(corpus) as shown:
        page = Page(shown.server.address)

        async def run() -> None:
            rlm = RLM(shown.model, on_event=shown.live)
            task = asyncio.ensure_future(rlm.acompletion("Who?", corpus))
            await asyncio.to_thread(shown.model.asked.acquire)
            if end == "failed":
                shown.model.error = ModelError("it is down", type="server")
                shown.model.answer(1)
            else:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ModelError):
                await task

        asyncio.run(run())
        page.until(lambda page: page.has_ended)
        assert page.run["stop_reason"] in {end, "model_error" if end == "failed" else end}
        page.close()


def test_the_runs_of_a_storage_are_listed_and_followed(
    browser: Browser, corpus: Corpus, tmp_path: Path
) -> None:
    """The list has finished and running runs; a running one is followed by its records, also by a
    process that does not run it, and a finished one is its page. Questions stay inert.
    """
    with Storage(tmp_path) as storage:
        RLM("offline", storage=storage).completion(HOSTILE, corpus, run_id="done")
        shown = Shown(corpus, storage=storage)
        result = shown.start("going")
        shown.model.answer(1 + 2)
        site = StorageSite(storage, lambda: storage.runs("", limit=10))
        with PageServer(site) as pages:
            address = pages.address
            runs = Page(address).until(lambda page: len(page.data.get("runs", ())) == 2)
            assert [each["status"] for each in runs.data["runs"]] == ["running", "final"]
            live = Page(address, "runs/going/events").until(lambda page: page.calls() == 2)
            late = fetched(address, "runs/going/")
            assert "connect-src 'self'" in late
            assert 'id="data-live"' in late
            shown.model.answer(1000)
            record = result.result(GUARD)
            live.until(lambda page: page.has_ended)
            assert RLMResult.from_dict(live.run) == storage.run("going")
            assert live.run["answer"] == record.answer
            runs.until(lambda page: page.data["runs"][0]["status"] == "final")
            finished = fetched(address, "runs/going/")
            assert "connect-src" not in finished
            assert FACT in finished
            for path in ("runs/none/", "runs/", "runs/going", "runs/../done/", "runs/done/x"):
                assert fetched(address, path).startswith("HTTP/1.1 404 "), path
            live.close()
            runs.close()
            browser.open(address)
            link = "document.querySelector('tbody tr:nth-child(2) a')"
            assert browser.run(f"{link}.innerText") == HOSTILE
            assert is_quiet(browser, address)
            browser.open(browser.run(f"{link}.href"))
            assert browser.text("#question") == HOSTILE
            assert is_quiet(browser, address)


def test_an_error_does_not_end_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the storage is shown, a defect is logged; the next request is answered."""
    failures: list[Exception] = [StorageError("the database is away"), KeyError("a defect")]

    def list_runs() -> list[Any]:
        if failures:
            raise failures.pop(0)
        return []

    with Storage(tmp_path) as storage, PageServer(StorageSite(storage, list_runs)) as pages:
        answer = fetched(pages.address)
        assert answer.startswith("HTTP/1.1 500 ") and "the database is away" in answer
        assert fetched(pages.address) == ""
        assert fetched(pages.address).startswith("HTTP/1.1 200 ")
    assert "a page could not be shown" in caplog.messages


def test_a_browser_sees_a_run_grow_and_end(browser: Browser, corpus: Corpus) -> None:
    """Calls appear as they are answered, while selection, search, zoom, focus and scroll stay; at the
    end the page is that of the finished run. It asks for nothing but its own address.
    """
    rows = "document.querySelectorAll('.calls .room .row').length"
    with Shown(corpus) as shown:
        result = shown.start()
        shown.model.answer(1)
        browser.open(shown.server.address)
        wait_in(browser, f"{rows} === 3")  # the turn, its block and a write to the store
        shown.model.answer(2)
        wait_in(browser, f"{rows} === 5")
        assert "There is no answer yet" in browser.text("#answer")
        assert "4 calls in flight" in browser.text(".live")
        assert "model calls\n3" in browser.text("#totals")
        browser.run("document.querySelector('#totals details').open = true")
        browser.run("document.querySelector('.calls.list').focus()")
        browser.press("End", "ArrowUp", "+")
        chosen = browser.text("#detail-title")
        assert chosen == "llm_batch call-2"
        axis = browser.text(".axis")
        browser.press("/")
        browser.type("none")
        shown.model.answer(2)
        wait_in(browser, f"{rows} === 6")
        assert browser.run("document.querySelector('#totals details').open")
        assert browser.run("document.activeElement.id") == "search"
        assert browser.run("document.activeElement.value") == "none"
        assert browser.text("#detail-title") == chosen
        assert browser.text(".axis") == axis
        shown.model.answer(1000)
        record = result.result(GUARD)
        wait_in(browser, "document.querySelector('.live').innerText.includes('has ended')")
        wait_in(browser, "document.querySelector('#answer .end').innerText === 'final'")
        assert f"{FACT}[1]" in browser.text("#answer")
        assert "context_0, characters" in browser.text("#detail .part-of-document")
        assert "a note" in browser.text("#store")
        assert "characters were never read" in browser.text("#document")
        assert browser.run("document.querySelectorAll('.pin').length") == 1
        shown.server.wait_until_shown(for_a_page=True)
    assert record.answer == FACT
    assert is_quiet(browser, shown.server.address)


@pytest.mark.parametrize(
    "wait", [PageServer.wait, partial(PageServer.wait_until_shown, for_a_page=True)]
)
def test_ctrl_c_ends_a_wait_for_pages_at_any_point(
    wait: Callable[[PageServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt between any two steps of Python is a KeyboardInterrupt, and the server ends."""
    monkeypatch.setattr(server, "_SECONDS_OF_A_WAIT", 0.0)
    with PageServer(RunSite(LiveRun(None), None)) as shown:
        for step in range(1, 100):
            with pytest.raises(KeyboardInterrupt):
                interrupt(partial(wait, shown), step)
        connected(shown.address).close()
    with pytest.raises(ConnectionRefusedError):
        connected(shown.address)


def is_quiet(browser: Browser, address: str) -> bool:
    """Whether the page wrote nothing to the console, ran nothing foreign, and asked for nothing but
    its own address.
    """
    assert browser.messages() == []
    assert browser.run("window.hacked === undefined")
    return all(url.startswith(address) for url in browser.requests())


def wait_in(browser: Browser, condition: str) -> None:
    """Wait until it is true in the page."""
    browser.run(
        "new Promise((done, failed) => { const end = performance.now() + 250_000; (function look() {"
        f"if ({condition}) done(); else if (performance.now() > end) failed({condition!r});"
        "else setTimeout(look, 10); })(); })"
    )
