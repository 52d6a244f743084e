"""Any code results in an answer or an error for the code: no internal exception ends a run."""

import errno
import os
from typing import Any

import pytest
from pydantic import BaseModel

from rlm_integrations import Limits
from rlm_integrations.engine import children
from tests.engine.conftest import Scripted, code, final, run


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("store.get(i)", '{"n": 1}'),
        ("[store.get(i)]", '[{"n": 1}]'),
        ("{'found': store.get(i)}", '{"found": {"n": 1}}'),
        ("store.get(store.create('note', 'd', 'text'))", "text"),
    ],
)
async def test_an_object_of_the_store_is_answered_by_its_content(
    expression: str, answer: str
) -> None:
    """A store object in an answer is replaced by its content, alone and inside a value."""
    root = Scripted([code("i = store.create('note', 'd', {'n': 1})", f"FINAL({expression})")])
    result = await run(root)
    assert (result.answer, result.stop_reason) == (answer, "final")


async def test_an_object_of_the_store_is_a_typed_answer() -> None:
    """Its content is validated against the type; a partial answer is its content too."""

    class Count(BaseModel):
        n: int

    create = "i = store.create('note', 'd', {'n': 1})"
    assert (
        await run(Scripted([code(create, "FINAL(store.get(i))")]), output_type=Count)
    ).answer == Count(n=1)
    partial = await run(
        Scripted([code(create, "FINAL([store.get(i)])")] * 2), output_type=Count, max_iterations=1
    )
    assert (partial.stop_reason, partial.partial) == ("max_iterations", '[{"n": 1}]')


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def mask() -> list[bool]:
    """A mask."""
    return [False] * 200_000


def table() -> dict[str, int]:
    """A table with long keys."""
    return {f"{number:04}" + "k" * 1_500: number for number in range(900)}


def fail() -> None:
    """Fails."""
    raise UnspeakableError


def echo(value: Any) -> Any:
    """Returns its argument."""
    return value


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("len(mask())", "200000"),
        ("sum(table().values())", "404550"),
        ("fail()", "UnspeakableError: fail: its message cannot be shown"),
        ("len(echo([None] * 400_000))", "400000"),
        ("echo(10 ** 2_000) == 10 ** 2_000", "True"),
        ("len(store.get(store.create('t', 'd', {'k' * 3_000_000: 1})).content)", "1"),
        ("store.get(echo(store.get(store.create('t', 'd', [[[1]]]))).id).content", "[[[1]]]"),
    ],
)
async def test_results_of_tools_and_the_store_arrive(call: str, shown: str) -> None:
    """Lists of very many small values, dicts with long keys and store objects arrive in the code;
    an error without a message is still an error.
    """
    block = code(f"try: print({call})", "except Exception as error: print(error)")
    result = await run(Scripted([block, final("'done'")]), tools=[mask, table, fail, echo])
    assert (result.repl_history[0].stdout.strip(), result.answer) == (shown, "done")


async def test_a_final_of_many_small_values_is_an_answer() -> None:
    """A long list of booleans is a valid answer."""
    result = await run(Scripted([final("[True] * 300_000")]))
    assert result.answer == "[" + ", ".join(["true"] * 300_000) + "]"


@pytest.mark.parametrize(
    "metadata",
    [
        {"k" * 2_000_000: 1},
        {"many": [None] * 400_000},
        {"number": 10**5_000},
        {10**5_000: 1},
        {"long": "x" * 3_000_000},
    ],
    ids=["key", "list", "number", "key of digits", "text"],
)
async def test_metadata_of_any_shape_cross(metadata: dict[Any, Any]) -> None:
    """Metadata with any keys, lists and numbers are available in the REPL; a number that Python
    cannot print is a string.
    """

    class Document:
        page_content = "the words"

    document = Document()
    document.metadata = metadata  # type: ignore[attr-defined] # as LangChain's documents have it
    result = await run(
        Scripted([final("len(context_metadata['sources'][0]['metadata'])")]), document
    )
    assert result.answer == "1"


@pytest.mark.parametrize(
    "value", ["'x' * 2_000", "['x' * 900, 'y' * 900]", "{'k' * 2_000: 1}", "[0] * 2_000"]
)
async def test_an_answer_that_is_too_long_is_refused(value: str) -> None:
    """The model is told the maximum length of an answer; without a shorter one, the partial answer
    has that length.
    """
    root = Scripted([final(value), final("'short'")])
    assert (await run(root, limits=Limits(answer_chars=1_000))).answer == "short"
    assert "an answer has at most 1,000 characters. Give a shorter one" in root.told[1]
    result = await run(
        Scripted([final(value)]), limits=Limits(answer_chars=1_000), max_iterations=1
    )
    assert result.stop_reason == "max_iterations"
    assert 0 < len(result.partial) <= 1_000


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, os.strerror(errno.EMFILE))])
async def test_a_lack_of_resources_fails_the_call(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lack of memory or descriptors fails the call, which can be made smaller, and not the
    run.
    """

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(children, "_slice", fail)
    block = code(
        "try: recursive_lm('q', context)", f"except {type(error).__name__} as error: print(error)"
    )
    result = await run(Scripted([block, final("'done'")]), max_depth=2)
    assert (
        result.repl_history[0].stdout
        == "recursive_lm: the host is out of memory or files; request less\n"
    )
    assert result.answer == "done"
