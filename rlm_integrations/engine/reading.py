"""Records what the turns of a run read, and checks that enough of the document was read; see
`RLM(require_coverage=…)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlm_integrations.corpus import Corpus
from rlm_integrations.coverage import coverage_of
from rlm_integrations.engine import prompts
from rlm_integrations.engine.locating import RunLocator
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ContextError
from rlm_integrations.prompt_pieces import PromptPieces
from rlm_integrations.records import Message, SpanRef
from rlm_integrations.trajectory import Iteration

_MAX_BLANK_CHARS = 10_000  # a longer part is not examined for white space
_MAX_PARTS = 100_000  # short parts that are searched for in later prompts


@dataclass(frozen=True, slots=True)
class _State:
    """What was read so far: the number of characters, and the parts that are missing."""

    read: int
    unread: Sequence[SpanRef]


class TurnReading:
    """What the turns of one run read.

    Args:
        tree: The objects that all runs of the tree share.
        locator: Finds text of the document in the run's prompts.
        depth: The run's depth; only the root's final answers are checked.

    Attributes:
        sent: How many messages of the conversation the model was sent.
    """

    def __init__(self, tree: Tree, locator: RunLocator, depth: int) -> None:
        self._tree = tree
        self._locator = locator
        self._required = 0.0 if depth else tree.settings.require_coverage or 0.0
        self.sent = 0

    async def prompt(self, messages: Sequence[Message]) -> PromptPieces | None:
        """For the record: the user messages that the model was not sent before. None without
        `require_coverage`.
        """
        last = self._locator.last
        is_first = not self.sent
        new, self.sent = messages[self.sent :], len(messages)
        if self._tree.settings.require_coverage is None:
            return None
        text = "\n\n".join(each.content for each in new if each.role == "user")
        (located,) = await self._locator.pieces([text])
        if is_first:  # the question shows how the document begins, and code begins there again
            self._locator.last = last
        return self._tree.record_room.fit_prompt(located)

    async def refusal(self, turns: Sequence[Iteration]) -> str:
        """The message to the root model if too little was read in these turns, else "".

        Parts that it names are found in later prompts even if they are short. If the document's
        file has changed, nothing more is required.
        """
        state = await self._lacking(turns)
        if state is None:
            return ""
        try:
            await self._tree.locator.look_for(state.unread[:_MAX_PARTS])
        except ContextError:  # what it reads from now on cannot be found
            return ""
        first = state.unread[0]
        self._locator.last = replace(first, end=first.start)
        return prompts.unread(self._percent(state), self._required, state.unread)

    async def missing(self, turns: Sequence[Iteration]) -> str | None:
        """How much was read in these turns, if that is too little."""
        state = await self._lacking(turns)
        return (
            None if state is None else prompts.read_too_little(self._percent(state), self._required)
        )

    async def _lacking(self, turns: Sequence[Iteration]) -> _State | None:
        if not self._required:
            return None
        corpus = self._tree.corpus
        state = await self._tree.threads.free(_state, corpus, turns)
        return None if state.read >= self._required * corpus.characters else state

    def _percent(self, state: _State) -> str:
        # Not rounded up: 100% must mean all
        return f"{int(1000 * state.read / self._tree.corpus.characters) / 10:g}%"


def _state(corpus: Corpus, turns: Sequence[Iteration]) -> _State:
    """What was read in these turns. White space alone does not have to be. Blocks."""
    lengths = {source.name: source.length for source in corpus.sources}
    unread = [span for span in coverage_of(turns, lengths).unread if not _is_blank(corpus, span)]
    return _State(corpus.characters - sum(span.end - span.start for span in unread), unread)


def _is_blank(corpus: Corpus, span: SpanRef) -> bool:
    if span.end - span.start > _MAX_BLANK_CHARS:
        return False
    try:
        return corpus.text(span.source, span.start, span.end).isspace()
    except ContextError:
        return False
