"""The types of what users give: models, documents and options. Frameworks are described by the
methods that they have, so that none has to be imported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

from rlm_integrations.corpus import Corpus
from rlm_integrations.events import Hook
from rlm_integrations.lm.asker import Retry
from rlm_integrations.lm.base import LM
from rlm_integrations.records import Budget, Limits
from rlm_integrations.sandbox.base import Sandbox


class LangChainModel(Protocol):
    """A chat model of LangChain, or another `Runnable` that gives a message."""

    @property
    def ainvoke(self) -> Callable[..., Any]:
        """Its asynchronous call."""
        ...

    @property
    def abatch(self) -> Callable[..., Any]:
        """Its call with several inputs."""
        ...


class LlamaIndexModel(Protocol):
    """An `LLM` of LlamaIndex."""

    @property
    def achat(self) -> Callable[..., Any]:
        """Its asynchronous call."""
        ...

    @property
    def metadata(self) -> Any:
        """What it says about itself."""
        ...


class LangChainDocument(Protocol):
    """A document of LangChain."""

    @property
    def page_content(self) -> str:
        """Its text."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is known of it."""
        ...


class LlamaIndexDocument(Protocol):
    """A document or node of LlamaIndex, alone or with a score."""

    @property
    def get_content(self) -> Callable[..., str]:
        """What gives its text."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is known of it."""
        ...


Model: TypeAlias = str | LM | LangChainModel | LlamaIndexModel
"""What can be asked: a name such as "gpt-5-mini", or an object; see `lm.resolve`."""

Document: TypeAlias = str | PathLike[str] | LangChainDocument | LlamaIndexDocument
"""One document of a context: a string is its text, a `pathlib.Path` the file that holds it."""

Context: TypeAlias = Document | Iterable[Document] | Corpus
"""What questions are about: one document, several, or a `Corpus` that was built before."""


class RLMOptions(TypedDict, total=False):
    """The options of an `RLM` that do not change the type of its answers."""

    max_iterations: int
    max_depth: int
    max_parallel_calls: int
    store_mode: Literal["shared", "none"]
    budget: Budget | None
    limits: Limits | None
    retry: Retry | None
    sandbox: str | Sandbox
    tools: Sequence[Callable[..., Any]]
    storage: None
    show_progress: bool
    verbose: bool
    on_event: Hook | None


class RLMReplacements(RLMOptions, total=False):
    """What `RLM.replace` takes beside the options that change the type of answers."""

    root_llm: Model
    sub_llm: Model | Mapping[str, Model] | None
