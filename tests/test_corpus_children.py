"""Slices of a corpus, closing it, and the memory and descriptors that it uses."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef
from tests._corpus import handed_over, nothing_copied, open_descriptors, whole, written

__all__ = ["nothing_copied"]  # a fixture


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


def test_adjacent_spans_are_one() -> None:
    """Two adjacent spans that are joined again are lifted to one span."""
    with Corpus.build("0123456789") as root:
        child = root.slice([[SpanRef("context_0", 2, 5), SpanRef("context_0", 5, 8)]])
        assert child.lift(SpanRef("context_0", 1, 5)) == SpanRef("context_0", 3, 7)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_lifted_spans_have_the_same_text(data: st.DataObject) -> None:
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


def test_a_closed_corpus_raises() -> None:
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


def test_an_unclosed_corpus_releases_its_descriptor() -> None:
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
def test_receivers_cannot_write(tmp_path: Path) -> None:
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


def test_a_slice_can_be_made_again_elsewhere() -> None:
    """Another corpus of the root's text makes an equal slice from its parts: with the same texts,
    metadata and origins.
    """
    texts = [SimpleNamespace(page_content="hello world", metadata={"page": 1}, id=None), "second"]
    with Corpus.build(texts) as root, Corpus.build(texts) as elsewhere:
        middle = SpanRef("context_0", 2, 9)
        parts = [SpanRef("context_1", 0, 6), ["say ", middle, "!"], "", [middle]]
        first = root.slice(parts)
        for child in (first, first.slice([SpanRef("context_1", 3, 8)], is_list=False)):
            found = child.parts()
            assert found is not None
            assert found[0] is root
            again = elsewhere.slice(found[1], is_list=child.is_list)
            assert (whole(again), again.metadata) == (whole(child), child.metadata)
            assert again.sha256 == child.sha256
            assert again.lift(SpanRef("context_0", 2, 4)) == child.lift(SpanRef("context_0", 2, 4))
        assert root.parts() is None
