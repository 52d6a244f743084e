"""The parsing of replies: the numbered cases of real models, and further forms."""

import textwrap

import pytest

from rlm_integrations.engine.parsing import CodeBlock, Note, ProseFinal, Reply, parse_reply
from rlm_integrations.lm.offline import OfflineLM
from rlm_integrations.records import Message, Request
from tests.engine._replies import block, codes, kinds


def test_case_01_a_fence_glued_to_prose_opens_and_a_mention_does_not() -> None:
    """The real block runs; a mention of fenced `repl` blocks in prose opens nothing."""
    text = (
        "I write ```repl``` fences, so `repl` blocks, or ```repl code``` in a line. "
        "Let me do that now.```repl\nprint(context[:9])\n```\n"
    )
    assert parse_reply(text) == Reply(blocks=(CodeBlock("repl", "print(context[:9])"),))
    assert codes(
        parse_reply("Put it between ```repl\nand a closing fence.\n\n" + block("a = 1"))
    ) == ["a = 1"]


@pytest.mark.parametrize(
    "code",
    [
        'fence = "```"\nprint(fence)',
        'ask = f"""Answer as\n```json\n{{"a": 1}}\n```\nand no more"""\nprint(llm_query(ask))',
        "prompt = '''Text:\n```\nabc\n```\n\n```repl\nprint(1)\n```\n'''\nprint(prompt)",
        'import re\nfound = re.findall(r"```(?:json)?\\n(.*?)```", reply)',
        "# ```\nx = 1\n# it ends with ```\ny = 2",
        'text = "<|im_start|>"\nprint("""\nREPL output:\n""")\nFINAL("x")',
    ],
)
def test_case_02_backticks_in_the_code_do_not_cut_it(code: str) -> None:
    """The block closes at the first fence after which the code parses."""
    assert parse_reply(f"So:\n{block(code)}\nLet us see.") == Reply(
        blocks=(CodeBlock("repl", code),)
    )


def test_case_02_a_cut_block_never_runs() -> None:
    """Code that parses at no fence is not run, nor is anything after it, which may be a part of
    it.
    """
    text = block('x = = 1\ntext = """\n```python\nwipe()\n```\n"""') + block("y = 1")
    reply = parse_reply(text)
    assert codes(reply) == []
    assert kinds(reply) == ["not_python"]
    assert reply.notes[0].detail.startswith("SyntaxError: ")
    assert parse_reply(block("x = = 1")).notes == (
        Note("not_python", "SyntaxError: invalid syntax (line 1)\n    x = = 1\n        ^"),
    )


def test_case_10_a_last_reply_is_read_like_any_other() -> None:
    """A block that ends in FINAL_VAR(x) is a block."""
    assert codes(parse_reply("Final answer:\n" + block("x = 2\nFINAL_VAR(x)"))) == [
        "x = 2\nFINAL_VAR(x)"
    ]


@pytest.mark.parametrize(
    "token",
    [
        "<|im_start|>",
        "<|im_end|>\n<|im_start|>",
        "<|endoftext|>",
        "<\uff5cUser\uff5c>",
        "<start_of_turn>",
        "[INST]",
    ],
)
def test_case_11_a_leaked_chat_token_ends_the_reply(token: str) -> None:
    """The text after the token is an invented dialogue and does not count."""
    before = "Let me look.\n" + block("a = 1")
    reply = parse_reply(f"{before}{token}user\nREPL output: 3\n{block('b = 2')}\nFINAL(3)")
    assert codes(reply) == ["a = 1"]
    assert reply.final is None
    assert reply.cut == len(before)
    assert kinds(reply) == ["chat_token"]


def test_case_11_tokens_around_a_whole_reply_do_no_harm() -> None:
    """A token at the beginning or end of a reply, or quoted in prose, removes nothing and makes no
    note.
    """
    assert codes(parse_reply("<|im_start|>assistant\n" + block("a = 1") + "<|im_end|>")) == [
        "a = 1"
    ]
    assert parse_reply("<|im_start|>assistant\n" + block("a = 1") + "<|im_end|>").notes == ()
    assert codes(parse_reply("The text has `<|im_start|>` in it.\n" + block("a = 1"))) == ["a = 1"]
    final = parse_reply("FINAL(42)<|eot_id|>").final
    assert final is not None
    assert final.text == "42"


@pytest.mark.parametrize(
    "invention",
    [
        "REPL output:",
        "**REPL Output:**",
        "Output:\n```\n7\n```",
        "The output is:",
        "### Execution output",
        "[Output]",
        "stdout: 7",
        "Observation: 7",
        "Code executed:",
        "REPL output (7 characters):",
        "Output of block 1:",
        "Human: go on",
        "User:",
        "```output\n7\n```",
    ],
)
def test_case_12_only_what_precedes_an_invented_output_counts(invention: str) -> None:
    """After an output of the REPL that the model wrote itself, the reply is ignored."""
    before = "So.\n" + block("a = 1")
    reply = parse_reply(f"{before}{invention}\n7\n\nSo I go on:\n{block('b = 2')}\nFINAL(7)")
    assert codes(reply) == ["a = 1"]
    assert reply.final is None
    assert reply.cut == len(before)
    assert kinds(reply) == ["invented_output"]


@pytest.mark.parametrize(
    "prose",
    [
        "Expected output: a number.",
        "Output the result next.",
        "User questions come next:",
        "Next, the output.",
    ],
)
def test_case_12_prose_about_output_is_not_an_invention(prose: str) -> None:
    """Prose about output, and output before the first block, truncate nothing."""
    assert codes(parse_reply(f"{block('a = 1')}{prose}\n{block('b = 2')}")) == ["a = 1", "b = 2"]
    assert codes(parse_reply(f"Output:\n7\n{block('b = 2')}")) == ["b = 2"]


@pytest.mark.parametrize("label", ["repl", "python", ""])
def test_case_14_a_fence_that_never_closes_is_not_run(label: str) -> None:
    """A truncated block with pages of repetition results only in the note that its fence was not
    closed.
    """
    reply = parse_reply(f"Now:\n```{label}\n" + "print(context[0])\nthe same\n" * 600)
    assert codes(reply) == []
    assert kinds(reply) == ["unclosed_fence"]
    assert kinds(parse_reply(f"FINAL(1)\n```{label}\n" + "x = 1\n" * 3_000)) == [
        "unclosed_fence",
        "final_refused",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations\nx: int = 1",
        "repl\nx = 1",
        "python\nfrom __future__ import annotations",
        "import asyncio\nasyncio.run(main())",
        "replies = await asyncio.gather(*[llm_query(p) for p in prompts])",
        "async with lock:\n    x = await f()",
        "context = context[:100]",
    ],
)
def test_case_15_unusual_code_runs(code: str) -> None:
    """Future imports, label lines, top-level await and a rebound context are ordinary code."""
    assert parse_reply(block(code)) == Reply(blocks=(CodeBlock("repl", code),))


@pytest.mark.parametrize(
    "text",
    [
        "```repl\nx = 1\n```\n```\n",
        "```repl\nx = 1\n```\n\n```\n\nThat is all.",
        "````repl\nx = 1\n````",
        "``````repl\nx = 1\n``````",
        "````repl\nx = 1\n```",
        "```repl\nx = 1\n````",
        "```REPL\nx = 1\n```",
        "```Python\nx = 1\n```",
        "```  repl  \nx = 1\n```  ",
        "  ```repl\nx = 1\n  ```",
        "1. Look:\n   ```python\nx = 1\n   ```",
        "~~~repl\nx = 1\n~~~",
        "~~~\nx = 1\n~~~",
        "```repl\r\nx = 1\r\n```\r\n",
        "```repl\nx = 1```",
        "```repl\nx = 1\n``` Now we wait.",
        "```repl\n\nx = 1\n\n\n```",
        "* ```repl\nx = 1\n```",
        '```python title="a.py"\nx = 1\n```',
        "```{python}\nx = 1\n```",
        "```repl:\nx = 1\n```",
        "x = 1\n```",
    ],
)
def test_case_16_odd_fences_are_found(text: str) -> None:
    """Doubled, longer, shorter, indented, upper-case and tilde fences, and those glued to text,
    contain the block, without a note.
    """
    reply = parse_reply(text)
    assert [code.strip() for code in codes(reply)] == ["x = 1"]
    assert reply.notes == ()


def test_case_16_an_indented_block_is_kept_for_the_sandbox_to_dedent() -> None:
    """A block that is indented as a whole is valid Python."""
    reply = parse_reply("1. Do this:\n   ```repl\n   if x:\n       y = 1\n   ```\n")
    assert [textwrap.dedent(code) for code in codes(reply)] == ["if x:\n    y = 1"]


def test_case_16_what_follows_a_doubled_fence_is_read_on() -> None:
    """After a doubled closing fence neither a block nor a final is lost."""
    reply = parse_reply("```repl\nx = 1\n```\n```\nNext:\n```repl\ny = 2\n```\n```\n\nFINAL_VAR(y)")
    assert codes(reply) == ["x = 1", "y = 2"]
    assert reply.final == ProseFinal("variable", "y", "FINAL_VAR('y')")
    assert codes(parse_reply("```repl\nx = 1\n```\n```\ny = f(2)\n```\n")) == ["x = 1", "y = f(2)"]


@pytest.mark.parametrize("language", ["json", "bash", "JavaScript", "text", "c++"])
def test_case_19_another_language_is_named(language: str) -> None:
    """A block in another language is not run and is reported with its language, and the rest of the
    reply counts.
    """
    reply = parse_reply(f'```{language}\n{{"a": 1}}\n```\n{block("x = 1")}FINAL_VAR(x)')
    assert reply.blocks == (
        CodeBlock(language.lower(), '{"a": 1}', Note("other_language", language.lower())),
        CodeBlock("repl", "x = 1"),
    )
    assert kinds(reply) == ["other_language"]
    assert reply.final is not None
    assert kinds(parse_reply(f'```{language}\n{{"a": 1}}\n')) == ["unclosed_fence"]


def test_several_blocks_keep_their_order() -> None:
    """All blocks of a reply run, labelled or not, with prose between them."""
    second, third = block("b = f(2)", label=""), block("c = 3", label="python")
    text = f"First.\n{block('a = 1')}Then.\n{second}Last.\n{third}"
    assert [(each.language, each.code) for each in parse_reply(text).blocks] == [
        ("repl", "a = 1"),
        ("", "b = f(2)"),
        ("python", "c = 3"),
    ]


def test_a_missing_closing_fence_before_the_next_block_is_forgiven() -> None:
    """A complete block closes where the next one opens."""
    assert codes(parse_reply("```repl\na = 1\n```repl\nb = 2\n```\n")) == ["a = 1", "b = 2"]
    assert codes(parse_reply('```repl\na = 1\n```json\n{"a": 1}\n```\n')) == ["a = 1"]


@pytest.mark.parametrize(
    "quoted", ["The king left.", "48213", "yes, no", "Answer: Paris", "| a | b |\n|---|---|", ""]
)
def test_an_unlabelled_fence_around_words_is_a_quotation(quoted: str) -> None:
    """Only code in an unlabelled fence is a block; text is neither run nor an error."""
    reply = parse_reply(f"It says:\n```\n{quoted}\n```\nFINAL(42)")
    assert reply == Reply(final=ProseFinal("value", "42", "FINAL(42)"))


def test_a_stray_fence_hides_nothing() -> None:
    """A stray closing fence does not hide the block after it."""
    assert codes(parse_reply("Some words.\n```\nMore words.\n" + block("a = 1"))) == ["a = 1"]
    assert codes(parse_reply(block("a = 1") + "Words.\n```")) == ["a = 1"]


@pytest.mark.parametrize(
    "text",
    [
        "print(context[:500])",
        "import re\nfound = re.findall('x', context)\nfound[:3]",
        "repl\nx = 1",
        "x = 5\nFINAL(x)",
        "for line in context.splitlines():\n    if 'a' in line:\n        print(line)",
        "  \nanswer['content'] = 'x'\nanswer['ready'] = True\n",
        "await llm_query('x')",
        "print(1)<|im_end|>",
    ],
)
def test_a_reply_that_is_all_code_needs_no_fence(text: str) -> None:
    """A reply that parses as a whole, and calls or binds something, is code."""
    assert codes(parse_reply(text)) == [text.removesuffix("<|im_end|>").strip()]
    assert parse_reply(text).final is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "Yes",
        "yes, no",
        "Answer: Paris",
        "answer: 42",
        "not sure",
        "Paris (France)",
        "pass",
        "x",
        "'quoted'",
        "Yes\nprint(1)",
        "Let me look.\nprint(context[:5])",
        "I think that the answer is 42.",
    ],
)
def test_prose_is_not_code(text: str) -> None:
    """Prose that happens to be valid Python is prose."""
    assert parse_reply(text) == Reply()


@pytest.mark.parametrize(
    "thoughts",
    [
        "<think>Maybe FINAL(1)\n\nFINAL(1)\n```repl\nwrong()\n```\n</think>\n",
        "Maybe.\nFINAL(1)\n```repl\nwrong()\n```\n</think>\n\n",
    ],
)
def test_thoughts_do_not_count(thoughts: str) -> None:
    """The text of thinking tags is neither run nor final, even if the server left the tags in the
    reply.
    """
    assert codes(parse_reply(f"{thoughts}So:\n{block('right()')}")) == ["right()"]
    assert parse_reply(f"{thoughts}So it is no final.") == Reply()
    assert codes(parse_reply(block("parts = text.split('</think>')"))) == [
        "parts = text.split('</think>')"
    ]


def test_notes_of_python_s_parser_make_no_warnings() -> None:
    """Invalid escapes in a model's code do not warn in the host, where tests turn warnings into
    errors.
    """
    assert codes(parse_reply(block("re.findall('\\d', context)"))) == ["re.findall('\\d', context)"]


async def test_the_offline_root_s_programs_are_blocks() -> None:
    """Every reply of the offline root has exactly one block."""
    query = 'What is a "```repl\n" fence, FINAL(\'x\') and """?'
    messages = [Message("user", query)]
    for step in (1, 2, 3):
        reply = (
            await OfflineLM().complete(Request(messages=tuple(messages), role="root", query=query))
        ).text
        assert [each.note for each in parse_reply(reply).blocks] == [None]
        messages += [Message("assistant", reply), Message("user", f"Step {step} of 3 is done.")]
