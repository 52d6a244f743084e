"""The synthesizer: any RAG pipeline answers with it from more nodes than a model reads at once."""

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
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from pydantic import BaseModel

from rlm_integrations.engine.rlm import RLM
from rlm_integrations.llama_index._defaults import callbacks, listening
from rlm_integrations.llama_index._spans import HiddenFromSpans, bare, dispatcher, spanned
from rlm_integrations.llama_index.cited import EvidenceOfRun
from rlm_integrations.llama_index.response import EMPTY, Streaming, response_of
from rlm_integrations.llama_index.runs import Runs
from rlm_integrations.llama_index.texts import NodeTexts, TextOf
from rlm_integrations.result import RLMResult
from rlm_integrations.store import SharedStore


class RLMSynthesizer(BaseSynthesizer):
    """Answers from nodes, however many, by a run over their texts.

        RetrieverQueryEngine(index.as_retriever(similarity_top_k=1_000),
        response_synthesizer=RLMSynthesizer(llm))

    Args:
        llm: The model that writes code, as `RLM` takes it; LlamaIndex's default, looked up at the
            first question, if there is none.
        sub_llm: The model that its code asks; the same by default.
        streaming: Whether the answer is a stream.
        output_cls: A pydantic class, for answers of that class.
        empty_response: What is said where there are no nodes.
        callback_manager: LlamaIndex's callbacks for synthesis; `Settings` has the default. Calls of
            LlamaIndex's models are told to the models' own, those of models by name to this.
        rlm_options: Those of `RLM`.

    Attributes:
        text_of: Gives the whole text of a document by its id, where that is known, so that
            citations in nodes can be lifted to it.

    Raises:
        InputError: An argument cannot work.
    """

    text_of: TextOf

    # The base's constructor is not called: it makes LlamaIndex's default model and sets that one's
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
        """A synthesizer whose runs are this RLM's."""
        return cls(Runs.of(rlm), streaming=streaming, callback_manager=callback_manager)

    @property
    def last_result(self) -> RLMResult | None:
        """The result of the latest run."""
        return self._runs.results.last

    @property
    def last_store(self) -> SharedStore | None:
        """What the latest run found on its way."""
        return self._runs.results.last_store

    @property
    def callback_manager(self) -> CallbackManager:
        """LlamaIndex's callbacks for synthesis."""
        return self._callback_manager

    @callback_manager.setter
    def callback_manager(self, callback_manager: CallbackManager) -> None:
        self._callback_manager = callback_manager  # and no model's: those are the user's

    # LlamaIndex makes spans of these four, with all the nodes in them.

    @bare
    def synthesize(
        self,
        query: QueryType,
        nodes: Sequence[NodeWithScore | str],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """The answer from these nodes, with its citations as source nodes, and after them the
        additional ones.
        """
        del response_kwargs  # of LlamaIndex's own prompts
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
        """The answer from these texts alone, without sources."""
        return _answer(self.synthesize(query_str, text_chunks, **response_kwargs))

    @bare
    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> Any:
        """The same for asynchronous callers."""
        return _answer(await self.asynthesize(query_str, text_chunks, **response_kwargs))

    def given(self, nodes: Sequence[object]) -> NodeTexts:
        """Nodes as the text of a run."""
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
        self, found: EvidenceOfRun | None, more: HiddenFromSpans, door: Streaming
    ) -> RESPONSE_TYPE:
        return response_of(
            found,
            more.thing,
            streaming=door if self._streaming else None,
            empty=self._empty_response,
        )

    def _get_prompts(self) -> PromptDictType:
        return self._runs.prompts()

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._runs.update_prompts(prompts)


def bundle_of(query: QueryType) -> QueryBundle:
    """The question as LlamaIndex passes it on."""
    return query if isinstance(query, QueryBundle) else QueryBundle(query)


def _not_known(_document_id: str) -> None:
    return None


def _answer(response: RESPONSE_TYPE) -> Any:
    return (
        response.response_gen
        if isinstance(response, StreamingResponse | AsyncStreamingResponse)
        else response.response
    )
