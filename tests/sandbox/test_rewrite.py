"""The preparation of model code: which host calls become coroutines, and which do not."""

import ast

import pytest

from rlm_integrations.sandbox.rewrite import AWAITABLE, compile_block, parse_block

FUNCTIONS = {"llm_query", "store.create"}


def rewritten(code: str) -> str:
    tree = parse_block(code, "<block-1>")
    body = list(tree.body)
    compile_block(tree, "<block-1>", FUNCTIONS, 0)
    return (
        "\n".join(ast.unparse(node) for node in body)
        .replace(f"{AWAITABLE}(llm_query)", "LATER")
        .replace(f"{AWAITABLE}(store.create)", "MAKE")
    )


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("await llm_query(a)", "await LATER(a)"),
        ("await store.create('a', 'b')", "await MAKE('a', 'b')"),
        ("await gather(llm_query(a), other(b))", "await gather(LATER(a), other(b))"),
        (
            "r = await asyncio.gather(*[llm_query(c) for c in cs])",
            "r = await asyncio.gather(*[LATER(c) for c in cs])",
        ),
        (
            "await asyncio.gather(*(llm_query(c) if c else x for c in cs))",
            "await asyncio.gather(*(LATER(c) if c else x for c in cs))",
        ),
        (
            "async def f():\n    return await llm_query(a)",
            "async def f():\n    return await LATER(a)",
        ),
        (
            "t = asyncio.create_task(llm_query(a))\nawait t",
            "t = asyncio.create_task(LATER(a))\nawait t",
        ),
        ("await asyncio.wait_for(llm_query(a), 5)", "await asyncio.wait_for(LATER(a), 5)"),
        ("asyncio.run(llm_query(a))", "asyncio.run(LATER(a))"),
        (
            "ts = [llm_query(c) for c in cs]\nfor t in ts:\n    await t",
            "ts = [LATER(c) for c in cs]\nfor t in ts:\n    await t",
        ),
        ("t = llm_query(a)\nawait t", "t = LATER(a)\nawait t"),
    ],
)
def test_trap_11_awaited_calls_become_coroutines(code: str, result: str) -> None:
    """A host call becomes a coroutine where asyncio expects an awaitable."""
    assert rewritten(code) == result


@pytest.mark.parametrize(
    "code",
    [
        "x = llm_query(a)",
        "executor.run(llm_query(a))",
        "await other(llm_query(a))",
        "await gather(*[other(llm_query(c)) for c in cs])",
        "r = llm_query(a)\nprint(r)\nawait r",
        "async def f():\n    x = llm_query(a)\n    await g()",
        "pool.submit(llm_query, a)",
    ],
)
def test_other_calls_are_unchanged(code: str) -> None:
    """A reply that is used as a string stays a string."""
    assert rewritten(code) == ast.unparse(ast.parse(code))


def test_lines_keep_their_numbers() -> None:
    """A label line is replaced by an empty line, so line numbers stay the same."""
    tree = parse_block("\nrepl\nx = 1", "<block-1>")
    assert tree.body[0].lineno == 3


def test_invalid_python_is_a_syntax_error() -> None:
    """Code that is not valid Python is a SyntaxError, even if it is indented."""
    with pytest.raises(SyntaxError):
        parse_block("    x = = 1", "<block-1>")
    with pytest.raises(IndentationError):
        parse_block("x = 1\n    y = 2", "<block-1>")
