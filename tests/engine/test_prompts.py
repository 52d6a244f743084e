"""The engine's prompts: pinned, short, and consistent with the code that parses replies."""

import hashlib
import re
from functools import partial
from typing import get_args

import pytest

from rlm_integrations.engine import prompts
from rlm_integrations.engine.parsing import Note, NoteKind, parse_reply
from rlm_integrations.lm.offline import model
from rlm_integrations.records import HostFunction
from rlm_integrations.sandbox.base import ExecutionError, ExecutionResult
from rlm_integrations.sandbox.process import ProcessSandbox

system = partial(prompts.system, rules=ProcessSandbox.rules)

NAMES = "context context_0 context_metadata llm_query llm_batch parallel_query recursive_lm recursive_batch".split()
NAMES += "cite SpanRef SHOW_VARS FINAL FINAL_VAR".split()
STORE_NAMES = "store.create store.search store.search_text store.summary store.get store.children store.llm_map store.llm_reduce".split()
WORKER_NAMES = "rlm_worker rlm_worker_batched apply_commit".split()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_system_prompt_is_pinned() -> None:
    """The system prompt is pinned, because a change affects runs, cassettes and providers'
    caches.
    """
    assert digest(system(shown=8_000)) == "f27c5339725b3021"
    assert digest(system(shown=8_000, store=False)) == "59df03bb35d5eb4e"


def test_the_system_prompt_is_short_and_complete() -> None:
    """It has under 700 words with the store, every name of the REPL, and the rule that saves most
    time.
    """
    text = system(shown=8_000, children=True, width=20)
    assert len(text.split()) < 700
    assert "ask many, 20 at once" in text
    for name in (*NAMES, *STORE_NAMES, *WORKER_NAMES):
        assert name in text
    assert "Do not loop over llm_query" in text
    assert "10,000 to 100,000 characters" in text
    assert "8,000 characters" in text


def test_its_examples_are_code_that_would_run() -> None:
    """The prompt's examples are parsed as blocks by the parser of replies."""
    reply = parse_reply(system(shown=8_000))
    assert [block.language for block in reply.blocks] == ["repl"] * 3
    assert reply.notes == ()


def test_without_a_store_the_prompt_does_not_mention_it() -> None:
    """`store_mode="none"` removes store, workers and commits from the prompt."""
    assert not re.search(r"\bstore|worker|commit", system(shown=8_000, store=False))


def test_workers_are_offered_only_where_they_see_the_document() -> None:
    """At the limit of depth, where a worker has neither document nor REPL, the prompt does not
    mention workers.
    """
    assert not re.search(r"worker|commit", system(shown=8_000))
    assert "each with a REPL and the whole\n  context" in system(shown=8_000, children=True)


def test_options_are_in_the_prompt_only_if_set() -> None:
    """Registered models, tools, children, a schema and a small window each add their own text."""
    tools = [
        HostFunction("lookup", "(key: str) -> str", "Look up a key.\n\nIn the register.", ()),
        HostFunction("ping", "()"),
    ]
    text = system(
        shown=8_000,
        sub_window=8_000,
        children=True,
        models=["fast", "strong"],
        tools=tools,
        store=False,
        schema={"type": "integer", "title": "é"},
    )
    assert "`model=` takes one of 'fast', 'strong'" in text
    assert "- `lookup(key: str) -> str`: Look up a key. In the register.\n- `ping()`\n" in text
    assert '{"type": "integer", "title": "é"}' in text
    assert "10,000 to 24,000 characters" in text
    assert "a REPL of its own" in text
    plain = system(shown=8_000, models=["only"], store=False)
    assert not any(word in plain for word in ("only", "Tools", "schema"))
    assert "at most 6,000 characters" in system(shown=8_000, sub_window=2_000)


def test_the_question_shows_the_size_and_never_the_context() -> None:
    """The message has type, size, number of sources and two hundred characters: it does not grow
    with the document.
    """
    opening = "Call me Ishmael.\n" * 1_000
    text = prompts.question(
        "Who speaks?",
        sources={"context_0": len(opening)},
        count=1,
        characters=len(opening),
        kind="text",
        opening=opening,
        turns=20,
    )
    assert text == (
        f"Question: Who speaks?\n\nThe context is a text of 17,000 characters.\nIt begins: {opening[:200]!r}\n"
        "You have 20 turns: each of your replies is one."
    )
    first = {f"context_{number}": 10 for number in range(prompts.SOURCES_LISTED)}
    several = {"sources": first, "count": 20_000, "characters": 200_000, "opening": "a"}
    many = prompts.question("Who?", kind="list of texts", turns=1, **several)
    assert many.endswith("You have one turn: your next reply.")
    assert "a list of 20,000 texts of 200,000 characters in all" in many
    assert "context_9: 10, and 19,990 more." in many
    assert len(many) < 500
    assert "The context is empty: there is no text in it." in prompts.question(
        "Who?", sources={}, count=0, characters=0, kind="list of texts", opening="", turns=20
    )
    named = prompts.question("Who?", kind="texts by name", turns=1, **several)
    assert "a dict of 20,000 texts by name, also in context_0 and so on, of 200,000" in named


def test_long_output_is_shortened_and_counted() -> None:
    """A long output keeps its beginning and its end; the omitted characters are counted, including
    those that were not kept.
    """
    assert (
        prompts.observation([ExecutionResult("ok", output="3\n")], written=1, shown=100)
        == "REPL output:\n3"
    )
    long = "".join(f"{number:05}\n" for number in range(1_000))
    text = prompts.observation([ExecutionResult("ok", output=long)], written=1, shown=600)
    assert text.startswith("REPL output:\n00000\n")
    assert text.endswith("00999")
    assert "5,399 of 5,999 characters left out" in text
    cut = prompts.observation(
        [ExecutionResult("ok", output=long, dropped=4_001)], written=1, shown=600
    )
    assert "9,550 of 10,000 characters left out" in cut
    assert "00999" not in cut
    assert "[… 7 of 12 characters left out …]" in prompts.observation(
        [ExecutionResult("ok", output="abcde", dropped=7)], written=1, shown=600
    )


def test_a_block_without_output_reports_the_variables() -> None:
    """After a block without output, the model is told so, with its variables."""
    result = ExecutionResult("ok", locals={"notes": "list of 3"})
    assert (
        prompts.observation([result], written=1, shown=100)
        == "REPL output: nothing was printed. Variables: notes (list of 3)."
    )


def test_errors_and_skipped_blocks_are_reported() -> None:
    """The traceback follows the output; blocks that did not run after a failed one are reported."""
    error = ExecutionError(
        "NameError",
        "name 'x' is not defined",
        "Traceback (most recent call last):\n  …\nNameError: name 'x' is not defined\n",
    )
    results = [ExecutionResult("ok", output="1"), ExecutionResult("error", output="2", error=error)]
    assert prompts.observation(results, written=3, shown=100) == (
        "REPL output of block 1 of 3:\n1\nREPL output of block 2 of 3:\n2\nTraceback (most recent call last):\n  …\n"
        "NameError: name 'x' is not defined\nThe code after block 2 was not run, because it failed."
    )
    lost = ExecutionResult("lost", error=ExecutionError("MemoryError", "the process was killed"))
    text = prompts.observation([lost], written=1, shown=100)
    assert "MemoryError: the process was killed" in text
    assert "variables of earlier blocks are gone" in text


@pytest.mark.parametrize("written", [1, 3])
def test_an_imitated_observation_is_detected(written: int) -> None:
    """A reply is truncated where the model imitates an observation after its own block."""
    for output in ("7", ""):
        imitated = prompts.observation(
            [ExecutionResult("ok", output=output)], written=written, shown=100
        )
        reply = parse_reply(f"```repl\nx = 1\n```\n{imitated}\n```repl\ny = 2\n```\n")
        assert [note.kind for note in reply.notes] == ["invented_output"]
        assert [block.code for block in reply.blocks] == ["x = 1"]


@pytest.mark.parametrize("kind", get_args(NoteKind))
def test_every_note_has_a_sentence(kind: NoteKind) -> None:
    """Each note of the parser has a sentence that says what to do or what was done."""
    text = prompts.note(Note(kind, "json"))
    assert text.startswith("Your ")
    assert text.endswith((".", "json"))


def test_nudges_say_what_to_do() -> None:
    """Repeated, empty, unresolved and invalid replies each have their own message."""
    assert "word for word, and so is its result." in prompts.repeated(same_result=True)
    assert "word for word. Do" in prompts.repeated(same_result=False)
    assert "```repl" in prompts.NOTHING_TO_DO
    assert prompts.unknown_variable("14", {"x": "int"}) == (
        "FINAL_VAR('14'): there is no such variable. Variables: x (int). For a string, use FINAL('14')."
    )
    assert "There are none yet." in prompts.unknown_variable("14", {})
    assert "3 is not a string" in prompts.invalid("3 is not a string")
    assert "12,000 characters" in prompts.compacted(12_000)


def test_the_closing_request_is_the_one_that_offline_knows() -> None:
    """The offline root recognizes the closing request by this text at the end of the last
    message.
    """
    text = prompts.closing("20 turns are used up")
    assert model.CLOSING in text[-1_000:]
    assert "20 turns are used up" in text
    assert parse_reply(text).final is None
