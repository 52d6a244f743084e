"""Rules that hold for any reply."""

import ast
import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.engine.parsing import parse_reply
from rlm_integrations.sandbox import rewrite

PIECES = [
    "```",
    "````",
    "~~~",
    "repl",
    "python",
    "json",
    "output",
    "\n",
    "\n\n",
    "   ",
    "\r\n",
    "FINAL(",
    "FINAL_VAR(",
    "SUBMIT(",
    ")",
    '"',
    "'",
    '"""',
    "\\",
    "x = 1",
    "print(x)",
    "f(x",
    "# a",
    "if x:\n    y",
    "The result is",
    "Done.",
    "REPL output:",
    "<|im_start|>",
    "<think>",
    "</think>\n",
    "`",
    "é",
    "\x00",
    "\ud800",
    "x: int",
    "14.0",
    "FINAL ANSWER: ",
    "FINAL_VAR(x)",
    "relude",
    "final",
    "text",
    "t += base Costs[x]",
    "x(answer=1)",
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=40).map("\n".join),
    st.text(max_size=300),
)
SECRET = "Zq7"


@settings(max_examples=600, deadline=None)
@given(TEXTS)
def test_every_reply_is_parsed(text: str) -> None:
    """Parsing never raises; each block parses as Python or has a note; only the last block may have
    failed, and then nothing is final.
    """
    reply = parse_reply(text)
    for block in reply.blocks:
        if block.note is None:
            rewrite.parse_block(block.code, "reply")
            assert block.code in text
        else:
            assert block.note in reply.notes
    failed = [
        block
        for block in reply.blocks
        if block.note is not None and block.note.kind != "other_language"
    ]
    assert failed in ([], [reply.blocks[-1]] if reply.blocks else [])
    assert not (failed and reply.final)
    if reply.final is not None:
        ast.parse(reply.final.code)
    assert reply.cut is None or 0 <= reply.cut <= len(text)
    assert parse_reply(text) == reply


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                f"FINAL({SECRET})",
                "REPL output:",
                "<|im_start|>",
                "Human:",
                "x = 1",
                "",
                "```json",
                "'",
                "(a",
            ]
        ),
        max_size=8,
    )
)
def test_no_rule_about_prose_looks_inside_a_fence(lines: list[str]) -> None:
    """Whatever the strings of a block contain, the block runs completely, and nothing in it is a
    final or an invented output.
    """
    code = (
        "text = "
        + repr("\n".join(lines)).replace("\\n", "\\\n\\n")
        + "\nmore = '''\n"
        + "\n".join(lines).replace("'", "")
        + "\n'''"
    )
    ast.parse(code)
    reply = parse_reply(f"So.\n```repl\n{code}\n```\nWe shall see.")
    assert [block.code for block in reply.blocks] == [code]
    assert (reply.final, reply.notes, reply.cut) == (None, (), None)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["a = 1", 'b = "```"', "c = '''\n```\n'''", "d = f(2)", 'e = """\n```repl\nx\n```\n"""']
        ),
        min_size=1,
        max_size=6,
    )
)
def test_blocks_are_parsed_as_written(written: list[str]) -> None:
    """Any sequence of complete blocks, with fences in their strings, is parsed to the same
    sequence.
    """
    text = "\n".join(f"Step {number}.\n```repl\n{code}\n```" for number, code in enumerate(written))
    assert [block.code for block in parse_reply(text).blocks] == written


HARD = [
    "```",
    "```\n",
    "```repl\n",
    "```repl\nx\n```\n",
    "```repl\nx = (\n```\n",
    "```repl\n'''\n```\n",
    "a ```repl\n",
    "``` ",
    "~~~\n",
    "FINAL(",
    "FINAL(\n",
    'FINAL("\n',
    "FINAL(x)\n",
    "a.FINAL(x) ",
    "FINAL_VAR(')\n",
    "(",
    "()",
    "\\",
    "'",
    "<|",
    "<|im_start|>",
    "<|a|> ",
    "</think>",
    "<think>",
    "Output: ",
    "output of \n",
    "REPL ",
    "***\n",
    " ",
    "\n",
    "\t\n",
    "x = 1\n",
    "x=f(1);",
    "print(context[0])\n",
    "the same words again and again. ",
    "a.b",
    "-",
    "[",
    "é",
]


def spent_on(text: str) -> float:
    """CPU seconds for one reply, without garbage collections."""
    gc.disable()
    try:
        before = time.process_time()
        parse_reply(text)
        return time.process_time() - before
    finally:
        gc.enable()


@pytest.mark.exhaustive
@pytest.mark.parametrize("piece", HARD)
@pytest.mark.parametrize("start", ["", "```repl\nx = 1\n```\n", 'FINAL("'])
def test_repetition_takes_linear_time(piece: str, start: str) -> None:
    """Sixteen times as many repeated characters take far less than 16 * 16 times as long."""
    short, long = (start + piece * (length // len(piece)) for length in (30_000, 480_000))
    assert any(spent_on(long) < 64 * max(spent_on(short), 0.0005) for _ in range(3))
