"""A model's reply, read: the blocks to run, a final in prose, and what the model must be told. Pure
functions of the text.

Models mention fences in prose, put fences into string literals, forget to close them, repeat
themselves for pages, and invent the REPL's output. The rules:

- A block closes at the first fence after which its code parses as Python. One that never parses is
not run, nor is one that never
  closes, unless it ends the reply, parses, and is short enough not to have been cut.
- What follows a leaked chat token, or an output that the model invented after its own block, does
not count. - Fences are read first: no rule about prose looks inside one.
- A final in prose counts at the start of a line, or after a sentence where it ends the reply; never
beside a block that is not run.
  A block that is no Python and nothing but such a final is read as prose.
"""

import ast
import re
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from rlm_integrations.engine.parsing.finals import (
    ProseFinal,
    end_of_final_over,
    find_final,
    find_final_answer,
    is_final,
    is_plain,
    lone_final,
)
from rlm_integrations.engine.parsing.python import (
    MAX_PARSED_CHARS,
    is_cut,
    is_literal,
    is_plainly_code,
    read_python,
)

__all__ = ["CodeBlock", "Note", "ProseFinal", "Reply", "parse_reply"]

_PYTHON = frozenset({"ipython", "py", "python", "python3", "repl", "tool_code"})
# Labels of blocks in which models show what code printed
_OUTPUT = frozenset({"console", "output", "stderr", "stdout"})
_QUOTING = frozenset({"py", "python", "python3"})  # labels that models give to code they quote, too
_OTHERS = (
    "bash c c++ cpp cs csharp css csv diff go graphql html http ini java javascript js json jsonl jsx kotlin latex log lua markdown math md"
    " mermaid php plain plaintext powershell r ruby rust sh shell sql swift tex text toml ts tsv tsx txt typescript xml yaml yml zsh"
)
_LANGUAGES = _PYTHON | _OUTPUT | frozenset(_OTHERS.split())
# Characters of a block; a longer one was cut, or is repetition without an end
_LONGEST_UNCLOSED = 10_000
_MOST_FENCES = 500
_MOST_READ = 2 * MAX_PARSED_CHARS  # characters given to Python's parser for one reply
_MOST_FINALS_TRIED = 5

_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*(?:\{\.?)?([\w+#.-]*)")
_CHAT_TOKEN = re.compile(
    r"(?<![`\"'])(?:<\|[a-z_]{2,30}\|>|<\uff5c[^\uff5c\n]{2,30}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\])"
)
_OPENING_TOKENS = re.compile(
    r"(?:\s*(?:<\|[a-z_]{2,30}\|>|<start_of_turn>)[ \t]*(?:(?:assistant|model)\b)?)+"
)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>")
_END_OF_THOUGHT_LINE = re.compile(r"</think(?:ing)?>[ \t\r]*(?:\n|\Z)")
# After a label, perhaps with attributes
_LINE_END = re.compile(r"[ \t\r:}]*(?:\w+=\"[^\n`]*)?(?:\n|\Z)")
_LOOKS_LIKE_CODE = re.compile(
    r"^[ \t]*(?:import \w|from \w+ import |def \w+\(|print\(|[\w.]+ = |for [\w, ()]{1,60} in )",
    re.MULTILINE,
)
_INVENTED = re.compile(
    r"""^[^\w\n]{0,6}
    (?: (?:(?:the|code|console|execution|program|repl|actual)\ )*(?:output|stdout|observation)s?
        (?:\ (?:is|was|\d+|\([^\n)]{0,40}\)|(?:of|from|for)\b[^\n:]{0,40}))?
    | (?:code|execution|repl)\ (?:executed|response|results?|returned|says)
    | (?:human|user)(?=:)
    ) [\]*_\ \t]* (?::|\r?$)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)

NoteKind = Literal[
    "chat_token",
    "final_refused",
    "invented_output",
    "not_python",
    "other_language",
    "quotation",
    "unclosed_fence",
]


@dataclass(frozen=True, slots=True)
class Note:
    """Something about its reply that the model must be told; `prompts` has the words.

    Attributes:
        kind: What it is.
        detail: The language of a block, the parser's words for what is wrong with code, or the line
            at which the reply was cut.
        block: The number of the block that was not run, among those in Python.
        blocks: How many of these there are; those after it were not run either.
    """

    kind: NoteKind
    detail: str = ""
    block: int = 1
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A fenced block.

    Attributes:
        language: Its label in lower case, "" where it has none.
        code: What stands between the fences.
        note: Why it is not to be run; None for code that parses as Python.
    """

    language: str
    code: str
    note: Note | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply asks for.

    Attributes:
        blocks: What it wants to be run, in order. One with a note is not run: in another language,
            or the last, which failed.
        final: A final in prose, to be resolved once all blocks ran without an error; never given
            beside a block that failed.
        notes: What the model must be told, the notes of blocks included, in the order of the reply.
        cut: Where the part that counts ends, in characters; None where all of it counts. What
            follows does not belong in the history.
    """

    blocks: tuple[CodeBlock, ...] = ()
    final: ProseFinal | None = None
    notes: tuple[Note, ...] = ()
    cut: int | None = None

    @property
    def written(self) -> int:
        """How many blocks of Python it holds, those that were not run included."""
        failed = [
            block.note.blocks
            for block in self.blocks
            if block.note is not None and block.note.kind != "other_language"
        ]
        return max([sum(block.note is None for block in self.blocks), *failed])


@dataclass(frozen=True, slots=True)
class _Fence:
    """A run of backticks or tildes, with the label after it and what else there is in its line."""

    start: int
    end: int  # after the label
    mark: str
    language: str
    starts_line: bool
    ends_line: bool

    @property
    def is_at_edge(self) -> bool:
        return self.starts_line or self.ends_line

    @property
    def opens_python(self) -> bool:
        """Whether Python begins here. The label makes sure, so prose may stand before it: `do that
        now.```repl`.
        """
        return self.ends_line and self.language in _PYTHON

    @property
    def opens(self) -> bool:
        return self.opens_python or (self.starts_line and self.ends_line)

    def closes(self, opener: "_Fence") -> bool:
        """Whether a block ends here by the book: alone in its line, at least as long."""
        return (
            self.starts_line
            and self.ends_line
            and not self.language
            and self.mark.startswith(opener.mark)
        )


def parse_reply(text: str, *, is_cut: bool = False) -> Reply:
    """What this reply asks for. Never raises; the time grows with the length alone, whatever the
    text.

    Args:
        text: The reply.
        is_cut: Whether the provider cut it, so that its last block may be a part of what was meant.
    """
    return _Reader(text, is_cut=is_cut).read()


class _Reader:
    """One pass over one reply."""

    def __init__(self, text: str, *, is_cut: bool) -> None:
        self.text = text
        self.is_cut = is_cut
        self.fences = [_fence(text, match) for match in islice(_FENCE.finditer(text), _MOST_FENCES)]
        self.left_to_read = _MOST_READ
        self.left_to_try = _MOST_FINALS_TRIED
        self.blocks: list[CodeBlock] = []
        self.notes: list[Note] = []
        self.prose: list[tuple[int, int]] = []
        self.fenced: ProseFinal | None = None  # the last final that is alone in a fence
        self.invention: int | None = None  # where a block begins that is an invented output

    def read(self) -> Reply:
        start, cut = _start(self.text), None
        at = here = start  # where the prose began, and where to look on
        for number, fence in enumerate(self.fences):
            if fence.start < here or not fence.opens:
                continue
            if (end := self._end_of_final(at, fence.start)) is not None:
                here = end
                continue
            if (cut := self._cut(here, fence)) is not None:
                break
            end = self._block(
                number, is_doubled=bool(self.blocks) and not self.text[at : fence.start].strip()
            )
            if (cut := self.invention) is not None:
                break
            if end is None:
                here = fence.end  # no block: prose goes on
                continue
            self.prose.append((at, fence.start))
            at = here = end
            if self._has_failed():
                # As in any REPL, nothing after it runs; what seems to be a block may be a piece of
                # this one
                break
        if cut is None:
            cut = self._cut(here, None)
        self.prose.append((at, len(self.text) if cut is None else cut))
        final = (
            None
            if self._takes_bare_code(start)
            else self.fenced or find_final(self.text, self.prose)
        )
        if final is None and not self.blocks:
            final = find_final_answer(self.text, *self.prose[-1])
        if final is not None and self._has_failed():
            final = None
            self.notes.append(Note("final_refused"))
        return Reply(tuple(self.blocks), final, tuple(self.notes), cut)

    def _has_failed(self) -> bool:
        return any(
            block.note is not None and block.note.kind != "other_language"
            for block in self.blocks[-1:]
        )

    def _end_of_final(self, start: int, stop: int) -> int | None:
        """Where a final ends that quotes the fence at `stop`."""
        self.left_to_try -= 1
        return end_of_final_over(self.text, start, stop) if self.left_to_try >= 0 else None

    def _cut(self, start: int, fence: _Fence | None) -> int | None:
        """Where, in the prose before this fence, the model began to speak for others."""
        stop = len(self.text) if fence is None else fence.start
        token = _CHAT_TOKEN.search(self.text, start, stop)
        invented = (
            _INVENTED.search(self.text, start, token.start() if token else stop)
            if self.blocks
            else None
        )
        if invented is not None:
            self.notes.append(Note("invented_output", invented.group().strip()))
            return invented.start()
        if token is not None:
            if _CHAT_TOKEN.sub("", self.text[token.start() :]).strip():
                self.notes.append(Note("chat_token", token.group()))
            return token.start()
        if fence is not None and fence.language in _OUTPUT and self.blocks:
            self.notes.append(Note("invented_output", self.text[fence.start : fence.end]))
            return fence.start
        return None

    def _block(self, number: int, *, is_doubled: bool) -> int | None:
        """Read the block that opens at this fence; where it ends, or None where nothing opens.

        Args:
            number: The fence.
            is_doubled: Whether only white space stands between it and the block before.
        """
        opener, later = self.fences[number], self.fences[number + 1 :]
        closers = [fence for fence in later if fence.closes(opener)]
        is_python = not opener.language or opener.language in _PYTHON
        wrong = ""
        if is_python:
            # Where no proper fence will do: one that is shorter, or glued to code or prose, or the
            # next block's.
            others = [
                fence
                for fence in later
                if fence.mark[0] == opener.mark[0] and fence.is_at_edge and not fence.closes(opener)
            ]
            for closer in (*closers, *others):
                code = self._code(opener, closer)
                tree = self._parse(code)
                if isinstance(tree, str):
                    wrong = wrong or tree
                    continue
                if not opener.language and not is_plainly_code(tree):
                    break  # words, a number, a line of output
                if is_literal(tree) and any(block.note is None for block in self.blocks):
                    self.notes.append(
                        Note("invented_output", code.strip().partition("\n")[0][:100])
                    )
                    self.invention = opener.start
                elif code.strip():
                    self.blocks.append(CodeBlock(opener.language, code))
                return self._after(closer)
        next_python = next((fence for fence in later if fence.opens_python), None)
        end = min(
            (fence for fence in (*closers[:1], next_python) if fence),
            key=lambda fence: fence.start,
            default=None,
        )
        code = self._code(opener, end)
        is_before_python = end is not None and end is next_python
        if end is None and not code.strip():
            return None
        if not opener.language and (is_doubled or is_before_python):
            return None
        if (
            is_python
            and not (opener.language and opener.starts_line)
            and not _LOOKS_LIKE_CODE.search(code)
        ):
            if opener.language:
                return None  # a sentence that ends with the mention of a fence
            if end is not None:
                return end.end  # a quotation
        if end is not None and self._is_final(opener, code):
            return end.end
        if end is None and is_python and (whole := self._unclosed(opener, code)):
            self.blocks.append(CodeBlock(opener.language, whole))
            return len(self.text)
        after = len(self.text) if end is None else end.start if is_before_python else end.end
        block = sum(block.note is None for block in self.blocks) + 1
        blocks = block + sum(
            fence.opens_python and fence.starts_line and fence.start >= after for fence in later
        )
        if (
            blocks > block
            and opener.language in _QUOTING
            and "\n" not in code.strip()
            and not is_cut(wrong)
        ):
            self.notes.append(Note("quotation", wrong))
            return after
        if end is None:
            note = Note("unclosed_fence", "", block, blocks)
        elif is_python:
            note = Note("not_python", wrong, block, blocks)
        else:
            note = Note("other_language", opener.language)
        self.blocks.append(CodeBlock(opener.language, code, note))
        self.notes.append(note)
        return after

    def _after(self, closer: _Fence) -> int:
        """Where the text goes on after a block: at the next one where its fence closes this one, as
        it were.
        """
        if not closer.opens or not closer.language:
            return closer.start + len(closer.mark)
        opens_next = closer.language in _LANGUAGES and not _OPENING_TOKENS.match(
            self.text, closer.end
        )
        return closer.start if opens_next else closer.end

    def _is_final(self, opener: _Fence, code: str) -> bool:
        """Whether the block is a final that was put into a fence: plain words in a Python block,
        any in one of no language.
        """
        if opener.language in _LANGUAGES - _PYTHON:
            return False
        final = lone_final(code)
        if final is None or (opener.language in _PYTHON and not is_plain(final, code)):
            return False
        self.fenced = final
        return True

    def _unclosed(self, opener: _Fence, code: str) -> str:
        """The code of a block that ends the reply without a fence, if it is whole; else ""."""
        token = _CHAT_TOKEN.search(code)
        if token is not None and not _CHAT_TOKEN.sub("", code[token.start() :]).strip():
            code = code[: token.start()].rstrip()
        if self.is_cut or len(code) > _LONGEST_UNCLOSED:
            return ""
        tree = self._parse(code)
        return (
            code
            if isinstance(tree, ast.Module) and (opener.language or is_plainly_code(tree))
            else ""
        )

    def _code(self, opener: _Fence, closer: _Fence | None) -> str:
        begin = self.text.find("\n", opener.end) + 1 or len(self.text)
        return self.text[begin : closer.start if closer else len(self.text)].rstrip()

    def _parse(self, code: str) -> ast.Module | str:
        self.left_to_read -= len(code)
        return read_python(code) if self.left_to_read >= 0 else "the reply is too long to be read"

    def _takes_bare_code(self, start: int) -> bool:
        """Whether the reply is code without a fence.

        A lone FINAL(…) is read as prose, where a bare word may be the answer.
        """
        stop = self.prose[-1][1]
        opener = next((fence for fence in self.fences if fence.opens and fence.start < stop), None)
        if opener is not None:
            if opener.language or self.text[opener.end : stop].strip():
                return False
            stop = opener.start  # nothing but a closing fence at the end
        code = self.text[start:stop].strip()
        tree = self._parse(code)
        if isinstance(tree, str) or not is_plainly_code(tree) or is_final(tree):
            return False
        self.blocks.append(CodeBlock("", code))
        return True


def _fence(text: str, match: re.Match[str]) -> _Fence:
    before = text[max(match.start() - 200, 0) : match.start()].rstrip(" \t")
    return _Fence(
        start=match.start(),
        end=match.end(),
        mark=match.group(1),
        language=match.group(2).lower(),
        starts_line=before.endswith("\n") or (not before and match.start() <= 200),
        ends_line=_LINE_END.match(text, match.end()) is not None,
    )


def _start(text: str) -> int:
    """Where the reply begins after leaked tokens that open it, and after the model's thoughts."""
    start = match.end() if (match := _OPENING_TOKENS.match(text)) else 0
    if text[start : start + 200].lstrip().startswith(("<think>", "<thinking>")):
        closing = _END_OF_THOUGHT.search(text, start)
    else:
        # Servers that write the opening tag themselves
        closing = _END_OF_THOUGHT_LINE.search(text, start)
    return closing.end() if closing else start
