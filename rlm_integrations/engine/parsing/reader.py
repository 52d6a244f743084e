"""Parses a model's reply: the blocks to run, a final in prose, and notes for the model. Pure
functions of strings.

Models mention fences in prose, put fences into string literals, forget to close them, repeat
themselves for pages, and invent the REPL's output. The rules:

- A block closes at the first fence after which its code parses as Python. A block that never parses
  is not run. Nor is one that never closes, unless it ends the reply, parses, and is too short to
  have been truncated.
- Text after a leaked chat token, or after output that the model invented after its own block, does
  not count.
- Fences are read first: rules about prose do not apply inside a fence.
- A final in prose counts at the start of a line, or after a sentence if it ends the reply; never
  together with a block that is not run. A block that is not valid Python and only contains such a
  final is read as prose.
"""

import ast
import re
from typing import Final

from rlm_integrations.engine.parsing.fences import (
    LANGUAGES,
    OUTPUT,
    PYTHON,
    QUOTING,
    Fence,
    find_fences,
)
from rlm_integrations.engine.parsing.finals import (
    ProseFinal,
    end_of_final_over,
    find_final,
    find_final_answer,
    is_final,
    is_plain,
    lone_final,
)
from rlm_integrations.engine.parsing.leaks import (
    CHAT_TOKEN,
    INVENTED,
    OPENING_TOKENS,
    start_of_reply,
)
from rlm_integrations.engine.parsing.python import (
    MAX_PARSED_CHARS,
    is_cut,
    is_literal,
    is_plainly_code,
    read_python,
)
from rlm_integrations.engine.parsing.reply import CodeBlock, Note, Reply

# Characters of a block; a longer one was truncated, or is endless repetition
_MAX_UNCLOSED_CHARS: Final = 10_000
_MAX_READ_CHARS: Final = 2 * MAX_PARSED_CHARS  # characters of one reply for Python's parser
_MAX_FINALS: Final = 5  # finals with a quoted fence that are tried

_LOOKS_LIKE_CODE: Final = re.compile(
    r"^[ \t]*(?:import \w|from \w+ import |def \w+\(|print\(|[\w.]+ = |for [\w, ()]{1,60} in )",
    re.MULTILINE,
)


def parse_reply(text: str, *, is_cut: bool = False) -> Reply:
    """The parsed reply. Never raises. The time is proportional to the length, for any text.

    Args:
        text: The reply.
        is_cut: Whether the provider truncated it, so that its last block may be incomplete.
    """
    return _Reader(text, is_cut=is_cut).read()


class _Reader:
    """One pass over one reply."""

    def __init__(self, text: str, *, is_cut: bool) -> None:
        self.text = text
        self.is_cut = is_cut
        self.fences = find_fences(text)
        self.left_to_read = _MAX_READ_CHARS
        self.left_to_try = _MAX_FINALS
        self.blocks: list[CodeBlock] = []
        self.notes: list[Note] = []
        self.prose: list[tuple[int, int]] = []
        self.fenced: ProseFinal | None = None  # the last final that is alone in a fence
        self.invention: int | None = None  # the start of a block that is an invented output

    def read(self) -> Reply:
        start, cut = start_of_reply(self.text), None
        at = here = start  # the start of the prose, and of the part to search
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
                here = fence.end  # not a block: the prose continues
                continue
            self.prose.append((at, fence.start))
            at = here = end
            if self._has_failed():
                # As in any REPL, nothing after it runs. An apparent block may be a part of it.
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
        """The end of a final that quotes the fence at `stop`, or None."""
        self.left_to_try -= 1
        return end_of_final_over(self.text, start, stop) if self.left_to_try >= 0 else None

    def _cut(self, start: int, fence: Fence | None) -> int | None:
        """The offset in the prose before this fence at which text of others begins, or None."""
        stop = len(self.text) if fence is None else fence.start
        token = CHAT_TOKEN.search(self.text, start, stop)
        invented = (
            INVENTED.search(self.text, start, token.start() if token else stop)
            if self.blocks
            else None
        )
        if invented is not None:
            self.notes.append(Note("invented_output", invented.group().strip()))
            return invented.start()
        if token is not None:
            if CHAT_TOKEN.sub("", self.text[token.start() :]).strip():
                self.notes.append(Note("chat_token", token.group()))
            return token.start()
        if fence is not None and fence.language in OUTPUT and self.blocks:
            self.notes.append(Note("invented_output", self.text[fence.start : fence.end]))
            return fence.start
        return None

    def _block(self, number: int, *, is_doubled: bool) -> int | None:
        """Read the block that opens at this fence.

        Args:
            number: The index of the fence.
            is_doubled: Whether only white space separates it from the block before.

        Returns:
            The end of the block, or None if no block opens here.
        """
        opener, later = self.fences[number], self.fences[number + 1 :]
        closers = [fence for fence in later if fence.closes(opener)]
        is_python = not opener.language or opener.language in PYTHON
        wrong = ""
        if is_python:
            # If no proper fence fits: a shorter one, one next to other text, or the next block's.
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
                return None  # a sentence that ends by mentioning a fence
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
            and opener.language in QUOTING
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

    def _after(self, closer: Fence) -> int:
        """The offset after a block. If the fence of the next block closes this one, the next block
        begins there.
        """
        if not closer.opens or not closer.language:
            return closer.start + len(closer.mark)
        opens_next = closer.language in LANGUAGES and not OPENING_TOKENS.match(
            self.text, closer.end
        )
        return closer.start if opens_next else closer.end

    def _is_final(self, opener: Fence, code: str) -> bool:
        """Whether the block is a final inside a fence: plain words in a Python block, or any final
        in a block without a language.
        """
        if opener.language in LANGUAGES - PYTHON:
            return False
        final = lone_final(code)
        if final is None or (opener.language in PYTHON and not is_plain(final, code)):
            return False
        self.fenced = final
        return True

    def _unclosed(self, opener: Fence, code: str) -> str:
        """The code of a complete block that ends the reply without a fence; otherwise ""."""
        token = CHAT_TOKEN.search(code)
        if token is not None and not CHAT_TOKEN.sub("", code[token.start() :]).strip():
            code = code[: token.start()].rstrip()
        if self.is_cut or len(code) > _MAX_UNCLOSED_CHARS:
            return ""
        tree = self._parse(code)
        return (
            code
            if isinstance(tree, ast.Module) and (opener.language or is_plainly_code(tree))
            else ""
        )

    def _code(self, opener: Fence, closer: Fence | None) -> str:
        begin = self.text.find("\n", opener.end) + 1 or len(self.text)
        return self.text[begin : closer.start if closer else len(self.text)].rstrip()

    def _parse(self, code: str) -> ast.Module | str:
        self.left_to_read -= len(code)
        return read_python(code) if self.left_to_read >= 0 else "the reply is too long to be read"

    def _takes_bare_code(self, start: int) -> bool:
        """Whether the reply is code without a fence.

        FINAL(…) alone is read as prose, in which a bare word can be the answer.
        """
        stop = self.prose[-1][1]
        opener = next((fence for fence in self.fences if fence.opens and fence.start < stop), None)
        if opener is not None:
            if opener.language or self.text[opener.end : stop].strip():
                return False
            stop = opener.start  # only a closing fence at the end
        code = self.text[start:stop].strip()
        tree = self._parse(code)
        if isinstance(tree, str) or not is_plainly_code(tree) or is_final(tree):
            return False
        self.blocks.append(CodeBlock("", code))
        return True
