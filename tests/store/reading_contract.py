"""The contract of the reads of every store backend: queries, free text, summaries, relations,
provenance.
"""

import json
from collections.abc import Callable

import pytest

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError
from rlm_integrations.records import SpanRef
from rlm_integrations.store import SharedStore
from rlm_integrations.store.commit import apply_commit

DOCUMENT = ["The first text has the word zebra in it.", "The second text is about Zürich and 中国."]

Make = Callable[..., SharedStore]


class ReadingContract:
    """One test per rule; `make(corpus=…, **options)` creates an empty store."""

    @pytest.fixture
    def store(self, make: Make):
        return make()

    @pytest.fixture
    def worker(self, store):
        return store.worker("worker_A")

    @pytest.fixture
    def corpus(self):
        with Corpus.build(DOCUMENT) as corpus:
            yield corpus

    # Queries

    @pytest.fixture
    def several(self, store):
        a, b = store.worker("a"), store.worker("b")
        one = a.create("claim", "PPO beats TRPO", "on Atari", tags=["x", "rl"])
        two = b.create(
            "note", "Something about ppo", {"where": ["appendix", 7]}, parents=[one], tags=["x"]
        )
        three = a.create(
            "draft",
            'nothing "quoted" here',
            "50 % of Straßen",
            parents=[one, two],
            tags=["y", "two words"],
        )
        b.link("supports", two, one)
        b.link("contradicts", three, one)
        return {one: "1", two: "2", three: "3"}

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", "321"),
            ("  ", "321"),
            ("type=claim", "1"),
            ("type=claim|note", "21"),
            ("-type=claim", "32"),
            ("-type=claim|note", "3"),
            ("tag=x", "21"),
            ("tag=x tag=rl", "1"),
            ("tag=x|y", "321"),
            ("tag=x -tag=rl", "2"),
            ('tag="two words"', "3"),
            ("tag='two words'", "3"),
            ("tag=two\\ words", "3"),
            ("worker=a", "31"),
            ("-worker=a|b", ""),
            ("parent=a_000001", "32"),
            ("-parent=a_000001", "1"),
            ("parent=a_000001 parent=b_000001", "3"),
            ("id=a_000001|b_000001|a_000001", "21"),
            ("-id=a_000001", "32"),
            ("supports=a_000001", "2"),
            ("contradicts=a_000001|b_000001", "3"),
            ("-supports=a_000001", "31"),
            ("refines=a_000001", ""),
            ('desc~"ppo"', "21"),
            ("desc~PpO", "21"),
            ("desc~ppo|quoted", "321"),
            ("-desc~ppo", "3"),
            ("desc~po -desc~trpo", "2"),
            ('desc~"\\"quoted\\""', "3"),
            ("desc~'\"quoted\"'", "3"),
            ('text~"atari"', "1"),
            ("text~STRASSEN", "3"),
            ("text~appendix", "2"),
            ("text~where text~7", "2"),
            ("-text~atari type=claim|note", "2"),
            ("type=nothing", ""),
            ("limit=2", "32"),
            ("sort=oldest limit=2", "12"),
            ("sort=oldest desc~ppo", "12"),
            ("sort=type", "132"),
            ("sort=worker", "312"),
            ("sort=description", "123"),
            ("invalid=yes", ""),
            ("invalid=any", "321"),
        ],
    )
    def test_the_query_language(self, store, several, query: str, expected: str):
        """Each construct selects the objects that it describes, newest first unless it sorts;
        `view` and `search` return the same.
        """
        assert "".join(several[card["id"]] for card in store.view(query)) == expected
        assert store.search(query) == store.view(query)

    def test_a_limit_in_the_query_wins(self, store, several):
        """`limit=` in the query overrides the argument."""
        assert len(store.view("limit=3", 1)) == 3
        assert len(store.view("", 1)) == 1

    def test_cards_hold_metadata_only(self, store):
        """Queries return dicts with the length of the content, without the content."""
        times = store.worker("w").create("note", "d", "seven c", tags=["x"])
        ts = store.get(times).ts
        expected = {
            "id": times,
            "type": "note",
            "description": "d",
            "tags": ["x"],
            "parents": [],
            "worker": "w",
            "ts": ts,
            "chars": 7,
        }
        assert store.view() == [expected]

    def test_card_view_is_for_prompts(self, store):
        """A card of `card_view` has an id, a type, tags and at most 200 characters of the
        description.
        """
        id_ = store.worker("w").create("note", "d" * 500, "c", tags=["x"])
        assert store.card_view() == [
            {"id": id_, "type": "note", "description": "d" * 200, "tags": ["x"]}
        ]

    # Free text

    def test_free_text_ranks_by_bm25(self, store, several):
        """Objects with rarer words, more matches and shorter texts rank higher, with scores above
        0; tags and content are searched too.
        """
        found = store.search_text("ppo appendix rl")
        assert "".join(several[card["id"]] for card in found) == "21"
        assert all(card["score"] > 0 for card in found)
        assert found == sorted(found, key=lambda card: -card["score"])
        assert [several[card["id"]] for card in store.search_text("two words")] == ["3"]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            '"',
            "'",
            "a AND",
            "OR",
            "NEAR(a b",
            "col:x",
            "^a*",
            "-",
            "\0",
            "\ud800",
            "(" * 500,
            "a_" * 50_000,
            "\u1c89x" * 50_000,
            "the " * 500,
        ],
    )
    def test_free_text_may_be_anything(self, store, several, text: str):
        """Free text never raises a syntax error."""
        assert isinstance(store.search_text(text), list)

    def test_scripts_without_spaces_are_found(self, store):
        """A part of a Chinese or Japanese text matches it; accents are ignored."""
        worker = store.worker("w")
        chinese = worker.create("note", "关于中国的经济增长", "c")
        accented = worker.create("note", "Café Zu\u0308rich", "c")
        assert [card["id"] for card in store.search_text("经济")] == [chinese]
        assert [card["id"] for card in store.search_text("zürich")] == [accented]
        assert [card["id"] for card in store.search_text("cafe\u0301")] == [accented]

    def test_what_was_just_written_is_found(self, store):
        """Every kind of search finds everything written before it."""
        worker = store.worker("w")
        for number in range(20):
            id_ = worker.create("note", f"unique{number}", f"body{number}")
            assert [card["id"] for card in store.search_text(f"unique{number}")] == [id_]
            assert [
                card["id"] for card in store.search(f"desc~unique{number} text~body{number}")
            ] == [id_]

    # Summary

    def test_summary_counts_everything(self, store, several):
        """All matches are counted, the most frequent first; `limit` bounds the number that is
        listed.
        """
        summary = store.summary()
        assert summary["total"] == 3
        assert summary["types"] == {"claim": 1, "note": 1, "draft": 1}
        assert next(iter(summary["tags"].items())) == ("x", 2)
        assert [several[card["id"]] for card in summary["matches"]] == ["3", "2", "1"]
        short = store.summary("", 1)
        assert (len(short["matches"]), short["tags"], len(short["types"]), short["total"]) == (
            1,
            {"x": 2},
            1,
            3,
        )

    def test_summary_of_a_query(self, store, several):
        """A query selects the objects for all parts of a summary."""
        summary = store.summary("tag=x")
        assert (summary["total"], summary["types"], summary["tags"]) == (
            2,
            {"note": 1, "claim": 1},
            {"x": 2, "rl": 1},
        )

    def test_summary_leaves_invalid_objects_out(self, store, several):
        """Counts decrease when an object is invalidated."""
        store.worker("a").invalidate("a_000001", "wrong")
        summary = store.summary()
        assert (summary["total"], summary["types"], summary["tags"]["x"]) == (
            2,
            {"note": 1, "draft": 1},
            1,
        )
        assert store.summary("invalid=any")["types"] == {"draft": 1, "note": 1, "claim": 1}

    # Relations

    def test_parents_and_children(self, store, several):
        """`parents` and `children` return complete objects."""
        assert [found.id for found in store.children("a_000001")] == ["b_000001", "a_000002"]
        assert [found.id for found in store.parents("a_000002")] == ["a_000001", "b_000001"]
        assert store.parents("a_000001") == store.children("a_000002") == []

    def test_links_are_recorded_once(self, store, several):
        """A link is shown in the object that links; recording it again writes no event."""
        before = store.seq
        store.worker("b").link("supports", "b_000001", "a_000001")
        assert store.seq == before
        assert store.get("b_000001").links == (("supports", "a_000001"),)

    def test_invalidating_is_soft(self, store, several):
        """Queries skip an invalidated object unless they ask for it; the object stays with its
        first reason.
        """
        worker = store.worker("a")
        worker.invalidate("a_000001", "was wrong")
        worker.invalidate("a_000001", "another reason")
        assert "a_000001" not in {card["id"] for card in store.view()}
        assert store.search_text("trpo") == store.view("desc~trpo") == []
        assert [(card["id"], card["invalid"]) for card in store.view("invalid=yes")] == [
            ("a_000001", "was wrong")
        ]
        assert len(store.view("invalid=any")) == 3
        assert store.get("a_000001").invalid == "was wrong"
        assert [found.id for found in store.parents("b_000001")] == ["a_000001"]

    # Provenance

    def test_trace_leads_to_the_text(self, make: Make, corpus):
        """A trace follows parents to the spans and shows their text, each object once, the nearest
        first.
        """
        store = make(corpus)
        worker = store.worker("w")
        source = worker.create(
            "evidence", "zebra", "c", [SpanRef("context_0", 28, 33), SpanRef("context_1", 36, 38)]
        )
        left, right = (
            worker.create("note", name, "c", parents=[source]) for name in ("left", "right")
        )
        top = worker.create("claim", "top", "c", parents=[left, right])
        steps = store.trace(top)
        assert [(step["id"], step["depth"]) for step in steps] == [
            (top, 0),
            (left, 1),
            (right, 1),
            (source, 2),
        ]
        assert steps[-1]["spans"] == [
            {"source": "context_0", "start": 28, "end": 33, "text": "zebra", "cut": 0},
            {"source": "context_1", "start": 36, "end": 38, "text": "中国", "cut": 0},
        ]
        assert json.dumps(steps)

    def test_a_trace_is_bounded(self, make: Make):
        """Multiple paths to one object, long spans and long chains result in a trace of bounded
        size.
        """
        with Corpus.build("x" * 100_000) as corpus:
            worker = make(corpus).worker("w")
            layer = [
                worker.create(
                    "note", "d", "c", [SpanRef("context_0", n, 100_000) for n in range(600)]
                )
                for _ in range(2)
            ]
            for part in "ab":
                creates: list[dict[str, object]] = []
                for number in range(260):
                    new = [f"{number}x", f"{number}y"]
                    creates += [
                        {"id": id_, "type": "note", "description": "d", "parents": layer}
                        for id_ in new
                    ]
                    layer = new
                ids = apply_commit(worker, {"commit_id": part, "creates": creates})["created_ids"]
                layer = [ids[id_] for id_ in layer]
            steps = worker.trace(layer[0])
            assert len(steps) == 1_000
            spans = [
                span
                for step in worker.trace(
                    worker.create("note", "d", "c", parents=["w_000001", "w_000002"])
                )
                for span in step["spans"]
            ]
            assert len(spans) == 1_200
            assert max(len(span["text"]) for span in spans) == 2_000
            assert sum(len(span["text"]) for span in spans) <= 1_000_000
            assert all(
                len(span["text"]) + span["cut"] == span["end"] - span["start"] for span in spans
            )

    def test_a_closed_document_leaves_the_spans(self, make: Make):
        """Without its document, a trace still has the spans."""
        corpus = Corpus.build(DOCUMENT)
        store = make(corpus)
        id_ = store.worker("w").create("note", "d", "c", [SpanRef("context_0", 0, 3)])
        assert store.trace(id_)[0]["spans"][0]["text"] == "The"
        corpus.close()
        assert store.trace(id_)[0]["spans"] == [
            {"source": "context_0", "start": 0, "end": 3, "text": None, "cut": 0}
        ]

    def test_lift_converts_spans_of_a_child(self, make: Make, corpus):
        """`lift` converts every span of a worker, in any form, to the store's document; a span that
        has no place there is refused.
        """

        def lift(span):
            if span.source != "context_0":
                raise InputError("made up")
            return SpanRef("context_1", span.start + 4, span.end + 4)

        worker = make(corpus).worker("child", lift=lift)
        for form in (
            SpanRef("context_0", 0, 6),
            {"source": "context_0", "start": 0, "end": 6},
            [SpanRef("context_0", 0, 6)],
        ):
            step = worker.trace(worker.create("note", "d", "c", form))[0]
            assert step["spans"][0]["text"] == "second"
        with pytest.raises(InputError, match="made up"):
            worker.create("note", "d", "c", SpanRef("context_9", 0, 1))
