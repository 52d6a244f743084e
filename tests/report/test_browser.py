"""The page in a real browser."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.records import LLMError, Message, SpanRef, Usage
from rlm_integrations.result import RLMResult
from rlm_integrations.run_setup import ModelNames
from rlm_integrations.spending import Spending
from rlm_integrations.store import SharedStore
from rlm_integrations.trajectory import Citation, FunctionCall
from tests.report._browser import Browser
from tests.report._hostile import PAYLOADS
from tests.report._made import DOCUMENT, FACT, block, call, made_run, resumed_run, sources_of, turn

ACTIVE = "document.activeElement"


def opened(
    browser: Browser, run: RLMResult, path: Path, fragment: str = "", context: object = None
) -> None:
    run.to_html(path / "page.html", context=context)
    browser.open(path / "page.html", fragment)


def is_quiet(browser: Browser) -> bool:
    """Whether the page wrote nothing to the console and asked for nothing but itself."""
    assert browser.messages() == []
    assert [url.partition("#")[0].rpartition("/")[2] for url in browser.requests()] == ["page.html"]
    return True


def tab_to(browser: Browser, condition: str) -> None:
    """Press Tab until the focused element is the wanted one."""
    for _ in range(80):
        browser.press("Tab", is_drawn=False)
        if browser.run(condition):
            return
    raise AssertionError(f"Tab does not reach {condition}")


def test_the_page_shows_the_run(browser: Browser, corpus: Corpus, tmp_path: Path) -> None:
    """Question, answer with its citation in place, end, and totals; what is unknown is not zero. The
    button gives the record, which `RLMResult.from_dict` loads as the same result.
    """
    run = made_run(corpus)
    opened(browser, run, tmp_path, context=corpus)
    answer = browser.text("#answer")
    assert "Who approved the Ravenna dam?" in answer
    assert f"{FACT}[1] Nobody knows the cost." in answer
    assert "final The model gave its final answer.\n\nLive models · begun 2023" in answer
    totals = browser.text("#totals").replace("\n", " ")
    for shown in (
        "wall time 3.5 s",
        "summed call time 3.0 s",
        "most calls in flight 4",
        "model calls 11",
        "tokens 7,305 + unknown",
        "cost unknown",
    ):
        assert shown in totals
    browser.run("document.querySelector('#totals details').open = true")
    totals = browser.text("#totals")
    assert "sub\t10\t0\t6,300 + unknown\t0 + unknown\t45 + unknown\t0 + unknown\tunknown" in totals
    assert "calls\t11\t100\t11.0 %" in totals
    browser.run("URL.createObjectURL = (blob) => { window.blob = blob; return '#'; }; 0")
    browser.click("header button")
    again = RLMResult.from_dict(json.loads(browser.run("window.blob.text()")))
    assert json.dumps(again.to_dict()) == json.dumps(run.to_dict())
    assert is_quiet(browser)


def test_links_name_turns_calls_objects_and_places(
    browser: Browser, corpus: Corpus, tmp_path: Path
) -> None:
    """An address with `#call-9` opens this call, also inside a collapsed block; `#object-…` marks
    the object's spans in the document; going back returns to what was chosen before.
    """
    opened(browser, made_run(corpus), tmp_path, "#call-9", context=corpus)
    assert browser.text("#detail-title") == "llm_batch call-9"
    detail = browser.text("#detail")
    assert FACT in detail
    assert "waited\n50 ms" in detail
    browser.click("#detail a[href='#block-1']")
    assert browser.run("location.hash") == "#block-1"
    assert "ask('who?')" in browser.text("#detail .code")
    browser.run("history.back()")
    browser.frame()
    assert browser.text("#detail-title") == "llm_batch call-9"
    browser.open(tmp_path / "page.html", "#object-root_000002")
    assert browser.run("document.querySelector('mark.chosen').innerText") == FACT
    assert "Ada approved it" in browser.text("#object")
    for name in ("text-context_1-8-20", "no-such-thing%"):
        browser.run(f"location.hash = '{name}'")
        browser.frame()
        assert browser.run("document.querySelector('mark.chosen').innerText") == DOCUMENT[1][8:20]
    assert is_quiet(browser)


def test_search_filter_and_zoom(browser: Browser, corpus: Corpus, tmp_path: Path) -> None:
    """Search finds words of prompts and replies, filters keep the ancestors of what they find, and
    zoom changes the time that the bars show.
    """
    opened(browser, made_run(corpus), tmp_path)
    rows = "[...document.querySelectorAll('.calls .room .row')].map((row) => row.id)"
    browser.press("/")
    browser.type("it is DOWN")
    assert browser.run(rows) == ["row-0", "row-1", "row-6"]
    assert browser.text("#calls [role=status]") == "1 match of 16 rows"
    browser.run("document.querySelector('#search').value = ''")
    browser.run("document.querySelector('#search').dispatchEvent(new Event('input'))")
    browser.run("document.querySelector('#filter').value = 'errors'")
    browser.run("document.querySelector('#filter').dispatchEvent(new Event('change'))")
    assert browser.run(f"{rows}.length") == 6  # turn, block, call and tool; turn and block
    axis = "document.querySelector('.axis').innerText"
    before = browser.run(axis)
    browser.click("[aria-label='Zoom in']")
    assert browser.run(axis) != before
    assert is_quiet(browser)


def test_the_keyboard_reaches_everything(browser: Browser, corpus: Corpus, tmp_path: Path) -> None:
    """From the first Tab through calls, details, store and map to the text, without the mouse."""
    opened(browser, made_run(corpus), tmp_path, context=corpus)
    browser.press("Tab", "Enter")
    assert browser.run(f"{ACTIVE}.id") == "calls-title"
    tab_to(browser, f"{ACTIVE}.getAttribute('role') === 'treegrid'")
    browser.press("ArrowDown", "ArrowDown")
    assert browser.text("#detail-title") == "llm_batch call-1"
    browser.press("ArrowLeft", "ArrowLeft")  # to its block, which then is collapsed
    assert browser.text("#detail-title") == "Block 1 block-1"
    assert browser.run("document.querySelectorAll('.calls .room .row').length") == 4
    browser.press("ArrowRight", "End", "Home", "+", "z", "0", "]", "-", "Enter")
    assert browser.run(f"{ACTIVE}.id") == "detail-title"
    assert browser.text("#detail-title") == "Turn 1 turn-1"
    browser.press("/")
    assert browser.run(f"{ACTIVE}.id") == "search"
    browser.press("Escape")
    assert browser.run(f"{ACTIVE}.getAttribute('role')") == "treegrid"
    tab_to(browser, f"{ACTIVE}.classList.contains('objects')")
    browser.press("ArrowDown", "Enter")
    assert browser.run(f"{ACTIVE}.id") == "object"
    tab_to(browser, f"{ACTIVE}.getAttribute('role') === 'slider'")
    assert browser.text(".readers").startswith("context_0, characters 19,541 to 19,691: read in")
    browser.press("ArrowRight")
    assert "never read" in browser.run(f"{ACTIVE}.getAttribute('aria-valuetext')")
    browser.press("Home", "Enter")
    assert browser.text(".readers").startswith("context_0, characters 0 to 8,000: read in 1 prompt")
    assert browser.text(".reader").startswith("Page 0: ")
    assert is_quiet(browser)


def test_the_map_names_the_calls_that_read_a_part(
    browser: Browser, corpus: Corpus, tmp_path: Path
) -> None:
    """A click on a strip shows the text there and the calls that had it; printed text counts for
    the turn that was shown it.
    """
    opened(browser, made_run(corpus), tmp_path, context=corpus)
    assert "were never read" in browser.text("#document")
    slider = "document.querySelectorAll('[role=slider]')[1]"
    browser.run(f"{slider}.focus()")
    said = []
    for _ in range(5):
        said.append(browser.text(".readers"))
        browser.press("ArrowRight")
    browser.press("End")
    assert any("100 to 900: read in 1 prompt.\n\nllm_batch (call-8)" in each for each in said)
    assert any("2,000 to 2,300: read in 1 prompt.\n\nTurn 2 (turn-3)" in each for each in said)
    browser.click("[role=slider]")
    place = browser.run("document.querySelector('[role=slider]').getAttribute('aria-valuenow')")
    length = len(DOCUMENT[0])
    assert abs(int(place) - length // 2) < length // 100
    assert DOCUMENT[0][int(place) : int(place) + 50] in browser.text(".reader")
    assert browser.run("document.querySelector('.pin').getAttribute('href')") == "#citation-1"


def test_no_rule_of_axe_core_is_broken(
    browser: Browser, corpus: Corpus, tmp_path: Path, axe: str
) -> None:
    """In both colour schemes, with everything open and an object selected; also on a phone, where
    nothing is wider than the screen.
    """
    try:
        opened(browser, resumed_run(corpus), tmp_path, "#call-3", context=corpus)
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        browser.click("#store a[href='#object-root_000002']")
        for scheme, width in (("light", 1200), ("dark", 1200), ("dark", 400)):
            browser.scheme(scheme)
            browser.resize(width, 900)
            browser.frame()
            assert browser.violations(axe) == []
            assert browser.run("document.documentElement.scrollWidth") == width
    finally:
        browser.resize(1200, 900)
        browser.scheme("light")


def hostile_run(corpus: Corpus, texts: list[str]) -> RLMResult:
    """A run that has every payload in every place where foreign text can be."""
    store = SharedStore()
    for number, text in enumerate(PAYLOADS):
        clean = text.encode("utf-8", "replace").decode()
        store.worker("root").create(
            "note", clean[:400], {clean[:400]: clean}, tags=[], parents=store_ids(number)
        )
    calls = tuple(
        call(
            corpus,
            number,
            [text, SpanRef(f"context_{number}", 0, len(text))],
            LLMError("server", text) if number % 7 == 3 else text,
            function=text,
            model=text,
            path=text,
            finish_reason=text,
        )
        for number, text in enumerate(texts)
    )
    tools = tuple(
        FunctionCall(path=text, function=text, arguments=text, start=1, end=2, error=text)
        for text in texts
    )
    everything = "\n".join(texts)
    events = tuple(
        {"op": text, "id": text, "type": text, "description": text, "worker": text, "ts": 1.0}
        for text in texts
    )
    ran = block(
        1,
        everything,
        0.1,
        output=everything,
        error=everything,
        subcalls=calls,
        function_calls=tools,
        store_events=events,
    )
    names = {str(number): text for number, text in enumerate(texts)}
    return RLMResult(
        answer=everything,
        stop_reason="failed",
        error=everything,
        citations=tuple(
            Citation(f"context_{number}", 0, len(text), text, {"file": text})
            for number, text in enumerate(texts)
        ),
        trajectory=(turn(1, everything, 0.1, ran, note=everything, model=everything),),
        messages=(Message("user", everything), Message("assistant", everything)),
        spent=Spending([(text, 0, Usage(1, 1), text) for text in texts]),
        store=store,
        run_id=texts[1],
        question=everything,
        sources=tuple(
            dataclasses.replace(source, file=text, id=text)
            for source, text in zip(sources_of(corpus), texts, strict=True)
        ),
        models=ModelNames(root=texts[0], subs=names),
        layers=names,
        options={"sandbox": everything},
        version=texts[2],
        started=1.0,
        elapsed=2.0,
    )


def store_ids(number: int) -> list[str]:
    return [f"root_{number:06}"] if number else []


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    """Every payload, in every field, is shown as text: no script runs, no element appears, nothing
    is asked for, and every link stays on the page, with all rows and objects opened.
    """
    assert len(PAYLOADS) >= 40
    corpus = Corpus.build(PAYLOADS)
    opened(browser, hostile_run(corpus, PAYLOADS), tmp_path, context=corpus)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    seen = browser.text("body")
    opened_texts = browser.run(
        """['.calls', '.objects'].flatMap((list) => {
            const box = document.querySelector(list);
            const press = (key) =>
                box.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
            const texts = [];
            for (let at = 0; at < Number(box.ariaRowCount); at++) {
                press('ArrowDown');
                if (box.querySelector('.active').ariaExpanded === 'false') press('ArrowRight');
                texts.push(...['detail', 'object'].map((id) => document.getElementById(id).textContent));
            }
            return texts;
        })"""
    )
    assert len(opened_texts) > 2 * 3 * len(PAYLOADS)  # calls, tools and objects
    seen += "\n".join(opened_texts)
    links = browser.run("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))")
    assert all(each.startswith("#") for each in links)
    made = "#page :is(script, img, iframe, object, embed, link, style, form, base, meta, video)"
    assert browser.run(f"document.querySelectorAll({made!r}).length") == 0
    assert browser.run("typeof window.hacked") == "undefined"
    for shown in ("<script>window.hacked=1</script>", "U+202E", "U+001B", "U+200B", "__proto__"):
        assert shown in seen
    assert is_quiet(browser)


EMOJI = "🜂" * 50 + "שלום עולם. " + "👩‍👩‍👧 ok. " * 20 + FACT + " 🎉" * 10


def odd_runs() -> dict[str, tuple[RLMResult, list[str] | None, list[str]]]:
    """Runs with something missing or unusual, their documents, and words of their pages.

    They are not kept: a document that lives as long as the tests is what other tests look for.
    """
    whole = Corpus.build(DOCUMENT)
    many = [f"Source {number} says {number * 7}. " * 20 for number in range(39)] + [""]
    emoji = Corpus.build([EMOJI])
    at = EMOJI.index(FACT)
    cited: dict[str, Any] = {
        "citations": (Citation("context_0", at, at + len(FACT), FACT),),
        "sources": sources_of(emoji),
        "question": "מי אישר את הסכר? 🎉",
        "trajectory": (),
        "store": None,
    }
    return {
        "failed": (
            made_run(whole, stop_reason="failed", error="RuntimeError: no disk", answer="so far"),
            None,
            ["Failed with an exception", "RuntimeError: no disk", "Best answer so far"],
        ),
        "cancelled": (
            RLMResult(answer=None, stop_reason="cancelled", question="Why?"),
            None,
            ["Cancelled before its end", "There is no answer", "No turn was recorded"],
        ),
        "running": (
            made_run(whole, stop_reason="running", answer=None),
            None,
            ["Still running: this is the record so far.", "There is no answer"],
        ),
        "bare": (RLMResult(answer=""), None, ["(no question was recorded)", "unknown time"]),
        "odd numbers": (
            made_run(
                whole,
                started=1e300,
                elapsed=-5.0,
                options={"limits": "x", "budget": None, "max_iterations": "many"},
                trajectory=(turn(1, "x", -1e300, block(1, "y", 1e300), call_end=1e300),),
            ),
            DOCUMENT,
            ["begun at an unknown time", "Turn 1"],
        ),
        "no store": (
            made_run(whole, store=None, options={"store_mode": "none"}),
            None,
            ["This run had no store."],
        ),
        "resumed": (
            resumed_run(whole),
            None,
            [
                "Live models, 6 calls replayed from the journal, 1 reply from the cache",
                "replayed calls\n6",
                "cached replies\n1",
                "answered by\nthe journal",
            ],
        ),
        "typed": (made_run(whole, answer={"name": "dam"}), None, ['"name": "dam"']),
        "sources": (
            made_run(whole, sources=sources_of(Corpus.build(many)), citations=(), trajectory=()),
            many,
            ["context_39", "0 characters", "context_38"],
        ),
        "emoji": (made_run(whole, **cited), [EMOJI], ["מי אישר את הסכר? 🎉"]),
    }


@pytest.mark.parametrize("name", list(odd_runs()))
def test_odd_runs_have_pages(browser: Browser, tmp_path: Path, axe: str, name: str) -> None:
    """What a run does not have is named, without an error in the console or a broken rule of axe;
    offsets are code points.
    """
    run, context, words = odd_runs()[name]
    opened(browser, run, tmp_path, context=context)
    seen = browser.text("body")
    assert [word for word in words if word not in seen] == []
    if name == "sources":
        assert browser.violations(axe) == []
    if name == "emoji":
        browser.click("#answer .place a")
        assert browser.run("document.querySelector('mark.chosen').innerText") == FACT
    if name == "resumed":
        marked = "[...document.querySelectorAll('.calls .mark')].map((mark) => mark.innerText)"
        found = browser.run(marked)
        assert (found.count("replayed"), found.count("cached")) == (7, 1)  # one is the child run
        browser.run("document.querySelector('#filter').value = 'unmade'")
        browser.run("document.querySelector('#filter').dispatchEvent(new Event('change'))")
        assert browser.text("#calls [role=status]") == "8 matches of 16 rows"
    assert is_quiet(browser)


def test_a_long_list_draws_what_is_seen_and_prints_all(
    browser: Browser, corpus: Corpus, tmp_path: Path
) -> None:
    """Of 400 calls few rows are elements, and the last is reached by its link. On paper all are
    drawn, nothing is cut, and the tables of totals are open.
    """
    calls = tuple(call(corpus, n, [f"prompt {n}"], f"reply {n}") for n in range(400))
    run = made_run(corpus, trajectory=(turn(1, "all", 0, block(1, "x", 0, subcalls=calls)),))
    opened(browser, run, tmp_path)
    rows = "document.querySelectorAll('.calls .room .row').length"
    assert browser.run(rows) == 2  # a block with so many calls begins collapsed
    browser.run("location.hash = '#call-400'")
    browser.frame()
    assert browser.text("#detail").endswith("reply 399")
    assert 10 < browser.run(rows) < 60
    assert "reply 399" in browser.text(".calls .row.active")
    browser.send("Emulation.setEmulatedMedia", media="print")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(rows) == 402
    cut = "[...document.querySelectorAll('.list, pre, table')].filter((each) =>"
    cut += "each.scrollHeight > each.clientHeight + 1 || each.getBoundingClientRect().right > innerWidth)"
    assert browser.run(f"{cut}.length") == 0
    assert "from the cache" in browser.text("#totals table")
    assert browser.run("getComputedStyle(document.querySelector('header')).display") == "none"
    browser.send("Emulation.setEmulatedMedia", media="")
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(rows) < 60
