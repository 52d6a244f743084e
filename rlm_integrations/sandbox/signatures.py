"""Signatures parsed from strings, so that `help` and `inspect.signature` work for host
functions.
"""

import ast
from functools import lru_cache
from inspect import Parameter, Signature
from typing import Any


class _Source:
    """A default or an annotation whose repr is its source text."""

    def __init__(self, node: ast.expr) -> None:
        self._text = ast.unparse(node)

    def __repr__(self) -> str:
        return self._text


@lru_cache(maxsize=256)  # every session has the same functions
def signature_of(text: str) -> Signature | None:
    """The signature of a string such as `(query, limit=50)`, or None if it is invalid."""
    try:
        tree = ast.parse(f"def function{text}: pass")
    except (SyntaxError, ValueError):
        return None
    match tree.body:
        case [ast.FunctionDef(args=given, returns=returns)]:
            return Signature(_parameters(given), return_annotation=_as_written(returns))
    return None


def _parameters(given: ast.arguments) -> list[Parameter]:
    positional = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(positional) - len(given.defaults)), *given.defaults]
    kinds = [Parameter.POSITIONAL_ONLY] * len(given.posonlyargs) + [
        Parameter.POSITIONAL_OR_KEYWORD
    ] * len(given.args)
    found = [_parameter(*each) for each in zip(positional, kinds, defaults, strict=True)]
    if given.vararg is not None:
        found.append(_parameter(given.vararg, Parameter.VAR_POSITIONAL))
    for named, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append(_parameter(named, Parameter.KEYWORD_ONLY, default))
    if given.kwarg is not None:
        found.append(_parameter(given.kwarg, Parameter.VAR_KEYWORD))
    return found


def _parameter(given: ast.arg, kind: Any, default: ast.expr | None = None) -> Parameter:
    return Parameter(
        given.arg, kind, default=_as_written(default), annotation=_as_written(given.annotation)
    )


def _as_written(node: ast.expr | None) -> Any:
    return Parameter.empty if node is None else _Source(node)  # the same object as Signature.empty
