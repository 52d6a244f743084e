"""The fences of a reply."""

import re
from dataclasses import dataclass
from itertools import islice
from typing import Final

PYTHON: Final = frozenset({"ipython", "py", "python", "python3", "repl", "tool_code"})
# Labels of blocks in which models show printed output
OUTPUT: Final = frozenset({"console", "output", "stderr", "stdout"})
QUOTING: Final = frozenset({"py", "python", "python3"})  # labels of quoted code too
_OTHERS: Final = (
    "bash c c++ cpp cs csharp css csv diff go graphql html http ini java javascript js json jsonl"
    " jsx kotlin latex log lua markdown math md mermaid php plain plaintext powershell r ruby rust"
    " sh shell sql swift tex text toml ts tsv tsx txt typescript xml yaml yml zsh"
)
LANGUAGES: Final = PYTHON | OUTPUT | frozenset(_OTHERS.split())
_MAX_FENCES: Final = 500

_FENCE: Final = re.compile(r"(`{3,}|~{3,})[ \t]*(?:\{\.?)?([\w+#.-]*)")
# After a label, perhaps with attributes
_LINE_END: Final = re.compile(r"[ \t\r:}]*(?:\w+=\"[^\n`]*)?(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class Fence:
    """Backticks or tildes with the label after them, and their place in the line.

    Attributes:
        start: The offset of the mark.
        end: The offset after the label.
        mark: The backticks or tildes.
        language: The label in lower case.
        starts_line: Whether only white space precedes it in its line.
        ends_line: Whether only attributes or white space follow it in its line.
    """

    start: int
    end: int
    mark: str
    language: str
    starts_line: bool
    ends_line: bool

    @property
    def is_at_edge(self) -> bool:
        """Whether it is at the start or at the end of its line."""
        return self.starts_line or self.ends_line

    @property
    def opens_python(self) -> bool:
        """Whether Python begins here. With a label, prose may precede it: `do that now.```repl`."""
        return self.ends_line and self.language in PYTHON

    @property
    def opens(self) -> bool:
        """Whether a block may begin here."""
        return self.opens_python or (self.starts_line and self.ends_line)

    def closes(self, opener: "Fence") -> bool:
        """Whether it closes the block of `opener` as Markdown requires: alone in its line, and at
        least as long.
        """
        return (
            self.starts_line
            and self.ends_line
            and not self.language
            and self.mark.startswith(opener.mark)
        )


def find_fences(text: str) -> list[Fence]:
    """The first 500 fences of a reply."""
    return [_fence(text, match) for match in islice(_FENCE.finditer(text), _MAX_FENCES)]


def _fence(text: str, match: re.Match[str]) -> Fence:
    before = text[max(match.start() - 200, 0) : match.start()].rstrip(" \t")
    return Fence(
        start=match.start(),
        end=match.end(),
        mark=match.group(1),
        language=match.group(2).lower(),
        starts_line=before.endswith("\n") or (not before and match.start() <= 200),
        ends_line=_LINE_END.match(text, match.end()) is not None,
    )
