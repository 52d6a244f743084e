"""The archives of conversations: found from the workflow of a tool, asked, and added to."""

from collections.abc import Callable, Sequence
from typing import Final

from llama_index.core.base.llms.types import TextBlock
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.memory import Memory
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import ToolOutput
from llama_index.core.workflow import Context

from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.runtime import close_apart, offload
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import InputError
from rlm_integrations.faces.growing import GrowingDocument, GrowingDocuments
from rlm_integrations.faces.stubs import is_worth_a_stub, make_stub
from rlm_integrations.llama_index.response import response_of
from rlm_integrations.llama_index.runs import Runs
from rlm_integrations.llama_index.texts import Texts
from rlm_integrations.llama_index.workflow_runs import thread_of

CountTokens = Callable[[str], int]
_CHARS_PER_TOKEN: Final = 4


def estimate_tokens(text: str) -> int:
    """The tokens of a text, if each has four characters."""
    return len(text) // _CHARS_PER_TOKEN


class Archives:
    """The archives of all conversations of one memory block.

    Args:
        runs: The runs that answer questions.
        documents: Where the texts are.
    """

    def __init__(self, runs: Runs, documents: GrowingDocuments) -> None:
        self._runs = runs
        self._documents = documents

    def of(self, session_id: str) -> GrowingDocument:
        """The archive of a session."""
        return self._documents.of(_name_of(session_id))

    async def forget(self, session_id: str) -> int:
        """Remove an archive; returns how many texts it had."""
        return await self._documents.forget(_name_of(session_id))

    async def find(self, ctx: Context | None, session_id: str | None) -> GrowingDocument:
        """The archive of the session, or else of the workflow in which a tool is called.

        Raises:
            InputError: There is neither.
        """
        if session_id is not None:
            return self.of(session_id)
        if ctx is None:
            raise InputError(
                "this tool was not called by an agent's workflow: make it with session_id=…"
            )
        memory = await ctx.store.get("memory", default=None)
        if isinstance(memory, Memory):
            return self.of(memory.session_id)
        return self._documents.of(f"context:{await thread_of(ctx)}")  # other memories have no id

    async def ask(
        self, document: GrowingDocument, question: str, ids: Sequence[str] | None
    ) -> RESPONSE_TYPE:
        """The answer of a run over the texts with these ids, or all.

        Raises:
            InputError: See `GrowingDocument.corpus`.
            RLMError: The run failed.
        """
        found = await self._runs.arun(QueryBundle(question), _ArchiveTexts(document, ids))
        return response_of(found, streaming=None)


async def shorten(
    output: ToolOutput, document: GrowingDocument, offload_above: int, count: CountTokens
) -> ToolOutput:
    """The output with a stub for its text, which moves to the document if it has more than
    `offload_above` tokens. Other blocks stay.
    """
    text = output.content
    if not is_worth_a_stub(text) or await in_thread(count, text) <= offload_above:
        return output
    name = output.tool_name
    source = await document.add(name, text, metadata={"tool": name})
    stub = TextBlock(text=make_stub(f"The output of {name}", source, text))
    others = [each for each in output.blocks if not isinstance(each, TextBlock)]
    raw = stub.text if isinstance(output.raw_output, str) else output.raw_output
    return output.model_copy(update={"blocks": [stub, *others], "raw_output": raw})


class _ArchiveTexts:
    """The texts of an archive, for one run."""

    def __init__(self, document: GrowingDocument, ids: Sequence[str] | None) -> None:
        self._document = document
        self._ids = ids

    async def open(self) -> Texts:
        """The texts as they are now."""
        corpus = await self._document.corpus(self._ids)
        return await offload(Texts.of, corpus, [], _no_text)

    async def close(self, texts: Texts) -> None:
        """Release them."""
        await finish_despite_cancel(close_apart(texts.corpus.close))


def _no_text(_document_id: str) -> None:
    """A text of the archive is no part of another document."""


def _name_of(session_id: str) -> str:
    return f"session:{session_id}"
