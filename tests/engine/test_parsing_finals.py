"""How finals in prose are parsed: each case of real models by its number, and others."""

import pytest

from rlm_integrations.engine.parsing import CodeBlock, ProseFinal, Reply, parse_reply
from tests.engine._replies import block, kinds


@pytest.mark.parametrize(
    "text",
    [
        "FINAL(random_number)",
        "I am done.\n\nFINAL(random_number)\n",
        "**FINAL(random_number)**",
        "SUBMIT(random_number)",
    ],
)
def test_case_06_a_bare_name_in_prose_is_a_name(text: str) -> None:
    """FINAL of a bare word names a variable, if it exists."""
    assert parse_reply(text).final == ProseFinal("name", "random_number", "FINAL(random_number)")


def test_case_07_finals_in_code_are_code() -> None:
    """Rules about prose do not apply inside a fence."""
    code = 'FINAL(a + ", ally " + b)'
    assert parse_reply(block(code)) == Reply(blocks=(CodeBlock("repl", code),))
    assert parse_reply(block(code, label="")) == Reply(blocks=(CodeBlock("", code),))
    assert parse_reply("```text\nFINAL(1)\n```").final is None
    assert parse_reply('```repl\ns = """\nFINAL(1)\n"""\n```').final is None


@pytest.mark.parametrize(
    "prose",
    [
        'I shall finish with either FINAL_VAR(name) or FINAL("answer").',
        'I shall finish with either FINAL_VAR(name) or\nFINAL("answer") when I know it.',
        "My plan:\n1. Look.\n2. FINAL(answer)\n- FINAL_VAR(x)\n",
    ],
)
def test_case_08_a_plan_is_not_final(prose: str) -> None:
    """Finals mentioned in prose do not count, before code or after it."""
    for text in (f"{prose}\n{block('print(1)')}", f"{block('print(1)')}\n{prose}", prose):
        assert parse_reply(text).final is None


def test_case_09_code_and_a_final_in_one_reply() -> None:
    """The blocks and the final are both returned, in any order; next to a block that is not run the
    final is refused.
    """
    final = ProseFinal("variable", "x", "FINAL_VAR('x')")
    assert parse_reply(block("x = 1") + "\nFINAL_VAR(x)") == Reply(
        (CodeBlock("repl", "x = 1"),), final
    )
    assert parse_reply("FINAL_VAR(x)\n\n" + block("x = 1")) == Reply(
        (CodeBlock("repl", "x = 1"),), final
    )
    assert parse_reply("```repl\nx = 1\n```FINAL_VAR(x)").final == final
    failed = parse_reply(block("x = = 1") + "\nFINAL_VAR(x)")
    assert failed.final is None
    assert kinds(failed) == ["not_python", "final_refused"]


@pytest.mark.parametrize(
    "text", ['FINAL_VAR("14")', "FINAL_VAR(14)", "FINAL_VAR('14')\n", 'accordingly.FINAL_VAR("14")']
)
def test_case_17_a_variable_that_may_not_exist_is_named_as_such(text: str) -> None:
    """FINAL_VAR always names a variable; the REPL decides whether it exists."""
    assert parse_reply(text).final == ProseFinal("variable", "14", "FINAL_VAR('14')")


@pytest.mark.parametrize(
    "text",
    [
        "The result is FINAL(42)",
        "The result is FINAL(42), as we saw.",
        "So FINAL(42) would be right. Let me check.",
        "I could say this. FINAL(42) But I am not sure.",
        "It would be\nFINAL(42)\nbut only if x holds.",
        "FINAL(42) would be the answer if x held.",
        "FINAL(42",
        "FINAL()",
        "MY_FINAL(42)",
    ],
)
def test_case_18_reasoning_about_a_final_is_not_final(text: str) -> None:
    """A final in the middle of a sentence, or one that is not closed, does not count."""
    assert parse_reply(text).final is None


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("FINAL(func(a, b))", ProseFinal("expression", "func(a, b)", "FINAL(func(a, b))")),
        ('FINAL(f(")"))', ProseFinal("expression", 'f(")")', 'FINAL(f(")"))')),
        (
            'FINAL(a + ", ally " + b)',
            ProseFinal("expression", 'a + ", ally " + b', 'FINAL(a + ", ally " + b)'),
        ),
        ("FINAL(f'{x}')", ProseFinal("expression", "f'{x}'", "FINAL(f'{x}')")),
        (
            "FINAL(x, evidence=[s])",
            ProseFinal("expression", "x, evidence=[s]", "FINAL(x, evidence=[s])"),
        ),
        ("FINAL_VAR(found['a'])", ProseFinal("expression", "found['a']", "FINAL(found['a'])")),
        ("FINAL(42)", ProseFinal("value", "42", "FINAL(42)")),
        ('FINAL("42")', ProseFinal("value", "42", 'FINAL("42")')),
        ("FINAL([1, 2])", ProseFinal("value", "[1, 2]", "FINAL([1, 2])")),
        (
            "FINAL(The king (of Spain) left.)",
            ProseFinal("value", "The king (of Spain) left.", "FINAL('The king (of Spain) left.')"),
        ),
        (
            "FINAL(It's 5 o'clock (or so).)",
            ProseFinal("value", "It's 5 o'clock (or so).", "FINAL(\"It's 5 o'clock (or so).\")"),
        ),
        ('FINAL("two\nlines")', ProseFinal("value", "two\nlines", "FINAL('two\\nlines')")),
        (
            'FINAL("""two\n\nlines (a)""")',
            ProseFinal("value", "two\n\nlines (a)", 'FINAL("""two\n\nlines (a)""")'),
        ),
        ("FINAL(\n  'a (b'\n)", ProseFinal("value", "a (b", "FINAL('a (b')")),
        (
            "FINAL(**Paris**, the *capital*)",
            ProseFinal("value", "**Paris**, the *capital*", "FINAL('**Paris**, the *capital*')"),
        ),
        ("FINAL(Paris (France))", ProseFinal("words", "Paris (France)", "FINAL(Paris (France))")),
        ("FINAL(C:\\dir\\new)", ProseFinal("value", "C:\\dir\\new", "FINAL('C:\\\\dir\\\\new')")),
    ],
)
def test_case_18_a_final_alone_is_read_to_its_own_parenthesis(text: str, final: ProseFinal) -> None:
    """Parentheses balance, strings may contain some, and plain text needs no quotes; the call can
    be run as code.
    """
    for written in (
        text,
        f"Now I know.\n{text}\n\nThat is all.",
        f"Now I know.{text}",
        f"`{text}`",
        f"> **{text}**.",
    ):
        assert parse_reply(written).final == final
    compile(final.code, "final", "exec")


@pytest.mark.parametrize("function", ["FINAL", "SUBMIT", "final_answer"])
def test_dialects_in_prose(function: str) -> None:
    """Other libraries' names of FINAL count as FINAL."""
    assert parse_reply(f"Done.\n{function}('x')").final == ProseFinal("value", "x", "FINAL('x')")
    assert parse_reply(f"I should {function}('x') later").final is None


@pytest.mark.parametrize(
    "text",
    [
        "I am done: FINAL(42)",
        "accordingly.FINAL(42)",
        "(That holds!) So it is. FINAL(42).",
        "Is it? `FINAL(42)`\n\n",
        "FINAL(41)\n\nWait, no.\n\nFINAL(42)",
        "FINAL(42)  # the answer",
    ],
)
def test_a_final_after_a_sentence_ends_the_reply(text: str) -> None:
    """A final right after a sentence counts if nothing follows; the last of several counts."""
    final = parse_reply(text).final
    assert final is not None
    assert final.text == "42"


def test_a_final_may_quote_fences() -> None:
    """An answer that contains a fenced block is an answer, and its block does not run."""
    answer = "Do this:\n\n```python\nprint(1)\n```\n\nand be glad."
    reply = parse_reply(f'FINAL("""{answer}""")\n')
    assert reply == Reply(final=ProseFinal("value", answer, f'FINAL("""{answer}""")'))
