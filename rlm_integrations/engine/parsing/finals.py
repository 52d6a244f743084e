"""Finals in prose: `FINAL(…)` that a model writes outside its code. Pure functions of strings."""

import ast
import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from rlm_integrations.engine.parsing.python import MAX_PARSED_CHARS, may_be_words, read_python

_MAX_CANDIDATES = 5  # per reply, so that pages of repetition are not slow

_CALL = re.compile(r"\b(FINAL_VAR|FINAL|SUBMIT|final_answer)[ \t]*\(")
_MARKUP = "*_`>#\"' \t\r"
_SENTENCE_ENDS = (".", "!", "?", ":", "…", "\u3002")
_TOKEN = re.compile(r"\\.|\"\"\"|'''|[\"'()]", re.DOTALL)
_QUOTE = re.compile(r"\s*[bfrBFR]{0,2}[\"']")
# Text that may follow a final in its line. If the next line begins in lower case, the final is in
# the middle of a wrapped sentence.
_LINE_END = re.compile(r"[*_`\"'.;,!)\]]*[ \t\r]*(?:#[^\n]*)?(?:\Z|\n(?![a-z]))")
_FINAL_ANSWER = re.compile(
    r"^[ \t*_`#>]*final[ \t]+answer[ \t*_`]*(?:is)?:", re.IGNORECASE | re.MULTILINE
)
_ANSWER_MARKUP = "*_` \t\r\n"
_LOOKS_UP = re.compile(r"[^\W\d]\w*[.\[(]\S")
_NAME = re.compile(r"\w+")  # a possible variable name: "14" too
_REPLY_END = re.compile(r"[\s*_`\"'.;,!)\]]*\Z")


@dataclass(frozen=True, slots=True)
class ProseFinal:
    """A final that a model wrote outside its code, before the REPL resolves it.

    Attributes:
        kind: "value" is the literal answer. "variable" is the name in a FINAL_VAR; if there is no
            such variable, it is not a final. "name" is a bare word: the variable if there is one,
            otherwise the answer. "words" are also valid Python: the answer is their value, or the
            words if running them fails. "expression" is code: the answer is its value; if running
            it fails, it is not a final.
        text: The answer, the name, or the source of the expression.
        code: The final as a call to run in the REPL.
    """

    kind: Literal["value", "variable", "name", "words", "expression"]
    text: str
    code: str


def find_final(text: str, segments: Sequence[tuple[int, int]]) -> ProseFinal | None:
    """The last final at a valid place in these segments of prose, the last of which ends the reply;
    None if there is none.
    """
    tried = 0
    for segment in reversed(segments):
        for call in reversed(deque(_CALL.finditer(text, *segment), maxlen=50)):
            place = _place(text, call.start(), segment)
            if place is None or (place == "sentence" and segment is not segments[-1]):
                continue
            if (tried := tried + 1) > _MAX_CANDIDATES:
                return None
            end = _end_of_call(text, call.end(), segment[1])
            after = _LINE_END if place == "line" else _REPLY_END
            if end is not None and after.match(text, end, segment[1]):
                return _read(call.group(1), text[call.end() : end - 1].strip())
    return None


def find_final_answer(text: str, start: int, stop: int) -> ProseFinal | None:
    """The answer after the last line that begins with "FINAL ANSWER:", which some models write
    instead of a call.
    """
    headings = deque(_FINAL_ANSWER.finditer(text, start, stop), maxlen=1)
    answer = text[headings[0].end() : stop].strip(_ANSWER_MARKUP) if headings else ""
    return _read("FINAL", answer) if answer.isidentifier() else _value(answer) if answer else None


def lone_final(code: str) -> ProseFinal | None:
    """The final of a block that is not valid Python and only one such call, read as in prose."""
    code = code.strip()
    call = _CALL.match(code)
    end = _end_of_call(code, call.end(), len(code)) if call is not None else None
    if call is None or end is None or not _REPLY_END.match(code, end):
        return None
    return _read(call.group(1), code[call.end() : end - 1].strip())


def is_plain(final: ProseFinal, code: str) -> bool:
    """Whether the argument of a block's only final has no quotes, so that all of it was read."""
    call = _CALL.match(code.strip())
    return (
        call is not None
        and final.kind != "expression"
        and not _QUOTE.match(code.strip(), call.end())
    )


def literal_of_final_var(code: str) -> str | None:
    """The literal argument of the last FINAL_VAR in this code, or None."""
    tree = read_python(code)
    literal = None
    for node in ast.walk(tree) if isinstance(tree, ast.Module) else ():
        match node:
            case ast.Call(func=ast.Name(id="FINAL_VAR"), args=[ast.Constant(value=str(value)), *_]):
                literal = value
    return literal


def end_of_final_over(text: str, start: int, stop: int) -> int | None:
    """The end of a final that begins in this prose and whose quoted argument extends beyond it,
    over the fences that it quotes; otherwise None.
    """
    calls = deque(_CALL.finditer(text, start, stop), maxlen=1)
    if (
        not calls
        or _place(text, calls[0].start(), (start, stop)) != "line"
        or not _QUOTE.match(text, calls[0].end())
    ):
        return None
    end = _closing(text, calls[0].end(), len(text), quotes=True)
    return end if end is not None and end > stop and _LINE_END.match(text, end) else None


def is_final(tree: ast.Module) -> bool:
    """Whether the code is only one such call, perhaps attached to a word: `so.FINAL(x)`."""
    match tree.body:
        case [ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)))]:
            return _CALL.fullmatch(f"{name}(") is not None
    return False


def _place(text: str, at: int, segment: tuple[int, int]) -> Literal["line", "sentence"] | None:
    """Whether a call is at the start of a line, or after the end of a sentence; otherwise None."""
    line = max(text.rfind("\n", segment[0], at) + 1, segment[0])
    before = text[max(line, at - 200) : at].strip(_MARKUP)
    if not before:
        return "line"
    # "1. FINAL(x)" is an item of a plan.
    return (
        "sentence"
        if before.endswith(_SENTENCE_ENDS) and any(char.isalpha() for char in before)
        else None
    )


def _end_of_call(text: str, start: int, stop: int) -> int | None:
    """The offset after the parenthesis that closes a call. Its argument may be Python, or plain
    words with apostrophes.
    """
    as_code = _closing(text, start, stop, quotes=True)
    as_words = _closing(text, start, stop, quotes=False)
    if as_code is None or as_code == as_words or _QUOTE.match(text, start):
        return as_code or as_words
    return (
        as_words if isinstance(read_python(f"FINAL({text[start : as_code - 1]})"), str) else as_code
    )


def _closing(text: str, start: int, stop: int, *, quotes: bool) -> int | None:
    depth, quote = 1, ""
    for match in _TOKEN.finditer(text, start, min(stop, start + MAX_PARSED_CHARS)):
        piece = match.group()
        if piece[0] == "\\":
            continue
        if quote:
            if piece.startswith(quote):
                quote = ""
        elif piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
            if depth == 0:
                return match.end()
        elif quotes:
            quote = piece
    return None


def _read(function: str, argument: str) -> ProseFinal | None:
    """The final of a call; None if its argument is empty, as in "call FINAL()"."""
    if not argument:
        return None
    call = _as_call(argument)
    value = call.args[0] if call is not None and len(call.args) == 1 and not call.keywords else None
    if function == "FINAL_VAR" and (call is None or isinstance(value, ast.Name | ast.Constant)):
        name = _unquoted(argument).strip()
        # The REPL looks up `found["a"]` in quotes. Other words, which cannot be a variable name,
        # are the answer.
        kind: Literal["variable", "expression", "value"] = "value"
        kind = (
            "variable" if _NAME.fullmatch(name) else "expression" if _LOOKS_UP.match(name) else kind
        )
        return ProseFinal(kind, name, f"FINAL_VAR({name!r})")
    if call is None:
        return _value(_unquoted(argument))
    if isinstance(value, ast.Name):
        return ProseFinal("name", value.id, f"FINAL({value.id})")
    if value is not None:
        with suppress(ValueError, TypeError, MemoryError, RecursionError):
            literal = ast.literal_eval(value)
            return ProseFinal(
                "value", literal if isinstance(literal, str) else argument, f"FINAL({argument})"
            )
    if not call.keywords and all(map(may_be_words, call.args)):
        return ProseFinal("words", argument, f"FINAL({argument})")
    # SUBMIT takes fields and several values, which FINAL does not.
    takes = function if call.keywords or len(call.args) > 1 else "FINAL"
    return ProseFinal("expression", argument, f"{takes}({argument})")


def _value(text: str) -> ProseFinal:
    return ProseFinal("value", text, f"FINAL({text!r})")


def _as_call(argument: str) -> ast.Call | None:
    match read_python(f"FINAL({argument})"):
        case ast.Module(body=[ast.Expr(value=ast.Call(func=ast.Name(id="FINAL")) as call)]):
            return call
    return None


def _unquoted(argument: str) -> str:
    for quote in ('"""', "'''", '"', "'", "`"):
        if (
            len(argument) >= 2 * len(quote)
            and argument.startswith(quote)
            and argument.endswith(quote)
        ):
            return argument[len(quote) : -len(quote)]
    return argument
