"""Large folders, whose files are read when they are asked for, and `grep` over them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_integrations._concurrency.work import WorkStoppedError
from rlm_integrations.corpus import Corpus, fixed_width, lazy, reading
from rlm_integrations.corpus.lazy import LazyCorpus, build_lazily
from rlm_integrations.corpus.quotes import locate_quote
from rlm_integrations.corpus.spans import Locator
from rlm_integrations.errors import ContextError, InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.sandbox.grep import grep_over
from rlm_integrations.sandbox.host_texts import HostTexts, LazyTexts
from rlm_integrations.sandbox.literals import literals_of
from tests.test_folders import write

FILES = {"a.txt": "one\nthe zebra é\n", "b/c.txt": "Zebra\n" * 3, "b/d.txt": "", "e": "kein Zebra"}


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "MAX_READ_FILES", 0)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[LazyCorpus]:
    with build_lazily(write(tmp_path / "root", FILES)) as built:
        assert isinstance(built, LazyCorpus)
        yield built


def texts_of(corpus: LazyCorpus) -> HostTexts:
    return HostTexts(corpus.texts, corpus.metadata, [each.name for each in corpus.sources])


def test_a_file_is_read_when_it_is_asked_for(corpus: LazyCorpus, tmp_path: Path) -> None:
    """Before, its size is known; after, its length and hash, and later changes do not matter."""
    assert [each.name for each in corpus.sources] == [*FILES]
    assert (corpus.read_numbers, corpus.characters_read, corpus.sources[1].sha256) == ([], 0, "")
    assert corpus.metadata["sizes"]["a.txt"] == len(FILES["a.txt"].encode())
    write(tmp_path / "root", {"e": "changed before"})
    assert corpus.text("a.txt", 4, 9) == "the z"
    write(tmp_path / "root", {"a.txt": "changed after", "b/c.txt": "changed"})
    assert (corpus.text("a.txt"), corpus.text("e")) == (FILES["a.txt"], "changed before")
    assert corpus.read_numbers == [0, 3]
    assert corpus.sources[0].length == len(FILES["a.txt"])
    assert corpus.characters == len(FILES["a.txt"]) + len(FILES["b/c.txt"]) + len("changed before")
    with Corpus.build(FILES["a.txt"]) as plain:
        assert corpus.sources[0].sha256 == plain.sources[0].sha256
    corpus.close()
    with pytest.raises(ContextError, match="closed"):
        corpus.text("b/d.txt")


def test_large_texts_are_not_copied(corpus: LazyCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the texts that are copied, ASCII files are read in place: if one changes after its
    first read, that is an error.
    """
    monkeypatch.setattr(reading, "COPIED", 1)
    assert corpus.text("e") == FILES["e"]
    write(corpus._listings[0].folder.root, {"e": "kein Zebra mehr"})
    with pytest.raises(ContextError, match="changed since it was read"):
        corpus.text("e")


def test_what_is_not_text_is_left_out_when_it_is_read(tmp_path: Path) -> None:
    """Binary and undecodable files, and what became a pipe, a link out of the folder, or is gone,
    are left out: counted with their reasons, and an error for code that asks for one.
    """
    root = write(tmp_path / "root", {"ok": "zebra", "zeros": b"zebra\0", "latin": b"zebra \xe9"})
    write(root, {"gone": "zebra", "pipe": "zebra", "out": "zebra", "grown": "zebra"})
    secret = write(tmp_path, {"secret": "zebra"}) / "secret"
    with build_lazily({"in": root, "note": "a zebra"}) as corpus:
        assert isinstance(corpus, LazyCorpus)
        for name in ("gone", "pipe", "out"):
            (root / name).unlink()
        os.mkfifo(root / "pipe")
        (root / "out").symlink_to(secret)
        write(root, {"grown": "more than one zebra"})
        metadata = corpus.metadata
        texts = HostTexts(corpus.texts, metadata, [each.name for each in corpus.sources])
        context = LazyTexts(texts)
        with pytest.raises(KeyError, match=r"'in/zeros' is left out of the context: binary"):
            context["in/zeros"]
        found = {each.path for each in grep_over(texts)("zebra")}
        assert found == {"in/ok", "in/grown", "note"} == {name for name, _ in context.items()}
        assert metadata["left_out"]["names"] == {
            "in/zeros": "binary",
            "in/latin": "not utf-8",
            "in/gone": "unreadable",
            "in/pipe": "unreadable",
            "in/out": "link out of the folder",
        }
        assert corpus.left_out == metadata["left_out"]["names"]
        assert metadata["left_out"]["files"] == 5
        assert (corpus.text("in/zeros"), context.get("in/gone", 7)) == ("", 7)
    with pytest.raises(ContextError, match="two texts of the context have the name 'in/ok'"):
        build_lazily({"in/ok": "x", "in": root})


def test_a_read_that_is_stopped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a part of its text in the next one, nor does the file count as read."""
    root = write(tmp_path / "root", {"a": "a first text", "b": "another"})
    finish = fixed_width.Writer.finish
    with build_lazily(root) as corpus:

        def stop(_: fixed_width.Writer) -> None:
            monkeypatch.setattr(fixed_width.Writer, "finish", finish)
            raise WorkStoppedError

        monkeypatch.setattr(fixed_width.Writer, "finish", stop)
        with pytest.raises(WorkStoppedError):
            corpus.text("a")
        assert list(corpus.read_numbers) == []
        assert (corpus.text("b"), corpus.text("a")) == ("another", "a first text")


def test_small_folders_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a folder above a limit of files or bytes is read on demand, and the bound of all texts
    holds for it too.
    """
    root = write(tmp_path / "root", FILES)
    monkeypatch.setattr(lazy, "MAX_READ_FILES", len(FILES))
    for context in (root, {"in": root}, root / "e", "text", [root / "e"]):
        with build_lazily(context) as corpus:
            assert type(corpus) is Corpus
    monkeypatch.setattr(lazy, "MAX_READ_BYTES", 10)
    with build_lazily(root) as corpus, build_lazily(root, least_bytes=1_000) as other:
        assert [type(corpus), type(other)] == [LazyCorpus, Corpus]
    monkeypatch.setattr("rlm_integrations.corpus.folder.MAX_FOLDER_BYTES", 10)
    with pytest.raises(ContextError, match="pass a smaller folder"):
        build_lazily(root)


def test_quotes_and_prompts_are_looked_up_in_what_was_read(corpus: LazyCorpus) -> None:
    """A quote is found in texts that were read, and in a source that is named; the index of a
    prompt's parts grows with what was read.
    """
    locator = Locator(corpus)
    assert locate_quote(corpus, "the zebra é") == []
    corpus.text("e")
    assert locator.is_behind
    locator.extend()
    assert locator.locate("Look: kein Zebra").pieces[1:] == ()
    corpus.text("a.txt")
    assert [hit.span for hit in locate_quote(corpus, "the zebra")] == [SpanRef("a.txt", 4, 13)]
    (hit, *_) = locate_quote(corpus, "Zebra Zebra", "b/c.txt")
    assert hit.span == SpanRef("b/c.txt", 0, 11)


def test_a_prompt_s_parts_are_found_in_any_order_of_reading(tmp_path: Path) -> None:
    """Texts that are read later, in another order than that of the document, are found as if all
    had been read at once.
    """
    parts = {
        f"{number}.txt": "".join(f"line {line} of {number}. " for line in range(60))
        for number in range(6)
    }
    root = write(tmp_path / "root", parts)
    with build_lazily(root) as corpus, Corpus.build(root) as whole:
        locator = Locator(corpus)
        for name in ("4.txt", "1.txt", "3.txt"):
            corpus.text(name)
            locator.extend()
            prompt = f"Read: {parts[name][100:600]}"
            assert locator.locate(prompt) == Locator(whole).locate(prompt)


def test_a_child_gets_no_descriptor_that_can_write(corpus: LazyCorpus) -> None:
    """The memory grows while children read it: their descriptor cannot write, resize or seal it."""
    corpus.text("a.txt")
    child = corpus.slice([SpanRef("a.txt", 0, 3)])
    corpus.text("e")
    for descriptor in child.handover().files():
        for attempt in (lambda fd: os.pwrite(fd, b"x", 0), lambda fd: os.ftruncate(fd, 0)):
            with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
                attempt(descriptor)
    assert (child.text("context_0"), corpus.text("a.txt")) == ("one", FILES["a.txt"])
    assert isinstance(fixed_width.GrowingMemory(), fixed_width.Memory)


def test_an_invalid_number_is_refused(corpus: LazyCorpus) -> None:
    """Numbers come from model code."""
    for number in (-1, len(FILES)):
        with pytest.raises(InputError, match="no source number"):
            corpus.texts([[number, number + 1]])


LETTERS = "abkisAKS\u017f\u212a\u0130\u0131ß é\n.*+?()[]|\\"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    contents=st.lists(st.text(LETTERS, max_size=12), min_size=1, max_size=4),
    words=st.lists(st.text(LETTERS[:15], max_size=3), min_size=1, max_size=3),
    form=st.sampled_from(
        [
            "{}",
            "({})+x?",
            "^{}$",
            "(?:{}|b)",
            "(?i:{})",
            "{}[ab]",
            "a{{0,2}}{}",
            "(?={}).",
            "(?!{})a",
        ]
    ),
    flags=st.sampled_from([0, re.IGNORECASE, re.IGNORECASE | re.ASCII, re.VERBOSE, re.DOTALL]),
    limit=st.sampled_from([0, 1, 1_000]),
)
def test_grep_finds_what_it_finds_in_texts_that_are_read(
    tmp_path: Path, contents: list[str], words: list[str], form: str, flags: int, limit: int
) -> None:
    """Over files that are read on demand, the lines are those of the same texts in a dict, for any
    pattern.
    """
    root = tmp_path / "root"
    for old in root.glob("*"):
        old.unlink()
    names = [f"{number}" for number in range(len(contents))]
    write(root, dict(zip(names, contents, strict=True)))
    pattern = re.compile(form.format("|".join(map(re.escape, words))), flags | re.MULTILINE)
    with build_lazily(root) as corpus:
        assert isinstance(corpus, LazyCorpus)
        corpus.text("0")
        found = grep_over(texts_of(corpus))(pattern, limit=limit)
    assert found == grep_over(dict(zip(names, contents, strict=True)))(pattern, limit=limit)


@pytest.mark.parametrize(
    ("pattern", "flags", "literals"),
    [
        ("abc", 0, ["abc"]),
        (r"\bclass (\w+)\(Base\):$", 0, ["(Base):"]),
        (r"\d+ euros?", 0, [" euro"]),
        ("ab|cde|f", 0, ["ab", "cde", "f"]),
        ("(foo|bar)+baz!", 0, ["baz!"]),
        ("MissAll", re.IGNORECASE, ["all"]),
        ("(?i:abc)d", 0, ["d"]),
        ("x?y*", 0, None),
        (r"\d+", 0, None),
        ("a|", 0, None),
        ("iks", re.IGNORECASE, None),
        ("z" * 100, 0, ["z" * 64]),
    ],
)
def test_literals_of_a_pattern(pattern: str, flags: int, literals: list[str] | None) -> None:
    """Every match has one of them; letters that are equal to others without regard to case are in
    none.
    """
    assert literals_of(re.compile(pattern, flags)) == literals


def test_only_texts_with_the_literals_are_read(corpus: LazyCorpus) -> None:
    """`grep` reads files that may match, in the folders that are named; a pattern of bytes is
    refused, as by a text.
    """
    grep = grep_over(texts_of(corpus))
    (found,) = grep("the zebra")
    assert (found.path, found.line, found.span) == ("a.txt", 2, SpanRef("a.txt", 4, 15))
    assert corpus.read_numbers == [0]
    assert len(grep("ZEBRA", paths="b")) == 0
    assert (len(grep("(?i)ZEBRA", paths=["b/*"])), corpus.read_numbers) == (3, [0, 1])
    with pytest.raises(TypeError):
        grep(re.compile(b"x"))


def test_the_mapping_behaves_as_a_dict(corpus: LazyCorpus) -> None:
    """Names, length and membership need no text; what code puts in is its own; copies are dicts."""
    context = LazyTexts(texts_of(corpus))
    assert (len(context), "e" in context, list(context)) == (4, True, [*FILES])
    assert "4 texts in all" in repr(context)
    assert corpus.read_numbers == []
    assert dict(context) == context.copy() == context | {} == FILES
    assert list(context.values()) == [*FILES.values()]
    context["e"] = "mine"
    del context["b/d.txt"]
    assert dict(context.items()) == {
        "a.txt": FILES["a.txt"],
        "b/c.txt": FILES["b/c.txt"],
        "e": "mine",
    }
    assert (context.pop("e"), context.setdefault("new", "x"), len(context)) == ("mine", "x", 3)
