"""The contract of every sandbox for host calls, output and the language. The numbers are those of
the cases in the facts about models.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rlm_integrations.errors import SandboxClosedError
from rlm_integrations.records import Limits, LLMError, SpanRef
from rlm_integrations.sandbox.base import ExecutionResult, Sandbox, Session
from rlm_integrations.sandbox.wire import Opaque

Run = Callable[[str], Awaitable[ExecutionResult]]


async def test_calls_carry_their_block_and_arguments(run: Run, gate: Any) -> None:
    """The gate receives block, function and arguments unchanged; an alias is sent under the
    function's name.
    """
    await run("llm_query('one', model='fast')\nask('two')")
    await run("store.create(type='note', description='d')")
    assert gate.calls == [
        (1, "llm_query", ["one"], {"model": "fast"}),
        (1, "llm_query", ["two"], {}),
        (2, "store.create", [], {"type": "note", "description": "d"}),
    ]


async def test_arguments_of_any_kind_cross(run: Run, gate: Any) -> None:
    """Spans, errors, sets, keys that look like the wire's tags and lone surrogates arrive
    unchanged; other values raise an error that names them.
    """
    await run(
        "llm_batch([None, 1, 2.5, 'x', SpanRef('context_0', 1, 2), LLMError('timeout', 'm', 3), {'$b': 5, 'k': {1}}, '\\ud800', object()])"
    )
    arrived = gate.calls[0][2][0]
    assert arrived[:-1] == [
        None,
        1,
        2.5,
        "x",
        SpanRef("context_0", 1, 2),
        LLMError("timeout", "m", 3),
        {"$b": 5, "k": [1]},
        "\ud800",
    ]
    assert isinstance(arrived[5], LLMError)
    assert isinstance(arrived[-1], Opaque)
    assert arrived[-1].type == "object"


async def test_answers_of_any_kind_cross(run: Run, gate: Any) -> None:
    """The host's answers arrive unchanged: None, numbers, nested data, spans, typed errors."""
    gate.gifts["all"] = [
        None,
        1.5,
        {"$x": ["y", {"deep": [SpanRef("context_0", 0, 1)]}]},
        LLMError("server", "broken", 2),
    ]
    result = await run(
        "v = give('all')\n(v[:3], type(v[3]).__name__, v[3].type, v[3].retries, str(v[3]), isinstance(v[3], LLMError))"
    )
    assert result.stdout == (
        "([None, 1.5, {'$x': ['y', {'deep': [SpanRef(source='context_0', start=0, end=1, unit='chars')]}]}], "
        "'LLMError', 'server', 2, 'Error: server: broken', True)\n"
    )


async def test_a_refused_call_raises_in_the_models_code(run: Run) -> None:
    """A refused call raises the exception type and message that the gate chose, and its traceback
    shows only the model's line.
    """
    result = await run("x = 1\nfail('ValueError', 'prompts must be texts')\n")
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ValueError", "prompts must be texts")
    assert result.error.traceback.count("File") == 1
    assert (
        await run(
            "try:\n    fail('NoSuchError', 'm')\nexcept RuntimeError as e:\n    print('caught', x)"
        )
    ).stdout == "caught 1\n"


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nawait asyncio.gather(together(), together(), together())",
        "import asyncio\nasync def one():\n    return await together()\nawait asyncio.gather(*[one() for _ in range(3)])",
        "import asyncio\nawait asyncio.gather(*[together() for _ in range(3)])",
        "import asyncio\nawait asyncio.gather(*(together() for _ in range(3)))",
        "import asyncio\ntasks = [together() for _ in range(3)]\nawait asyncio.gather(*tasks)",
        "import asyncio\ntasks = []\nfor _ in range(3):\n    tasks.append(together())\nawait asyncio.gather(*tasks)",
        "import asyncio\na = together()\nb = together()\nc = together()\nawait asyncio.gather(a, b, c)",
        "import asyncio\nts = [asyncio.create_task(together()) for _ in range(3)]\n[await t for t in ts]",
        "import asyncio\nasync def main():\n    return await asyncio.gather(together(), together(), together())\nasyncio.run(main())",
        (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(3) as pool:\n    r = list(pool.map(lambda _: together(), range(3)))\nr"
        ),
        (
            "import threading\nr = []\nts = [threading.Thread(target=lambda: r.append(together())) for _ in range(3)]\n"
            "[t.start() for t in ts]\n[t.join() for t in ts]\nr"
        ),
    ],
)
async def test_calls_run_at_the_same_time(run: Run, code: str) -> None:
    """Calls that are awaited, gathered, collected or threaded run concurrently: all three are
    answered although none is answered alone.
    """
    result = await asyncio.wait_for(run(code), 60)
    assert result.stdout == "['met', 'met', 'met']\n", result.error


async def test_a_reply_may_be_awaited_late(run: Run) -> None:
    """A call that is not awaited at once returns its reply, which can still be awaited later."""
    assert (
        await run("r = llm_query('x')\nprint(r.upper())\nawait r")
    ).stdout == "ECHO: X\n'echo: x'\n"
    assert (
        await run("r = llm_batch(['x'])\nprint(r[0])\nawait r")
    ).stdout == "echo: x\n['echo: x']\n"


async def test_190_gathered_calls_all_answer(run: Run, gate: Any) -> None:
    """Calls above the limit of open calls wait, and none is lost or swapped."""
    result = await run(
        "import asyncio\nr = await asyncio.gather(*[llm_query(str(i)) for i in range(190)])\nr == [f'echo: {i}' for i in range(190)]"
    )
    assert (result.stdout, result.host_calls) == ("True\n", 190)
    assert gate.most_open <= Limits().calls_in_flight


async def test_a_batch_of_large_prompts_crosses_in_frames(run: Run, gate: Any) -> None:
    """Prompts and replies of several MB, and one string of 20 MB, arrive unchanged."""
    result = await run(
        "p = [str(i) * 100_000 for i in range(100)] + ['x' * 20_000_000]\nr = llm_batch(p)\nr == ['echo: ' + each for each in p]"
    )
    assert result.stdout == "True\n", result.error
    assert len(gate.calls[0][2][0]) == 101


async def test_a_fault_of_the_gate_is_raised_to_the_host(
    session: Session, sandbox: Sandbox
) -> None:
    """An exception of the gate that is not a `HostCallError` is raised to the caller of `execute`,
    not to the model, and ends the session.
    """
    if not sandbox.capabilities.isolated:
        pytest.skip("in the host's own process the model's code sees the exception: they share it")
    with pytest.raises(ZeroDivisionError, match="a fault of the host"):
        await session.execute("store.search()", 1)
    with pytest.raises(SandboxClosedError):
        await session.execute("1", 2)


# Output.


async def test_print_keeps_its_order_around_calls(run: Run) -> None:
    """Output lines arrive in the order in which they were written."""
    assert (
        await run("print(1)\nllm_query('x')\nprint(2, end='')\nprint('', 3, sep='|')")
    ).stdout == "1\n2|3\n"


async def test_output_is_bounded_and_dropped_characters_are_counted(open_session: Any) -> None:
    """The first characters of the output are kept and the rest is counted; the next block starts at
    zero.
    """
    session = await open_session(limits=Limits(stdout_kept=1000))
    result = await session.execute("for i in range(100_000): print('0123456789', end='')", 1)
    assert (len(result.stdout), result.stdout[:12], result.dropped) == (
        1000,
        "012345678901",
        999_000,
    )
    assert (await session.execute("print('again')", 2)).stdout == "again\n"


async def test_lone_surrogates_do_not_break_anything(run: Run) -> None:
    """Lone surrogates in the output are shown as escapes."""
    result = await run("print('a\\ud800b')\nraise ValueError('\\udfff')")
    assert result.error is not None
    assert (result.stdout.encode(), result.error.message.encode()) == (b"a\\ud800b\n", b"\\udfff")


# Errors.


async def test_a_traceback_shows_the_models_lines_and_not_the_sandbox(run: Run) -> None:
    """A traceback shows block, line and source of the model's code, and frames of the standard
    library without paths of this machine, but no frames of the sandbox.
    """
    await run("def parse(text):\n    import json\n    return json.loads(text)")
    result = await run("x = 1\nparse('{')")
    assert result.error is not None
    trace = result.error.traceback
    assert 'File "<block-2>", line 2, in <module>\n    parse(' in trace
    assert 'File "<block-1>", line 3, in parse\n    return json.loads(text)' in trace
    assert 'File "json/decoder.py"' in trace
    assert "rlm_integrations" not in trace
    assert "/" not in trace.replace("json/", "")


async def test_a_syntax_error_points_at_its_place(run: Run) -> None:
    """A syntax error names its line, and no statement of the block runs."""
    result = await run("print('ran')\nx = = 1")
    assert result.error is not None
    assert (result.stdout, result.error.type) == ("", "SyntaxError")
    assert 'File "<block-1>", line 2' in result.error.traceback


async def test_linked_exceptions_are_shown(run: Run) -> None:
    """`raise … from …` shows both exceptions, both without frames of the sandbox."""
    result = await run(
        "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError('missing') from e"
    )
    assert result.error is not None
    assert "ZeroDivisionError: division by zero" in result.error.traceback
    assert "rlm_integrations" not in result.error.traceback


async def test_system_exit_is_survived(run: Run) -> None:
    """exit() ends the block, not the session; with a message it is an error."""
    result = await run("x = 5\nprint('before')\nexit()\nprint('after')")
    assert (result.status, result.stdout) == ("ok", "before\n")
    assert (await run("x")).stdout == "5\n"
    result = await run("import sys; sys.exit('no way')")
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("SystemExit", "no way")


async def test_endless_recursion_is_an_error(run: Run) -> None:
    """A RecursionError is returned with a bounded traceback, and the session continues."""
    result = await run("def f(n): return f(n + 1)\nf(0)")
    assert result.error is not None
    assert (result.error.type, len(result.error.traceback) <= 4000) == ("RecursionError", True)
    assert (await run("1 + 1")).stdout == "2\n"


async def test_an_exception_whose_text_raises_is_described(run: Run) -> None:
    """An exception whose __str__ or __repr__ raises is reported without its message."""
    result = await run(
        "class Bad(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise Bad()"
    )
    assert result.error is not None
    assert result.error.type == "Bad"
    result = await run("class Worse:\n    def __repr__(self): raise KeyError('k')\nWorse()")
    assert result.error is not None
    assert result.error.type == "KeyError"


# The language as a whole.


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("def numbers():\n    yield from range(3)\nlist(numbers())", "[0, 1, 2]\n"),
        ("x = 1\ndel x\n'x' in globals()", "False\n"),
        (
            "class A:\n    def f(self): return 1\nclass B(A):\n    def f(self): return super().f() + 1\nB().f()",
            "2\n",
        ),
        ("count = 0\ndef add():\n    global count\n    count += 1\nadd()\ncount", "1\n"),
        ("import re\nre.sub(r'\\w+', lambda m: m.group().upper(), 'ab cd')", "'AB CD'\n"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nP(1)", "P(x=1)\n"),
        (
            "import collections, json\njson.dumps(collections.Counter('aab'))",
            '\'{"a": 2, "b": 1}\'\n',
        ),
        ("f'{3.14159:.2f} {12:>5} {\"x\"!r}'", "\"3.14    12 'x'\"\n"),
        ("with __import__('contextlib').suppress(KeyError):\n    {}['x']\n'on'", "'on'\n"),
        ("match {'a': 1}:\n    case {'a': n}:\n        print(n)", "1\n"),
        (
            "squares = [i * i for i in range(4)]\n[s for s in squares if s > len(squares) - 3]",
            "[4, 9]\n",
        ),
        (
            "data = '1,2\\n3,4'\nimport csv, io\nlist(csv.reader(io.StringIO(data)))",
            "[['1', '2'], ['3', '4']]\n",
        ),
        ("import statistics, textwrap, datetime, decimal\nstatistics.mean([1, 2, 3])", "2\n"),
        (
            "import sqlite3\ndb = sqlite3.connect(':memory:')\nprint(db.execute('select 1+1').fetchone())\ndb.close()",
            "(2,)\n",
        ),
    ],
)
async def test_the_language_works(run: Run, code: str, shown: str) -> None:
    """Generators, deletion, inheritance, globals, callables in re.sub and the usual modules
    work.
    """
    result = await run(code)
    assert result.stdout == shown, result.error


async def test_classes_of_the_model_can_be_pickled(sandbox: Sandbox, run: Run) -> None:
    """The model's namespace is the module `__main__`, as in any script."""
    if not sandbox.capabilities.isolated:
        pytest.skip("the host's own process has a __main__ already")
    assert (
        await run("import pickle\nclass K: pass\ntype(pickle.loads(pickle.dumps(K()))).__name__")
    ).stdout == "'K'\n"


async def test_warnings_about_the_models_style_are_not_output(sandbox: Sandbox, run: Run) -> None:
    """Python's warnings about the model's code, such as invalid escapes in patterns, are not part
    of the output.
    """
    if not sandbox.capabilities.isolated:
        pytest.skip("the host's own process keeps its own warnings, which are errors here")
    result = await run("import re\nre.findall('\\d+', 'a1')")
    assert (result.stdout, result.stderr) == ("['1']\n", "")


# Context.


async def test_a_list_is_a_list(open_session: Any) -> None:
    """Several documents are the list `context`, and each is `context_0…n`, with metadata."""
    session = await open_session(["first", "zweiter é ü", "third 😀"])
    result = await session.execute(
        "(context, context_1 is context[1], len(context_2), context_metadata['type'])", 1
    )
    assert result.stdout.startswith("(['first', 'zweiter é ü', 'third 😀'], True, 7, ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ascii",
        "é",
        "\u2013",
        "😀",
        "\ud800",
        "a\r\nb\rc\n",
        "x" * 300_000 + "é",
        "x" * 300_000 + "😀",
    ],
)
async def test_any_text_arrives_as_it_is(open_session: Any, text: str) -> None:
    """A document of any character width arrives unchanged, including line ends and lone surrogates,
    and equals and hashes like any str with the same characters.
    """
    session = await open_session(text)
    code = f"end = {text[-20:]!r}\n(len(context), context[-20:] == end, hash(context[-20:]) == hash(end), ord(max(context, default='a')))"
    result = await session.execute(code, 1)
    assert result.stdout == f"({len(text)}, True, True, {ord(max(text, default='a'))})\n"


async def test_variables_can_be_set(session: Session) -> None:
    """The host can bind plain values between blocks."""
    await session.set_vars({"given": [1, "two", None]})
    assert (await session.execute("given", 1)).stdout == "[1, 'two', None]\n"


async def test_a_closed_session_says_so(session: Session) -> None:
    """Using a closed session raises an error that says what to do; closing twice is allowed."""
    await session.close()
    await session.close()
    with pytest.raises(SandboxClosedError, match="open another one"):
        await session.execute("1", 1)


async def test_cancelling_returns_at_once(session: Session, gate: Any) -> None:
    """Cancelling a block returns at once, cancels its calls and closes the session."""
    task = asyncio.ensure_future(session.execute("slow(60)", 1))
    while not gate.open:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(SandboxClosedError):
        await session.execute("1", 2)
