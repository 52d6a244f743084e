"""Prepares model code to run: tolerates common mistakes around the code, and runs awaited host
calls at the same time.

Host functions are blocking functions. A model may still write `await llm_query(p)` or
`asyncio.gather(*[llm_query(p) for p in prompts])`; a call in such a place becomes a coroutine, so
that it works and runs at the same time as the others.
"""

import ast
import textwrap
from collections import Counter
from collections.abc import Collection
from types import CodeType
from typing import TypeGuard

# The REPL's name for the function that turns a host function into its async version
AWAITABLE = "__rlm_awaitable__"

_LABELS = {"repl", "python", "py", "python3"}
_GATHERERS = {
    "gather",
    "create_task",
    "ensure_future",
    "wait",
    "wait_for",
    "as_completed",
    "shield",
    "run_until_complete",
}


def parse_block(code: str, file: str) -> ast.Module:
    """The block's syntax tree. A stray label line is skipped; a block that is indented as a whole
    is dedented.

    Raises: SyntaxError: The block is not valid Python.
    """
    first, _, rest = code.lstrip("\n").partition("\n")
    if first.strip().lower() in _LABELS:
        code = code[: len(code) - len(code.lstrip("\n"))] + "\n" + rest
    try:
        return ast.parse(code, file)
    except IndentationError:
        dedented = textwrap.dedent(code)
        if dedented == code:
            raise
        return ast.parse(dedented, file)


def compile_block(
    tree: ast.Module, file: str, functions: Collection[str], flags: int
) -> tuple[CodeType, CodeType | None]:
    """The block as code, with its last statement separate if that is an expression, whose value is
    then shown.
    """
    _awaited_calls(tree, functions)
    last: ast.Expression | None = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        statement = tree.body.pop()
        last = ast.Expression(statement.value) if isinstance(statement, ast.Expr) else None
    flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    body = compile(tree, file, "exec", flags=flags, dont_inherit=True)
    # Imports from __future__ in the block apply to its last line too.
    flags |= body.co_flags & _FUTURE_FLAGS
    return body, compile(
        last, file, "eval", flags=flags, dont_inherit=True
    ) if last is not None else None


def names_literal(tree: ast.Module) -> bool:
    """Whether the block passes a literal name to FINAL_VAR."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "FINAL_VAR"
        and any(isinstance(argument, ast.Constant) for argument in node.args)
        for node in ast.walk(tree)
    )


def future_flags(code: CodeType) -> int:
    """The compiler flags of the code's imports from __future__, for later blocks."""
    return code.co_flags & _FUTURE_FLAGS


def _all_future_flags() -> int:
    import __future__

    flags = 0
    for name in __future__.all_feature_names:
        flags |= getattr(__future__, name).compiler_flag
    return flags


_FUTURE_FLAGS = _all_future_flags()


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def _awaited_calls(tree: ast.Module, functions: Collection[str]) -> None:
    """Turn host calls into coroutines, in place, where a coroutine is expected."""
    gathered: set[str] = set()  # variables whose values, or elements, are passed to asyncio
    awaited: set[str] = set()  # variables that are awaited themselves
    for node in ast.walk(tree):
        if isinstance(node, ast.Await):
            _mark(node.value, functions, awaited)
        elif _gathers(node):
            for argument in node.args:
                _mark(argument, functions, gathered)
    for node in ast.walk(tree):
        match node:
            case ast.For(target=ast.Name(id=name), iter=ast.Name(id=source)) if name in awaited:
                gathered.add(source)
    # A reply that is also used as a string must stay a string; it can still be awaited.
    awaits = Counter(
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Name)
    )
    uses = Counter(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )
    collected = gathered | {name for name in awaited if uses[name] == awaits[name]}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in collected:
                _mark(value, functions, set())
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[value]
            ) if name in collected:
                _mark(value, functions, set())


def _gathers(node: ast.AST) -> TypeGuard[ast.Call]:
    if not isinstance(node, ast.Call):
        return False
    name = _dotted(node.func)
    return name == "asyncio.run" or name.rpartition(".")[2] in _GATHERERS


def _mark(node: ast.expr, functions: Collection[str], names: set[str]) -> None:
    """Rewrite the host calls among the elements of this expression; collect the variables among
    them.
    """
    match node:
        case ast.Name(id=name):
            names.add(name)
        case ast.Call() if _dotted(node.func) in functions:
            async_twin = ast.Call(
                func=ast.Name(id=AWAITABLE, ctx=ast.Load()), args=[node.func], keywords=[]
            )
            ast.copy_location(async_twin, node.func)
            ast.copy_location(async_twin.func, node.func)
            node.func = async_twin
        case ast.Starred(value=value):
            _mark(value, functions, names)
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            for element in elements:
                _mark(element, functions, names)
        case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element) | ast.SetComp(elt=element):
            _mark(element, functions, names)
        case ast.IfExp(body=body, orelse=orelse):
            _mark(body, functions, names)
            _mark(orelse, functions, names)
        case _:
            return
