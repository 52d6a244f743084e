"""Parses a reply that is a JSON object, of a root with `RLM(structured=True)`. Pure functions of
strings.
"""

import ast
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from rlm_integrations.engine.parsing.finals import ProseFinal, lone_final
from rlm_integrations.engine.parsing.python import read_python
from rlm_integrations.engine.parsing.reader import parse_reply
from rlm_integrations.engine.parsing.reply import CodeBlock, Note, Reply

_MAYBE: Final = {"anyOf": [{"type": "string"}, {"type": "null"}]}
# In the form that strict providers ask for: every field is required, and there are no others
SCHEMA: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "title": "turn",
        "description": "One turn: the code to run next, or the final answer.",
        "type": "object",
        "properties": {
            "reasoning": {"type": "string", "description": "What you think, in a few words."},
            "code": {**_MAYBE, "description": "The Python code to run next, or null."},
            "final": {**_MAYBE, "description": "The final answer, or null."},
        },
        "required": ["reasoning", "code", "final"],
        "additionalProperties": False,
    }
)


def parse_structured(text: str, *, is_cut: bool = False) -> Reply:
    """The parsed reply. Never raises. A reply without an object is read as one in prose.

    An answer beside code is not taken, because the model has not seen what the code prints, unless
    it is a variable: `FINAL_VAR(name)`.

    Args:
        text: The reply.
        is_cut: Whether the provider truncated it.
    """
    fields = object_in(text)
    if fields is None:
        reply = parse_reply(text, is_cut=is_cut)
        return (
            reply
            if reply.blocks or reply.final or reply.notes
            else Reply(notes=(Note("no_object"),))
        )
    code, final = fields.get("code"), fields.get("final")
    blocks = _blocks(code) if isinstance(code, str) and code.strip() else ()
    notes = tuple(block.note for block in blocks if block.note is not None)
    found = None if final is None or final == "" else _final(final)
    if blocks and found is not None and found.kind != "variable":
        notes, found = (*notes, Note("final_beside_code", found.text)), None
    elif notes and found is not None:
        notes, found = (*notes, Note("final_refused")), None
    words = fields.get("reasoning")
    said = words if isinstance(words, str) and not blocks else ""
    return Reply(blocks, found, notes, words=said.strip())


def object_in(text: str) -> dict[str, Any] | None:
    """The first JSON object in a reply that has one of the fields, or None."""
    start = text.find("{")
    if start < 0:
        return None
    decoder = json.JSONDecoder(strict=False, parse_constant=_refuse)
    try:
        found, _ = decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.keys() & SCHEMA["required"] else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and the infinities are no JSON


def _blocks(code: str) -> tuple[CodeBlock, ...]:
    """The code, or the blocks in it if the model has fenced it all the same."""
    read = read_python(code)
    if isinstance(read, ast.Module):
        return (CodeBlock("repl", code),)
    fenced = parse_reply(code).blocks if "```" in code or "~~~" in code else ()
    return fenced or (CodeBlock("repl", code, Note("not_python", read)),)


def _final(value: Any) -> ProseFinal:
    called = lone_final(value) if isinstance(value, str) else None
    if called is not None:
        return called
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return ProseFinal("value", text, f"FINAL({value!r})")
