"""Contexts, files, options, spans and sources that are invalid."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.fixed_width import BLOCK
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef
from tests._corpus import open_descriptors, written


async def asynchronous() -> AsyncIterator[str]:
    yield "one"


@dataclass
class Odd:
    metadata: dict[str, Any] = field(default_factory=dict)
    page_content: int = 3


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, "the context is None: pass a string"),
        (b"abc", "the context is bytes, not text: decode it first"),
        (bytearray(b"abc"), "the context is bytearray, not text"),
        ({"a": {}, "b": Path("c")}, "'a' of the context is a dict: pass its texts, or"),
        ({3: "b"}, "the name of a text must be a printable string that is not empty, not 3"),
        ({"": "b"}, "the name of a text must be a printable string"),
        ({"a\n": "b"}, "the name of a text must be a printable string"),
        ({"\udcff": "b"}, "the name of a text must be a printable string"),
        ({"a", "b"}, "the context is a set, which has no order"),
        (3, "the context is of type int"),
        (2.5, "the context is of type float"),
        (object(), "the context is of type object"),
        (Odd(), "the context is of type Odd"),
        (asynchronous(), r"the context is asynchronous \(async_generator\): collect it first"),
        (["a", b"b"], "item 1 of the context is bytes"),
        (["a", None], "item 1 of the context is None"),
        ([["a"], Odd()], "item 0 of the context is a list: pass one flat list"),
        ([{"text": Odd()}], r"the data is not JSON: \$\[0\].text is of type Odd"),
        ([Odd()], "item 0 of the context is of type Odd"),
    ],
)
def test_a_context_of_the_wrong_type(context: object, message: str) -> None:
    """A context that is not text is refused with its type, its position, and what to pass instead;
    no descriptor stays open.
    """
    before = open_descriptors()
    with pytest.raises(ContextError, match=message):
        Corpus.build(context)
    assert open_descriptors() <= before


def test_an_open_file_is_refused(tmp_path: Path) -> None:
    """An open file is refused, because it would be a list of its lines."""
    with (
        written(tmp_path / "a.txt", b"one\ntwo").open(encoding="utf-8") as file,
        pytest.raises(ContextError, match="an open file"),
    ):
        Corpus.build(file)


def test_a_missing_path(tmp_path: Path) -> None:
    """The error for a missing file has the name as it was given, and the reason."""
    with pytest.raises(ContextError, match=r"a\.txt' cannot be read: No such file"):
        Corpus.build(tmp_path / "a.txt")


def test_a_directory(tmp_path: Path) -> None:
    """The error for a directory in a list says how to pass it."""
    with pytest.raises(ContextError, match=r"is a directory: pass it alone, or in a dict, such as"):
        Corpus.build([tmp_path])


def test_an_unreadable_path(tmp_path: Path) -> None:
    """The error for an unreadable path has the system's reason."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ContextError, match="cannot be read: Too many levels"):
        Corpus.build(tmp_path / "loop")
    with pytest.raises(ContextError, match=r"cannot be read: .*embedded null"):
        Corpus.build(Path("a\0b"))


def test_a_pipe_does_not_wait(tmp_path: Path) -> None:
    """A pipe without a writer is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ContextError, match="is not a regular file"):
        Corpus.build(tmp_path / "pipe")


@pytest.mark.parametrize("before", [0, 5, 4 * BLOCK - 1, 9 * BLOCK])
def test_invalid_utf_8_is_located(tmp_path: Path, before: int) -> None:
    """Invalid UTF-8 is refused with the file, the offset and the line, even in the middle of a
    character.
    """
    data = b"ab\n\xc3\xa9" + b"x" * before + b"\n\n\xe2\x82!tail"
    offset = data.index(b"\xe2")
    with pytest.raises(
        ContextError,
        match=rf"a.txt' is not valid utf-8: byte 0xe2 at offset {offset:,}, line 4 .*'replace'",
    ):
        Corpus.build(written(tmp_path / "a.txt", data))


def test_a_character_cut_at_the_end_is_located(tmp_path: Path) -> None:
    """A file that ends within a character is refused with that position."""
    with pytest.raises(ContextError, match="offset 1, line 1"):
        Corpus.build(written(tmp_path / "a.txt", b"a\xe2\x82"))


def test_a_wrong_encoding(tmp_path: Path) -> None:
    """A codec that reports no offset still results in a clear error."""
    with pytest.raises(ContextError, match="is not valid utf-32"):
        Corpus.build(written(tmp_path / "a.txt", b"abc!efgh"), encoding="utf-32")


@pytest.mark.parametrize(
    "options", [{"encoding": "utf-9"}, {"encoding": "hex"}, {"errors": "lenient"}]
)
def test_unknown_options(options: dict[str, str]) -> None:
    """An unknown encoding, a codec that does not decode to text, and an unknown treatment of errors
    are refused before anything is read.
    """
    with pytest.raises(ContextError, match="choose an encoding such as 'utf-8'"):
        Corpus.build("abc", **options)


@pytest.mark.parametrize("span", [(0, 4), (-1, 2), (2, 1), (4, 4)])
def test_spans_outside_a_source(span: tuple[int, int]) -> None:
    """A span outside its source is refused with the source's length, in reading, slicing and
    lifting.
    """
    with Corpus.build("abc") as corpus:
        ref = SpanRef("context_0", *span)
        for use in (
            lambda: corpus.text(ref.source, ref.start, ref.end),
            lambda: corpus.slice([ref]),
            lambda: corpus.lift(ref),
        ):
            with pytest.raises(InputError, match="context_0 has 3 characters"):
                use()


def test_unknown_sources() -> None:
    """The error for an unknown source lists the existing names."""
    with pytest.raises(
        InputError, match="there is no source 'context_9': there are context_0 to context_1"
    ):
        Corpus.build(["a", "b"]).text("context_9")
    with pytest.raises(InputError, match="the context is empty"):
        Corpus.build([]).length("context_0")
