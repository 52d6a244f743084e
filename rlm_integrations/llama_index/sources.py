"""What an engine is made of: its runs, and the documents that they read."""

from collections.abc import Iterable, Mapping, Sized
from typing import Any

from llama_index.core.indices.base import BaseIndex

from rlm_integrations.errors import InputError
from rlm_integrations.llama_index.runs import Runs
from rlm_integrations.llama_index.texts import BoundTexts, IndexTexts


def only_one(sources: Mapping[str, object]) -> str:
    """The name of the one source that was given.

    Raises:
        InputError: There is not just one.
    """
    given = [name for name, source in sources.items() if source is not None]
    if len(given) != 1:
        raise InputError(
            f"an engine answers over one of {', '.join(sources)}; given were {given or 'none of them'}"
        )
    return given[0]


def source_of(
    sources: Mapping[str, Any],
    llm: object,
    sub_llm: object,
    output_cls: Any,
    options: Mapping[str, Any],
    own: Iterable[str],
) -> tuple[Runs, BoundTexts | IndexTexts]:
    """The runs and the documents of an engine.

    Args:
        sources: Documents, nodes and an index, by these names; one of them is given.
        llm: See `Runs.of`, as of the rest.
        sub_llm: The model that code asks.
        output_cls: A pydantic class for answers.
        options: Those of `RLM`.
        own: Further options of the engine.

    Raises:
        InputError: An argument cannot work.
    """
    name = only_one(sources)
    runs = Runs.of(llm, sub_llm, output_cls, options, [*sources, *own])
    if name == "index":
        checked(sources["index"], BaseIndex)
        return runs, IndexTexts(sources["index"], runs.limits)
    return runs, kept(sources[name], runs)


def kept(documents: object, runs: Runs) -> BoundTexts:
    """Documents that stay bound to an engine.

    Raises:
        InputError: There are none.
    """
    return BoundTexts(checked_documents(documents), runs.limits)


def checked_documents(documents: object) -> object:
    """The documents, if there are any.

    Raises:
        InputError: There are none.
    """
    if documents is None or (isinstance(documents, Sized) and not len(documents)):
        raise InputError(
            "there are no documents to ask: pass a text, a path, a document, or a list of these"
        )
    return documents


def checked(given: object, kind: type) -> None:
    """Refuse what is not of this kind.

    Raises:
        InputError: It is of another.
    """
    if not isinstance(given, kind):
        raise InputError(f"what is needed here is {kind.__name__}, not {type(given).__name__}")
