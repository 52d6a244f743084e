"""What real models write, and the expected behaviour: the cases of facts/models.md, from the reply
to the result.
"""

import pytest
from pydantic import BaseModel

from rlm_integrations.records import LLMError
from tests.engine.conftest import Scripted, code, final, run

BAD = "Let me try.\n```repl\nx = 1\nraise ValueError('half way')\n```\n"


async def test_case_01_a_fence_glued_to_prose_opens_and_an_inline_mention_does_not() -> None:
    """The real block runs although its fence follows a sentence on the same line, and prose
    mentions ```repl blocks before it.
    """
    root = Scripted(
        [
            "I will write ```repl blocks, as asked. Let me do that now.```repl\nx = 20 + 1\nprint('ran', x)\n```",
            final("x * 2"),
        ]
    )
    result = await run(root)
    assert result.answer == "42"
    assert [execution.stdout for execution in result.repl_history] == ["ran 21\n", ""]


async def test_case_02_backticks_inside_a_string_do_not_close_the_block() -> None:
    """A block closes at the first fence after which its code parses; a truncated block never
    runs.
    """
    block = '```repl\ntext = """\n```python\nprint(1)\n```\n"""\nprint(len(text))\n```'
    cut = "```repl\nprint('this must not run')\nprint('and this is cut"
    root = Scripted([block, cut, final("len(text)")])
    result = await run(root)
    assert result.answer == str(len("\n```python\nprint(1)\n```\n"))
    assert [turn.executions == () for turn in result.trajectory] == [False, True, False]
    assert "its fence was not closed" in root.told[2]


async def test_case_03_what_was_bound_before_an_error_stays_bound() -> None:
    """Imports, names and replies of a block that raises halfway are available in the next one."""
    root = Scripted(
        [
            code("import math", "paid = llm_query('once')", "1 / 0", "never = 1"),
            final("f'{paid} {math.floor(2.5)}'"),
        ]
    )
    result = await run(root)
    assert result.answer == "re: once 2"
    assert root.asked == ["once"]
    assert "ZeroDivisionError" in root.told[1]
    assert result.repl_history[0].status == "error"


async def test_case_04_every_builtin_is_there_and_a_forbidden_one_says_why() -> None:
    """`frozenset`, `globals`, `callable` and exceptions exist; `input` raises a helpful error."""
    root = Scripted(
        [
            code(
                "print(frozenset('a'), callable(len), SyntaxError.__name__, 'x' in globals())",
                "input('?')",
            ),
            final("'went on'"),
        ]
    )
    result = await run(root)
    assert result.answer == "went on"
    assert "frozenset({'a'}) True SyntaxError False" in root.told[1]
    assert "input() does not work here" in root.told[1]


@pytest.mark.parametrize(
    ("last", "shown"),
    [("total", "6"), ("sorted([3, 1, 2])", "[1, 2, 3]"), ("SHOW_VARS()", "total: int")],
)
async def test_case_05_a_last_expression_is_echoed(last: str, shown: str) -> None:
    """The value of a bare name or call at the end of a block is shown to the model."""
    root = Scripted([code("total = 1 + 2 + 3", last), final("total")])
    await run(root)
    assert shown in root.told[1]


async def test_case_06_final_of_a_bare_name_in_prose_is_the_variables_value() -> None:
    """`FINAL(random_number)` answers with the value of the variable."""
    root = Scripted([code("random_number = 8231"), "I have it.\n\nFINAL(random_number)"])
    assert (await run(root)).answer == "8231"


async def test_case_07_final_in_code_is_a_real_function() -> None:
    """Its argument is a Python expression, with any brackets and commas in its strings."""
    root = Scripted([code("a = 'Bob'", "b = 'Al (jr)'", 'FINAL(a + ", ally " + b)')])
    result = await run(root)
    assert (result.answer, result.stop_reason, result.iterations) == (
        "Bob, ally Al (jr)",
        "final",
        1,
    )


async def test_case_08_talk_of_finishing_beside_code_is_not_final() -> None:
    """Prose that explains how it will finish is not a final."""
    root = Scripted(
        [
            'I will finish with either FINAL_VAR(name) or FINAL("answer") later.\n'
            + code("name = 'the name'"),
            "FINAL_VAR(name)",
        ]
    )
    result = await run(root)
    assert (result.answer, result.iterations) == ("the name", 2)


async def test_case_09_blocks_run_before_the_final_beside_them_is_resolved() -> None:
    """`FINAL_VAR(x)` beside the code that makes x answers with x."""
    root = Scripted([code("x = 6 * 7", "print(x)") + "\n\nFINAL_VAR(x)"])
    result = await run(root)
    assert (result.answer, result.iterations) == ("42", 1)


@pytest.mark.parametrize("finish", ["\nFINAL_VAR(x)", "\nFINAL(42)", "\nFINAL(x + 1)"])
async def test_case_09_a_final_beside_a_block_that_failed_is_refused(finish: str) -> None:
    """The error is sent to the model, with the note that its final was refused."""
    root = Scripted([BAD + finish, final("x + 41")])
    result = await run(root)
    assert (result.answer, result.iterations) == ("42", 2)
    assert "half way" in root.told[1]
    assert "final answer was not taken" in root.told[1]


async def test_case_09_final_called_in_a_block_that_fails_is_refused() -> None:
    """The same if the code called FINAL, in the failed block or an earlier one, and again in
    prose.
    """
    root = Scripted(
        [
            code("FINAL(1)", "1 / 0"),
            code("FINAL(2)") + "\n" + code("1 / 0") + "\nFINAL(3)",
            final("4"),
        ]
    )
    result = await run(root)
    assert (result.answer, result.iterations) == ("4", 3)
    assert all("final answer was not taken" in told for told in root.told[1:])


async def test_case_10_a_forced_last_reply_with_code_is_run() -> None:
    """The closing reply at the limit of turns is parsed and run like any other."""
    root = Scripted([code("x = 'found'"), code("y = x.upper()") + "\nFINAL_VAR(y)"])
    result = await run(root, max_iterations=1)
    assert (result.answer, result.stop_reason, result.iterations) == ("FOUND", "max_iterations", 2)
    assert "This is the last turn" in root.told[1]


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<start_of_turn>"])
async def test_case_11_a_reply_is_cut_at_a_leaked_chat_token(token: str) -> None:
    """The dialogue that a model invents after the token is neither run nor kept in the
    conversation.
    """
    root = Scripted(
        [
            code("x = 1")
            + f"\n{token}user\nREPL says 5\n{token}assistant\n"
            + code("x = 666", "FINAL(x)"),
            final("x"),
        ]
    )
    result = await run(root)
    assert (result.answer, len(result.repl_history)) == ("1", 2)
    assert all(
        token not in message.content for message in result.messages if message.role == "assistant"
    )
    assert "666" in result.trajectory[0].reply


@pytest.mark.parametrize(
    "heading", ["REPL output:", "**Output:**", "Output:\n```\n666\n```", "Execution result:"]
)
async def test_case_12_what_follows_an_invented_output_does_not_run(heading: str) -> None:
    """Only the part before the invented output counts, and the model is told."""
    root = Scripted(
        [
            code("x = 1", "print(x)") + f"\n\n{heading}\n666\n\n" + code("x = 666", "FINAL(x)"),
            final("x"),
        ]
    )
    result = await run(root)
    assert result.answer == "1"
    assert "666" not in "".join(
        message.content for message in result.messages if message.role == "assistant"
    )
    assert "you wrote the REPL's output yourself" in root.told[1]


async def test_case_13_the_same_reply_five_times_is_nudged_and_then_stopped() -> None:
    """From the second time on the model is told; the fifth time ends the run with a reason and the
    best answer so far.
    """
    root = Scripted([code("print('looking')")] * 20)
    result = await run(root)
    assert (result.stop_reason, result.iterations, result.answer) == (
        "repeated_reply",
        5,
        "looking",
    )
    assert ["same as the one before" in told for told in root.told] == [
        False,
        False,
        True,
        True,
        True,
    ]


async def test_case_13_replies_that_differ_are_not_repetition() -> None:
    """Only identical replies in a row count."""
    root = Scripted([code("print('looking')"), code("print('thinking')")] * 4 + [final("'done'")])
    assert (await run(root)).answer == "done"


async def test_case_14_pages_of_repetition_in_an_open_fence_are_not_run() -> None:
    """The model is told that the fence was not closed."""
    root = Scripted(["```repl\n" + "print('again')\n" * 1_000, final("'recovered'")])
    result = await run(root)
    assert (result.answer, len(result.repl_history)) == ("recovered", 1)
    assert "its fence was not closed" in root.told[1]


@pytest.mark.parametrize(
    "block",
    [
        code(
            "from __future__ import annotations", "def f(x: Unknown): return x", "FINAL(f('right'))"
        ),
        code("repl", "FINAL('right')"),
        code("python", "FINAL('right')"),
        code(
            "import asyncio",
            "async def f():",
            "    return llm_query('p')",
            "asyncio.run(f())",
            "FINAL('right')",
        ),
        code(
            "import asyncio",
            "r = await asyncio.gather(llm_query('a'), llm_query('b'))",
            "FINAL('right' if r[1] == 're: b' else r)",
        ),
        code("r = await llm_query('p')", "FINAL('right' if r == 're: p' else r)"),
    ],
)
async def test_case_15_oddities_of_code_work(block: str) -> None:
    """A future import, a label line, `asyncio.run` and top-level await work."""
    assert (await run(Scripted([block]))).answer == "right"


async def test_case_15_context_and_host_functions_are_restored_before_each_block() -> None:
    """A block that overwrites them affects only itself; even FINAL is restored."""
    root = Scripted(
        [code("context = None", "FINAL = llm_query = store = 5"), final("llm_query(context)")]
    )
    assert (await run(root, "the words")).answer == "re: the words"


@pytest.mark.parametrize(
    "reply",
    [
        "```repl\nFINAL('right')\n```\n```",
        "````repl\nFINAL('right')\n````",
        "```REPL\nFINAL('right')\n```",
        "   ```repl\n   FINAL('right')\n   ```",
        "~~~repl\nFINAL('right')\n~~~",
        "```Python\nFINAL('right')\n```",
        "FINAL('right')",
    ],
)
async def test_case_16_odd_fences_are_found(reply: str) -> None:
    """A doubled closing fence, four backticks, an upper-case or indented label, tildes and a
    missing fence are recognized.
    """
    result = await run(Scripted([reply]))
    assert (result.answer, result.iterations) == ("right", 1)


async def test_case_17_final_var_without_such_a_variable_is_not_final() -> None:
    """The model is told which variables exist, in prose and in code."""
    root = Scripted(
        [
            code("answer_14 = 'fourteen'"),
            'FINAL_VAR("14")',
            code('FINAL_VAR("14")'),
            'FINAL_VAR("answer_14")',
        ]
    )
    result = await run(root)
    assert (result.answer, result.iterations) == ("fourteen", 4)
    assert all(
        "there is no such variable" in told and "answer_14" in told for told in root.told[2:]
    )


async def test_case_18_a_final_in_the_middle_of_reasoning_is_ignored() -> None:
    """`The result is FINAL(42)` does not finish; alone, with nested parentheses, it does."""
    root = Scripted(
        [
            "The result is FINAL(42) if nothing else is found",
            code("def func(a, b): return a * b"),
            "FINAL(func(6, (7)))",
        ]
    )
    result = await run(root)
    assert (result.answer, result.iterations) == ("42", 3)
    assert "neither a block of code nor a final answer" in root.told[1]


async def test_case_19_a_block_in_another_language_is_named_and_recoverable() -> None:
    """A json fence is not Python; the model is told, and the next reply may succeed."""
    root = Scripted(['```json\n{"tool": "search"}\n```', final("'recovered'")])
    result = await run(root)
    assert (result.answer, len(result.repl_history)) == ("recovered", 1)
    assert "Your json block was not run" in root.told[1]


class City(BaseModel):
    name: str
    people: int


async def test_case_20_an_invalid_typed_answer_is_sent_back() -> None:
    """The validation error is sent to the model, and its next answer succeeds."""
    root = Scripted(
        [final("{'name': 'Ulm', 'people': 'many'}"), final("{'name': 'Ulm', 'people': 128000}")]
    )
    result = await run(root, output_type=City)
    assert result.answer == City(name="Ulm", people=128000)
    assert "people: Input should be a valid integer" in root.told[1]


async def test_case_21_a_bad_item_of_a_batch_is_an_error_in_its_slot_alone() -> None:
    """Order and length are kept; an empty batch is an empty list without a call."""
    root = Scripted(
        [
            code(
                "r = llm_batch(['good', None, 'good'])",
                "print(type(r[1]).__name__, r[1].type, r[::2])",
                "FINAL([r, llm_batch([])])",
            )
        ]
    )
    result = await run(root)
    assert (
        result.answer
        == '[["re: good", "Error: input: a prompt must be a string, not NoneType", "re: good"], []]'
    )
    assert result.repl_history[0].stdout == "LLMError input ['re: good', 're: good']\n"
    assert root.asked == ["good", "good"]


@pytest.mark.parametrize(
    ("block", "answer"),
    [
        (code("FINAL(llm_query_batched(['a', 'b']))"), '["re: a", "re: b"]'),
        (code("FINAL(rlm_query('q', 'part'))"), "re: Question: q\n\npart"),
        (
            code("FINAL(rlm_query_batched([{'query': 'q', 'context': 'part'}]))"),
            '["re: Question: q\\n\\npart"]',
        ),
        (code("SUBMIT('done')"), "done"),
        (code("final_answer('done')"), "done"),
        ("SUBMIT('done')", "done"),
        ("final_answer(41 + 1)", "42"),
        (code("x = 5", "print(SHOW_VARS())", "FINAL('x' in SHOW_VARS())"), "true"),
        (code("answer['content'] = 'done'", "answer['ready'] = True"), "done"),
        (code("answer['ready'] = True", "answer['content'] = 'done'"), "done"),
        (code("answer = {'content': 'done', 'ready': True}"), "done"),
    ],
)
async def test_dialects(block: str, answer: str) -> None:
    """Names of other libraries work, without a word in the prompt."""
    root = Scripted([block])
    result = await run(root)
    assert (result.answer, result.iterations) == (answer, 1)
    assert not any(
        name in root.requests[0].messages[0].content
        for name in ("SUBMIT", "rlm_query", "llm_query_batched", "final_answer")
    )


async def test_dialect_of_the_answer_dict_is_final_only_when_ready() -> None:
    """Content alone does not finish, and a variable of that name may be the model's own."""
    root = Scripted(
        [
            code("answer['content'] = 'draft'"),
            code("answer = 'a string of my own'"),
            final("answer"),
        ]
    )
    result = await run(root)
    assert (result.answer, result.iterations) == ("a string of my own", 3)


async def test_a_failed_reply_is_a_string_that_begins_with_error() -> None:
    """A failed reply is a string that begins with "Error:" and its type, for code that knows only
    strings.
    """
    root = Scripted(
        [code("r = llm_batch(['ok', 5])", "FINAL([str(x).startswith('Error:') for x in r])")]
    )
    result = await run(root)
    assert result.answer == "[false, true]"
    assert isinstance(LLMError("input", "x"), str)
