"""The comparison of two runs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.lm.pricing import cost
from rlm_integrations.records import Usage
from rlm_integrations.result import RLMResult
from tests.report._browser import Browser
from tests.report._hostile import PAYLOADS
from tests.report._made import FACT, block, call, made_run, turn
from tests.report.test_browser import hostile_run, is_quiet


def changed(run: RLMResult, **changes: Any) -> RLMResult:
    """The run with another reply of its third call, other code, no ninth call and one more turn."""
    first, second = run.trajectory
    (ran,) = first.executions
    calls = list(ran.subcalls[:-1])
    calls[2] = dataclasses.replace(calls[2], reply="another\nreply", start=99.0)
    calls.reverse()  # the record has calls in the order in which they ended
    other = dataclasses.replace(ran, code="print('new')", subcalls=tuple(calls))
    turns = (dataclasses.replace(first, executions=(other,)), second, turn(3, "one more", 3.6))
    options = {**run.options, "budget": {"max_calls": 50}}
    return dataclasses.replace(
        run, trajectory=turns, answer="Nobody.", options=options, run_id="other", **changes
    )


def test_runs_are_aligned_by_place(corpus: Corpus) -> None:
    """Prompts of a batch are compared by their number, whenever they ended; what only one run did
    is named; times do not count as differences.
    """
    run = made_run(corpus)
    differing = {
        each.place: each.changed or (each.one is None, each.other is None)
        for each in run.diff(changed(run)).places
        if not each.is_same
    }
    assert differing == {
        "turn 1, block 1": ("code",),
        "turn 1, block 1, llm_batch 1.3": ("reply",),
        "turn 1, block 1, llm_batch 1.9": (False, True),
        "turn 3": (True, False),
    }
    slower = dataclasses.replace(run.trajectory[0], call_end=1.9)
    assert run.diff(dataclasses.replace(run, trajectory=(slower, run.trajectory[1]))).is_same
    assert len(run.diff(run).places) == 16  # the rows of the run's page


def test_a_child_run_is_compared_turn_by_turn(corpus: Corpus) -> None:
    """A change inside a child run is found at its place, and its callers' own fields are equal. A
    child run and a block have the sums of tokens and cost of what is in them.
    """

    def with_inner(reply: str) -> RLMResult:
        inner = call(corpus, 0, ["deep"], reply, model="gpt-5-mini")
        child = call(
            corpus, 1, ["ask"], turns=(turn(1, "x", 0, block(1, "y", 0, subcalls=(inner,))),)
        )
        return made_run(corpus, trajectory=(turn(1, "a", 0, block(1, "b", 0, subcalls=(child,))),))

    compared = with_inner("one").diff(with_inner("two"))
    assert [
        (each.place, each.level, each.changed) for each in compared.places if not each.is_same
    ] == [("turn 1, block 1, llm_batch 1.2, turn 1, block 1, llm_batch 1.1", 6, ("reply",))]
    block_of_root, child, _, _, inner = (dict(each.one or {}) for each in compared.places[1:])
    price = f"${cost(Usage(700, 5), 'gpt-5-mini'):.6f}"
    assert (inner["tokens"], inner["cost"]) == ("700 in, 5 out", price)
    assert child["tokens within"] == block_of_root["tokens within"] == "1,600 in, 65 out"
    assert child["cost within"] == "unknown"  # the turn's model has no known price


def test_settings_totals_and_answers_are_compared(corpus: Corpus) -> None:
    """`print` shows them in short, and `to_dict` is plain JSON; unknown cost stays unknown."""
    run = made_run(corpus)
    compared = run.diff(changed(run, version="9"))
    assert dict(compared.settings) == {"budget.max_calls": ("100", "50"), "version": ("0.1.0", "9")}
    assert compared.totals["cost"] == ("unknown", "unknown")
    assert compared.spent["depth 2"] == ("1 call, 705 tokens, cost unknown",) * 2
    assert compared.totals["tokens"] == ("7,305 + unknown", "7,305 + unknown")
    shown = str(compared)
    assert "setting budget.max_calls: '100' → '50'" in shown
    assert f"-{FACT} Nobody knows the cost." in shown
    assert "turn 1, block 1, llm_batch 1.3: reply differs" in shown
    plain = json.loads(json.dumps(compared.to_dict()))
    assert (plain["same"], plain["runs"]) == (False, ["0123456789abcdef", "other"])
    assert [each["place"] for each in plain["places"] if each["changed"]] == [
        "turn 1, block 1",
        "turn 1, block 1, llm_batch 1.3",
    ]
    typed = run.diff(dataclasses.replace(run, answer={"name": "dam"}))
    assert typed.to_dict()["answers"][1] == '{\n  "name": "dam"\n}'


@pytest.mark.parametrize("path", ["", "/", "a/b.c.d", "r.b1/x.99999999999999", "r.b1/x.1"])
def test_any_paths_can_be_aligned(corpus: Corpus, path: str) -> None:
    """Records of other programs may have any paths, also the same for several calls."""
    calls = tuple(call(corpus, n, ["p"], str(n), path=path) for n in range(3))
    run = made_run(corpus, trajectory=(turn(1, "a", 0, block(1, "b", 0, subcalls=calls)),))
    assert len(run.diff(run).places) == 5
    assert run.diff(run).is_same


def test_the_page_of_two_runs(browser: Browser, corpus: Corpus, tmp_path: Path, axe: str) -> None:
    """It lists what differs, shows both sides of the selected place line by line, and breaks no
    rule of axe-core.
    """
    run = made_run(corpus)
    run.diff(changed(run)).to_html(tmp_path / "page.html")
    browser.open(tmp_path / "page.html", "#place-6")
    assert browser.text("#detail-title") == "turn 1, block 1, llm_batch 1.3"
    assert browser.text("#detail .removed").strip() == "- NONE"
    assert "4 of 17 places differ." in browser.text("#summary")
    rows = "[...document.querySelectorAll('.room .row')].map((row) => row.innerText)"
    assert [each.split("\n")[:2] for each in browser.run(rows)] == [
        ["block 1", "code"],
        ["llm_batch 1.3", "reply"],
        ["llm_batch 1.9", "only in A"],
        ["turn 3", "only in B"],
    ]
    browser.run("document.querySelector('.places').focus()")
    browser.press("End", "Enter")
    assert browser.text("#detail-title") == "turn 3"
    assert browser.run("document.activeElement.id") == "detail-title"
    browser.click("#only")
    assert browser.run(f"{rows}.length") == 17
    for scheme in ("dark", "light"):
        browser.scheme(scheme)
        browser.frame()
        assert browser.violations(axe) == []
    assert is_quiet(browser)


def test_hostile_runs_are_compared_as_text(browser: Browser, tmp_path: Path) -> None:
    """Every payload stays text on both sides."""
    documents = Corpus.build(PAYLOADS), Corpus.build(PAYLOADS[::-1])
    one, other = (
        hostile_run(corpus, texts)
        for corpus, texts in zip(documents, (PAYLOADS, PAYLOADS[::-1]), strict=True)
    )
    one.diff(other).to_html(tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    seen = browser.run(
        """Array.from({ length: document.querySelector('.places').ariaRowCount }, () => {
            const event = new KeyboardEvent('keydown', { key: 'ArrowDown', bubbles: true });
            document.querySelector('.places').dispatchEvent(event);
            return document.querySelector('main').textContent;
        }).join('')"""
    )
    assert "<script>window.hacked=1</script>" in seen
    assert browser.run("typeof window.hacked") == "undefined"
    assert is_quiet(browser)
