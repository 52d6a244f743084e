"""The parts of an engine: its runs, and the documents that they read."""

from collections.abc import Iterable, Mapping, Sized
from typing import Any

from llama_index.core.indices.base import BaseIndex

from rlm_integrations.errors import InputError
from rlm_integrations.llama_index.runs import Runs
from rlm_integrations.llama_index.texts import BoundTexts, IndexTexts


def only_one(sources: Mapping[str, object]) -> str:
    """The name of the one source that was given.

    Raises:
        InputError: None, or more than one, was given.
    """
    given = [name for name, source in sources.items() if source is not None]
    if len(given) != 1:
        raise InputError(
            f"an engine needs exactly one of {', '.join(sources)}; given: "
            f"{', '.join(given) or 'none of them'}"
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
        sources: `documents`, `nodes` and `index` by name; exactly one is not None.
        llm: See `Runs.of`, also for the arguments below.
        sub_llm: The model that code calls.
        output_cls: A pydantic class for typed answers.
        options: The options of `RLM`.
        own: Further options of the engine.

    Raises:
        InputError: An argument is invalid.
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
        InputError: There are no documents.
    """
    return BoundTexts(checked_documents(documents), runs.limits)


def checked_documents(documents: object) -> object:
    """The documents, unless they are empty.

    Raises:
        InputError: There are no documents.
    """
    if documents is None or (isinstance(documents, Sized) and not len(documents)):
        raise InputError(
            "there are no documents: pass a string, a path, a document, or a list of these"
        )
    return documents


def checked(given: object, kind: type) -> None:
    """Check the type of an argument.

    Raises:
        InputError: It has another type.
    """
    if not isinstance(given, kind):
        raise InputError(f"expected {kind.__name__}, not {type(given).__name__}")
