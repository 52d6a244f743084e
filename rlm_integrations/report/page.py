"""Puts a page together: one file of HTML that needs no network.

Its styles and scripts are allowed by their hashes, and everything else is forbidden. The data is
in elements that no browser executes; the scripts create text nodes from it, never markup.
"""

import base64
import hashlib
import html
import re
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from rlm_integrations.corpus import Corpus
from rlm_integrations.report.data import (
    check_document,
    embedded_json,
    reading_data,
    record_defaults,
    record_of,
    texts_of,
)

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult

_TITLE_CHARS: Final = 80
# One scope: each file uses names of those before it.
_RUN_SCRIPTS: Final = tuple(
    "dom list model answer totals calls detail text store graph map links main".split()
)
_STYLES: Final = ("base", "calls", "parts")
_LIVE_SCRIPTS: Final = (*_RUN_SCRIPTS, "follow", "live")
_LIST_SCRIPTS: Final = ("dom", "follow", "live_list")
_DIFF_SCRIPTS: Final = ("dom", "list", "links", "compare")


def run_page(
    result: "RLMResult", context: object = None, *, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    """The page of a run, as HTML; see `RLMResult.to_html`."""
    if context is None:
        return _run_page(result, None)
    if isinstance(context, Corpus):
        check_document(result, context)
        return _run_page(result, context)
    with Corpus.build(context, encoding=encoding, errors=errors) as corpus:
        check_document(result, corpus)
        return _run_page(result, corpus)


def _run_page(result: "RLMResult", corpus: Corpus | None) -> str:
    data = {"run": record_of(result), "reading": reading_data(result, corpus)}
    return _document(result.question or result.run_id, _with_texts(data, corpus), _RUN_SCRIPTS)


def _with_texts(data: dict[str, Any], corpus: Corpus | None) -> dict[str, Any]:
    """The data of a run, with what its scripts need further."""
    texts = {} if corpus is None else texts_of(corpus)
    return {
        **data,
        "defaults": record_defaults(),
        **{f"text-{name}": text for name, text in texts.items()},
    }


def live_page(state: dict[str, Any], number: int, corpus: Corpus | None = None) -> str:
    """The page of a run that follows it.

    Args:
        state: What `plain_state` has.
        number: The number of the state.
        corpus: The document.
    """
    data = {**{name: state[name] for name in ("run", "reading")}, "live": [number, state["calls"]]}
    title = state["run"]["question"] or state["run"]["run_id"]
    return _document(title, _with_texts(data, corpus), _LIVE_SCRIPTS, is_live=True)


def list_page(state: dict[str, Any], number: int) -> str:
    """The page of a list of runs that follows it."""
    return _document("Runs", {"list": state, "live": [number, 0]}, _LIST_SCRIPTS, is_live=True)


def diff_page(data: dict[str, Any]) -> str:
    """The page of the comparison of two runs; `data` is what `RunDiff.to_dict` has, and the
    questions.
    """
    return _document(" · ".join(dict.fromkeys(data["questions"])), {"diff": data}, _DIFF_SCRIPTS)


def _document(
    title: str, data: dict[str, Any], scripts: tuple[str, ...], *, is_live: bool = False
) -> str:
    short = " ".join(title[: 2 * _TITLE_CHARS].split())[:_TITLE_CHARS]
    blocks = "\n".join(
        f'<script type="application/json" id="data-{html.escape(name)}">'
        f"{embedded_json(value)}</script>"
        for name, value in data.items()
    )
    style, script = _style(), _script(scripts)
    values = {
        "csp": (
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
            "img-src data:; base-uri 'none'; form-action 'none'"
            + ("; connect-src 'self'" if is_live else "")
        ),
        "title": html.escape(_without_surrogates(short) or "A run"),
        "style": style,
        "data": blocks,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _file("page.html"))


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def _style() -> str:
    return "\n" + "\n".join(_file(f"css/{name}.css") for name in _STYLES)


@cache
def _script(names: tuple[str, ...]) -> str:
    code = "\n".join(_file(f"js/{name}.js") for name in names)
    return f'\n"use strict";\n(() => {{\n{code}}})();\n'


def _file(name: str) -> str:
    return files(__package__).joinpath(PurePosixPath(name)).read_text(encoding="utf-8")
