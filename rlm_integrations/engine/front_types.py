"""The types of users' arguments: models, documents and options. Objects of frameworks are described
by protocols, so that no framework is imported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.data import Data
from rlm_integrations.engine.prompts import Prompt
from rlm_integrations.engine.run_storage import RunStorage, RunStore
from rlm_integrations.events import Hook
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.base import LM
from rlm_integrations.records import Budget, Limits
from rlm_integrations.sandbox.base import Sandbox


class LangChainModel(Protocol):
    """A chat model of LangChain, or another `Runnable` that returns a message."""

    @property
    def ainvoke(self) -> Callable[..., Any]:
        """The asynchronous call."""
        ...

    @property
    def abatch(self) -> Callable[..., Any]:
        """The call with several inputs."""
        ...


class LlamaIndexModel(Protocol):
    """An `LLM` of LlamaIndex."""

    @property
    def achat(self) -> Callable[..., Any]:
        """The asynchronous call."""
        ...

    @property
    def metadata(self) -> Any:
        """The description of the model."""
        ...


class LangChainDocument(Protocol):
    """A document of LangChain."""

    @property
    def page_content(self) -> str:
        """The text of the document."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the document."""
        ...


class Frame(Protocol):
    """A DataFrame of pandas or polars."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""
        ...

    @property
    def dtypes(self) -> Any:
        """The types of the columns."""
        ...


class LlamaIndexDocument(Protocol):
    """A document or node of LlamaIndex, alone or with a score."""

    @property
    def get_content(self) -> Callable[..., str]:
        """The method that returns the text."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the document."""
        ...


Model: TypeAlias = str | LM | LangChainModel | LlamaIndexModel
"""A model: a name such as "gpt-5-mini", or an object; see `lm.resolve`."""

Document: TypeAlias = str | PathLike[str] | LangChainDocument | LlamaIndexDocument | Data | Frame
"""One document of a context: its text as a string, its file as a `pathlib.Path`, or data."""

JsonData: TypeAlias = dict[str, Any] | list[Any]
"""A dict or list of JSON that is data, not texts; see `Data`."""

Context: TypeAlias = Document | Iterable[Document] | Mapping[str, Document] | JsonData | Corpus
"""The context of a question: one document, several, several by name, data, or a `Corpus`."""


class RLMOptions(TypedDict, total=False):
    """The options of an `RLM` that do not change the type of its answers."""

    max_iterations: int
    max_depth: int
    max_parallel_calls: int
    store_mode: Literal["auto", "shared", "none"]
    instructions: str | None
    prompt: Prompt | None
    structured: bool
    budget: Budget | None
    limits: Limits | None
    retry: Retry | None
    sandbox: str | Sandbox
    tools: Sequence[Callable[..., Any]]
    storage: RunStorage | None
    store: RunStore | None
    require_coverage: float | None
    cache: bool
    show_progress: bool
    verbose: bool
    on_event: Hook | None


class RLMReplacements(RLMOptions, total=False):
    """The options of `RLM.replace`, without those that change the type of the answers."""

    root_llm: Model
    sub_llm: Model | Mapping[str, Model] | None
