"""The corpus: the valid contexts, and how their text is stored, read, sliced and sent to another
process.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus, documents
from rlm_integrations.corpus.fixed_width import BLOCK, MAXCHARS
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.sandbox.fill import fill


def handed_over(corpus: Corpus) -> list[str]:
    """The texts as another process receives them."""
    handover = corpus.handover()
    texts = {}
    for number, fd in enumerate(handover.files()):
        for place, piece in enumerate(handover.pieces):
            if piece.file == number:
                texts[place] = fill(fd, piece.offset, piece.chars, piece.stored, piece.maxchar)
    return [texts[place] for place in range(len(texts))]


def whole(corpus: Corpus) -> list[str]:
    return [corpus.text(source.name) for source in corpus.sources]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def maxchar_of(text: str) -> int:
    widest = max(map(ord, text), default=0)
    return next(each for each in MAXCHARS if widest <= each)


def open_descriptors() -> set[tuple[str, str]]:
    """The descriptors of this process that hold text, after a garbage collection of other tests'
    objects.
    """
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((entry.name, str(entry.readlink())))
    return {
        (name, target)
        for name, target in found
        if target.startswith("/memfd:rlm-context") or target.endswith((".txt", "pipe"))
    }


# Texts that cross blocks and change their width anywhere, lone surrogates side by side included.
units = st.sampled_from(["a", "\r\n", "\xe9", "\u20ac", "\ud83d", "\ude00", "\U0001f600"])
counts = st.sampled_from([1, 2, 100, BLOCK - 1, BLOCK])
texts = st.lists(st.tuples(units, counts), max_size=5).map(
    lambda parts: "".join(unit * count for unit, count in parts)
)


# Valid contexts


@settings(deadline=None, max_examples=60)
@given(st.lists(texts, max_size=4), st.data())
def test_texts_are_kept_exactly(given_texts: list[str], data: st.DataObject) -> None:
    """At every character width, the texts, their slices, lengths, hashes and widest characters are
    those of the given strings.
    """
    with Corpus.build(given_texts) as corpus:
        assert whole(corpus) == given_texts == handed_over(corpus)
        assert [source.name for source in corpus.sources] == [
            f"context_{i}" for i in range(len(given_texts))
        ]
        assert [source.length for source in corpus.sources] == [len(text) for text in given_texts]
        assert [source.sha256 for source in corpus.sources] == [
            sha256(text) for text in given_texts
        ]
        assert [source.maxchar for source in corpus.sources] == [
            maxchar_of(text) for text in given_texts
        ]
        pieces: dict[str, list[str]] = {source.name: [] for source in corpus.sources}
        for name, piece in corpus:
            pieces[name].append(piece)
        assert ["".join(each) for each in pieces.values()] == given_texts
        for source, text in zip(corpus.sources, given_texts, strict=True):
            start = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(start, len(text)))
            assert corpus.text(source.name, start, end) == text[start:end]
            with corpus.slice([SpanRef(source.name, start, end)]) as child:
                assert handed_over(child) == [text[start:end]]
                assert child.sources[0].maxchar == maxchar_of(text[start:end])
                assert child.sources[0].sha256 == sha256(text[start:end])


def test_surrogates_side_by_side_stay_two() -> None:
    """A lone high surrogate followed by a lone low one are two characters, at any width."""
    for text in ("\ud83d" + "\ude00", "a\ud83d" + "\ude00" * 3, "\ud83d" + "\ude00\U0001f600"):
        with Corpus.build(text) as corpus:
            assert whole(corpus) == [text] == handed_over(corpus)
            assert corpus.length("context_0") == len(text)


@pytest.mark.parametrize(
    ("context", "expected", "is_list"),
    [
        ("one", ["one"], False),
        ("", [""], False),
        ([], [], True),
        ([""], [""], True),
        (["one"], ["one"], True),
        (("one", "two"), ["one", "two"], True),
        ((text for text in ("one", "two")), ["one", "two"], True),
        ({"a": "one"}.values(), ["one"], True),
    ],
)
def test_texts_and_lists_of_texts(context: object, expected: list[str], is_list: bool) -> None:
    """A str is a single text; a list, a tuple, a generator or a view is a list of texts, of any
    number.
    """
    with Corpus.build(context) as corpus:
        assert whole(corpus) == expected == handed_over(corpus)
        assert corpus.is_list is is_list
        assert corpus.handover().is_list is is_list


def test_paths_and_documents_mix(tmp_path: Path) -> None:
    """A list may contain texts, paths and documents; a single path is a single text."""
    path = tmp_path / "a.txt"
    path.write_text("on disk", encoding="utf-8")
    document = SimpleNamespace(page_content="in a document", metadata={}, id=None)
    with Corpus.build(["text", path, document]) as corpus:
        assert whole(corpus) == ["text", "on disk", "in a document"] == handed_over(corpus)
    with Corpus.build(path) as corpus:
        assert not corpus.is_list


def test_documents_of_langchain() -> None:
    """LangChain documents have text, metadata and id; one document is a single text."""
    from langchain_core.documents import Document

    document = Document(page_content="words", metadata={"page": 3}, id="d1")
    with Corpus.build(document) as corpus:
        assert not corpus.is_list
        assert whole(corpus) == ["words"]
        assert (corpus.sources[0].metadata, corpus.sources[0].document_id) == ({"page": 3}, "d1")
    with Corpus.build(iter([document, Document(page_content="more")])) as corpus:
        assert whole(corpus) == ["words", "more"]
        assert corpus.sources[1].document_id is None


def test_documents_of_llama_index() -> None:
    """LlamaIndex documents, nodes and scored nodes have text without the metadata, which are stored
    separately.
    """
    from llama_index.core.schema import Document, NodeWithScore, TextNode

    given_nodes = [
        Document(text="words", metadata={"page": 3}, id_="d1"),
        TextNode(text="of a node", id_="n1"),
        NodeWithScore(node=TextNode(text="scored", metadata={"a": 1}, id_="n2"), score=0.5),
    ]
    with Corpus.build(given_nodes) as corpus:
        assert whole(corpus) == ["words", "of a node", "scored"]
        assert [source.document_id for source in corpus.sources] == ["d1", "n1", "n2"]
        assert corpus.sources[2].metadata == {"a": 1}


def test_generated_documents_are_taken_one_at_a_time() -> None:
    """A generator's texts are stored as they are yielded: none is held when the next is
    requested.
    """
    import weakref

    class Text:
        def __init__(self, text: str) -> None:
            self.page_content = text
            self.metadata: dict[str, Any] = {}

    alive = []

    def generate() -> Iterator[Text]:
        for number in range(5):
            text = Text(str(number))
            alive.append(weakref.ref(text))
            yield text
            del text
            assert sum(each() is not None for each in alive) <= 1

    with Corpus.build(generate()) as corpus:
        assert whole(corpus) == ["0", "1", "2", "3", "4"]


def test_what_a_generator_raises_comes_out() -> None:
    """An error of the user's own generator is not renamed, and no descriptor stays open."""

    def generate() -> Iterator[str]:
        yield "one"
        raise KeyError("theirs")

    before = open_descriptors()
    with pytest.raises(KeyError, match="theirs"):
        Corpus.build(generate())
    assert open_descriptors() <= before


# Metadata


def test_metadata_are_what_the_repl_shows(tmp_path: Path) -> None:
    """`metadata` has type, size, and each source's name, size, id and metadata; of a path only the
    file name.
    """
    path = tmp_path / "notes.txt"
    path.write_text("abc", encoding="utf-8")
    document = SimpleNamespace(page_content="four", metadata={"page": 3}, id="d1")
    with Corpus.build([path, document]) as corpus:
        assert corpus.metadata == {
            "type": "list of texts",
            "characters": 7,
            "sources": [
                {"name": "context_0", "characters": 3, "metadata": {"file": "notes.txt"}},
                {"name": "context_1", "characters": 4, "id": "d1", "metadata": {"page": 3}},
            ],
        }
        assert str(tmp_path) not in json.dumps(corpus.metadata)
    with Corpus.build("abc") as corpus:
        assert corpus.metadata["type"] == "text"


def test_metadata_are_a_copy_in_json_types() -> None:
    """Values that JSON does not support become strings, including non-finite numbers and cycles,
    and later changes have no effect.
    """
    cycle: list[Any] = []
    cycle += [cycle] * 9
    metadata = {
        1: (1, 2.5, True, None),
        "when": datetime(2024, 1, 2, tzinfo=UTC),
        "inf": float("inf"),
        "deep": {"path": Path("a")},
        "cycle": cycle,
    }
    with Corpus.build(SimpleNamespace(page_content="x", metadata=metadata)) as corpus:
        metadata["new"] = 1
        kept = dict(corpus.sources[0].metadata)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    del kept["cycle"]
    assert kept == {
        "1": [1, 2.5, True, None],
        "when": "2024-01-02 00:00:00+00:00",
        "inf": "inf",
        "deep": {"path": "a"},
    }


def test_the_hash_of_a_corpus_tells_texts_apart() -> None:
    """The same texts have the same hash, whatever their source; other texts, another order or
    another shape have a different one.
    """
    hashes = {
        Corpus.build(each).sha256 for each in ("ab", ["ab"], ["a", "b"], ["b", "a"], [], [""], "")
    }
    assert len(hashes) == 7
    assert Corpus.build(["a", "b"]).sha256 == Corpus.build(iter("ab")).sha256


# Files


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def nothing_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ASCII files are treated like large ones."""
    monkeypatch.setattr(documents, "COPIED", 0)


@pytest.mark.usefixtures("nothing_copied")
def test_a_large_ascii_file_is_used_as_it_is(tmp_path: Path) -> None:
    """A large ASCII file is sent itself, not as a copy, and has no open descriptor meanwhile."""
    path = written(tmp_path / "a.txt", b"one\r\ntwo\rthree\n" * 50_000)
    before = open_descriptors()
    with Corpus.build(path) as corpus:
        assert open_descriptors() <= before
        assert [os.fstat(fd).st_ino for fd in corpus.handover().files()] == [path.stat().st_ino]
        assert whole(corpus) == ["one\r\ntwo\rthree\n" * 50_000] == handed_over(corpus)
        assert corpus.sources[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("character", ["\xe9", "\u20ac", "\U0001f600"])
@pytest.mark.parametrize("before", [0, 1, BLOCK - 1, 4 * BLOCK - 1, 4 * BLOCK])
def test_another_file_is_decoded(tmp_path: Path, character: str, before: int) -> None:
    """A character of several bytes is decoded at any place, also across the steps of reading."""
    text = "a" * before + character + "\r\n" + "b" * 100
    with Corpus.build(written(tmp_path / "a.txt", text.encode())) as corpus:
        assert whole(corpus) == [text] == handed_over(corpus)
        assert corpus.sources[0].sha256 == sha256(text)


@pytest.mark.parametrize(
    "encoding",
    ["utf-16", "utf-16-le", "utf-7", "iso2022_jp", "cp1252", "utf-8-sig", "latin-1", "cp500"],
)
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    """A file is decoded with the given encoding, even if all its bytes are below 128 or mean other
    characters in it.
    """
    for text in ("plain + words~{}", "\xa7 1" if "jp" not in encoding else "\u3042\u3044"):
        path = written(tmp_path / "a.txt", text.encode(encoding))
        with Corpus.build(path, encoding=encoding) as corpus:
            assert whole(corpus) == [text] == handed_over(corpus)


def test_a_byte_order_mark_is_a_character_of_utf_8(tmp_path: Path) -> None:
    """Nothing is dropped silently: a byte order mark counts as a character, except with
    "utf-8-sig".
    """
    path = written(tmp_path / "a.txt", b"\xef\xbb\xbfabc")
    assert whole(Corpus.build(path)) == ["\ufeffabc"]
    assert whole(Corpus.build(path, encoding="utf-8-sig")) == ["abc"]


def test_errors_says_what_becomes_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    """`errors` has the meaning of `bytes.decode`."""
    path = written(tmp_path / "a.txt", b"a\xffb")
    for errors in ("replace", "ignore", "surrogateescape", "backslashreplace"):
        assert whole(Corpus.build(path, errors=errors)) == [b"a\xffb".decode(errors=errors)]


def test_a_file_without_a_size_is_read(tmp_path: Path) -> None:
    """An empty file is an empty text; a file of the kernel that reports the size zero is read."""
    assert whole(Corpus.build(written(tmp_path / "a.txt", b""))) == [""]
    assert "Linux" in Corpus.build(Path("/proc/version")).text("context_0")


@pytest.mark.usefixtures("nothing_copied")
def test_a_relative_path_outlives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is still found after the working directory has changed."""
    written(tmp_path / "a.txt", b"abc")
    monkeypatch.chdir(tmp_path)
    corpus = Corpus.build(Path("a.txt"))
    monkeypatch.chdir("/")
    assert whole(corpus) == ["abc"]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A file whose name is not valid UTF-8 can be a context."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    assert whole(Corpus.build(written(path, b"abc"))) == ["abc"]


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    other = written(path.with_suffix(".new"), path.read_bytes())
    other.replace(path)


def rewrite(path: Path) -> None:
    info = path.stat()
    path.write_bytes(b"x" * info.st_size)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1))


@pytest.mark.usefixtures("nothing_copied")
@pytest.mark.parametrize("change", [grow, replace, rewrite, Path.unlink])
def test_a_large_file_that_changed_is_refused_at_every_use(tmp_path: Path, change: Any) -> None:
    """A file that grew, or was replaced, rewritten or removed is refused; no path is shown to a
    model.
    """
    path = written(tmp_path / "a.txt", b"abcdef")
    corpus = Corpus.build(path)
    change(path)
    before = open_descriptors()
    for use in (
        whole,
        handed_over,
        list,
        lambda corpus: corpus.slice([SpanRef("context_0", 0, 2)]),
    ):
        with pytest.raises(ContextError, match=r"'a\.txt' is gone, or has changed since") as caught:
            use(corpus)
        assert str(tmp_path) not in str(caught.value)
    assert open_descriptors() <= before


@pytest.mark.parametrize("change", [grow, replace, rewrite, Path.unlink])
@pytest.mark.parametrize("data", [b"abcdef", "caf\xe9 noir".encode()])
def test_a_file_that_was_copied_may_change(tmp_path: Path, change: Any, data: bytes) -> None:
    """A copied file may change later without any effect, in every encoding."""
    path = written(tmp_path / "a.txt", data)
    corpus = Corpus.build(path)
    change(path)
    assert (
        whole(corpus)
        == handed_over(corpus)
        == whole(corpus.slice([SpanRef("context_0", 0, corpus.characters)]))
        == [data.decode()]
    )


def test_what_a_corpus_copies_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are copied up to a total size; further ASCII files are used in place."""
    monkeypatch.setattr(documents, "COPIED", 10)
    paths = [written(tmp_path / f"{number}.txt", b"words") for number in range(4)]
    with Corpus.build(paths) as corpus:
        for path in paths:
            grow(path)
        assert [corpus.text(f"context_{number}") for number in range(2)] == ["words", "words"]
        for number in (2, 3):
            with pytest.raises(ContextError, match="has changed since"):
                corpus.text(f"context_{number}")


def changing_at_each_read(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    read = os.pread

    def read_and_change(fd: int, count: int, offset: int) -> bytes:
        if offset == 0:
            change()
        return read(fd, count, offset)

    monkeypatch.setattr(os, "pread", read_and_change)


def test_a_log_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is the file's content when it was opened, although the file grows."""
    path = written(tmp_path / "a.log", b"line of a log\n" * 100_000)
    changing_at_each_read(monkeypatch, lambda: grow(path))
    assert whole(Corpus.build(path)) == ["line of a log\n" * 100_000]


@pytest.mark.parametrize("new", [b"", b"abc", b"xbcdef" * 100_000, b"x" * 700_000])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bytes
) -> None:
    """A file that is truncated or rewritten while it is read is refused: a text is never half old
    and half new.
    """
    path = written(tmp_path / "a.txt", b"abcdef" * 100_000)
    later = iter([lambda: None, lambda: path.write_bytes(new)])
    read = os.pread

    def read_and_rewrite(fd: int, count: int, offset: int) -> bytes:
        if offset:
            next(later, lambda: None)()
        return read(fd, count, offset)

    monkeypatch.setattr(os, "pread", read_and_rewrite)
    with pytest.raises(ContextError, match="changed while it was read"):
        Corpus.build(path)


@pytest.mark.usefixtures("nothing_copied")
def test_a_large_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is used in place is refused even if it only grows."""
    path = written(tmp_path / "a.txt", b"abcdef" * 100_000)
    changing_at_each_read(monkeypatch, lambda: grow(path))
    with pytest.raises(ContextError, match="changed while it was read"):
        Corpus.build(path)


# Bad input


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
        ({"a": "b"}, "the context is a dict: pass its texts as a list"),
        ({"a", "b"}, "the context is a set, which has no order"),
        (3, "the context is of type int"),
        (2.5, "the context is of type float"),
        (object(), "the context is of type object"),
        (Odd(), "the context is of type Odd"),
        (asynchronous(), r"the context is asynchronous \(async_generator\): collect it first"),
        (["a", b"b"], "item 1 of the context is bytes"),
        (["a", None], "item 1 of the context is None"),
        ([["a"]], "item 0 of the context is a list: pass one flat list"),
        ([{"text": "a"}], "item 0 of the context is a dict"),
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


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    """The error for a missing file has the name as it was given, and the reason."""
    with pytest.raises(ContextError, match=r"a\.txt' cannot be read: No such file"):
        Corpus.build(tmp_path / "a.txt")


def test_a_directory(tmp_path: Path) -> None:
    """The error for a directory says how to pass its files."""
    with pytest.raises(
        ContextError, match=r"is a directory: pass its files, such as sorted\(Path\("
    ):
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
def test_bad_utf_8_says_where(tmp_path: Path, before: int) -> None:
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


def test_a_character_cut_at_the_end_says_where(tmp_path: Path) -> None:
    """A file that ends within a character is refused with that position."""
    with pytest.raises(ContextError, match="offset 1, line 1"):
        Corpus.build(written(tmp_path / "a.txt", b"a\xe2\x82"))


def test_an_encoding_that_the_file_has_not(tmp_path: Path) -> None:
    """A codec that reports no offset still results in a clear error."""
    with pytest.raises(ContextError, match="is not valid utf-32"):
        Corpus.build(written(tmp_path / "a.txt", b"abc!efgh"), encoding="utf-32")


@pytest.mark.parametrize(
    "options", [{"encoding": "utf-9"}, {"encoding": "hex"}, {"errors": "lenient"}]
)
def test_options_that_do_not_exist(options: dict[str, str]) -> None:
    """An unknown encoding, a codec that does not decode to text, and an unknown treatment of errors
    are refused before anything is read.
    """
    with pytest.raises(ContextError, match="choose an encoding such as 'utf-8'"):
        Corpus.build("abc", **options)


@pytest.mark.parametrize("span", [(0, 4), (-1, 2), (2, 1), (4, 4)])
def test_places_that_do_not_exist(span: tuple[int, int]) -> None:
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


def test_sources_that_do_not_exist() -> None:
    """The error for an unknown source lists the existing names."""
    with pytest.raises(
        InputError, match="there is no source 'context_9': there are context_0 to context_1"
    ):
        Corpus.build(["a", "b"]).text("context_9")
    with pytest.raises(InputError, match="the context is empty"):
        Corpus.build([]).length("context_0")


# Children


def test_a_slice_shares_its_parents_text() -> None:
    """A child's text is part of the parent's memory: nothing is copied."""
    with (
        Corpus.build(["hello world", "second \u20ac"]) as corpus,
        corpus.slice([SpanRef("context_1", 0, 6), SpanRef("context_0", 6, 11)]) as child,
    ):
        assert whole(child) == ["second", "world"] == handed_over(child)
        assert [os.fstat(fd).st_ino for fd in child.handover().files()] == [
            os.fstat(fd).st_ino for fd in corpus.handover().files()
        ]
        assert [source.width for source in child.sources] == [1, 1]
        assert child.is_list


@pytest.mark.usefixtures("nothing_copied")
def test_a_slice_of_a_file_shares_the_file(tmp_path: Path) -> None:
    """A child of a file reads the same file, from its offset."""
    path = written(tmp_path / "a.txt", b"hello world")
    with (
        Corpus.build(path) as corpus,
        corpus.slice([SpanRef("context_0", 6, 11)], is_list=False) as child,
    ):
        assert whole(child) == ["world"] == handed_over(child)
        assert [os.fstat(fd).st_ino for fd in child.handover().files()] == [path.stat().st_ino]
        assert not child.is_list


def test_a_child_keeps_its_parents_metadata() -> None:
    """A slice has the metadata of its document; a made-up text has none."""
    document = SimpleNamespace(page_content="words", metadata={"page": 3}, id="d1")
    with (
        Corpus.build([document]) as corpus,
        corpus.slice([SpanRef("context_0", 1, 3), "made up"]) as child,
    ):
        assert [(source.metadata, source.document_id) for source in child.sources] == [
            ({"page": 3}, "d1"),
            ({}, None),
        ]


def test_spans_are_lifted_to_the_root() -> None:
    """A span of a child, and of a child's child, is lifted to the span of the root's document with
    the same text.
    """
    with Corpus.build(["0123456789", "abcdefghij"]) as root:
        child = root.slice([SpanRef("context_1", 2, 9), SpanRef("context_0", 5, 10)])
        grandchild = child.slice([SpanRef("context_0", 1, 5)], is_list=False)
        span = SpanRef("context_0", 1, 3)
        assert grandchild.text("context_0", 1, 3) == "ef"
        assert grandchild.lift(span) == SpanRef("context_1", 4, 6)
        assert child.lift(SpanRef("context_1", 0, 5)) == SpanRef("context_0", 5, 10)
        assert root.lift(span) == span


def test_made_up_text_is_not_lifted() -> None:
    """A span that contains made-up text has no place in the root's document. Its parts that have
    one are lifted.
    """
    with Corpus.build("0123456789") as root:
        child = root.slice(
            ["made up", ["<", SpanRef("context_0", 2, 5), ">\u20ac", SpanRef("context_0", 7, 9)]]
        )
        assert whole(child) == ["made up", "<234>\u20ac78"] == handed_over(child)
        assert child.lift(SpanRef("context_0", 0, 4)) is None
        assert child.lift(SpanRef("context_1", 1, 4)) == SpanRef("context_0", 2, 5)
        assert child.lift(SpanRef("context_1", 2, 3)) == SpanRef("context_0", 3, 4)
        assert child.lift(SpanRef("context_1", 0, 4)) is None
        assert child.lift(SpanRef("context_1", 3, 8)) is None
        grandchild = child.slice([SpanRef("context_1", 3, 8)])
        assert grandchild.lift(SpanRef("context_0", 3, 5)) == SpanRef("context_0", 7, 9)
        assert grandchild.lift(SpanRef("context_0", 0, 2)) is None


def test_spans_that_follow_one_another_are_one() -> None:
    """Two adjacent spans that are joined again are lifted to one span."""
    with Corpus.build("0123456789") as root:
        child = root.slice([[SpanRef("context_0", 2, 5), SpanRef("context_0", 5, 8)]])
        assert child.lift(SpanRef("context_0", 1, 5)) == SpanRef("context_0", 3, 7)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_what_is_lifted_has_the_same_text(data: st.DataObject) -> None:
    """For any nesting of slices and made-up texts, a lifted span has the same text, and pure parts
    of the root are always lifted.
    """
    root = corpus = Corpus.build(
        data.draw(
            st.lists(st.text("ab\u20ac\U0001f600", min_size=1, max_size=9), min_size=1, max_size=3)
        )
    )

    def span() -> SpanRef:
        source = data.draw(st.sampled_from(corpus.sources))
        start = data.draw(st.integers(0, source.length))
        return SpanRef(source.name, start, data.draw(st.integers(start, source.length)))

    for _ in range(3):
        made_up = st.text("XY", max_size=3)
        corpus = corpus.slice([[data.draw(made_up), span(), data.draw(made_up), span()], span()])
        for _ in range(3):
            ref = span()
            text = corpus.text(ref.source, ref.start, ref.end)
            lifted = corpus.lift(ref)
            if lifted:
                assert root.text(lifted.source, lifted.start, lifted.end) == text
            elif len(text) == 1:
                assert text in "XY"


def test_a_single_text_has_one_part() -> None:
    """A child that is a single text must have exactly one part."""
    with Corpus.build("abc") as corpus:
        for parts in ([], ["a", "b"]):
            with pytest.raises(InputError, match=f"exactly one part, not {len(parts)}"):
                corpus.slice(parts, is_list=False)


# Descriptors, threads, memory


def test_a_child_outlives_its_parent() -> None:
    """Closing a parent does not affect its children; the last one to close frees the text."""
    before = open_descriptors()
    corpus = Corpus.build("hello world")
    child = corpus.slice([SpanRef("context_0", 6, 11)])
    corpus.close()
    del corpus
    assert whole(child) == ["world"] == handed_over(child)
    child.close()
    assert open_descriptors() <= before


def test_a_closed_corpus_says_so() -> None:
    """Reading, slicing and handing over after `close` raise errors; closing again is allowed."""
    corpus = Corpus.build("abc")
    corpus.close()
    corpus.close()
    for use in (
        whole,
        list,
        Corpus.handover,
        lambda corpus: corpus.slice([SpanRef("context_0", 0, 1)]),
    ):
        with pytest.raises(ContextError, match="this corpus was closed"):
            use(corpus)
    assert corpus.lift(SpanRef("context_0", 0, 1)) == SpanRef("context_0", 0, 1)


def test_a_forgotten_corpus_leaves_nothing() -> None:
    """An unclosed corpus releases its descriptor when it is collected, as does an unfinished
    transfer.
    """
    before = open_descriptors()
    files = Corpus.build(["abc", "\u20ac"]).handover().files()
    next(files)
    assert len(open_descriptors() - before) == 1
    del files
    assert open_descriptors() <= before


@pytest.mark.usefixtures("nothing_copied")
def test_a_thousand_files_never_need_a_thousand_descriptors(tmp_path: Path) -> None:
    """For any number of files, one descriptor at a time is open while they are sent."""
    paths = [written(tmp_path / f"{number}.txt", b"text %d" % number) for number in range(200)]
    before = open_descriptors()
    with Corpus.build(paths) as corpus:
        assert max(len(open_descriptors() - before) for _ in corpus.handover().files()) == 1
        assert handed_over(corpus) == [f"text {number}" for number in range(200)]
    assert open_descriptors() <= before


@pytest.mark.usefixtures("nothing_copied")
def test_nobody_can_write_to_what_is_handed_over(tmp_path: Path) -> None:
    """Memory is sealed and files are opened read-only, so a receiver can change neither text nor
    length.
    """
    with Corpus.build(["\u20ac", written(tmp_path / "a.txt", b"abc")]) as corpus:
        for fd in corpus.handover().files():
            with pytest.raises(OSError):
                os.pwrite(fd, b"x", 0)
            for size in (0, 1000):
                with pytest.raises(OSError):
                    os.ftruncate(fd, size)


def test_threads_may_read_while_another_closes() -> None:
    """A read that has started completes; one that starts after `close` raises an error."""
    text = "0123456789" * 20_000
    corpus = Corpus.build(text)
    wrong: list[object] = []
    reading = threading.Barrier(5)

    def read() -> None:
        reading.wait()
        for at in range(0, len(text) - 100_000, 10):
            try:
                if corpus.text("context_0", at, at + 100_000) != text[at : at + 100_000]:
                    wrong.append(at)
            except ContextError:
                return

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    reading.wait()
    corpus.close()
    for thread in threads:
        thread.join()
    assert wrong == []


MEASURE = """
import sys
from pathlib import Path
from rlm_integrations.corpus import Corpus
def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
kind, path = sys.argv[1:]
context = Path(path) if kind == "path" else Path(path).read_text(encoding="utf-8")
Corpus.build("warm").close()
before = peak()
corpus = Corpus.build(context)
for _ in corpus: pass
print((peak() - before) / Path(path).stat().st_size)
"""


@pytest.mark.parametrize("kind", ["path", "str"])
@pytest.mark.parametrize("unit", ["plain words. ", "\u20acwords. ", "\U0001f600 words. "])
def test_the_host_never_holds_a_second_text(tmp_path: Path, kind: str, unit: str) -> None:
    """Building and reading take under a tenth of the text's size in this process, for a path and
    for a str.
    """
    path = written(tmp_path / "a.txt", (unit * ((32 << 20) // len(unit.encode()))).encode())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.1


def test_importing_the_corpus_loads_no_framework() -> None:
    """Documents are recognized by their attributes, not by their class: no framework is loaded."""
    code = (
        "import sys, rlm_integrations.corpus.spans;"
        " print({'langchain_core', 'llama_index', 'pydantic', 'ctypes'} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.text(max_size=12) | st.text("ab\u20ac\U0001f600", max_size=12), max_size=12),
    st.integers(0, 12),
)
def test_short_texts_are_read_together(texts: list[str], most: int) -> None:
    """Every source is returned in order, with its text or None if it is longer, for any width,
    slices and several memories.
    """
    with Corpus.build(texts) as corpus:
        assert list(corpus.short_texts(most)) == [
            (f"context_{number}", text if len(text) <= most else None)
            for number, text in enumerate(texts)
        ]
        parts = [
            SpanRef(f"context_{number}", len(text) // 3, len(text))
            for number, text in enumerate(texts)
        ]
        with corpus.slice([*parts, "made up", *parts]) as child:
            assert [text for _, text in child.short_texts(100)] == [
                child.text(source.name) for source in child.sources
            ]


def test_short_texts_of_files(tmp_path: Path) -> None:
    """A file among the texts is read separately, and a changed one is reported as usual."""
    path = tmp_path / "file"
    path.write_text("from a file")
    with Corpus.build(["one", path, "two"]) as corpus:
        assert [text for _, text in corpus.short_texts(100)] == ["one", "from a file", "two"]
    with pytest.raises(ContextError, match="closed"):
        list(corpus.short_texts(100))
