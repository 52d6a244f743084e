"""The page of a large run: its size, and how fast chromium shows it and reacts."""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import SpanRef, Usage
from rlm_integrations.result import RLMResult
from rlm_integrations.store import SharedStore
from tests.bench.table import Row, median
from tests.report._browser import CHROMIUM, HOW_TO_GET_IT, Browser
from tests.report._made import block, call, sources_of, turn

_CHARACTERS = 10_000_000
_SPAN = 2_000


def run() -> Iterator[Row]:
    if CHROMIUM is None:
        print(HOW_TO_GET_IT, file=sys.stderr)
        return
    words = random.Random(1).choices([f"word{n}" for n in range(5_000)], k=_CHARACTERS // 8)
    text = " ".join(words)[:_CHARACTERS]
    with (
        Corpus.build(text) as corpus,
        Browser() as browser,
        tempfile.TemporaryDirectory() as folder,
    ):
        page = Path(folder) / "page.html"
        made = large_run(corpus, 5_000)
        yield Row("5,000 calls, 10 MB: making the page", made_in(made, corpus, page), None, "s")
        yield Row("5,000 calls, 10 MB: size", page.stat().st_size / 1e6, 13, "MB")
        yield Row("5,000 calls, 10 MB: usable", opened_in(browser, page), 1.5, "s")
        yield from _interactions(browser, "5,000 calls, 10 MB")
        made = large_run(corpus, 50_000)
        yield Row("50,000 calls: making the page", made_in(made, None, page), None, "s")
        yield Row("50,000 calls: size", page.stat().st_size / 1e6, None, "MB")
        yield Row("50,000 calls: usable", opened_in(browser, page), None, "s")
        rows = "document.querySelectorAll('.calls .room .row').length"
        browser.run("location.hash = '#call-50000'")
        browser.frame()
        yield Row("50,000 calls: rows drawn at the last one", browser.run(rows), 100, "rows")
        yield from _interactions(browser, "50,000 calls", has_goals=False)


def large_run(corpus: Corpus, calls: int) -> RLMResult:
    """A run of ten turns with as many calls, and a store of a fifth as many objects."""
    chance = random.Random(2)
    turns, each = [], calls // 10
    for number in range(10):
        made = []
        for item in range(each):
            start = chance.randrange(_CHARACTERS - _SPAN)
            pieces = ["Does this answer it?\n\n", SpanRef("context_0", start, start + _SPAN)]
            reply = f"NOTHING FOUND in part {item}, which is about something else."
            made.append(
                call(
                    corpus,
                    item,
                    pieces,
                    reply,
                    path=f"r.b{number}/b00000000aa.{item}",
                    start=number * 20 + item / each * 18,
                    end=number * 20 + item / each * 18 + 1.5,
                    usage=Usage(700, 5),
                )
            )
        ran = block(number + 1, "replies = llm_batch(prompts)", number * 20, subcalls=tuple(made))
        turns.append(turn(number + 1, "I ask.", number * 20.0, ran))
    store = SharedStore()
    worker = store.worker("root")
    before: list[str] = []
    for number in range(calls // 5):
        start = chance.randrange(_CHARACTERS - _SPAN)
        refs = [SpanRef("context_0", start, start + 200)]
        before = [
            worker.create("note", f"finding {number}", "text", backrefs=refs, parents=before[-1:])
        ]
    return RLMResult(
        answer="It is known.",
        question="What is known?",
        iterations=10,
        total_calls=calls + 10,
        elapsed=200.0,
        trajectory=tuple(turns),
        store=store,
        sources=sources_of(corpus),
        run_id="large",
    )


def made_in(made: RLMResult, corpus: Corpus | None, path: Path) -> float:
    begun = time.perf_counter()
    made.to_html(path, context=corpus)
    return time.perf_counter() - begun


def opened_in(browser: Browser, page: Path) -> float:
    """Seconds until the page is complete and drawn, by the page's own clock."""

    def once() -> float:
        browser.open(page)
        return float(browser.run("performance.now()")) / 1e3

    return median(once)


def _interactions(browser: Browser, what: str, *, has_goals: bool = True) -> Iterator[Row]:
    """How long each takes until the next frame was drawn, after a second of reading."""
    time.sleep(1)
    most, most_for_text = (100, 300) if has_goals else (None, None)
    key = "new KeyboardEvent('keydown', {{ key: '{}', bubbles: true }})"
    calls = "document.querySelector('.calls')"
    search = "document.querySelector('#search')"
    home = f"{calls}.dispatchEvent({key.format('Home')})"
    end = f"{calls}.dispatchEvent({key.format('End')})"
    no_search = f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))"
    filtered = "document.querySelector('#filter').dispatchEvent(new Event('change'))"
    # What is measured, and what is done before each time
    actions = {
        "expand or collapse a block": (
            "document.querySelectorAll('.calls .toggle[aria-label]')[1].click()",
            f"{no_search}; {home}",
        ),
        "first row": (home, end),
        "last row": (end, home),
        "next row": (f"{calls}.dispatchEvent({key.format('ArrowDown')})", "0"),
        "zoom": ("document.querySelector('[aria-label=\"Zoom in\"]').click()", "0"),
        "search": (
            f"{search}.value = 'part 7'; {search}.dispatchEvent(new Event('input'))",
            no_search,
        ),
        "end of the search": (
            no_search,
            f"{search}.value = 'part 8'; {search}.dispatchEvent(new Event('input'))",
        ),
        "filter": (
            f"document.querySelector('#filter').value = 'waited'; {filtered}",
            f"document.querySelector('#filter').value = 'all'; {filtered}",
        ),
        "end of the map": (
            f"document.querySelector('[role=slider]').dispatchEvent({key.format('End')})",
            f"document.querySelector('[role=slider]').dispatchEvent({key.format('Home')})",
        ),
    }
    search_first = f"{search}.value = 'part 77,'; {search}.dispatchEvent(new Event('input'))"
    yield Row(f"{what}: first search, once", _timed(browser, search_first, "0"), most, "ms")
    for name, (code, before) in actions.items():
        took = median(lambda code=code, before=before: _timed(browser, code, before))
        yield Row(f"{what}: {name}", took, most, "ms")
    numbers = iter(range(100, 200))

    def object_opened() -> float:
        hash_ = f"location.hash = '#object-root_000{next(numbers)}'"
        return _timed(browser, f"{hash_}; dispatchEvent(new HashChangeEvent('hashchange'))", "0")

    yield Row(f"{what}: an object and its span, once", object_opened(), most_for_text, "ms")
    yield Row(f"{what}: other objects and their spans", median(object_opened), most_for_text, "ms")


def _timed(browser: Browser, code: str, before: str) -> float:
    browser.run(f"{before}; 0")
    browser.frame()
    return float(
        browser.run(
            f"""new Promise((done, fail) => requestAnimationFrame(() => {{
                const begun = performance.now();
                try {{ {code}; }} catch (error) {{ fail(error); }}
                requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
            }}))"""
        )
    )
