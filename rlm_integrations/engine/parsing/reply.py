"""A parsed reply: its blocks, a final in prose, and notes for the model."""

from dataclasses import dataclass
from typing import Literal

from rlm_integrations.engine.parsing.finals import ProseFinal

NoteKind = Literal[
    "chat_token",
    "final_beside_code",
    "final_refused",
    "invented_output",
    "no_object",
    "not_python",
    "other_language",
    "quotation",
    "unclosed_fence",
]


@dataclass(frozen=True, slots=True)
class Note:
    """A problem of a reply that is reported to the model; `prompts` has the messages.

    Attributes:
        kind: The kind of the problem.
        detail: The language of a block, the parser's error message, the line at which the reply
            was cut, or the answer that was not taken.
        block: The number of the block that was not run, counting those in Python.
        blocks: The number of blocks in Python; those after it were not run either.
    """

    kind: NoteKind
    detail: str = ""
    block: int = 1
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A fenced block.

    Attributes:
        language: Its label in lower case, "" if it has none.
        code: The text between the fences.
        note: Why it is not run; None for code that parses as Python.
    """

    language: str
    code: str
    note: Note | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed reply.

    Attributes:
        blocks: Its blocks, in order. A block with a note is not run: it is in another language, or
            it is the last one and is not valid Python.
        final: A final in prose, to be resolved after all blocks ran without an error; None if the
            last block is invalid.
        notes: The problems to report to the model, including those of blocks, in the order of the
            reply.
        cut: The length of the part that counts, in characters; None if all of it counts. The rest
            is left out of the conversation.
        words: What the reply says apart from its code; None if that is the reply itself.
    """

    blocks: tuple[CodeBlock, ...] = ()
    final: ProseFinal | None = None
    notes: tuple[Note, ...] = ()
    cut: int | None = None
    words: str | None = None

    @property
    def written(self) -> int:
        """How many blocks of Python it contains, including those that were not run."""
        failed = [
            block.note.blocks
            for block in self.blocks
            if block.note is not None and block.note.kind != "other_language"
        ]
        return max([sum(block.note is None for block in self.blocks), *failed])
