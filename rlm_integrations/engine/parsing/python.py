"""Parses code in the same way as the sandbox, without warnings and within limits."""

import ast
import re
import warnings

from rlm_integrations.sandbox import rewrite

MAX_PARSED_CHARS = 100_000  # they take about 0.2 s
_FILE = "<reply>"
_MAX_LINE_CHARS = 200  # a longer line is not quoted
_DETECTED = re.compile(r" \(detected at line \d+\)")


def read_python(code: str) -> ast.Module | str:
    """The syntax tree, or a short message that says why the code is invalid."""
    if len(code) > MAX_PARSED_CHARS:
        return f"it is longer than {MAX_PARSED_CHARS:,} characters"
    _silence()
    try:
        return rewrite.parse_block(code, _FILE)
    except SyntaxError as error:
        return _described(error)
    # Null bytes, lone surrogates, thousands of brackets
    except (ValueError, MemoryError, RecursionError) as error:
        return f"{type(error).__name__}: {str(error) or 'nested too deeply'}"


def _described(error: SyntaxError) -> str:
    """The message of a syntax error, its line, and a caret below its column."""
    message = f"{type(error).__name__}: {_DETECTED.sub('', error.msg)} (line {error.lineno})"
    line = (error.text or "").rstrip("\n")
    if not line.strip() or len(line) > _MAX_LINE_CHARS:
        return message
    indent = len(line) - len(line.lstrip())
    column = max((error.offset or 1) - 1 - indent, 0)
    return f"{message}\n    {line[indent:]}\n    {' ' * column}^"


def is_cut_string(wrong: str) -> bool:
    """Whether the message reports a string that does not end in its line."""
    return "unterminated string literal" in wrong or "unterminated f-string literal" in wrong


def is_cut(wrong: str) -> bool:
    """Whether the message reports that something in the code does not end."""
    return (
        "unterminated" in wrong
        or "was never closed" in wrong
        or "unexpected EOF" in wrong
        or "expected an indented block" in wrong
    )


def _silence() -> None:
    """Ignore the parser's warnings about invalid escapes in a model's code, with one global filter:
    `catch_warnings` is not thread-safe.
    """
    # Only once: after every change of the filters, Python repeats warnings that it has shown.
    if not any(
        getattr(module, "pattern", None) == _FILE for _, _, _, module, _ in warnings.filters
    ):
        warnings.filterwarnings("ignore", module=_FILE)


def is_plainly_code(tree: ast.Module) -> bool:
    """Whether this is code, not words that happen to be valid Python, such as "yes, no" or
    "Answer: Paris".
    """
    return any(map(_acts, tree.body)) and not any(map(_is_word, tree.body[:-1]))


def is_literal(tree: ast.Module) -> bool:
    """Whether the code is only one literal, as a REPL would print it."""
    match tree.body:
        case [ast.Expr(value=value)]:
            try:
                ast.literal_eval(value)
            except (ValueError, TypeError, MemoryError, RecursionError):
                return False
            return True
    return False


def may_be_words(expression: ast.expr) -> bool:
    """Whether an expression may be plain words that happen to be valid Python, such as "Paris,
    France" or "Paris (France)".
    """
    # Without recursion: "a - a - a - …" nests as deeply as it is long.
    for node in ast.walk(expression):
        match node:
            case ast.Constant(value=str() | bytes()):
                return False
            case ast.Call(keywords=keywords):
                if keywords or _is_call(node):
                    return False
            case (
                ast.Name()
                | ast.Constant()
                | ast.Tuple()
                | ast.List()
                | ast.Set()
                | ast.BinOp()
                | ast.UnaryOp()
                | ast.BoolOp()
                | ast.Compare()
            ):
                pass
            case ast.operator() | ast.unaryop() | ast.boolop() | ast.cmpop() | ast.expr_context():
                pass
            case _:
                return False
    return True


def _acts(statement: ast.stmt) -> bool:
    """Whether the statement calls, binds or branches."""
    match statement:
        case ast.Expr(value=value):
            return any(_is_call(node) for node in ast.walk(value))
        case ast.AnnAssign(value=None):
            return False
        case (
            ast.Pass()
            | ast.Raise()
            | ast.Assert()
            | ast.Return()
            | ast.Global()
            | ast.Break()
            | ast.Continue()
            | ast.Delete()
        ):
            return False
    return True


def _is_call(node: ast.AST) -> bool:
    """Whether this is a call in code, not words such as "Paris (France)"."""
    match node:
        case ast.Call(func=func, args=[ast.Name() as first, *_]):
            return (
                first.lineno != func.end_lineno
                or first.col_offset - (func.end_col_offset or 0) == 1
            )
        case ast.Call():
            return True
    return False


def _is_word(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Name() | ast.Tuple()) | ast.AnnAssign(value=None):
            return True
    return False
