"""The documentation as tests read it.

`python -m tests.readme` writes the text of `ask --help` into it.
"""

import os
import re
from pathlib import Path

from rlm_integrations.cli import build_parser

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlm_integrations"
README = ROOT / "README.md"
ENGINE, LM, LANGCHAIN, LLAMA_INDEX, SANDBOX, STORAGE, REPORT, CLI = (
    PACKAGE / folder / "README.md"
    for folder in (
        "engine",
        "lm",
        "langchain",
        "llama_index",
        "sandbox",
        "storage",
        "report",
        "cli",
    )
)
AGENTS = PACKAGE / "langchain" / "agents" / "README.md"
MEMORY = PACKAGE / "llama_index" / "memory" / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    PACKAGE / "README.md",
    ENGINE,
    LM,
    LANGCHAIN,
    AGENTS,
    LLAMA_INDEX,
    MEMORY,
    SANDBOX,
    STORAGE,
    REPORT,
    CLI,
]

_HELP = re.compile(r"(<!-- help: .*? -->\n```text\n).*?(?=```\n)", re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def read_all() -> str:
    """The words of all pages: a name is documented where one of them has it."""
    return "\n".join(map(read, PAGES))


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each fenced block of a page, in order."""
    return _BLOCK.findall(read(page))


def blocks(page: Path, kind: str) -> list[str]:
    """The fenced blocks of this language, in order."""
    return [code for language, code in all_blocks(page) if language == kind]


def with_help(text: str) -> str:
    """The page with the help as it is now, at a width that does not depend on the terminal."""
    os.environ["COLUMNS"] = "120"
    help_text = build_parser().commands["ask"].format_help()
    return _HELP.sub(lambda found: f"{found[1]}{help_text}", text)


if __name__ == "__main__":
    CLI.write_text(with_help(read(CLI)), encoding="utf-8")
