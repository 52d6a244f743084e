"""The user's own words in the prompt, and when models are told of the store."""

from dataclasses import fields, replace
from typing import Any

import pytest

from rlm_integrations import RLM, InputError, Limits, Prompt
from rlm_integrations.engine import prompts
from tests.engine.conftest import Scripted, code, final, run

OWN = Prompt(
    system="The text is in context, 5 $$ a line. $rules\nFinish with SUBMIT.$tools$schema$instructions",
    question="<q>$question</q>",
    closing="Stop ($reason): $finish.",
)


def system_of(root: Scripted, number: int = 0) -> str:
    (message, *_) = root.requests[number].messages
    assert message.role == "system"
    return message.content


async def test_instructions_are_in_every_system_prompt_of_a_root() -> None:
    """Instructions are the end of the system prompt of a run and of its child runs; sub-models do
    not get them.
    """
    words = "Answer as a lawyer.\nA ${x} costs 5 $."
    ask = code("FINAL(recursive_lm('inner?', context[:3]) + llm_query('plain'))")
    root = Scripted({"What": [ask], "inner": [final("'in'")]}, lambda _: "sub")
    result = await run(root, max_depth=2, instructions=words)
    assert result.answer == "insub"
    systems = [each.messages[0].content for each in root.requests if each.role == "root"]
    assert len(systems) == 2
    assert all(
        each.endswith(f"\nThe user gives these instructions, too:\n{words}\n") for each in systems
    )
    assert words not in root.asked[0]
    assert result.options["instructions"] == words


async def test_instructions_reach_the_one_call_over_a_short_document() -> None:
    """A question that one call answers has the instructions, too."""
    root = Scripted(["fine"])
    await run(root, limits=Limits(single_call_below=100), instructions="Be brief.")
    assert system_of(root).endswith("instructions, too:\nBe brief.\n")


@pytest.mark.parametrize("wrong", ["", " \n", 5, "half \ud800"])
def test_invalid_instructions_are_refused(wrong: Any) -> None:
    """Instructions are a string with words in it, and valid Unicode."""
    with pytest.raises(InputError, match=r"^instructions (must|has)"):
        RLM("offline", instructions=wrong)


async def test_a_prompt_replaces_every_word() -> None:
    """The messages of a run begin and end with the user's templates; dollar signs in values are no
    fields.
    """
    root = Scripted([code("print(1)"), final("'$x'")])
    result = await run(root, "a document", "Who pays $5?", prompt=OWN, max_iterations=1)
    system, question = root.requests[0].messages
    assert system.content.startswith("The text is in context, 5 $ a line. Variables, imports")
    assert system.content.endswith("\nFinish with SUBMIT.")
    assert question.content == "<q>Who pays $5?</q>"
    closing = root.requests[1].messages[-1].content
    assert closing.endswith(
        "Stop (the limit of turns is reached): in a block: FINAL(value, evidence=[…]) or FINAL_VAR(name)."
    )
    assert result.answer == "$x"
    assert result.options["prompt"]["question"] == "<q>$question</q>"


async def test_a_question_in_other_words_is_not_taken_for_output() -> None:
    """When a conversation is shortened, an earlier question of a session keeps its beginning,
    whatever words the user's template begins it with.
    """
    show = code("print('x' * 9000)")
    root = Scripted([final("1"), final("2"), show, show, show, final("3")])
    rlm = RLM(root, prompt=OWN, limits=Limits(window=6_000))
    async with rlm.session("a document") as chat:
        await chat.acompletion("First?")
        await chat.acompletion("Second? " + "why " * 100)
        await chat.acompletion("Third?")
    told = [message.content for message in root.requests[-1].messages if message.role == "user"]
    assert told[1].startswith("<q>Second? why why")
    assert any("of output are no longer shown" in each for each in told)


def test_the_default_prompt_is_made_of_the_default_templates() -> None:
    """`Prompt()` is the prompt that runs have without one, and each of its words can be replaced."""
    given: dict[str, Any] = {"shown": 10, "rules": "R.", "children": True}
    assert prompts.system(**given, prompt=Prompt()) == prompts.system(**given)
    shorter = replace(Prompt(), store="\nA store, 3 $$.\n", workers="Workers.\n")
    assert prompts.system(**given, prompt=shorter).endswith("\nA store, 3 $.\nWorkers.\n")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"system": "Use FINAL."}, "must mention `context`"),
        ({"system": "Read the contexts, use FINAL."}, "must mention `context`"),
        ({"system": "Read context and answer."}, "must mention how code finishes: one of FINAL"),
        ({"system": "context FINAL $ 5"}, "begins no field: write \\$\\$"),
        ({"system": "context FINAL $tool"}, r"unknown field \$tool; fields are: \$form, \$rules"),
        ({"store": "$store"}, "fields are: none"),
        ({"question": "$context"}, r"must have the field \$question"),
        ({"closing": "Stop now."}, r"must have the field \$finish, or one of FINAL"),
        ({"closing": " "}, "must be a string that is not empty"),
        ({"workers": 5}, "must be a string that is not empty, not 5"),
        ({"store": "\ud800"}, "is not valid Unicode"),
    ],
)
def test_a_prompt_is_checked_when_it_is_made(given: dict[str, Any], why: str) -> None:
    """A template that lacks what it must mention, or has an unknown field, is refused; the error
    names the template.
    """
    with pytest.raises(InputError, match=why) as caught:
        Prompt(**given)
    assert f"Prompt({next(iter(given))}=…)" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tools": [lambda: 1]}, r"\$tools, because of tools="),
        ({"output_type": int}, r"\$schema, because of output_type="),
        ({"instructions": "x"}, r"\$instructions, because of instructions="),
    ],
)
def test_a_prompt_has_the_fields_that_options_need(options: dict[str, Any], field: str) -> None:
    """An option that the user's prompt would hide from the model is refused."""
    with pytest.raises(InputError, match=field):
        RLM("offline", prompt=Prompt(system="context FINAL"), **options)
    with pytest.raises(InputError, match="prompt must be a Prompt, not str"):
        RLM("offline", prompt="context FINAL")  # type: ignore[arg-type]


def test_every_template_of_a_prompt_is_checked() -> None:
    """Each field of `Prompt` refuses a field that it does not know."""
    for each in fields(Prompt):
        with pytest.raises(InputError, match="unknown field"):
            Prompt(**{each.name: getattr(Prompt(), each.name) + " $nothing"})


OFFERED = "there is a store for findings"


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({}, False),
        ({"max_depth": 2}, True),
        ({"store_mode": "shared"}, True),
        ({"store_mode": "none", "max_depth": 2}, False),
    ],
)
async def test_models_are_told_of_the_store_where_it_can_help(
    options: dict[str, Any], offered: bool
) -> None:
    """By default the prompt has the store from depth 2 on; its names work in any case but with
    "none".
    """
    use = code("print('store' in globals())", "store.create('note', 'd', 1)", "FINAL('done')")
    root = Scripted([use, final("'without'")])
    result = await run(root, **options)
    assert (OFFERED in system_of(root)) is offered
    assert not ("store" in root.told[0] or "worker" in root.told[0])
    has_store = options.get("store_mode") != "none"
    assert result.answer == ("done" if has_store else "without")
    assert (len(result.store) if has_store else result.store) == (1 if has_store else None)


async def test_a_child_is_told_of_the_store_that_it_shares() -> None:
    """The last level of REPLs is told of the store, without workers."""
    ask = code("FINAL(recursive_lm('inner?', context[:3]))")
    root = Scripted({"What": [ask], "inner": [final("'in'")]})
    await run(root, max_depth=2)
    outer, inner = (each.messages[0].content for each in root.requests)
    assert OFFERED in inner
    assert "rlm_worker" in outer
    assert "rlm_worker" not in inner
