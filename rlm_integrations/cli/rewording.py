"""Rewords messages of the library, which name its options, for the command line."""

import re
from typing import Final

_OPTIONS: Final = {
    "max_parallel_calls": "--max-parallel",
    "max_cost": "--max-cost",
    "max_tokens": "--max-tokens",
    "max_calls": "--max-calls",
    "older_than": "--older-than",
}
_PHRASES: Final = {
    r"pass its encoding, or errors='replace'": "give its --encoding, or --errors replace",
    r"choose an encoding such as 'utf-8', and errors such as": (
        "choose an --encoding such as utf-8, and --errors such as"
    ),
    r"pass api_key=…, set OPENAI_API_KEY, or use the model 'offline', which needs none": (
        "set OPENAI_API_KEY, or use --model offline"
    ),
    r"read it yourself and pass its content": "name a file or a pipe",
    r"or use search_text for free text": "or use --text for free text",
    r"(there is no run .* in this storage)$": r"\1; `rlm-integrations runs` lists them",
    r": pass the key as api_key": ": set OPENAI_API_KEY",
    r"\ba base_url\b": "a --base-url",
    r"\bvalid utf-8-sig\b": "valid utf-8",
}


def reword(message: str) -> str:
    """The message with the options of the command line."""
    for pattern, ours in _PHRASES.items():
        message = re.sub(pattern, ours, message)
    return re.sub(rf"\b({'|'.join(_OPTIONS)})\b", lambda found: _OPTIONS[found[1]], message)
