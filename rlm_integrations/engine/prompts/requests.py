"""What the engine asks in one call: the answer over a short document, and questions for workers."""

import json
from collections.abc import Mapping
from typing import Any

from rlm_integrations.engine.prompts.system import instructed

_SINGLE = (
    "Answer the question from the document alone. After the answer, quote word for word what "
    "supports it, each quote in a line of its own "
    'that begins with "> ". Where the document does not say, say so.'
)
IN_CONTEXT = "Do what the context asks for; it is one message, with all that is needed in it."
_NO_DOCUMENT = "You see this message alone and no document: say nothing that is not in it."
_COMMIT = (
    '{"creates": [{"id": "e1", "type": "evidence", "description": "…", "content": "…", "backrefs": '
    '[], "tags": []}], '
    '"links": [], "proposes_updates": []}.'
)


def single_call(schema: Mapping[str, Any] | None, instructions: str | None = None) -> str:
    """The system prompt of the one call over a short document."""
    typed = (
        ""
        if schema is None
        else " The answer is JSON and fits this schema: " + json.dumps(schema, ensure_ascii=False)
    )
    return f"{_SINGLE}{typed}{instructed(instructions)}"


def worker_question(prompt: str, cards: Any, *, has_repl: bool) -> str:
    """The question for a worker, whose answer is a commit.

    Args:
        prompt: What to explore.
        cards: What is known so far, or None.
        has_repl: Whether the worker has a REPL with the document.
    """
    known = f"\n\nKnown so far:\n{cards}" if cards else ""
    form = (
        f"Finish with FINAL of a dict: {_COMMIT}"
        if has_repl
        else f"{_NO_DOCUMENT} Answer with JSON alone: {_COMMIT}"
    )
    return f"{prompt}{known}\n\n{form}"
