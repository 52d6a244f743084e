"""The reference of settings, records and events, made from their docstrings.

`python -m tests.reference` writes it.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import rlm_integrations
from rlm_integrations import coverage, errors, events, records, result, run_setup, spending
from rlm_integrations.engine.prompts import Prompt
from rlm_integrations.lm.asker import Retry

PAGE = Path(rlm_integrations.__file__).parent / "REFERENCE.md"
_DEFAULT_CHARS = 80  # longer defaults are not shown
_BASE = {each.name for each in fields(events.Event)}

TYPES = """## Types

| name | what it is |
|---|---|
| `Model` | a name, an object of LangChain or LlamaIndex, or an `LM` |
| `LM` | a model of your own: `name`, `context_window` and `async complete(request)` |
| `Context` | a string, a `pathlib.Path`, a document of LangChain or LlamaIndex, several of these, or a `Corpus` |
| `Corpus` | a context that is read once, by `Corpus.build(context)`, for several runs |
| `RLM[T]`, `RLMResult[T]` | `T` is the type of answers: `str`, or with `output_type=T` `T \\| None`, or `T` if incomplete runs raise |
| `Chat` | what `rlm.session(context)` returns |"""
SETTINGS = [records.Budget, records.Limits, Retry, Prompt]
RECORDS = [
    result.RLMResult,
    result.Iteration,
    result.Execution,
    result.SubCall,
    result.Citation,
    coverage.Coverage,
    coverage.SourceCoverage,
    coverage.ReadPart,
    coverage.Reading,
    run_setup.SourceInfo,
    run_setup.ModelNames,
    spending.Spent,
    records.Usage,
    records.CallRecord,
    records.LLMReply,
    records.LLMError,
    records.StoreObject,
    records.SpanRef,
    records.Message,
    records.Request,
    records.Completion,
]


def event_kinds() -> list[type[events.Event]]:
    """Every kind of event, in the order of the module."""
    return [
        each
        for each in vars(events).values()
        if inspect.isclass(each) and issubclass(each, events.Event) and each is not events.Event
    ]


def page() -> str:
    """The whole page."""
    parts = [
        "# Settings, records and events",
        "<!-- written by `python -m tests.reference` from the docstrings, checked by a test -->",
        "Names with an asterisk are in `rlm_integrations`; the others are in the given module.",
        TYPES,
        "## Settings",
        *map(_section, SETTINGS),
        "## Records",
        *map(_section, RECORDS),
        "## Events",
        (
            "Hooks (`on_event=`) and streams (`rlm.stream`) receive these events; all are in "
            "`rlm_integrations`. Each is an `Event`, with these fields:"
        ),
        _table(events.Event),
        *(_section(each, omit=_BASE) for each in event_kinds()),
        "## Errors",
        f"```text\n{inspect.cleandoc(errors.__doc__ or '')}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _section(kind: Any, omit: frozenset[str] | set[str] = frozenset()) -> str:
    title = f"`{kind.__name__}`" + (
        "*" if kind.__name__ in rlm_integrations.__all__ else f" in `{kind.__module__}`"
    )
    if issubclass(kind, events.Event):
        title = f"`{kind.__name__}`"
    return "\n\n".join(
        each for each in (f"### {title}", _summary(kind), _table(kind, omit)) if each
    )


def _summary(kind: Any) -> str:
    """The docstring before its sections; one paragraph is one line."""
    text = re.split(r"\n\n(?:Attributes|Args):\n", inspect.cleandoc(kind.__doc__ or ""))[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _table(kind: Any, omit: frozenset[str] | set[str] = frozenset()) -> str:
    meanings = dict(field_meanings(kind))
    own = (
        {each.name: _default(each) for each in fields(kind)}
        if hasattr(kind, "__dataclass_fields__")
        else dict.fromkeys(meanings, "")
    )
    shown = {name: default for name, default in own.items() if name not in omit}
    if shown and not meanings.keys() & shown.keys():
        return f"Fields: {', '.join(f'`{name}`' for name in shown)}."
    rows = [
        f"| `{name}` | {default} | {meanings.get(name, '')} |" for name, default in shown.items()
    ]
    return "\n".join(["| field | default | meaning |", "|---|---|---|", *rows]) if rows else ""


def field_meanings(kind: Any) -> Iterator[tuple[str, str]]:
    """Each attribute and its meaning from the docstring, in one line."""
    _, _, text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    for found in re.finditer(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
        yield found[1], " ".join(found[2].split()).replace("|", "\\|")


def _default(each: Field[Any]) -> str:
    if each.default is MISSING:
        return "empty" if inspect.isclass(each.default_factory) else ""
    if isinstance(each.default, str) and len(each.default) > _DEFAULT_CHARS:
        return "a text"
    is_count = isinstance(each.default, int) and not isinstance(each.default, bool)
    return f"`{each.default:_}`" if is_count else f"`{each.default!r}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
