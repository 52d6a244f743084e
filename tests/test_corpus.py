"""The corpus: valid contexts, how their text is held and read, and their metadata."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef
from tests._corpus import handed_over, maxchar_of, open_descriptors, sha256, texts, whole


@pytest.mark.exhaustive
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


def test_generated_documents_are_pulled_one_at_a_time() -> None:
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


def test_exceptions_of_a_generator_are_raised() -> None:
    """An error of the user's own generator is not renamed, and no descriptor stays open."""

    def generate() -> Iterator[str]:
        yield "one"
        raise KeyError("theirs")

    before = open_descriptors()
    with pytest.raises(KeyError, match="theirs"):
        Corpus.build(generate())
    assert open_descriptors() <= before


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


def test_the_hash_of_a_corpus_distinguishes_texts() -> None:
    """The same texts have the same hash, whatever their source; other texts, another order or
    another shape have a different one.
    """
    hashes = {
        Corpus.build(each).sha256 for each in ("ab", ["ab"], ["a", "b"], ["b", "a"], [], [""], "")
    }
    assert len(hashes) == 7
    assert Corpus.build(["a", "b"]).sha256 == Corpus.build(iter("ab")).sha256


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
