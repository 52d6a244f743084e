"""Whether a text is Python: asked as the sandbox will ask, without its warnings and within bounds."""

import ast
import warnings

from rlm_integrations.sandbox import rewrite

LONGEST = 100_000  # characters, which take about 0.2 s
_FILE = "<reply>"


def read_python(code: str) -> ast.Module | str:
    """The syntax tree, or what is wrong with the code in a few words."""
    if len(code) > LONGEST:
        return f"it is longer than {LONGEST:,} characters"
    _silence()
    try:
        return rewrite.parse(code, _FILE)
    except SyntaxError as error:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    except (ValueError, MemoryError, RecursionError) as error:  # null bytes, lone surrogates, thousands of brackets
        return f"{type(error).__name__}: {str(error) or 'nested too deeply'}"


def _silence() -> None:
    """Let the parser be silent about a model's invalid escapes: one filter for one name, as catching warnings is not safe among threads."""
    # Once only: every change of the filters makes Python repeat warnings that it has shown.
    if not any(getattr(module, "pattern", None) == _FILE for _, _, _, module, _ in warnings.filters):
        warnings.filterwarnings("ignore", module=_FILE)


def is_plainly_code(tree: ast.Module) -> bool:
    """Whether this is code and no words that happen to be Python, such as "yes, no" or "Answer: Paris"."""
    return any(map(_acts, tree.body)) and not any(map(_is_word, tree.body[:-1]))


def _acts(statement: ast.stmt) -> bool:
    """Whether the statement calls, binds or branches."""
    match statement:
        case ast.Expr(value=value):
            return any(_is_call(node) for node in ast.walk(value))
        case ast.AnnAssign(value=None):
            return False
        case ast.Pass() | ast.Raise() | ast.Assert() | ast.Return() | ast.Global() | ast.Break() | ast.Continue() | ast.Delete():
            return False
    return True


def _is_call(node: ast.AST) -> bool:
    """Whether this is a call written as code is, not "Paris (France)"."""
    match node:
        case ast.Call(func=func, args=[ast.Name() as first, *_]):
            return first.lineno != func.end_lineno or first.col_offset - (func.end_col_offset or 0) == 1
        case ast.Call():
            return True
    return False


def _is_word(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Name() | ast.Tuple()) | ast.AnnAssign(value=None):
            return True
    return False
