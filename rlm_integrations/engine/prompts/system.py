"""The beginning of a conversation: the system prompt and the question."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from string import Template
from types import MappingProxyType
from typing import Any

from rlm_integrations.engine.prompts.remarks import budget_left
from rlm_integrations.records import HostFunction

OPENING = 200  # characters of the context that the model sees before it looks itself
SOURCES_LISTED = 10
_LINE_CHARS = 140  # of the paragraph that says what code may use
_CHUNK, _LARGEST_CHUNK = 10_000, 100_000
_CHARACTERS_PER_TOKEN = 3  # on the safe side, and room for the question and the reply

_SYSTEM = Template("""\
You answer a question about a document that is too long to be read at once. It is the variable \
`context` of a Python REPL. You do not
see it: you write code that looks into it, and you see what the code prints.

Write code in a fenced block, then stop; what it printed comes in the next message. Never write \
output yourself.

```repl
print(type(context), len(context))
print(context[:1000])
```

$variables

In the REPL:
- `context`: the text, or a list of texts; `context_0`, `context_1`, … are its sources, \
`context_metadata` what is known of each.
- `llm_query(prompt, model=None) -> str`: ask a language model, which sees nothing but the prompt.
- `llm_batch(prompts, max_concurrent=None, model=None) -> list[str]`: ask many, $width at once; \
the order is kept, a failed one begins
  with "Error:".
- `parallel_query("… {chunk} …", chunks) -> list[str]`: the same prompt over many chunks, likewise.
- `recursive_lm(query, context_subset) -> str`: have a question over a part of the context \
answered, $child;
  `recursive_batch([{"query": …, "context": …}, …]) -> list[str]`: several at once.
- `cite("exact quote", source=None) -> SpanRef | None`: where the document says so word for word, \
None if it does not.
- `SHOW_VARS()`: your variables; `help(name)`: what a function takes.
- `FINAL(value, evidence=[…])`: finish; evidence holds what `cite` gave. `FINAL_VAR("name")`: \
finish with a variable.
  If value is an answer in words, number its statements: `[1]` after what the first piece of \
evidence supports, `[2]` after the second.
$models
How to work:
1. Look at the beginning and at the structure; search with `re` where the words are known.
2. Where meaning matters, cut the text at sensible borders into chunks of $chunks and ask about \
all of
   them in one batch. Do not loop over llm_query: every call would wait for the one before. Not

       for chunk in chunks:
           notes.append(llm_query(f"Quote what is said of the treaty.\\n\\n{chunk}"))

   but

```repl
chunks = [context[at : at + 50_000] for at in range(0, len(context), 50_000)]
replies = llm_batch([f"Quote each sentence about the treaty, or say NONE.\\n\\n{chunk}" for chunk \
in chunks])
notes = [reply for reply in replies if not reply.startswith(("NONE", "Error:"))]
print(len(notes), "of", len(chunks), notes[:2])
```

3. Put together what came back, in code or by one more llm_query, check it against the text, and \
finish in a block:

```repl
answer = llm_query("Answer from these notes: when was the treaty signed?\\n\\n" + "\\n".join(notes))
FINAL(answer, evidence=[span for note in notes if (span := cite(note))])
```

Finish once you know. Where the document does not say, say so.
""")

_STORE = """
If it helps, there is a store for findings, which everything in this run shares and can search; \
for simple questions variables will do.
- `store.create(type, description, content, backrefs=None, parents=None, tags=None) -> id`: keep a \
finding; backrefs are SpanRefs.
- `store.search('type=claim tag=x desc~"word"', limit=50)`, `store.search_text("any words")`, \
`store.summary()`, `store.get(id)`.
- `store.llm_map([{"name": …, "prompt": …}, …]) -> batch id`: ask in parallel and keep the \
replies; `store.children(batch id)` are the
  objects that hold them, in the order of the tasks: `.description` is the name, `.content` the \
reply.
- `store.llm_reduce(ids, prompt) -> id`: fold objects into one.
"""

_WORKERS = """\
- `rlm_worker(prompt, store_cards=None)`, `rlm_worker_batched(tasks, max_parallel=None)`: have \
workers, each with a REPL and the whole
  context, explore; they return commits, which `apply_commit(commit)` merges into the store.
"""


def system(
    *,
    shown: int,
    rules: str,
    width: int = 10,
    sub_window: int | None = None,
    children: bool = False,
    models: Sequence[str] = (),
    tools: Sequence[HostFunction] = (),
    store: bool = True,
    schema: Mapping[str, Any] | None = None,
) -> str:
    """The system prompt.

    Args:
        shown: How many characters of output the model is shown.
        rules: What code may use; see `Sandbox.rules`.
        width: How many calls to models run at once.
        sub_window: How many tokens the sub-model reads at once, if that is known.
        children: Whether `recursive_lm` and workers are runs of their own. Else the former asks the
            sub-model, and the latter are not
            offered: they would see no document.
        models: The names that `model=` takes; the first is the default.
        tools: The user's own functions.
        store: Whether the run has a store.
        schema: The JSON schema of the answer, if it has a type.
    """
    named = (
        f"- `model=` takes one of {', '.join(map(repr, models))}; the first is the default.\n"
        if len(models) > 1
        else ""
    )
    child = (
        "by a model with a REPL of its own, so the part may be long"
        if children
        else "by one call of a model that reads it whole"
    )
    parts = [
        _SYSTEM.substitute(
            variables=textwrap.fill(
                f"Variables, imports and functions stay from block to block. {rules} What is "
                f"printed "
                f"is shown up to {shown:,} characters: print little, and keep results in "
                f"variables.",
                _LINE_CHARS,
                break_long_words=False,
                break_on_hyphens=False,
            ),
            width=width,
            chunks=_chunks(sub_window),
            models=named,
            child=child,
        )
    ]
    if tools:
        parts.append("\nTools, functions of the REPL too:\n" + "".join(map(_tool, tools)))
    if store:
        parts += [_STORE, _WORKERS if children else ""]
    if schema is not None:
        parts.append(
            f"\nThe value given to FINAL must fit this JSON "
            f"schema:\n{json.dumps(schema, ensure_ascii=False)}\n"
        )
    return "".join(parts)


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


def question(
    query: str,
    *,
    sources: Mapping[str, int],
    count: int,
    characters: int,
    kind: str,
    opening: str,
    turns: int,
    left_out: str = "",
    budget: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """The question, and what the context is: type, size, number of sources and how it begins; never
    the context.

    Args:
        query: The user's question.
        sources: The first sources and how many characters each has.
        count: How many sources there are.
        characters: How many characters all have together.
        kind: What `context` is; see `Corpus.kind`.
        opening: How the first source begins.
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
    if not characters:
        return f"Question: {query}\n\nThe context is empty: there is no text in it.\n{allowance}"
    several = {
        "text": "",
        "list of texts": f"a list of {count:,} texts",
        "texts by name": f"a dict of {count:,} texts by name, also in context_0 and so on,",
    }[kind]
    size = f"{characters:,} characters{' in all' if several else ''}"
    lines = [f"Question: {query}", "", f"The context is {several or 'a text'} of {size}."]
    if several:
        listed = ", ".join(f"{name}: {length:,}" for name, length in sources.items())
        more = count - len(sources)
        lines.append(f"Characters of each: {listed}{f', and {more:,} more' if more > 0 else ''}.")
    if left_out:
        lines.append(f"{left_out}: see context_metadata['left_out'].")
    if kind == "texts by name":
        lines.append(
            "`grep(pattern, paths=None)` finds lines in them; each has `.path`, `.line`, `.text` and "
            "`.span`, which is evidence for FINAL."
        )
    lines += [f"It begins: {opening[:OPENING]!r}", allowance]
    return "\n".join(lines)
