"""Documents that grow: added to, searched, read and asked; in this process and in a storage."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from rlm_integrations import RLM, InputError
from rlm_integrations.faces import growing
from rlm_integrations.faces.growing import GrowingDocuments
from rlm_integrations.storage import Removed, Storage
from rlm_integrations.storage.lake import SMALL_BYTES
from tests.storage.conftest import KINDS, URLS

FACT = "The Ravenna dam was approved by Ada Conti."
LARGE = "The weather is fine. " * (SMALL_BYTES // 10) + FACT + " Then came winter." * 100


@pytest.fixture(params=["local", *KINDS])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage | None]:
    """No storage, and one of each kind."""
    if request.param == "local":
        yield None
        return
    url = request.getfixturevalue(URLS[request.param])
    with Storage(url, lake=tmp_path / "lake") as opened:
        yield opened


async def test_texts_are_added_read_and_searched(storage: Storage | None) -> None:
    """A text has an id with its name, the same text and key again is the same source, and a search
    finds words whatever their case and spaces, the newest first.
    """
    document = GrowingDocuments(storage).of("thread")
    first = await document.add("search web!", LARGE, key="call_1", metadata={"tool": "search web!"})
    again = await document.add("search web!", LARGE, key="call_1", metadata={"tool": "search web!"})
    other = await document.add("search web!", LARGE, key="call_2")
    short = await document.add("notes", "It was  approved\nby ADA conti. \ud800", key="call_3")
    assert again == first
    assert [each.id for each in await document.sources()] == [first.id, other.id, short.id]
    assert first.id.startswith("search_web-")
    assert first.metadata == {"tool": "search web!"}
    assert await document.size() == (3, 2 * len(LARGE) + short.characters)
    assert await document.read(short.id, 3, 10_000) == (
        short,
        "was  approved\nby ADA conti. \ud800",
    )
    matches, has_more = await document.search("approved by ada | no such words")
    assert [each.source.id for each in matches] == [short.id, other.id, first.id]
    assert LARGE[matches[1].start : matches[1].end] == "approved by Ada"
    assert "The Ravenna dam was approved by Ada Conti." in matches[1].around
    assert not has_more
    assert await document.search("weather", [first.id], limit=2) == (
        [*(await document.search("weather", [first.id], limit=3))[0][:2]],
        True,
    )


async def test_a_question_cites_the_sources(storage: Storage | None) -> None:
    """A question over some or all texts is a run, whose citations are exact places in them."""
    document = GrowingDocuments(storage).of("thread")
    await document.add("weather", "It rained. " * 3_000)
    minutes = await document.add("minutes", LARGE)
    for ids in (None, [minutes.id]):
        result = await document.ask(RLM("offline"), "Who approved the Ravenna dam?", ids)
        assert [each.source for each in result.citations] == [minutes.id]
        place = result.citations[0]
        assert LARGE[place.start : place.end] == place.quote == FACT


async def test_documents_are_apart_and_forgotten(storage: Storage | None) -> None:
    """Conversations do not see each other's texts, and a forgotten one leaves no text behind."""
    documents = GrowingDocuments(storage)
    one, other = documents.of("one"), documents.of("other")
    kept = await one.add("note", LARGE)
    await one.add("note", "of one alone " * SMALL_BYTES)
    await other.add("note", LARGE)
    assert await documents.forget("one") == 2
    assert await documents.of("one").sources() == []
    with pytest.raises(InputError, match=f"there is no '{kept.id}': there are 0 texts"):
        await documents.of("one").read(kept.id, 0, 10)
    (left,) = await documents.of("other").sources()
    assert (await other.read(left.id, 0, len(LARGE)))[1] == LARGE
    if storage is not None:
        assert (storage.check().problems, storage.check().checked["blobs"]) == ((), 1)


async def test_many_add_at_once(storage: Storage | None) -> None:
    """Parallel calls add their texts, each once."""
    document = GrowingDocuments(storage).of("thread")
    await asyncio.gather(*(document.add("call", f"text {at % 20}") for at in range(60)))
    found = await document.sources()
    assert len({each.id for each in found}) == len(found) == 20


async def test_mistakes_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that do not exist, empty patterns and questions over too much are errors that say what
    to do.
    """
    document = GrowingDocuments().of("thread")
    with pytest.raises(InputError, match="nothing was added"):
        await document.corpus()
    await document.add("note", "hello")
    for wrong in ("note-2", "note-x", "hello", "", "web-1", "note-" + "9" * 30):
        with pytest.raises(InputError, match="the latest note-1"):
            await document.read(wrong, 0, 5)
    with pytest.raises(InputError, match="empty"):
        await document.search(" | ")
    with pytest.raises(InputError, match="more than 500"):
        await document.search("a" * 501)
    with pytest.raises(InputError, match="at most 1,000"):
        await document.sources(["note-1"] * 1_001)
    monkeypatch.setattr(growing, "MAX_ASKED_CHARS", 4)
    with pytest.raises(InputError, match="name some of them by their ids"):
        await document.corpus()


async def test_matches_between_slices_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A match that begins in one slice and ends in the next one is found, and once."""
    monkeypatch.setattr(growing, "_SLICE_CHARS", 10)
    document = GrowingDocuments().of("thread")
    await document.add("note", "........needle.needle....needle")
    matches, _ = await document.search("needle")
    assert [each.start for each in matches] == [8, 15, 25]


async def test_a_process_keeps_the_latest_documents() -> None:
    """Without a storage, the document that was not used for the longest time makes room."""
    documents = GrowingDocuments(most=2)
    for thread in ("one", "two", "one", "three"):
        await documents.of(thread).add("note", "hello")
    assert await documents.of("one").size() == (1, 5)
    assert await documents.of("two").size() == (0, 0)


async def test_old_documents_are_pruned(tmp_path: Path) -> None:
    """`prune` removes documents to which nothing was added for so long, with their blobs."""
    with Storage(tmp_path / "runs") as storage:
        documents = GrowingDocuments(storage)
        for thread in ("old", "new"):
            await documents.of(thread).add("note", f"text of {thread}")
        (old,) = await documents.of("old").sources()
        table = storage._shared.database.schema.sources
        then = (datetime.now(UTC) - timedelta(days=40)).timestamp()
        change = update(table).where(table.c.source_no == old.number).values(kept_at=then)
        storage._shared.writer.submit(lambda connection: connection.execute(change)).result()
        assert storage.prune(older_than="30d") == Removed(documents=1, blobs=1, blob_bytes=11)
        assert await documents.of("old").size() == (0, 0)
        assert await documents.of("new").size() == (1, 11)
