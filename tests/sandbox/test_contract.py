"""The contract of every sandbox for code as models write it. The numbers are those of the cases in
the facts about models.
"""

from collections.abc import Awaitable, Callable

import pytest

from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.sandbox import sandbox_named
from rlm_integrations.sandbox.base import ExecutionResult, Sandbox
from rlm_integrations.sandbox.wire import Opaque

Run = Callable[[str], Awaitable[ExecutionResult]]


def test_an_unknown_name_is_refused() -> None:
    """The error for an unknown sandbox names it, and lists the valid names."""
    with pytest.raises(InputError, match=r"'docker'.*'process'.*'inprocess'"):
        sandbox_named("docker")


async def test_capabilities_are_true(sandbox: Sandbox, run: Run) -> None:
    """The declared capabilities are true: code can read files only if the sandbox is not
    isolated.
    """
    result = await run("with open('/etc/passwd') as file: file.read(1)")
    assert (result.status == "error") is sandbox.capabilities.isolated
    result = await run(
        "import sys; sys.stdout.write('') is None or 'own' if type(sys.stdout).__name__ == 'OutputStream' else 'host'"
    )
    assert ("own" in result.stdout) is sandbox.capabilities.captures_streams


# Case 3: a block that raises halfway.


async def test_case_03_what_was_bound_before_an_error_stays_bound(run: Run) -> None:
    """Names, imports and replies bound before an error stay bound after it."""
    result = await run(
        "import math\npaid = llm_query('p')\nx = 1\nraise ValueError('half way')\ny = 2"
    )
    assert (
        result.status,
        result.error and result.error.type,
        result.error and result.error.message,
    ) == ("error", "ValueError", "half way")
    result = await run("(paid, x, math.pi > 3, 'y' in globals())")
    assert result.stdout == "('echo: p', 1, True, False)\n"


# Case 4: any builtin.


async def test_case_04_every_builtin_exists(run: Run) -> None:
    """All builtins exist, such as frozenset, globals, SyntaxError and callable."""
    result = await run(
        "x = (frozenset([1]), callable(len), SyntaxError, globals(), __import__('re'), type, vars, memoryview)\nlen(x)"
    )
    assert result.stdout == "8\n"


async def test_case_04_a_forbidden_builtin_says_so(sandbox: Sandbox, run: Run) -> None:
    """input() raises an error that tells the model what to do instead."""
    if not sandbox.capabilities.isolated:
        pytest.skip(
            "in the host's own process builtins are the host's, and pytest closes its standard input"
        )
    result = await run("input('your name?')")
    assert result.error is not None
    assert (result.error.type, "input() does not work here" in result.error.message) == (
        "RuntimeError",
        True,
    )
    result = await run("breakpoint()")
    assert result.error is not None
    assert "breakpoint() does not work here" in result.error.message


# Case 5: a bare name or call as last statement.


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("x = 3\nx", "3\n"),
        ("'text'", "'text'\n"),
        ("len(context)", "19\n"),
        ("None", ""),
        ("print('a')", "a\n"),
        ("print('a'); 5", "a\n5\n"),
        ("x = 1", ""),
        ("for i in range(2):\n    i", ""),
        ("'a' * 20_000", "'" + "a" * 10_000 + "'… (20,000 in all)\n"),
    ],
)
async def test_case_05_the_last_expression_is_shown(run: Run, code: str, shown: str) -> None:
    """The value of the last expression is shown, as in any REPL; for a very long string, its
    beginning and its length.
    """
    assert (await run(code)).stdout == shown


async def test_case_05_show_vars_lists_the_models_variables(run: Run) -> None:
    """SHOW_VARS() lists the names and descriptions of the model's variables, never their contents,
    and no names of the REPL.
    """
    await run("found = ['a', 'b']\nimport re\ndef helper(): pass\nsecret = 'do not repeat me'")
    result = await run("SHOW_VARS()")
    assert result.stdout == "found: list of 2\nhelper: function\nsecret: str, 16 characters\n"
    assert result.locals == {
        "found": "list of 2",
        "helper": "function",
        "secret": "str, 16 characters",
    }


# Case 7, 9, 17: FINAL.


@pytest.mark.parametrize("name", ["FINAL", "SUBMIT", "final_answer"])
async def test_case_07_final_is_a_real_function(run: Run, name: str) -> None:
    """FINAL evaluates its argument like any function; its names in other dialects are the same
    function.
    """
    result = await run(f'a = "x"; b = "y"\n{name}(a + ", ally " + b)')
    assert result.final is not None
    assert (result.status, result.final.value, result.stdout) == ("ok", "x, ally y", "")


async def test_case_07_final_takes_evidence(run: Run) -> None:
    """Spans and quotes in `evidence` arrive unchanged."""
    result = await run("FINAL('a', evidence=[SpanRef('context_0', 4, 9), 'a quote'])")
    assert result.final is not None
    assert result.final.evidence == (SpanRef("context_0", 4, 9), "a quote")


async def test_case_09_final_var_resolves_a_variable(run: Run) -> None:
    """FINAL_VAR accepts a variable's name as a string, the variable itself, and any other value."""
    for code in ("FINAL_VAR('x')", "FINAL_VAR(x)", "FINAL_VAR(x + 0)"):
        result = await run(f"x = 42\n{code}")
        assert result.final is not None
        assert result.final.value == 42
    result = await run("s = 'the answer'\nFINAL_VAR(s)")
    assert result.final is not None
    assert result.final.value == "the answer"


async def test_case_17_final_var_of_an_unknown_name_is_an_error(run: Run) -> None:
    """FINAL_VAR with an unknown name is an error that lists the variables."""
    result = await run("total = 3\nFINAL_VAR('14')")
    assert (result.final, result.error and result.error.type) == (None, "NameError")
    assert result.error is not None
    assert "'14'" in result.error.message
    assert "total" in result.error.message


@pytest.mark.parametrize(
    "code",
    [
        "answer['content'] = 'done'; answer['ready'] = True",
        "answer['ready'] = True\nanswer['content'] = 'done'",
        "answer = {'content': 'done', 'ready': True}",
    ],
)
async def test_dialect_answer_dict(run: Run, code: str) -> None:
    """`answer["ready"] = True` finishes once, in whichever order the keys are set."""
    result = await run(code)
    assert result.final is not None
    assert result.final.value == "done"
    assert (await run("1")).final is None


async def test_the_model_may_define_a_variable_answer(run: Run) -> None:
    """A variable `answer` that the model defines is kept for the next block."""
    assert (await run("answer = llm_query('q')")).final is None
    assert (await run("answer")).stdout == "'echo: q'\n"


async def test_a_final_of_any_kind_of_value_arrives(run: Run) -> None:
    """A final JSON value arrives unchanged, tuples and sets as lists, anything else as its type and
    string.
    """
    result = await run("FINAL({'a': (1, 2.5, None, True), 'b': {1: 'x'}})")
    assert result.final is not None
    assert result.final.value == {"a": [1, 2.5, None, True], "b": {"1": "x"}}
    result = await run("class Thing:\n    def __str__(self): return 'a thing'\nFINAL(Thing())")
    assert result.final is not None
    assert result.final.value == Opaque("Thing", "a thing")


async def test_a_final_that_cannot_cross_is_an_error(sandbox: Sandbox, run: Run) -> None:
    """A list that contains itself raises an error with an explanation, and the session
    continues.
    """
    if not sandbox.capabilities.isolated:
        pytest.skip(
            "nothing crosses a wire in the host's own process, so there is nothing to refuse there"
        )
    result = await run("loop = []; loop.append(loop); FINAL(loop)")
    assert (result.status, result.final) == ("error", None)
    assert result.error is not None
    assert "nests deeper" in result.error.message
    assert (await run("1")).status == "ok"


# Case 15: mistakes around the code.


async def test_case_15_future_imports_come_first(run: Run) -> None:
    """`from __future__` works at the beginning of a block, and applies to later blocks."""
    assert (
        await run("from __future__ import annotations\ndef f(x: Undefined): return x\nf(1)")
    ).stdout == "1\n"
    assert (await run("def g(x: AlsoUndefined): return x\ng(2)")).stdout == "2\n"


@pytest.mark.parametrize("label", ["repl", "python", "Python", "py"])
async def test_case_15_a_stray_label_line_is_ignored(run: Run, label: str) -> None:
    """A label line of a code fence inside the code is ignored, and line numbers stay the same."""
    result = await run(f"{label}\nx = 1\n1/0")
    assert result.error is not None
    assert (result.error.type, "line 3" in result.error.traceback) == ("ZeroDivisionError", True)


async def test_case_15_a_block_indented_as_a_whole_runs(run: Run) -> None:
    """A block that is indented as a whole, as in a list item, runs."""
    assert (await run("    x = 1\n    if x:\n        print('yes')")).stdout == "yes\n"


async def test_case_15_top_level_await(run: Run) -> None:
    """`await` works at the top level, and the next block can await tasks of this one."""
    assert (
        await run(
            "import asyncio\nawait asyncio.sleep(0)\nt = asyncio.create_task(asyncio.sleep(0, 'late'))\nawait llm_query('a')"
        )
    ).stdout == "'echo: a'\n"
    assert (await run("await t")).stdout == "'late'\n"


async def test_case_15_asyncio_run(run: Run) -> None:
    """`asyncio.run` works, even as the last expression or with a coroutine that was never
    awaited.
    """
    code = "import asyncio\nasync def main():\n    return await llm_query('b')\n"
    assert (await run(code + "asyncio.run(main())")).stdout == "'echo: b'\n"
    assert (await run(code + "main()")).stdout == "'echo: b'\n"


async def test_case_15_asyncio_run_beside_await(sandbox: Sandbox, run: Run) -> None:
    """`asyncio.run` works in a block that awaits at its top level, where Python itself would
    raise.
    """
    if not sandbox.capabilities.isolated:
        pytest.skip("asyncio.run of the host's own process is not ours to change")
    code = "import asyncio\nasync def main():\n    return await llm_query('c')\nawait asyncio.sleep(0)\nasyncio.run(main())"
    assert (await run(code)).stdout == "'echo: c'\n"


async def test_case_15_reserved_names_are_restored(run: Run) -> None:
    """`context` and the host's functions are restored before each block, even if the last block
    rebound them.
    """
    await run(
        "context = 'gone'; llm_query = None; FINAL = 3; store = 'mine'; context_0 = 1; del SHOW_VARS"
    )
    result = await run(
        "(context, context_0, llm_query('x'), store.create('a', 'b'), callable(SHOW_VARS), callable(FINAL))"
    )
    assert (
        result.stdout
        == "('the quick brown fox', 'the quick brown fox', 'echo: x', 'worker_A_000001', True, True)\n"
    )


# Calls.
