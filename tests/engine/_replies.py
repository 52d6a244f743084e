"""Helpers of the tests of parsing."""

from rlm_integrations.engine.parsing import Reply


def codes(reply: Reply) -> list[str]:
    """The code that would run."""
    return [block.code for block in reply.blocks if block.note is None]


def kinds(reply: Reply) -> list[str]:
    return [note.kind for note in reply.notes]


def block(code: str, label: str = "repl", fence: str = "```") -> str:
    return f"{fence}{label}\n{code}\n{fence}\n"
