"""Every word that the engine says to a root model: what it is told first, what it sees of its
code's output, and how it is set right.
"""

import json
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from string import Template
from types import MappingProxyType
from typing import Any

from rlm_integrations.engine.parsing import Note
from rlm_integrations.engine.parsing.python import is_cut_string
from rlm_integrations.records import HostFunction
from rlm_integrations.sandbox.base import ExecutionError, ExecutionResult

OPENING = 200  # characters of the context that the model sees before it looks itself
_SOURCES_LISTED = 10
_VARIABLES_LISTED = 30
_REBOUND_TOLD = 5
_LINE_CHARS = 140  # of the paragraph that says what code may use
_TURNS_TOLD = 3  # how many turns are left when the model is reminded of it
_CHUNK, _LARGEST_CHUNK = 10_000, 100_000
_CHARACTERS_PER_TOKEN = 3  # on the safe side, and room for the question and the reply

_SYSTEM = Template("""\
You answer a question about a document that is too long to be read at once. It is the variable `context` of a Python REPL. You do not
see it: you write code that looks into it, and you see what the code prints.

Write code in a fenced block, then stop; what it printed comes in the next message. Never write output yourself.

```repl
print(type(context), len(context))
print(context[:1000])
```

$variables

In the REPL:
- `context`: the text, or a list of texts; `context_0`, `context_1`, … are its sources, `context_metadata` what is known of each.
- `llm_query(prompt, model=None) -> str`: ask a language model, which sees nothing but the prompt.
- `llm_batch(prompts, max_concurrent=None, model=None) -> list[str]`: ask many, $width at once; the order is kept, a failed one begins
  with "Error:".
- `parallel_query("… {chunk} …", chunks) -> list[str]`: the same prompt over many chunks, likewise.
- `recursive_lm(query, context_subset) -> str`: have a question over a part of the context answered, $child;
  `recursive_batch([{"query": …, "context": …}, …]) -> list[str]`: several at once.
- `cite("exact quote", source=None) -> SpanRef | None`: where the document says so word for word, None if it does not.
- `SHOW_VARS()`: your variables; `help(name)`: what a function takes.
- `FINAL(value, evidence=[…])`: finish; evidence holds what `cite` gave. `FINAL_VAR("name")`: finish with a variable.
$models
How to work:
1. Look at the beginning and at the structure; search with `re` where the words are known.
2. Where meaning matters, cut the text at sensible borders into chunks of $chunks and ask about all of
   them in one batch. Do not loop over llm_query: every call would wait for the one before. Not

       for chunk in chunks:
           notes.append(llm_query(f"Quote what is said of the treaty.\\n\\n{chunk}"))

   but

```repl
chunks = [context[at : at + 50_000] for at in range(0, len(context), 50_000)]
replies = llm_batch([f"Quote each sentence about the treaty, or say NONE.\\n\\n{chunk}" for chunk in chunks])
notes = [reply for reply in replies if not reply.startswith(("NONE", "Error:"))]
print(len(notes), "of", len(chunks), notes[:2])
```

3. Put together what came back, in code or by one more llm_query, check it against the text, and finish in a block:

```repl
answer = llm_query("Answer from these notes: when was the treaty signed?\\n\\n" + "\\n".join(notes))
FINAL(answer, evidence=[span for note in notes if (span := cite(note))])
```

Finish once you know. Where the document does not say, say so.
""")

_STORE = """
If it helps, there is a store for findings, which everything in this run shares and can search; for simple questions variables will do.
- `store.create(type, description, content, backrefs=None, parents=None, tags=None) -> id`: keep a finding; backrefs are SpanRefs.
- `store.search('type=claim tag=x desc~"word"', limit=50)`, `store.search_text("any words")`, `store.summary()`, `store.get(id)`.
- `store.llm_map([{"name": …, "prompt": …}, …]) -> batch id`: ask in parallel and keep the replies; `store.children(batch id)` are the
  objects that hold them, in the order of the tasks: `.description` is the name, `.content` the reply.
- `store.llm_reduce(ids, prompt) -> id`: fold objects into one.
"""

_WORKERS = """\
- `rlm_worker(prompt, store_cards=None)`, `rlm_worker_batched(tasks, max_parallel=None)`: have workers, each with a REPL and the whole
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
                f"Variables, imports and functions stay from block to block. {rules} What is printed "
                f"is shown up to {shown:,} characters: print little, and keep results in variables.",
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
            f"\nThe value given to FINAL must fit this JSON schema:\n{json.dumps(schema, ensure_ascii=False)}\n"
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
    lengths: Sequence[int],
    characters: int,
    is_list: bool,
    opening: str,
    turns: int,
    budget: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """The question, and what the context is: type, size, number of sources and how it begins; never
    the context.

    Args:
        query: The user's question.
        lengths: How many characters each source has.
        characters: How many all have together.
        is_list: Whether `context` is a list of texts.
        opening: How the first source begins.
        turns: How many replies the model has.
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
    kind = f"a list of {len(lengths):,} texts" if is_list else "a text"
    lines = [
        f"Question: {query}",
        "",
        f"The context is {kind} of {characters:,} characters{' in all' if is_list else ''}.",
    ]
    if is_list:
        listed = ", ".join(
            f"context_{number}: {length:,}"
            for number, length in enumerate(lengths[:_SOURCES_LISTED])
        )
        more = len(lengths) - _SOURCES_LISTED
        lines.append(f"Characters of each: {listed}{f', and {more:,} more' if more > 0 else ''}.")
    lines += [f"It begins: {opening[:OPENING]!r}", allowance]
    return "\n".join(lines)


def observation(results: Sequence[ExecutionResult], *, written: int, shown: int) -> str:
    """What the blocks of one reply did, as the model sees it.

    Args:
        results: Of the blocks that ran, in order.
        written: How many blocks there were to run.
        shown: How many characters of output are shown, in all blocks together; what is left out is
            counted.
    """
    parts = []
    shares = _shares([len(result.output) + result.dropped for result in results], shown)
    for number, (result, share) in enumerate(zip(results, shares, strict=True), 1):
        of = f" of block {number} of {written}" if written > 1 else ""
        printed = cut_output(result.output.rstrip("\n"), share, result.dropped)
        parts.append(
            f"REPL output{of}:\n{printed}"
            if printed
            else f"REPL output{of}: nothing was printed.{_variables(result.locals)}"
        )
        if result.error is not None:
            parts.append(
                result.error.traceback.rstrip() or f"{result.error.type}: {result.error.message}"
            )
        if result.status == "lost":
            parts.append("The REPL is a new one: variables of earlier blocks are gone.")
    if results[-1].status != "ok" and len(results) < written:
        parts.append(f"The code after block {len(results)} was not run, because it failed.")
    return "\n".join(parts)


def _shares(lengths: Sequence[int], shown: int) -> list[int]:
    """How many characters of each output are shown: what short ones leave is for the long ones."""
    shares = [0] * len(lengths)
    for place, at in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        shares[at] = min(lengths[at], shown // (len(lengths) - place))
        shown -= shares[at]
    return shares


def cut_output(text: str, shown: int, dropped: int = 0) -> str:
    """The beginning and the end of an output or a reply, with a count of what is left out between."""
    left_out = len(text) - shown
    if left_out <= 0 and not dropped:
        return text
    head = text[: shown * 3 // 4] if left_out > 0 else text
    tail = text[len(text) - shown // 4 :] if left_out > 0 and shown >= 4 and not dropped else ""
    hidden = len(text) + dropped - len(head) - len(tail)
    return (
        f"{head}\n[… {hidden:,} of {len(text) + dropped:,} characters left out …]\n{tail}".rstrip(
            "\n"
        )
    )


def _variables(kinds: Mapping[str, str]) -> str:
    if not kinds:
        return ""
    listed = ", ".join(f"{name} ({kind})" for name, kind in list(kinds.items())[:_VARIABLES_LISTED])
    return f" Variables: {listed}{', …' if len(kinds) > _VARIABLES_LISTED else ''}."


def notes(about: Sequence[Note]) -> list[str]:
    """What the model is told about its own reply, the same thing once."""
    languages = Counter(each.detail for each in about if each.kind == "other_language")
    told = [
        _other_language(each.detail, languages[each.detail])
        if each.kind == "other_language"
        else note(each)
        for each in about
    ]
    return list(dict.fromkeys(told))


def note(about: Note) -> str:
    """What the model is told about its own reply."""
    match about.kind:
        case "unclosed_fence":
            return f"{_not_run(about)} its fence was not closed. Write it again, shorter if it was cut, and close it with ```."
        case "not_python":
            return f"{_not_run(about)} it is not valid Python.\n{about.detail}{_MULTILINE if is_cut_string(about.detail) else ''}"
        case "quotation":
            return f"Your python block of one line was taken for a quotation and not run: it is not valid Python.\n{about.detail}"
        case "other_language":
            return _other_language(about.detail, 1)
        case "chat_token":
            return f"Your reply was cut at {about.detail}: what followed was written in another's place."
        case "invented_output":
            return (
                f"Your reply was cut at {about.detail!r}: you wrote the REPL's output yourself. "
                "What it really printed is in this message."
            )
        case "final_refused":
            return "Your final answer was not taken, because a block of the same reply failed. Mend the block first."


_MULTILINE = '\nA string of several lines needs triple quotes, """…"""; or put it into a variable and finish with FINAL_VAR("name").'


def _not_run(about: Note) -> str:
    if about.blocks == 1:
        return "Your block was not run:"
    return f"Block {about.block} of {about.blocks} was not run{', nor was what follows' if about.block < about.blocks else ''}:"


def _other_language(language: str, count: int) -> str:
    blocks = f"Your {language} block was" if count == 1 else f"Your {count} {language} blocks were"
    return f"{blocks} not run: only Python runs here, in a ```repl block."


def rebound(names: Sequence[str]) -> str:
    """What becomes of names of the REPL that a block has bound to something else."""
    owners = ["the document" if name.startswith("context") else "the REPL's own" for name in names]
    lines = [
        f"`{name}` is {owner} again; use another name."
        for name, owner in zip(names, owners, strict=True)
    ]
    return "\n".join(lines[:_REBOUND_TOLD])


NOTHING_TO_DO = (
    "Your reply had neither a block of code nor a final answer. Write code in a ```repl block, or finish in one with "
    "FINAL(value, evidence=[…])."
)
SEVERAL_FINALS = (
    "Your final answer was not taken, because the code called FINAL several times, with different values. Call it once, with one value "
    "that holds the whole answer."
)


def repeated(*, same_result: bool) -> str:
    """What a model is told that says the same again."""
    result = ", and so is its result" if same_result else ""
    return f"Your reply was the same as the one before, word for word{result}. Do something else, or finish with what you have."


def turns_left(turns: int) -> list[str]:
    """A reminder of how many turns are left, once they are few."""
    if not 0 < turns <= _TURNS_TOLD:
        return []
    return [f"{turns} turns are left." if turns > 1 else "One turn is left: finish in it."]


def budget_left(amounts: Mapping[str, float]) -> str:
    """What the run may still spend.

    Args:
        amounts: How much, of "calls", "tokens", "dollars" and "seconds".
    """
    told = [
        f"${amount:.2g}" if kind == "dollars" else f"{math.ceil(amount):,} {kind}"
        for kind, amount in amounts.items()
    ]
    return f"Left of the budget, your own replies included: {', '.join(told)}."


def cut_replies(count: int) -> str:
    """That replies are not whole."""
    replies = "One reply of a model was" if count == 1 else f"{count:,} replies of models were"
    return f"{replies} cut before the end (`reply.truncated` is True). Ask for less in one prompt."


def unknown_variable(name: str, kinds: Mapping[str, str]) -> str:
    """Why FINAL_VAR of this name is no final."""
    variables = _variables(kinds) or " There are none yet."
    return f"FINAL_VAR({name!r}): there is no such variable.{variables} For a string, use FINAL({name!r})."


def unresolved(error: ExecutionError | None) -> str:
    """Why the value of a final in prose is not known."""
    told = f"{error.type}: {error.message}" if error is not None else "it has no value"
    return f"Your final answer was not taken, because its code failed.\n{told}"


def invalid(error: str) -> str:
    """Why a typed answer was not taken."""
    return f"Your final answer was not taken, because it does not fit the schema:\n{error}\nGive a value to FINAL that does."


def tell_too_long(error: str) -> str:
    """Why an answer was not taken that is too long."""
    return f"Your final answer was not taken: {error}. Give a shorter one to FINAL; keep what is long in the store, if there is one."


def closing(reason: str) -> str:
    """The request for a best answer when a run must end."""
    return (
        f"This is the last turn: {reason}. No model can be asked any more. Give the best answer that what you found allows, in a block: "
        "FINAL(value, evidence=[…]) or FINAL_VAR(name). Say what it leaves open."
    )


def compacted(characters: int) -> str:
    """What stands for an old output that the history no longer holds."""
    return f"[{characters:,} characters of output are no longer shown; variables still hold their values]"


def compacted_reply(text: str, kept: int) -> str:
    """What the history still holds of an old reply."""
    if len(text) <= kept:
        return text
    fence = "\n```" if text[:kept].count("```") % 2 else ""
    return f"{text[:kept]}{fence}\n[… {len(text) - kept:,} further characters of this message are no longer shown …]"


WITHDRAWN = "This question was cancelled before it was answered. Do not answer it; what its code had bound before may still be there."
NEW_REPL = "The REPL is a new one: variables of earlier questions are gone."
UNREADABLE = (
    "The file of the document has changed since it was read. `context` still has the text, but quotes can no longer be checked: "
    "`cite` finds nothing, and evidence is dropped. Finish without it."
)


def unfinished(count: int) -> str:
    """Where the replies are that came before their block ended."""
    return (
        f"Before that, {count:,} of its prompts had been answered, and the code did not get the replies. "
        "The next block has them in the dict `unfinished_replies`, by prompt: ask only what is not in there."
    )
