"""The query engine: answers over documents that are too large for any model's context window."""

from collections.abc import Sequence
from typing import Any, Self, cast

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.indices.base import BaseIndex
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from llama_index.core.workflow import Context
from pydantic import BaseModel

from rlm_integrations.engine.rlm import RLM
from rlm_integrations.errors import InputError
from rlm_integrations.llama_index._defaults import callbacks
from rlm_integrations.llama_index._spans import dispatcher
from rlm_integrations.llama_index.chat_engine import RLMChatEngine
from rlm_integrations.llama_index.cited import EvidenceOfRun
from rlm_integrations.llama_index.index import docstore_of, text_in
from rlm_integrations.llama_index.response import Streaming, response_of
from rlm_integrations.llama_index.results import Answered, result_of
from rlm_integrations.llama_index.runs import Runs, WithRuns
from rlm_integrations.llama_index.sources import (
    checked,
    checked_documents,
    kept,
    only_one,
    source_of,
)
from rlm_integrations.llama_index.synthesizer import RLMSynthesizer, bundle_of
from rlm_integrations.llama_index.texts import BoundTexts, IndexTexts, Once
from rlm_integrations.result import RLMResult

TextsOrRetriever = BoundTexts | IndexTexts | BaseRetriever


class RLMQueryEngine(WithRuns, BaseQueryEngine):
    """Answers questions over documents with runs of an `RLM`. Create it with `from_defaults` or
    `from_rlm`.

    The source nodes of a response are verified citations: `text` is found verbatim at
    `start_char_idx` of the document that is their `SOURCE`. If a node's document is not available,
    or contains the node's text more than once, the node is the `SOURCE`.

    Args:
        runs: The runs of this engine.
        source: The documents, or a retriever that is called for each question.
        streaming: Whether answers are streams.
        node_postprocessors: Postprocessors for the nodes that a retriever finds, before they are
            read.
        callback_manager: LlamaIndex's callbacks for queries; `Settings` has the default.
    """

    def __init__(
        self,
        runs: Runs,
        source: TextsOrRetriever,
        *,
        streaming: bool = False,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callbacks(callback_manager))
        self._runs = runs
        self._source = source
        self._streaming = streaming
        self._node_postprocessors = tuple(node_postprocessors)
        self._synthesizer = RLMSynthesizer(
            runs, streaming=streaming, callback_manager=self.callback_manager
        )
        self._synthesizer.text_of = (
            text_in(docstore_of(source)) if isinstance(source, BaseRetriever) else source.text_of
        )

    @classmethod
    def from_defaults(
        cls,
        documents: object = None,
        *,
        nodes: Sequence[object] | None = None,
        index: BaseIndex[Any] | None = None,
        retriever: BaseRetriever | None = None,
        llm: object = None,
        sub_llm: object = None,
        output_cls: type[BaseModel] | None = None,
        streaming: bool = False,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        callback_manager: CallbackManager | None = None,
        **rlm_options: Any,
    ) -> Self:
        """An engine over one of these: documents, nodes, an index, or a retriever.

        Args:
            documents: Documents of LlamaIndex or LangChain, strings, a `pathlib.Path`, or a list of
                them; read at the first question.
            nodes: Nodes, with or without scores; treated like `documents`.
            index: An index, whose whole current text is read at each question.
            retriever: The nodes it finds are the text. Let it find many: a run can read far more
                than a prompt holds.
            llm: The model that writes code, in any form that `RLM` accepts; default: LlamaIndex's
                default model, looked up at each question.
            sub_llm: The model that its code calls; `llm` by default.
            output_cls: A pydantic class for typed answers.
            streaming: Whether answers are streams. They begin when the answer is complete.
            node_postprocessors: Postprocessors for the nodes that `retriever` finds, such as a
                reranker.
            callback_manager: LlamaIndex's callbacks for queries; default: those of `Settings`.
                Calls of LlamaIndex models are reported to the models' own callbacks, calls of
                models given by name to these.
            rlm_options: The options of `RLM`.

        Raises:
            InputError: An argument is invalid.
        """
        sources = {"documents": documents, "nodes": nodes, "index": index}
        name = only_one({**sources, "retriever": retriever})
        if node_postprocessors and retriever is None:
            raise InputError(
                "node_postprocessors change the nodes that retriever=… finds: without a "
                "retriever they have no effect"
            )
        for each in node_postprocessors:
            checked(each, BaseNodePostprocessor)
        own = ["retriever", "node_postprocessors"]
        source: TextsOrRetriever
        if name == "retriever":
            runs = Runs.of(llm, sub_llm, output_cls, rlm_options, [*sources, *own])
            checked(retriever, BaseRetriever)
            source = cast("BaseRetriever", retriever)
        else:
            runs, source = source_of(sources, llm, sub_llm, output_cls, rlm_options, own)
        return cls(
            runs,
            source,
            streaming=streaming,
            node_postprocessors=node_postprocessors,
            callback_manager=callback_manager,
        )

    @classmethod
    def from_rlm(
        cls,
        rlm: RLM,
        documents: object,
        *,
        streaming: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> Self:
        """An engine that uses this RLM, over these documents."""
        checked(rlm, RLM)
        runs = Runs.of(rlm)
        return cls(
            runs, kept(documents, runs), streaming=streaming, callback_manager=callback_manager
        )

    def without_streaming(self) -> Self:
        """The same engine without streaming, for agents and evaluators."""
        if not self._streaming:
            return self
        processors = self._node_postprocessors
        return type(self)(
            self._runs,
            self._source,
            node_postprocessors=processors,
            callback_manager=self.callback_manager,
        )

    def over(self, documents: object) -> Self:
        """An engine for one question over other documents, which are closed after the answer.

        Raises:
            InputError: There are no documents.
        """
        return type(self)(
            self._runs,
            Once(checked_documents(documents), self._runs.limits),
            callback_manager=self.callback_manager,
        )

    def in_workflow(self, ctx: Context) -> Self:
        """The same engine for the steps of a workflow. With `storage=`, a question that was under
        way when the context was saved is resumed by the step that asks it again, in any process.

            response = await self.engine.in_workflow(ctx).aquery(event.question)

        The ids of the runs are kept in the context's store, as "rlm_runs"; a typed state needs
        that field, a dict.

        Args:
            ctx: The context that the step was given.
        """
        return type(self)(
            self._runs.in_workflow(ctx),
            self._source,
            streaming=self._streaming,
            node_postprocessors=self._node_postprocessors,
            callback_manager=self.callback_manager,
        )

    def as_retriever(self, *, callback_manager: CallbackManager | None = None) -> BaseRetriever:
        """A retriever whose nodes are the verified citations of a run."""
        return _EvidenceRetriever(self, callback_manager or self.callback_manager)

    def as_chat_engine(self) -> RLMChatEngine:
        """A conversation over the same documents, in one REPL.

        Raises:
            InputError: This engine uses a retriever, whose nodes differ from message to message.
        """
        if isinstance(self._source, BaseRetriever):
            raise InputError(
                "a conversation needs documents that stay the same: create the engine with "
                "documents=…, nodes=… or index=…"
            )
        return RLMChatEngine(self._runs, self._source, callback_manager=self.callback_manager)

    def result_of(self, response: Answered | str) -> RLMResult:
        """The result of a run, by its response or `run_id`; see
        `rlm_integrations.llama_index.result_of`.

        Raises:
            InputError: It is no longer kept.
        """
        return result_of(response)

    def evidence(self, query: QueryBundle) -> list[NodeWithScore]:
        """The verified citations of a run, without retrieval events."""
        found = self._run(query)
        return found.nodes if found is not None else []

    async def aevidence(self, query: QueryBundle) -> list[NodeWithScore]:
        """The same for asynchronous callers."""
        found = await self._arun(query)
        return found.nodes if found is not None else []

    @dispatcher.span
    def retrieve(self, query_bundle: QueryType) -> list[NodeWithScore]:
        """The evidence of an answer: a run's verified citations."""
        query = bundle_of(query_bundle)
        dispatcher.event(RetrievalStartEvent(str_or_query_bundle=query))
        nodes = self.evidence(query)
        dispatcher.event(RetrievalEndEvent(str_or_query_bundle=query, nodes=nodes))
        return nodes

    @dispatcher.span
    async def aretrieve(self, query_bundle: QueryType) -> list[NodeWithScore]:
        """The same for asynchronous callers."""
        query = bundle_of(query_bundle)
        dispatcher.event(RetrievalStartEvent(str_or_query_bundle=query))
        nodes = await self.aevidence(query)
        dispatcher.event(RetrievalEndEvent(str_or_query_bundle=query, nodes=nodes))
        return nodes

    def synthesize(
        self,
        query_bundle: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """The answer from these nodes. The engine's own documents only serve to locate the nodes in
        them.
        """
        return self._synthesizer.synthesize(query_bundle, nodes, additional_source_nodes)

    async def asynthesize(
        self,
        query_bundle: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """The same for asynchronous callers."""
        return await self._synthesizer.asynthesize(query_bundle, nodes, additional_source_nodes)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self.callback_manager.event(
            CBEventType.QUERY, payload={EventPayload.QUERY_STR: query_bundle.query_str}
        ) as event:
            response = self._response(self._run(query_bundle), "sync")
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self.callback_manager.event(
            CBEventType.QUERY, payload={EventPayload.QUERY_STR: query_bundle.query_str}
        ) as event:
            response = self._response(await self._arun(query_bundle), "async")
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _run(self, query: QueryBundle) -> EvidenceOfRun | None:
        """The evidence of a run; None if the retriever found no nodes."""
        if not isinstance(self._source, BaseRetriever):
            return self._runs.run(query, self._source)
        nodes = self._source.retrieve(query)
        for processor in self._node_postprocessors:
            nodes = processor.postprocess_nodes(nodes, query_bundle=query)
        given = self._synthesizer.given(nodes)
        return self._runs.run(query, given) if given else None

    async def _arun(self, query: QueryBundle) -> EvidenceOfRun | None:
        if not isinstance(self._source, BaseRetriever):
            return await self._runs.arun(query, self._source)
        nodes = await self._source.aretrieve(query)
        for processor in self._node_postprocessors:
            nodes = await processor.apostprocess_nodes(nodes, query_bundle=query)
        given = self._synthesizer.given(nodes)
        return await self._runs.arun(query, given) if given else None

    def _response(self, found: EvidenceOfRun | None, streaming: Streaming) -> RESPONSE_TYPE:
        return response_of(found, streaming=streaming if self._streaming else None)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}


class _EvidenceRetriever(BaseRetriever):
    """The retriever that `RLMQueryEngine.as_retriever` returns."""

    def __init__(self, engine: RLMQueryEngine, callback_manager: CallbackManager) -> None:
        super().__init__(callback_manager)
        self._engine = engine

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._engine.evidence(bundle_of(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._engine.aevidence(bundle_of(query_bundle))
