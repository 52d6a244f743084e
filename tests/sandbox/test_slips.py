"""Mistakes and oddities of model code, which may cost an error, but never the session and its
variables.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rlm_integrations.sandbox.base import ExecutionResult, Sandbox
from rlm_integrations.sandbox.signatures import signature_of

Run = Callable[[str], Awaitable[ExecutionResult]]


@pytest.mark.parametrize(
    "slip",
    [
        "import sys; sys.exit(['no answer'])",
        "import sys; sys.exit({'a': 1})",
        "raise SystemExit([])",
        "import weakref\nclass T: pass\nt = T(); p = weakref.proxy(t); del t",
        "class C:\n    @property\n    def __class__(self): raise ValueError('no')\nc = C()",
        "class S(str): __len__ = []\ns = S('abc')",
        "class S(str):\n    def __len__(self): raise ValueError('no')\ns = S('abc')\nFINAL(s)",
        (
            "class M(type):\n    __name__ = property(lambda self: 1 / 0)\n    def __eq__(self, other): raise ValueError\n"
            "    def __hash__(self): raise ValueError\nclass C(metaclass=M): pass\nc = C()"
        ),
        "globals()[5] = 3",
        "__builtins__ = None",
        "globals().clear()",
        "class T(str): pass\nclass E(Exception):\n    def __str__(self): return T('text')\nraise E()",
        (
            "class K:\n    def __hash__(self): return hash('content')\n    def __eq__(self, other): raise ValueError('no')\n"
            "answer = {K(): 1, 'ready': True}"
        ),
        "class V:\n    def __eq__(self, other): raise ValueError('no')\nFINAL(V()); FINAL(V())",
        "import weakref\nclass T: pass\nt = T(); p = weakref.proxy(t); del t\nFINAL(p)",
    ],
)
async def test_a_mistake_does_not_end_the_session(run: Run, slip: str) -> None:
    """Whatever a block binds, raises or exits with, the next block runs with the same builtins and
    variables.
    """
    await run("kept = 42")
    assert (await run(slip)).status in {"ok", "error"}
    if "clear" in slip:
        await run("kept = 42")
    result = await run("print(kept, len(context), sorted([2, 1]))")
    assert (result.status, result.stdout) == ("ok", "42 19 [1, 2]\n"), result.error


async def test_re_and_json_need_no_import(run: Run) -> None:
    """`re` and `json` are available without an import, are not variables of the model, and may be
    rebound permanently.
    """
    result = await run("print(re.findall('q', context), json.dumps([1]))")
    assert (result.stdout, result.locals) == ("['q'] [1]\n", {})
    await run("json = {'mine': 1}")
    result = await run("print(json)")
    assert (result.stdout, result.locals, result.rebound) == (
        "{'mine': 1}\n",
        {"json": "dict of 1"},
        (),
    )


@pytest.mark.parametrize(
    "prompts",
    [
        "(p for p in 'ab')",
        "map(str, 'ab')",
        "{'a': 1, 'b': 2}.keys()",
        "{1: 'a', 2: 'b'}.values()",
        "('a', 'b')",
        "iter(['a', 'b'])",
        "filter(None, 'ab')",
    ],
)
async def test_anything_that_can_be_iterated_is_a_batch(run: Run, gate: Any, prompts: str) -> None:
    """A generator, a map, a view or a tuple of prompts is sent as a list."""
    assert (await run(f"print(llm_batch({prompts}))")).stdout == "['echo: a', 'echo: b']\n"
    assert gate.calls[0][2] == [["a", "b"]]
    assert (
        await run(f"print(llm_batch(prompts={prompts}) if 0 else 1); FINAL({prompts})")
    ).final.value == ["a", "b"]


async def test_rebound_reserved_names_are_reported(run: Run) -> None:
    """The result lists the reserved names that a block rebound, without the model's own names and
    the dialect names that it may define.
    """
    result = await run(
        "context = 1; store = 2; mine = 3; final_answer = 4; answer = 5\nfor llm_query in (): pass"
    )
    assert sorted(result.rebound) == ["context", "store"]
    assert (await run("x = final_answer + answer")).rebound == ()
    assert (await run("print(context, final_answer, answer)")).stdout == "the quick brown fox 4 5\n"
    assert (
        await run(
            "for name in list(globals()): globals()[name] = 1 if name[0] != '_' else globals()[name]"
        )
    ).status == "ok"


async def test_help_shows_signature_and_docstring(sandbox: Sandbox, run: Run) -> None:
    """`help` shows the parameters and docstrings of host functions, of methods and of the REPL's
    own functions.
    """
    if not sandbox.capabilities.captures_streams:
        pytest.skip("`help` of the host's own process writes to the host's stdout")
    result = await run(
        "help(llm_query); help(store.create); help(FINAL); help(FINAL_VAR); help(SHOW_VARS); help(SUBMIT)"
    )
    assert "llm_query(prompt, model=None)" in result.stdout
    assert "Ask a model." in result.stdout
    assert "create(type, description)" in result.stdout
    assert "FINAL(value, evidence=())" in result.stdout
    assert "FINAL_VAR(name, evidence=())" in result.stdout
    assert "SHOW_VARS()" in result.stdout
    assert "SUBMIT(*values, evidence=(), **fields)" in result.stdout
    assert "args" not in result.stdout
    assert "rlm_integrations" not in (await run("help(store); help(FINAL); help(SHOW_VARS)")).stdout
    assert (
        await run("import inspect\nprint(inspect.signature(llm_batch))")
    ).stdout == "(prompts, max_concurrent=10, model=None)\n"


@pytest.mark.parametrize(
    "text",
    [
        "()",
        "(a, b=1)",
        "(a, /, b, *, c='x')",
        "(*args, **kwargs)",
        "(key: str, n: list[int] = []) -> dict[str, int]",
        "(a, *, b, c=None)",
    ],
)
def test_a_signature_is_shown_as_it_was_written(text: str) -> None:
    """Names, kinds, defaults and annotations are shown as written, and none is evaluated."""
    assert str(signature_of(text)) == text


def test_an_invalid_signature_returns_none() -> None:
    """A string that is not a valid signature returns None."""
    assert signature_of("(a, (b)") is None
    assert signature_of("(a): pass\nimport os\ndef f()") is None
