"""The synthesizer: lets any RAG pipeline answer from more nodes than fit into a prompt."""

from collections.abc import Sequence
from typing import Any, Self

from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.synthesis import (
    SynthesizeEndEvent,
    SynthesizeStartEvent,
)
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from pydantic import BaseModel

from rlm_integrations.engine.rlm import RLM
from rlm_integrations.llama_index._defaults import callbacks, listening
from rlm_integrations.llama_index._spans import HiddenFromSpans, bare, dispatcher, spanned
from rlm_integrations.llama_index.cited import EvidenceOfRun
from rlm_integrations.llama_index.response import EMPTY, Streaming, response_of
from rlm_integrations.llama_index.runs import Runs, WithRuns
from rlm_integrations.llama_index.texts import NodeTexts, TextOf


class RLMSynthesizer(WithRuns, BaseSynthesizer):
    """Answers from any number of nodes with a run over their text.

        RetrieverQueryEngine(index.as_retriever(similarity_top_k=1_000),
        response_synthesizer=RLMSynthesizer(llm))

    Args:
        llm: The model that writes code, in any form that `RLM` accepts; default: LlamaIndex's
            default model, looked up at each question.
        sub_llm: The model that its code calls; `llm` by default.
        streaming: Whether the answer is a stream.
        output_cls: A pydantic class for typed answers.
        empty_response: The answer if there are no nodes.
        callback_manager: LlamaIndex's callbacks for synthesis; default: those of `Settings`. Calls
            of LlamaIndex models are reported to the models' own callbacks, calls of models given by
            name to these.
        rlm_options: The options of `RLM`.

    Attributes:
        text_of: A function from a document id to the document's whole text, or None if it is
            unknown; used to map citations in nodes to their documents.

    Raises:
        InputError: An argument is invalid.
    """

    text_of: TextOf

    # The base class's constructor is not called: it creates LlamaIndex's default model and sets its
    # callbacks.
    def __init__(
        self,
        llm: object = None,
        sub_llm: object = None,
        *,
        streaming: bool = False,
        output_cls: type[BaseModel] | None = None,
        empty_response: str = EMPTY,
        callback_manager: CallbackManager | None = None,
        **rlm_options: Any,
    ) -> None:
        self._runs = Runs.of(llm, sub_llm, output_cls, rlm_options, ["empty_response"])
        self._streaming = streaming
        self._callback_manager = callbacks(callback_manager)
        self._runs.callbacks = lambda: listening(self._callback_manager)
        self._empty_response = empty_response
        self.text_of = _not_known

    @classmethod
    def from_rlm(
        cls, rlm: RLM, *, streaming: bool = False, callback_manager: CallbackManager | None = None
    ) -> Self:
        """A synthesizer that uses this RLM."""
        return cls(Runs.of(rlm), streaming=streaming, callback_manager=callback_manager)

    @property
    def callback_manager(self) -> CallbackManager:
        """LlamaIndex's callbacks for synthesis."""
        return self._callback_manager

    @callback_manager.setter
    def callback_manager(self, callback_manager: CallbackManager) -> None:
        self._callback_manager = callback_manager  # not the models': those are the user's

    # LlamaIndex would make spans of these four methods, and record all the nodes.

    @bare
    def synthesize(
        self,
        query: QueryType,
        nodes: Sequence[NodeWithScore | str],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """The answer from these nodes. Its source nodes are its citations, followed by the
        additional ones.
        """
        del response_kwargs  # arguments for LlamaIndex's own prompts
        return self._synthesize(
            bundle_of(query), self.given(nodes), HiddenFromSpans(additional_source_nodes or ())
        )

    @bare
    async def asynthesize(
        self,
        query: QueryType,
        nodes: Sequence[NodeWithScore | str],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """The same for asynchronous callers."""
        del response_kwargs
        return await self._asynthesize(
            bundle_of(query), self.given(nodes), HiddenFromSpans(additional_source_nodes or ())
        )

    @bare
    def get_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> Any:
        """The answer from these strings, without sources."""
        return _answer(self.synthesize(query_str, text_chunks, **response_kwargs))

    @bare
    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> Any:
        """The same for asynchronous callers."""
        return _answer(await self.asynthesize(query_str, text_chunks, **response_kwargs))

    def given(self, nodes: Sequence[object]) -> NodeTexts:
        """Nodes as input of a run."""
        return NodeTexts(nodes, self._runs.limits, self.text_of)

    @spanned("synthesize")
    def _synthesize(
        self, query: QueryBundle, given: NodeTexts, more: HiddenFromSpans
    ) -> RESPONSE_TYPE:
        dispatcher.event(SynthesizeStartEvent(query=query))
        with self._callback_manager.event(
            CBEventType.SYNTHESIZE, payload={EventPayload.QUERY_STR: query.query_str}
        ) as event:
            found = self._runs.run(query, given) if given else None
            response = self._response(found, more, "sync")
            event.on_end(payload={EventPayload.RESPONSE: response})
        dispatcher.event(SynthesizeEndEvent(query=query, response=response))
        return response

    @spanned("asynthesize")
    async def _asynthesize(
        self, query: QueryBundle, given: NodeTexts, more: HiddenFromSpans
    ) -> RESPONSE_TYPE:
        dispatcher.event(SynthesizeStartEvent(query=query))
        with self._callback_manager.event(
            CBEventType.SYNTHESIZE, payload={EventPayload.QUERY_STR: query.query_str}
        ) as event:
            found = await self._runs.arun(query, given) if given else None
            response = self._response(found, more, "async")
            event.on_end(payload={EventPayload.RESPONSE: response})
        dispatcher.event(SynthesizeEndEvent(query=query, response=response))
        return response

    def _response(
        self, found: EvidenceOfRun | None, more: HiddenFromSpans, streaming: Streaming
    ) -> RESPONSE_TYPE:
        return response_of(
            found,
            more.thing,
            streaming=streaming if self._streaming else None,
            empty=self._empty_response,
        )


def bundle_of(query: QueryType) -> QueryBundle:
    """The question as a `QueryBundle`."""
    return query if isinstance(query, QueryBundle) else QueryBundle(query)


def _not_known(_document_id: str) -> None:
    return None


def _answer(response: RESPONSE_TYPE) -> Any:
    return (
        response.response_gen
        if isinstance(response, StreamingResponse | AsyncStreamingResponse)
        else response.response
    )
