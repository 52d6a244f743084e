"""The beginning of a conversation: the system prompt and the question."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rlm_integrations.engine.prompts.remarks import budget_left
from rlm_integrations.engine.prompts.template import DEFAULT_PROMPT, Prompt, fill_template
from rlm_integrations.records import HostFunction

OPENING = 200  # characters of the context that the model sees before it looks itself
SOURCES_LISTED = 10
_LINE_CHARS = 140  # of the paragraph that says what code may use
_CHUNK, _LARGEST_CHUNK = 10_000, 100_000
_CHARACTERS_PER_TOKEN = 3  # on the safe side, and room for the question and the reply

FENCED = """\
Write code in a fenced block, then stop; what it printed comes in the next message. Never write \
output yourself.

```repl
print(type(context), len(context))
print(context[:1000])
```"""


def system(
    *,
    prompt: Prompt = DEFAULT_PROMPT,
    form: str = FENCED,
    shown: int,
    rules: str,
    width: int = 10,
    sub_window: int | None = None,
    children: bool = False,
    models: Sequence[str] = (),
    tools: Sequence[HostFunction] = (),
    store: bool = True,
    schema: Mapping[str, Any] | None = None,
    instructions: str | None = None,
) -> str:
    """The system prompt.

    Args:
        prompt: The templates.
        form: How a reply is written.
        shown: How many characters of output the model is shown.
        rules: What code may use; see `Sandbox.rules`.
        width: How many calls to models run at once.
        sub_window: How many tokens the sub-model reads at once, if that is known.
        children: Whether `recursive_lm` and workers are runs of their own. Else the former asks the
            sub-model, and the latter are not
            offered: they would see no document.
        models: The names that `model=` takes; the first is the default.
        tools: The user's own functions.
        store: Whether the store is offered.
        schema: The JSON schema of the answer, if it has a type.
        instructions: The user's own words.
    """
    named = f"- `model=` takes one of {', '.join(map(repr, models))}; the first is the default.\n"
    stored = f"{fill_template(prompt.store)}{fill_template(prompt.workers) if children else ''}"
    typed = (
        "\nThe value given to FINAL must fit this JSON schema:\n"
        f"{json.dumps(schema, ensure_ascii=False)}\n"
    )
    return fill_template(
        prompt.system,
        {
            "form": form,
            "rules": textwrap.fill(
                f"Variables, imports and functions stay from block to block. {rules} What is "
                f"printed is shown up to {shown:,} characters: print little, and keep results in "
                "variables.",
                _LINE_CHARS,
                break_long_words=False,
                break_on_hyphens=False,
            ),
            "width": width,
            "chunks": _chunks(sub_window),
            "child": (
                "by a model with a REPL of its own, so the part may be long"
                if children
                else "by one call of a model that reads it whole"
            ),
            "models": named if len(models) > 1 else "",
            "tools": f"\nTools, functions of the REPL too:\n{''.join(map(_tool, tools))}"
            if tools
            else "",
            "store": stored if store else "",
            "schema": typed if schema is not None else "",
            "instructions": instructed(instructions),
        },
    )


def instructed(instructions: str | None) -> str:
    """The part of a system prompt that has the user's instructions; "" without."""
    return f"\nThe user gives these instructions, too:\n{instructions}\n" if instructions else ""


def _chunks(sub_window: int | None) -> str:
    largest = (
        _LARGEST_CHUNK
        if sub_window is None
        else min(sub_window * _CHARACTERS_PER_TOKEN, _LARGEST_CHUNK)
    )
    return (
        f"{_CHUNK:,} to {largest:,} characters"
        if largest > _CHUNK
        else f"at most {largest:,} characters"
    )


def _tool(tool: HostFunction) -> str:
    doc = " ".join(tool.doc.split())
    return f"- `{tool.name}{tool.signature}`{': ' if doc else ''}{doc}\n"


_ON_DEMAND = (
    "`context[name]` reads a text from the disk. Use `grep` to find the texts that matter: it reads "
    "only those with a match, while a loop over `context` reads them all."
)


def question(
    query: str,
    *,
    template: str = DEFAULT_PROMPT.question,
    sources: Mapping[str, int],
    count: int,
    characters: int,
    kind: str,
    data: Mapping[str, str] = MappingProxyType({}),
    opening: str | None,
    turns: int,
    left_out: str = "",
    budget: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """The question, and what the context is: type, size, number of sources and how it begins; never
    the context.

    Args:
        query: The user's question.
        template: The template; see `Prompt`.
        sources: The first sources and how many characters each has.
        count: How many sources there are.
        characters: How many characters all have together.
        kind: What `context` is; see `Corpus.kind`.
        data: The first objects in it, as code names them, and their shape.
        opening: How the first source begins; None if texts are read when code asks for them: then
            the sizes are in bytes.
        turns: How many replies the model has.
        left_out: How many files are left out, and why.
        budget: What the run may spend, as for `budget_left`.
    """
    allowance = (
        f"You have {turns:,} turns: each of your replies is one."
        if turns > 1
        else "You have one turn: your next reply."
    )
    if budget:
        allowance = f"{allowance}\n{budget_left(budget)}"
    several = {
        "text": "",
        "list of texts": f"a list of {count:,} texts",
        "texts by name": f"a dict of {count:,} texts by name"
        f"{', also in context_0 and so on,' if opening is not None else ''}",
    }.get(kind, "")
    unit = "characters" if opening is not None else "bytes"
    size = f"{characters:,} {unit}{' in all' if several else ''}"
    lines = [f"The context is {several or 'a text'} of {size}."]
    if kind == "data":
        lines = [f"The context is data, not a text. context_0 is its JSON, {size}."]
    if several:
        listed = ", ".join(f"{name}: {length:,}" for name, length in sources.items())
        more = count - len(sources)
        lines.append(
            f"{unit.capitalize()} of each: {listed}{f', and {more:,} more' if more > 0 else ''}."
        )
    lines += [f"{name} is {shape}." for name, shape in data.items()]
    if data:
        lines.append("`cite` takes a path in data, too, such as cite('$.items[3].name').")
    if left_out:
        lines.append(f"{left_out}: see context_metadata['left_out'].")
    if kind == "texts by name":
        lines.append(
            "`grep(pattern, paths=None)` finds lines in them; each has `.path`, `.line`, `.text` and "
            "`.span`, which is evidence for FINAL."
        )
    lines.append(f"It begins: {opening[:OPENING]!r}" if opening is not None else _ON_DEMAND)
    if not characters:
        lines = ["The context is empty: there is no text in it."]
    return fill_template(
        template, {"question": query, "context": "\n".join(lines), "allowance": allowance}
    )
