"""README.md as tests read it. `python -m tests.readme` writes the text of `ask --help` into it."""

import os
import re
from pathlib import Path

from rlm_integrations.cli import parsers

README = Path(__file__).parents[1] / "README.md"
_HELP = re.compile(r"(<!-- help: .*? -->\n```text\n).*?(?=```\n)", re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(kind: str) -> list[str]:
    """The fenced blocks of this language, in order."""
    return [
        code
        for language, code in _BLOCK.findall(README.read_text(encoding="utf-8"))
        if language == kind
    ]


def with_help(readme: str) -> str:
    """The README with the help as it is now, at a width that does not depend on the terminal."""
    os.environ["COLUMNS"] = "120"
    text = parsers()[1].format_help()
    return _HELP.sub(lambda found: f"{found[1]}{text}", readme)


if __name__ == "__main__":
    README.write_text(with_help(README.read_text(encoding="utf-8")), encoding="utf-8")
