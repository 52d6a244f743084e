"""Files of a corpus: how they are read, and what happens if they change."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlm_integrations.corpus import Corpus, reading
from rlm_integrations.corpus.fixed_width import BLOCK
from rlm_integrations.errors import ContextError
from rlm_integrations.records import SpanRef
from tests._corpus import handed_over, nothing_copied, open_descriptors, sha256, whole, written

__all__ = ["nothing_copied"]  # a fixture


@pytest.mark.usefixtures("nothing_copied")
def test_a_large_ascii_file_is_used_in_place(tmp_path: Path) -> None:
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


def test_errors_handles_invalid_bytes(tmp_path: Path) -> None:
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


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
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


def test_copies_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are copied up to a total size; further ASCII files are used in place."""
    monkeypatch.setattr(reading, "COPIED", 10)
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
