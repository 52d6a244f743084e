"""The page as a file: what it contains, and what it refuses."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.report import page
from rlm_integrations.report.data import embedded_json, reading_data
from rlm_integrations.result import RLMResult
from tests.report._made import DOCUMENT, made_run


class Elements(HTMLParser):
    """The elements of a page with their attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", {}, ""))

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = tag, attributes, text + data

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def test_the_policy_allows_the_pages_own_style_and_script_by_hash(corpus: Corpus) -> None:
    """Nothing else is allowed: the default is 'none', and no element has an address of another
    file, a handler or a style of its own.
    """
    page = Elements(made_run(corpus).to_html())
    (policy,) = [a["content"] for a, _ in page.of("meta") if a.get("http-equiv")]
    assert policy is not None
    rules = dict(each.split(" ", 1) for each in policy.split("; "))
    assert rules["default-src"] == "'none'"
    (style,) = [text for _, text in page.of("style")]
    (script,) = [text for attributes, text in page.of("script") if "type" not in attributes]
    for rule, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert set(rules) == {
        *("default-src", "script-src", "style-src", "img-src", "base-uri", "form-action")
    }
    names = {name for _, attributes, _ in page.found for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in {"src", "style"}}
    assert [a["href"] for _, a, _ in page.found if "href" in a] == ["data:,"]


def test_the_page_has_the_record_that_can_be_loaded_again(corpus: Corpus, tmp_path: Path) -> None:
    """The embedded record is loaded as the same result; fields with their default are left out.
    With the document its text is embedded too.
    """
    run = made_run(corpus)
    page = run.to_html(tmp_path / "run.html", context=DOCUMENT)
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == page
    blocks = {a["id"]: json.loads(text) for a, text in Elements(page).of("script") if "type" in a}
    again = RLMResult.from_dict(blocks["data-run"])
    assert json.dumps(again.to_dict()) == json.dumps(run.to_dict())
    assert "stop_reason" not in blocks["data-run"]
    assert blocks["data-defaults"]["run"]["stop_reason"] == "final"
    assert [blocks["data-text-context_0"], blocks["data-text-context_1"]] == DOCUMENT
    assert "data-text-context_0" not in run.to_html()
    assert run.to_html(context=corpus) == page
    assert corpus.text("context_1", 0, 6) == "Letter"  # the caller's document is still open


@pytest.mark.parametrize(
    "text", ["</script><!--", "\u2028\u2029", "a\ud800b", "\x00\x1b[2J", "\ud83d\ude00 é"]
)
def test_embedded_json_is_no_markup_and_loses_nothing(text: str) -> None:
    """It has no "<", can be encoded, and is the same value again."""
    plain = embedded_json({text: [text]})
    assert "<" not in plain
    assert plain.encode()
    assert json.loads(plain) == json.loads(json.dumps({text: [text]}))


def test_another_document_is_refused(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are one that cannot be read, and one that is too large for a page."""
    run = made_run(corpus)
    for other in ([DOCUMENT[0], DOCUMENT[1] + " "], DOCUMENT[0], DOCUMENT[::-1]):
        with pytest.raises(InputError, match="this is not the document of the run"):
            run.to_html(context=other)
    with pytest.raises(ContextError):
        run.to_html(context=3)
    monkeypatch.setattr("rlm_integrations.report.data.MAX_TEXT_CHARS", 1_000)
    with pytest.raises(InputError, match="make the page without it"):
        run.to_html(context=DOCUMENT)


def test_a_notebook_gets_text_and_a_sandboxed_frame(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame has the page as its attribute and a sandbox without the notebook's origin; a large
    page is left out, and the text says how to get it.
    """
    run = made_run(corpus)
    bundle = run._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/plain"] == str(run)
    (frame,) = [attributes for attributes, _ in Elements(bundle["text/html"]).of("iframe")]
    assert frame["srcdoc"] == run.to_html()
    assert len(bundle["text/html"]) < 1.02 * len(run.to_html())
    assert frame["sandbox"] == "allow-scripts allow-downloads"
    monkeypatch.setattr("rlm_integrations.report.notebook._MAX_FRAME_CHARS", 100)
    bundle = run._repr_mimebundle_()
    assert list(bundle) == ["text/plain"]
    assert "result.to_html(path)" in bundle["text/plain"]


def test_the_map_has_what_was_read(corpus: Corpus) -> None:
    """Its rows are the readings of `result.coverage`; with the document, printed text counts for
    the turn that was shown it.
    """
    run = made_run(corpus)
    readings = reading_data(run, None)["readings"]
    assert [(kind, number) for kind, number, *_ in readings] == [
        ("call", number) for number in (1, 2, 3, 4, 6, 8, 9)
    ]
    assert readings[5][2:] == [1, 100, 900]
    located = reading_data(run, corpus)
    (printed,) = [each for each in located["readings"] if each not in readings]
    assert printed == ["turn", 3, 1, 2000, 2300]
    assert [2000, 2300, 1] in located["sources"][1]
    cut = dataclasses.replace(run, options={"limits": {"stdout_shown": 40}})
    assert reading_data(cut, corpus)["readings"] == readings  # what was printed was not shown


def test_every_script_and_style_is_shipped_and_small() -> None:
    """The page uses every file of the folder, none is longer than 400 lines, and none has an
    address.
    """
    folder = Path(page.__file__).parent
    scripts = {path.stem for path in (folder / "js").glob("*.js")}
    assert scripts == {
        *page._LIVE_SCRIPTS,
        *page._LIST_SCRIPTS,
        *page._DIFF_SCRIPTS,
    }
    for path in [*folder.glob("js/*.js"), *folder.glob("css/*.css"), folder / "page.html"]:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|eval\(", text), path
