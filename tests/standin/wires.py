"""Selects the API of a request by its address."""

import re
from collections.abc import Sequence
from typing import Any

from tests.standin import wire_gemini
from tests.standin.wire import Wire
from tests.standin.wire_anthropic import ANTHROPIC
from tests.standin.wire_gemini import GEMINI
from tests.standin.wire_openai import OPENAI

BY_PATH = {"/v1/chat/completions": OPENAI, "/v1/messages": ANTHROPIC}


def wire_of(path: str) -> Wire | None:
    """The API of this address, if it requests an answer."""
    return BY_PATH.get(path) or (GEMINI if wire_gemini.METHOD.fullmatch(path) else None)


def listing(path: str, models: Sequence[str]) -> dict[str, Any] | None:
    """The models at this address: OpenAI's list, Gemini's list, or Gemini's card of one."""
    if path == "/v1/models":
        return {
            "object": "list",
            "data": [
                {"id": each, "object": "model", "created": 0, "owned_by": "stand-in"}
                for each in models
            ],
        }
    if re.fullmatch(r"/v1\w+/models", path):
        return {"models": [wire_gemini.card(each) for each in models]}
    found = wire_gemini.CARD.fullmatch(path)
    return None if found is None else wire_gemini.card(found["model"])
