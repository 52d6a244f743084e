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
    data: dict[str, Any] = {
        "run": record_of(result),
        "defaults": record_defaults(),
        "reading": reading_data(result, corpus),
    }
    if corpus is not None:
        data |= {f"text-{name}": text for name, text in texts_of(corpus).items()}
    return _document(result.question or result.run_id, data, _RUN_SCRIPTS)


def diff_page(data: dict[str, Any]) -> str:
    """The page of the comparison of two runs; `data` is what `RunDiff.to_dict` has, and the
    questions.
    """
    return _document(" · ".join(dict.fromkeys(data["questions"])), {"diff": data}, _DIFF_SCRIPTS)


def _document(title: str, data: dict[str, Any], scripts: tuple[str, ...]) -> str:
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
