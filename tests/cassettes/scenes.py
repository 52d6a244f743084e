"""The recorded scenes: runs of both frameworks' faces through every API, with a scripted provider.

A scene is a function that takes its provider's address and returns the result of a run, or a
coroutine of it.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from rlm_integrations import RLMResult
from tests.cassettes.canonical import BASE_URL, CALL
from tests.standin import Ask, Fault, Settings, StandIn, serve_in_thread

KEY = "sk-recorder-0123456789abcdef"  # the key that the stand-in requires; in no cassette
MODEL = "gpt-4o-mini"
LINES = "\n".join(
    f"The {name} grows in bed {bed}."
    for bed, name in enumerate(["rose", "iris", "lily", "tulip", "aster"], 1)
)

ASK = """```repl
lines = context.splitlines()
found = llm_batch([f"Which plant is this?\\n{line}" for line in lines])
print(len(lines), found[0])
```"""
TELL = """```repl
FINAL(" | ".join(found), evidence=[cite("bed 3")])
```"""
VOTE = """```repl
lines = context.splitlines()
votes = llm_batch([f"Is this a tree? Answer yes or no.\\n{lines[number % 3]}" for number in range(50)], max_concurrent=50)
FINAL(" | ".join(votes))
```"""
PLANTS = "Which plant grows in each bed? Ask a model about each line with one llm_batch, look at the replies, then name them with evidence."
VOTES = "Have a model vote fifty times with one llm_batch on whether the first three lines name trees, and give all votes in order."

_made: list[Any] = []  # models whose synchronous clients are closed after the scene


@dataclass(frozen=True, slots=True)
class Provider:
    """The address of a scene's models."""

    base_url: str = BASE_URL
    key: str = KEY
    model: str = MODEL


@dataclass(frozen=True, slots=True)
class Scene:
    """One cassette.

    Attributes:
        framework: The framework whose models are called.
        name: Of the cassette.
        play: Runs the scene: returns a result with an answer, or the answer, or a coroutine of
            either.
        script: The stand-in's replies as the root model, one per turn.
        faults: The stand-in's faults.
        subcalls: The number of calls that the code makes.
    """

    framework: Literal["langchain", "llama_index"]
    name: str
    play: Callable[[Provider], Any]
    script: Sequence[str] = (ASK, TELL)
    faults: Sequence[Fault] = ()
    subcalls: int = 5

    @property
    def file(self) -> str:
        """The cassette's path in its folder."""
        return f"{self.framework}/{self.name}.json"

    def perform(self, provider: Provider) -> str:
        """The answer of the run."""
        try:
            result = self.play(provider)
            return answer_in(
                asyncio.run(_value_of(result)) if inspect.isawaitable(result) else result
            )
        finally:
            while _made:
                if (client := _made.pop()._client) is not None:
                    client.close()

    def stand_in(self, **settings: Any) -> AbstractContextManager[StandIn]:
        """The provider of this scene. Answers arrive in another order than requests."""
        return serve_in_thread(
            Settings(
                latency=0.004,
                jitter=0.004,
                scripts={MODEL: self._reply},
                faults=self.faults,
                api_key=KEY,
            ),
            **settings,
        )

    def _reply(self, ask: Ask) -> str:
        is_root = ask.body["messages"][0]["role"] == "system"
        return self.script[ask.turn] if is_root else f"said to {ask.headers[CALL]}"

    def check(self, answer: str) -> None:
        """Check the answer from the stand-in: each slot has the reply to the call of that slot."""
        said = [part.removeprefix("said to ").rpartition(".") for part in answer.split(" | ")]
        assert [number for _, _, number in said] == [str(number) for number in range(self.subcalls)]
        assert len({batch for batch, _, _ in said}) == 1


def answer_in(result: Any) -> str:
    """The answer in any form of result that the APIs return."""
    if isinstance(result, RLMResult):
        return str(result.answer)
    return str(result["answer"] if isinstance(result, Mapping) else result)


async def _value_of(result: Awaitable[Any]) -> Any:
    return await result


def chat_openai(at: Provider, **options: Any) -> Any:
    """LangChain's model, without its own retries."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=at.model, base_url=at.base_url, api_key=at.key, max_retries=0, **options
    )


def openai_like(at: Provider, **options: Any) -> Any:
    """LlamaIndex's model for every provider with OpenAI's API."""
    from llama_index.llms.openai_like import OpenAILike

    _made.append(
        OpenAILike(
            model=at.model,
            api_base=at.base_url,
            api_key=at.key,
            is_chat_model=True,
            max_retries=0,
            **options,
        )
    )
    return _made[-1]


def quick_chat_openai(at: Provider) -> Any:
    """The same over the fast transport, for many concurrent calls."""
    from rlm_integrations.langchain import fast_chat_openai

    return fast_chat_openai(at.model, base_url=at.base_url, api_key=at.key, max_retries=0)


def runnable(model: Any, **options: Any) -> Any:
    """LangChain's face over the document."""
    from rlm_integrations.langchain import RLMRunnable

    return RLMRunnable(model, context=LINES, **options)


def engine(model: Any, **options: Any) -> Any:
    """LlamaIndex's face over the document."""
    from rlm_integrations.llama_index import RLMQueryEngine

    return RLMQueryEngine.from_defaults(LINES, llm=model, **options)


async def last_part(model: Any) -> Any:
    """The last part of a stream of LangChain's face."""
    return [part async for part in runnable(model).astream(PLANTS)][-1]


async def streamed(model: Any) -> str:
    """A streamed answer of LlamaIndex's face."""
    response = await engine(model, streaming=True).aquery(PLANTS)
    return "".join([piece async for piece in response.async_response_gen()])


def prompts() -> list[str]:
    """A batch outside a run."""
    lines = LINES.splitlines()
    return [f"Is this a tree? Answer yes or no.\n{lines[number % 3]}" for number in range(50)]


def langchain_batch(at: Provider) -> str:
    """All replies of that batch, as an answer."""
    from rlm_integrations.langchain import LLMBatchRunnable

    return " | ".join(LLMBatchRunnable(quick_chat_openai(at), max_concurrent=50).invoke(prompts()))


def llama_index_batch(at: Provider) -> str:
    """All replies of that batch, as an answer."""
    from rlm_integrations.llama_index import LLMBatch

    return " | ".join(LLMBatch(openai_like(at), max_concurrent=50).run(prompts()))


WIDE: dict[str, Any] = {"max_parallel_calls": 50}
BUSY = [Fault("rate_limit", match="this?\nThe lily", times=1, retry_after=0.01)]

SCENES = [
    Scene("langchain", "sync", lambda at: runnable(chat_openai(at)).invoke(PLANTS)),
    Scene("langchain", "async", lambda at: runnable(chat_openai(at)).ainvoke(PLANTS)),
    Scene("langchain", "streaming", lambda at: last_part(chat_openai(at, streaming=True))),
    Scene(
        "langchain",
        "batch",
        lambda at: runnable(quick_chat_openai(at), **WIDE).invoke(VOTES),
        [VOTE],
        subcalls=50,
    ),
    Scene("langchain", "llm_batch", langchain_batch, subcalls=50),
    Scene(
        "langchain", "rate_limit", lambda at: runnable(chat_openai(at)).invoke(PLANTS), faults=BUSY
    ),
    Scene("llama_index", "sync", lambda at: engine(openai_like(at)).query(PLANTS)),
    Scene("llama_index", "async", lambda at: engine(openai_like(at)).aquery(PLANTS)),
    Scene("llama_index", "streaming", lambda at: streamed(openai_like(at))),
    Scene(
        "llama_index",
        "batch",
        lambda at: engine(openai_like(at), **WIDE).query(VOTES),
        [VOTE],
        subcalls=50,
    ),
    Scene("llama_index", "llm_batch", llama_index_batch, subcalls=50),
    Scene(
        "llama_index", "rate_limit", lambda at: engine(openai_like(at)).query(PLANTS), faults=BUSY
    ),
]
