"""The public API as a user's type checker sees it. Never run: mypy and pyright check it, and
`assert_type` fails if an answer's type is wrong.
"""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, assert_type

from langchain_core.documents import Document as LangChainDocument
from langchain_core.language_models import BaseChatModel
from llama_index.core.llms import LLM
from llama_index.core.schema import Document as LlamaIndexDocument
from llama_index.core.schema import NodeWithScore
from pydantic import BaseModel

from rlm_integrations import (
    RLM,
    Budget,
    BudgetExceededError,
    Citation,
    Completion,
    Context,
    Event,
    IncompleteError,
    Limits,
    LLMError,
    Model,
    OpenAILM,
    Prompt,
    Request,
    Retry,
    RLMResult,
    RunFinished,
    SharedStore,
    SpanRef,
    allm_batch,
    llm_batch,
    llm_batch_iter,
)
from rlm_integrations.jobs import Worker, submit
from rlm_integrations.otel import OTelHook
from rlm_integrations.storage import Storage


class Invoice(BaseModel):
    """A type of answers."""

    total: float


class EchoModel:
    """A user's own model."""

    name: str = "echo"
    context_window: int | None = None

    async def complete(self, request: Request) -> Completion:
        """The last message."""
        return Completion(request.messages[-1].content)


def answers_are_strings(context: Context) -> None:
    """Without `output_type` an answer is a string."""
    rlm = RLM("gpt-5", "gpt-5-mini", max_iterations=5)
    RLM("gpt-5", instructions="Be brief.", prompt=Prompt(closing="$finish"), structured=True)
    assert_type(rlm, RLM[str])
    result = rlm.completion("?", context)
    assert_type(result, RLMResult[str])
    assert_type(result.answer, str)
    assert_type(result.answer.upper(), str)
    assert_type(rlm.completion("?", context, run_id="mine"), RLMResult[str])
    answer, steps = rlm.query("?", context)
    assert_type(answer, str)
    assert_type(steps, list[dict[str, Any]])
    for citation in result.citations:
        assert_type(citation, Citation)


def answers_have_their_type() -> None:
    """With `output_type` an answer has that type, or is None unless an incomplete run raises."""
    lenient = RLM("gpt-5", output_type=Invoice)
    assert_type(lenient.completion("?", "text").answer, Invoice | None)
    strict = RLM("gpt-5", output_type=Invoice, on_incomplete="raise")
    assert_type(strict.completion("?", "text").answer, Invoice)
    assert_type(
        RLM("gpt-5", output_type=list[int]).completion("?", "text").answer, list[int] | None
    )
    assert_type(RLM("gpt-5", output_type=int | None).completion("?", "text").answer, Any)


def options_can_be_replaced(rlm: RLM[str]) -> None:
    """`replace` keeps the type of answers unless it sets another one."""
    assert_type(rlm.replace(max_depth=2, sub_llm="gpt-5-mini"), RLM[str])
    assert_type(rlm.replace(output_type=Invoice), RLM[Any])


async def answers_on_the_callers_loop(rlm: RLM[Invoice]) -> None:
    """The async API has the same types."""
    assert_type(await rlm.acompletion("?", "text"), RLMResult[Invoice])
    assert_type((await rlm.aquery("?", "text"))[0], Invoice)
    stream = rlm.astream("?", "text")
    assert_type(stream, AsyncGenerator[Event, None])
    async for event in stream:
        if isinstance(event, RunFinished):
            assert_type(event.result.answer, Any)
    assert_type(await allm_batch(["?"], "gpt-5-mini"), list[str])


def contexts(rlm: RLM[str], chain: LangChainDocument, index: LlamaIndexDocument) -> None:
    """Strings, paths and the documents of both frameworks, alone or several."""
    rlm.completion("?", "text")
    rlm.completion("?", Path("file"))
    rlm.completion("?", chain)
    rlm.completion("?", index)
    rlm.completion("?", ["text", Path("file"), chain, index, NodeWithScore(node=index)])
    rlm.completion("?", (each for each in [chain]))


def models(chain: BaseChatModel, index: LLM) -> None:
    """Names, models of this library and of users, and the models of both frameworks."""
    own: Model = EchoModel()
    RLM(own, {"fast": "gpt-5-mini", "chain": chain, "index": index, "ours": OpenAILM("gpt-5")})
    RLM(chain, index)


def mistakes_are_seen(rlm: RLM[str]) -> None:
    """Invalid uses are errors of the type checker; an unneeded ignore is one too."""
    RLM(5)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    RLM("gpt-5", max_iteration=3)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    rlm.completion("?", b"bytes")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    rlm.replace(max_depth="2")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


def questions_as_jobs(rlm: RLM[Invoice]) -> None:
    """A worker takes an RLM, a function that makes one, or finds models by name."""
    with Storage("runs/") as storage:
        assert_type(submit(rlm.replace(storage=storage), "?", Path("a.txt"), priority=1), str)
        worker = Worker(storage, rlm, on_event=lambda event: print(event.job.job_id, event.kind))
        Worker(storage, lambda manifest: RLM(manifest.llm_model or "offline"), parallel=2)
        for number in Worker(storage).run(until_empty=True).values():
            assert_type(number, int)
        worker.stop()


def everything_that_bounds_a_run(store: SharedStore) -> Iterator[str]:
    """Budgets, limits, errors, events and batches."""

    def watch(event: Event) -> None:
        print(event.id)

    rlm = RLM(
        "gpt-5",
        budget=Budget(max_cost=1.0, on_exceeded="raise"),
        limits=Limits(block_seconds=5),
        retry=Retry(failures=1),
        on_event=watch,
    ).replace(on_event=OTelHook(include_content=True, provider={"mine": "groq"}))
    try:
        result = rlm.completion("?", "text")
    except BudgetExceededError as error:
        assert_type(error.result, RLMResult[Any])
    except IncompleteError as error:
        assert_type(error.result.partial, str | None)
    else:
        assert_type(RLMResult.load("file"), RLMResult[Any])
        assert_type(result.store, SharedStore | None)
    assert_type(store.seq, int)
    assert_type(SpanRef("context_0", 0, 5).end, int)
    for reply in llm_batch(["?"], "gpt-5-mini"):
        if isinstance(reply, LLMError):
            assert_type(reply.retries, int)
    for _, reply in llm_batch_iter(["?"], "gpt-5-mini"):
        yield reply
