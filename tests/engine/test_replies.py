"""Cases from heavy use with real models, by their number in the facts about replies, from the reply
to the result.
"""

from typing import Any

import pytest

from rlm_integrations import RLMResult
from rlm_integrations.engine.parsing import parse_reply
from rlm_integrations.records import Completion, Request, Usage
from tests.engine.conftest import Scripted, code, final, run


def fenced(text: str, label: str) -> str:
    return f"```{label}\n{text}\n```"


async def answered(*script: str, turns: int | None = None, **options: Any) -> RLMResult:
    """A run whose root gives these replies in turn, with no more turns than needed."""
    return await run(Scripted(script), max_iterations=turns or len(script), **options)


async def told(*script: str, **options: Any) -> str:
    """What the root is told about the first of these replies."""
    root = Scripted(script)
    await run(root, **options)
    return root.told[1]


# D1


@pytest.mark.parametrize("name", ["final_answer", "SUBMIT", "answer"])
@pytest.mark.parametrize(
    "finish", ["FINAL_VAR({})", "FINAL({})", code("FINAL_VAR('{}')"), code("FINAL({})")]
)
async def test_d01_a_variable_of_a_dialects_name_is_the_models_own(name: str, finish: str) -> None:
    """A variable `final_answer` that the model binds keeps its value: in the same reply, in later
    turns, and in the list of variables.
    """
    result = await answered(code(f"{name} = 'forty-two'"), finish.format(name))
    assert (result.answer, result.stop_reason) == ("forty-two", "final")
    result = await answered(code(f"{name} = 'forty-two'") + "\n\n" + finish.format(name))
    assert (result.answer, result.stop_reason) == ("forty-two", "final")
    assert f"{name} (str, 9 characters)" in await told(code(f"{name} = 'forty-two'"), final("1"))


@pytest.mark.parametrize(
    "part",
    [
        "answer",
        "store",
        "cite",
        "llm_query",
        "final_answer",
        "SUBMIT",
        "SHOW_VARS",
        "SpanRef",
        "store.create",
        "len",
        "json",
        "FINAL",
    ],
)
@pytest.mark.parametrize(
    "finish",
    [
        "FINAL_VAR({})",
        "FINAL({})",
        code("FINAL_VAR('{}')"),
        code("FINAL({})"),
        code("FINAL([1, {}])"),
    ],
)
async def test_d01_no_object_of_the_repl_is_ever_an_answer(part: str, finish: str) -> None:
    """Functions, modules, the store and the unused dict `answer` are refused, in code and in prose,
    alone and in a list.
    """
    root = Scripted([finish.format(part), final("'the real one'")])
    result = await run(root)
    assert (result.answer, result.stop_reason) == ("the real one", "final")
    assert "no such variable" in root.told[1]


async def test_d01_the_dict_answer_is_an_answer() -> None:
    """FINAL of the dict `answer` returns its content."""
    assert (
        await answered(code("answer['content'] = 'done'", "FINAL_VAR('answer')"))
    ).answer == "done"


# D2


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (code("x = 42", "SUBMIT(answer=x)"), "42"),
        (code("x = 42") + "\nSUBMIT(answer=x)", "42"),
        (code("final_answer(answer='Rome')"), "Rome"),
        ("SUBMIT(answer='Rome', year=1)", '{"answer": "Rome", "year": 1}'),
        (code("SUBMIT('a', {'q': 1}, 'c')"), '["a", {"q": 1}, "c"]'),
        (code("SUBMIT('a', 'b')"), '["a", "b"]'),
        (code("SUBMIT(evidence='a field')"), "a field"),
        (code("FINAL(answer=7)"), "7"),
    ],
)
async def test_d02_submit_takes_fields_and_several_values(reply: str, answer: str) -> None:
    """One field is its value, several are a dict, several values a list, as in other libraries."""
    result = await answered(reply)
    assert (result.answer, result.stop_reason) == (answer, "final")


async def test_d02_submit_takes_evidence_by_name() -> None:
    """`evidence=` next to a value or a field is evidence, as for FINAL."""
    result = await answered(code("SUBMIT(answer='x', evidence=['a small'])"))
    assert (result.answer, [each.quote for each in result.citations]) == ("x", ["a small"])


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ('FINAL(f"It is {nothing}")', "name 'nothing' is not defined"),
        ('FINAL(found["x"])', "name 'found' is not defined"),
        ("FINAL(summary.upper())", "name 'summary' is not defined"),
        ("FINAL(compute(a))", "name 'compute' is not defined"),
        ("FINAL('It is ' + nothing)", "name 'nothing' is not defined"),
        ("SUBMIT(answer=nothing)", "name 'nothing' is not defined"),
        ("SUBMIT(1, answer=2)", "either values or named fields"),
        ("FINAL_VAR(\"store['x']\")", "'store' object is not subscriptable"),
    ],
)
async def test_d02_code_that_fails_is_never_its_own_answer(reply: str, error: str) -> None:
    """An expression with a call, an f-string, a subscript, an attribute, a string or a keyword is
    code, and its error is reported.
    """
    root = Scripted([reply, final("'mended'")])
    assert (await run(root)).answer == "mended"
    assert error in root.told[1]
    assert not any(name in root.told[1] for name in ("Repl", "Finals", "_final"))


@pytest.mark.parametrize(
    "words", ["Paris, France", "Paris (France)", "Tom or Jerry", "42 - 3", "Sansa"]
)
async def test_d02_prose_that_is_valid_python_is_an_answer(words: str) -> None:
    """Text without any code syntax is an answer."""
    assert (await answered(f"FINAL({words})")).answer == {"42 - 3": "39"}.get(words, words)


@pytest.mark.parametrize("terms", [10, 500, 2_000, 5_000])
@pytest.mark.parametrize(
    "form",
    [
        "FINAL({})",
        "FINAL_VAR({})",
        "SUBMIT({}, 1)",
        "FINAL ANSWER: {}",
        fenced("FINAL({} x)", "python"),
    ],
)
async def test_d02_deeply_nested_text_is_an_answer(terms: int, form: str) -> None:
    """However deep an expression nests, the reply is parsed: its text is the answer."""
    text = form.format(" - ".join(["a"] * terms))
    final = parse_reply(text).final
    assert final is not None
    assert final.text.startswith("a - a - a")


async def test_d02_errors_name_the_called_function() -> None:
    """The error of a wrong call has the name that the model used."""
    assert (
        "TypeError: FINAL() takes from 0 to 2 positional arguments but 3 were given"
        in await told(code("FINAL(1, 2, 3)"), final("1"))
    )
    assert "TypeError: FINAL() takes either values or named fields" in await told(
        code("FINAL()"), final("1")
    )
    assert "TypeError: FINAL_VAR() missing 1 required positional argument: 'name'" in await told(
        code("FINAL_VAR()"), final("1")
    )


# D3


@pytest.mark.parametrize(
    ("closing", "answer"),
    [
        (code('FINAL_VAR("The ally was Sansa.")'), "The ally was Sansa."),
        ('FINAL_VAR("The ally was Sansa.")', "The ally was Sansa."),
        (code('FINAL_VAR("Sansa")'), "Sansa"),
        ('FINAL_VAR("Sansa")', "Sansa"),
        (code('r = llm_query("sum up")', "print(r)"), "found 42"),
        (code("print(llm_batch(['a', 'b']))"), "found 42"),
        ("So:\n" + code('FINAL("a\nb")'), "a\nb"),
        ("So:\n```repl\nFINAL(The ally was Sansa.", "found 42"),
        (code("FINAL(1)", "FINAL(2)"), "[1, 2]"),
        (code("FINAL_VAR('final_answer')"), "found 42"),
        ("FINAL_VAR(answer)", "found 42"),
    ],
)
async def test_d03_the_closing_turn_accepts_a_clear_answer(closing: str, answer: str) -> None:
    """A literal FINAL_VAR, and a lone FINAL that is not valid Python, are the answer; the error of
    a refused call never is.
    """
    result = await answered(code("print('found 42')"), closing, turns=1)
    assert (result.answer, result.stop_reason) == (answer, "max_iterations")


# D4


@pytest.mark.parametrize(
    "reply",
    [
        code('FINAL_VAR("Sansa Stark")'),
        'FINAL_VAR("Sansa Stark")',
        "FINAL_VAR(Sansa Stark, queen)",
        code("FINAL_VAR('$14.5')"),
    ],
)
async def test_d04_final_var_of_a_string_that_is_not_a_name(reply: str) -> None:
    """FINAL_VAR of a string that is not a valid name returns the string."""
    result = await answered(reply)
    assert (
        result.answer in {"Sansa Stark", "Sansa Stark, queen", "$14.5"},
        result.stop_reason,
    ) == (True, "final")


@pytest.mark.parametrize(
    "reply", [code("x = 1", 'FINAL_VAR("Sansa")'), code("x = 1") + '\nFINAL_VAR("Sansa")']
)
async def test_d04_the_hint_for_a_string_is_given_in_code_and_in_prose(reply: str) -> None:
    """The error for an unknown name lists the variables, and says how to return a string."""
    seen = await told(reply, final("1"))
    assert "FINAL_VAR('Sansa'): there is no such variable." in seen
    assert "x" in seen
    assert "For a string, use FINAL('Sansa')." in seen


@pytest.mark.parametrize(
    "reply",
    [
        code("FINAL_VAR(\"found['a'][0]\")"),
        "FINAL_VAR(\"found['a'][0]\")",
        "FINAL_VAR(found['a'][0])",
    ],
)
async def test_d04_a_quoted_look_up_is_looked_up(reply: str) -> None:
    """FINAL_VAR of a string such as "found['a']" returns that value."""
    assert (await answered(code("found = {'a': ['Rossi']}"), reply)).answer == "Rossi"


# D5


@pytest.mark.parametrize("fence", ["```relude", "```undo\n", "```python"])
@pytest.mark.parametrize("token", ["<|im_start|>user", "<|im_end|>\n<|im_start|>assistant"])
async def test_d05_a_closing_fence_with_a_label_hides_no_chat_token(fence: str, token: str) -> None:
    """A closing fence with an unknown label, or followed by a token, opens nothing."""
    invented = f"```repl\nprint(len(context))\n{fence}\n{token}\n5\n```repl\nFINAL('invented')\n```"
    result = await answered(invented, final("'real'"))
    assert (result.answer, result.repl_history[0].code) == ("real", "print(len(context))")
    assert [note.kind for note in parse_reply(invented).notes] == ["chat_token"]


# D6


@pytest.mark.parametrize("depth", [1, 2])
async def test_d06_rlm_query_takes_a_prompt_alone(depth: int) -> None:
    """As upstream, it takes a complete prompt or a list of prompts; at the limit of depth the
    sub-model gets just that.
    """
    root = Scripted(
        {
            "What is it?": [
                code(
                    "FINAL([rlm_query('Sum up: a b'), *rlm_query_batched(['Sum up: c', 'Sum up: d'])])"
                )
            ],
            "Do what": [final("context")],
        }
    )
    result = await run(root, max_depth=depth)
    sent = ["Sum up: a b", "Sum up: c", "Sum up: d"]
    said = sent if depth == 2 else [f"re: {prompt}" for prompt in sent]
    assert result.answer == str(said).replace("'", '"')


async def test_d06_rlm_query_takes_a_model_or_a_context_too() -> None:
    """The second argument is the name of a registered model, as upstream, or the context; any other
    model is refused.
    """
    subs = {
        "fast": Scripted(name="fast", answer=lambda _: "from fast"),
        "strong": Scripted(name="strong", answer=lambda _: "from strong"),
    }
    root = Scripted(
        [code("FINAL([rlm_query('p', 'strong'), rlm_query('p', model='strong'), rlm_query('p')])")]
    )
    assert (await run(root, sub_llm=subs)).answer == '["from strong", "from strong", "from fast"]'
    assert (
        await answered(code("FINAL(rlm_query('q', 'part'))"))
    ).answer == "re: Question: q\n\npart"
    assert "model='gpt-4' is not registered" in await told(
        code("rlm_query('p', model='gpt-4')"), final("1")
    )


# D7


async def test_d07_a_syntax_error_has_block_line_and_skipped_blocks() -> None:
    """The message has the block's number, the line with a caret, and that later blocks did not
    run.
    """
    seen = await told(
        "\nthen\n".join([code("print(1)"), code("if x\n  y"), code("print(3)")]), final("1")
    )
    assert seen == (
        "REPL output of block 1 of 3:\n1\n\nBlock 2 of 3 was not run, nor was what follows: it is not valid Python.\n"
        "SyntaxError: expected ':' (line 1)\n    if x\n        ^"
    )


async def test_d07_a_newline_in_quotes_is_reported_with_advice() -> None:
    """The line is shown once, with the advice to use triple quotes or FINAL_VAR."""
    seen = await told(code('FINAL("## Title\n\ntext")'), final("1"))
    assert seen.count("line 1") == 1
    assert '"""' in seen
    assert "FINAL_VAR" in seen


# D8


async def test_d08_a_rebound_name_is_reported_at_once() -> None:
    """A model that rebinds `context` or `store` is told at once that they are restored for the next
    block.
    """
    root = Scripted(
        [
            code("context = {'edges': []}", "store = 1", "for cite in 'ab': pass"),
            code("x = 1"),
            final("context"),
        ]
    )
    result = await run(root)
    assert "`context` is the document again; use another name." in root.told[1]
    assert (
        "`cite` is the REPL's own again; use another name.\n`store` is the REPL's own again; use another name."
        in root.told[1]
    )
    assert "again" not in root.told[2]
    assert result.answer == "a small document"


# D9


async def test_d09_output_is_divided_by_what_blocks_print() -> None:
    """Blocks that print little leave their share to the others; a short output is complete next to
    a long one.
    """
    seen = await told(
        code("print('x' * 6000)") + "\n" + code("y = 1") + "\n" + code("z = 1"), final("1")
    )
    assert "x" * 6000 in seen
    seen = await told(code("print('x' * 60_000)") + "\n" + code("print('y' * 4_000)"), final("1"))
    assert "y" * 4_000 in seen
    assert seen.count("x") > 5_500


# D10


@pytest.mark.parametrize(
    "reply",
    [
        "FINAL ANSWER: Paris",
        "I looked everywhere.\n\n**Final Answer:** Paris",
        "### Final answer\n: no\nFINAL ANSWER:\nParis",
        "Final answer: `Paris`",
        code("Paris = 'Paris'") + "|FINAL ANSWER: Paris",
    ],
)
async def test_d10_final_answer_in_words_is_final(reply: str) -> None:
    """A reply without code that ends with "FINAL ANSWER: X" answers X, or the value of the variable
    X.
    """
    result = await answered(*reply.split("|"), turns=20)
    assert (result.answer, result.stop_reason) == ("Paris", "final")


async def test_d10_final_answer_beside_code_is_ignored() -> None:
    """Next to a block these words are a guess, because its output is not known yet."""
    assert (
        await answered(code("print(1)") + "\nFINAL ANSWER: Paris", final("'seen'"))
    ).answer == "seen"
    assert parse_reply("My final answer: is not ready").final is None


# D11


async def test_d11_a_last_block_that_parses_runs_without_its_closing_fence() -> None:
    """A complete block runs; an empty opening fence at the end is not a block."""
    assert "REPL output:\n42" in await told("```repl\nprint(6 * 7)\n", final("1"))
    assert "REPL output:\n42" in await told("```repl\nprint(6 * 7)\n<|im_end|>", final("1"))
    seen = await told(code("print(1)") + "\n```repl", final("1"))
    assert seen == "REPL output:\n1"


async def test_d11_a_truncated_block_does_not_run() -> None:
    """A block that the provider reports as truncated, one that is too long, and one that does not
    parse are reported and not run.
    """
    assert parse_reply("```repl\nx = 1", is_cut=True).blocks[0].note is not None
    assert parse_reply("```repl\n" + "x = 1\n" * 3_000).blocks[0].note is not None
    assert parse_reply("```repl\nx = (1").blocks[0].note is not None
    root = Cut(["```repl\nprint('cut')", final("1")])
    await run(root)
    assert "Your block was not run: its fence was not closed" in root.told[1]


class Cut(Scripted):
    """A model whose first reply is truncated."""

    async def complete(self, request: Request) -> Completion:
        text = (await super().complete(request)).text
        return Completion(
            text, Usage(1, 1), self.name, "length" if len(self.requests) == 1 else "stop"
        )


# D12


async def test_d12_a_repeated_reply_with_the_same_output_is_reported() -> None:
    """The model is told about a repeated reply only if the output was the same too."""
    same = Scripted([code("print('x')"), code("print('x')"), final("1")])
    await run(same)
    assert "word for word, and so is its result." in same.told[2]
    other = Scripted([code("n = globals().get('n', 0) + 1", "print(n)")] * 2 + [final("1")])
    await run(other)
    assert "word for word. Do something else" in other.told[2]
    failing = Scripted([code("1 / 0")] * 2 + [final("1")])
    await run(failing)
    assert "and so is its result" in failing.told[2]


async def test_d12_a_note_is_given_once() -> None:
    """Several blocks in another language are one note with their number."""
    seen = await told(
        fenced("a", "text") + "\n" + fenced("b", "text") + "\n" + fenced("{}", "json"), final("1")
    )
    assert seen.count("not run") == 2
    assert "Your 2 text blocks were not run" in seen
    assert "Your json block was not run" in seen


# D13


@pytest.mark.parametrize(
    "reply",
    [
        fenced("FINAL(Sansa Stark)", "python"),
        fenced("FINAL(Sansa Stark)", "repl"),
        code("x = 'Sansa Stark'") + "\n" + fenced("FINAL_VAR(x)", "instruct"),
        code("x = 'Sansa Stark'") + "\n" + fenced("FINAL_VAR(x)", "final"),
        fenced('FINAL("Sansa Stark")', "final"),
    ],
)
async def test_d13_a_lone_final_in_a_fence_is_final(reply: str) -> None:
    """So are plain words in a Python fence, and any final in a fence with an unknown label."""
    result = await answered(reply)
    assert (result.answer, result.stop_reason) == ("Sansa Stark", "final")


async def test_d13_a_final_in_a_fence_of_another_language_is_a_quotation() -> None:
    """The content of a text or json fence is not code for the REPL."""
    assert parse_reply(fenced("FINAL(1)", "text")).final is None
    assert parse_reply(fenced("FINAL(1)", "json")).final is None


# D14


async def test_d14_several_variables_are_all_in_the_answer() -> None:
    """FINAL_VAR of several names answers with all of them; the same name twice counts once."""
    assert (
        await answered(code("a, c = 7, 8", 'FINAL_VAR("a")', 'FINAL_VAR("c")'))
    ).answer == '{"a": 7, "c": 8}'
    assert (await answered(code("a = 7", "FINAL_VAR('a')", "FINAL_VAR('a')"))).answer == "7"


async def test_d14_several_different_values_are_reported() -> None:
    """Several calls of FINAL with different values are reported; with the same value they are one
    answer.
    """
    root = Scripted([code("for n in (1, 2): FINAL(n)"), final("'1 and 2'")])
    assert (await run(root)).answer == "1 and 2"
    assert "called FINAL several times" in root.told[1]
    assert (await answered(code("for n in (1, 2): FINAL('same')"))).answer == "same"
    root = Scripted([code("FINAL(1)") + "\n" + code("FINAL([2])"), final("'1 and 2'")])
    assert (await run(root)).answer == "1 and 2"
    assert "called FINAL several times" in root.told[1]
    assert (
        await answered(code("FINAL('same')") + "\n" + code("x = 'same'", "FINAL(x)"))
    ).answer == "same"


# D15


async def test_d15_a_quoted_broken_line_does_not_stop_the_real_block() -> None:
    """A single invalid line in a python fence is a quotation if a block follows."""
    seen = await told(
        "The bug is:\n" + fenced("t += base Costs[x]", "python") + "\nFixed:\n" + code("print(42)"),
        final("1"),
    )
    assert "REPL output:\n42" in seen
    assert "taken for a quotation and not run" in seen


@pytest.mark.parametrize(
    "quoted",
    [
        fenced("t += base Costs[x]", "repl"),
        fenced("x = 1\nt += base Costs[x]", "python"),
        fenced("f(", "python"),
    ],
)
async def test_d15_an_invalid_block_stops_the_following_ones(quoted: str) -> None:
    """A repl block, a block of several lines, or a truncated one is not a quotation."""
    assert "REPL output" not in await told(quoted + "\nFixed:\n" + code("print(42)"), final("1"))


# D16


@pytest.mark.parametrize("literal", ["14.0", "7", "'a text'", "[1, 2]", "{'a': 1}"])
async def test_d16_a_block_that_is_one_literal_is_an_invented_output(literal: str) -> None:
    """After an own block, a block with only a literal is an expected output: neither it nor
    anything after it runs.
    """
    reply = code("total = sum([1, 2])") + "\n" + code(literal) + "\nThe total is 14.\n\nFINAL(14)"
    root = Scripted([reply, final("total")])
    assert (await run(root)).answer == "3"
    assert "you wrote the REPL's output yourself" in root.told[1]
    assert "REPL output: nothing was printed." in root.told[1]
    assert root.requests[1].messages[2].content == code("total = sum([1, 2])")


async def test_d16_a_lone_literal_without_a_block_before_it_runs() -> None:
    """The first block may be a literal, as in any REPL."""
    assert await told(code("14.0"), final("1")) == "REPL output:\n14.0"
