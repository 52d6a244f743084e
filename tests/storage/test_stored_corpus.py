"""Documents of runs in the lake: each text once, and back as it was."""

from pathlib import Path

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.corpus.source_document import SourceDocument
from rlm_integrations.errors import DamagedDataError
from rlm_integrations.storage.files import LocalFiles
from rlm_integrations.storage.lake import Lake
from rlm_integrations.storage.shared_database import SharedDatabase
from rlm_integrations.storage.stored_corpus import keep_corpus, read_corpus

TEXTS = ["plain", "ünï \U0001f512", "half \ud800 pair", "", "x" * 200_000]


@pytest.fixture
def lake(opened: SharedDatabase, tmp_path: Path) -> Lake:
    return Lake(opened, LocalFiles(tmp_path / "lake"))


@pytest.mark.parametrize("context", [TEXTS[1], TEXTS, []], ids=["single", "list", "empty"])
def test_a_document_comes_back_as_it_was(lake: Lake, context: str | list[str]) -> None:
    """Texts, with broken Unicode too, their number and their form: alone or as a list."""
    corpus = Corpus.build(context)
    again = read_corpus(lake, keep_corpus(lake, corpus)[0])
    assert list(again) == list(corpus)
    assert (again.is_list, again.sha256) == (corpus.is_list, corpus.sha256)


def test_what_is_known_of_a_document_comes_back(lake: Lake) -> None:
    """Its metadata, its own id, and the keys that no model may see."""
    document = SourceDocument("text", {"file": "a.txt", "page": 3}, "id-1", frozenset({"page"}))
    (source,) = read_corpus(lake, keep_corpus(lake, Corpus.build([document]))[0]).sources
    assert (dict(source.metadata), source.document_id, source.hidden) == (
        {"file": "a.txt", "page": 3},
        "id-1",
        {"page"},
    )


def test_a_text_that_is_kept_is_not_written_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run over the same document writes its description at most."""
    corpus = Corpus.build(TEXTS)
    first, blobs = keep_corpus(lake, corpus)
    written: list[int] = []
    put = lake.put

    def counted(data: bytes) -> str:
        written.append(len(data))
        return put(data)

    monkeypatch.setattr(lake, "put", counted)
    assert keep_corpus(lake, Corpus.build(TEXTS)) == (first, blobs)
    assert len(written) == 1


def test_a_damaged_description_is_an_error_of_ours(lake: Lake) -> None:
    """Another version or a mistake: the message says that the document is damaged."""
    for described in (b"{}", b"[]", b"no JSON", b'{"is_list": true, "sources": [{}]}'):
        with pytest.raises(DamagedDataError, match="the document of the run is damaged"):
            read_corpus(lake, lake.put(described))
