"""The contract of every store backend. The tests of a backend subclass `StoreContract` and add the
fixture `make`.
"""

import asyncio
import dataclasses
import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlm_integrations.errors import InputError, QueryError
from rlm_integrations.records import LLMError, SpanRef, StoreObject
from tests.store.bad_input import BAD_INPUT
from tests.store.reading_contract import Make, ReadingContract


class StoreContract(ReadingContract):
    """All rules: those for reads, writes, workers, events and invalid input.

    `written` is how many objects each of two workers writes during reads, and `each` how many each
    of many workers writes at once.
    """

    written = 3_000
    each = 100

    # Objects

    def test_get_returns_the_object_as_created(self, make: Make, corpus):
        """`get` returns every field of `create`, with the worker, the event's number and the
        time.
        """
        times = itertools.count(1000.5)
        store = make(corpus, clock=lambda: next(times))
        worker = store.worker("worker_A")
        first = worker.create("note", "what I saw", {"a": [1, None, 2.5, "ü"]})
        span = SpanRef("context_0", 4, 9)
        second = worker.create("claim", "it follows", "text", [span], [first], ["x", "y"])
        assert worker.get(first).content == {"a": [1, None, 2.5, "ü"]}
        assert store.get(second) == StoreObject(
            id="worker_A_000002",
            type="claim",
            description="it follows",
            content="text",
            backrefs=(span,),
            parents=(first,),
            tags=("x", "y"),
            worker="worker_A",
            seq=2,
            ts=1001.5,
        )

    def test_positional_and_keyword_arguments_are_the_same(self, worker):
        """The six arguments of `create` can be positional or keywords."""
        parent = worker.create("a", "b", "c")
        by_place = worker.get(worker.create("t", "d", [1], None, [parent], ["g"]))
        by_name = worker.get(
            worker.create(
                tags=["g"], parents=[parent], backrefs=None, content=[1], description="d", type="t"
            )
        )
        assert dataclasses.replace(by_place, id="", seq=0, ts=0) == dataclasses.replace(
            by_name, id="", seq=0, ts=0
        )

    def test_content_is_a_copy(self, worker):
        """Changes of a caller's content, before or after `create`, do not change the store."""
        content = {"list": [1]}
        id_ = worker.create("note", "d", content)
        content["list"].append(2)
        worker.get(id_).content["list"].append(3)
        assert worker.get(id_).content == {"list": [1]}

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "text",
            0,
            -1.5,
            True,
            None,
            [],
            {},
            {"a": {"b": ["c"]}},
            "\ud800 lone \0 zero",
            "x" * 100_000,
        ],
    )
    def test_every_json_value_is_content(self, worker, content):
        """Content can be any JSON value, including unusual strings."""
        found = worker.get(worker.create("note", "d", content)).content
        assert found == content
        assert type(found) is type(content)

    def test_content_is_converted_as_in_json(self, worker):
        """Content is converted as in JSON: a tuple to a list, a numeric key to a string, a failed
        reply to its text.
        """
        assert worker.get(worker.create("note", "d", {1: (2, 3)})).content == {"1": [2, 3]}
        failed = worker.get(worker.create("note", "d", LLMError("timeout", "too late"))).content
        assert (failed, type(failed)) == ("Error: timeout: too late", str)

    def test_objects_convert_to_json_and_back(self, make: Make, corpus):
        """`to_dict` returns plain JSON, and `from_dict` restores an equal object; fields can be
        read as attributes and as keys.
        """
        worker = make(corpus).worker("worker_A")
        parent = worker.create("note", "d", "c")
        id_ = worker.create("note", "d", {"a": 1}, [SpanRef("context_1", 0, 3)], [parent], ["x"])
        worker.link("supports", id_, parent)
        worker.invalidate(id_, "wrong")
        found = worker.get(id_)
        assert StoreObject.from_dict(json.loads(json.dumps(found.to_dict()))) == found
        assert found["content"] == found.content == {"a": 1}
        with pytest.raises(KeyError):
            found["to_dict"]

    def test_one_entry_needs_no_list(self, make: Make, corpus):
        """A single string for tags or parents, and a single span for backrefs, is a list of one;
        duplicates count once.
        """
        worker = make(corpus).worker("worker_A")
        parent = worker.create("note", "d", "c", tags="x")
        found = worker.get(
            worker.create("note", "d", "c", SpanRef("context_0", 0, 3), parent, ["x", "y", "x"])
        )
        assert (found.parents, found.backrefs, found.tags) == (
            (parent,),
            (SpanRef("context_0", 0, 3),),
            ("x", "y"),
        )
        assert worker.get(parent).tags == ("x",)

    def test_spans_may_be_dicts(self, make: Make, corpus):
        """A span can be a `SpanRef` or its JSON form."""
        worker = make(corpus).worker("worker_A")
        spans = [
            {"source": "context_0", "start": 0, "end": 3},
            {"source": "context_0", "start": 3, "end": 3, "unit": "chars"},
        ]
        assert worker.get(worker.create("note", "d", "c", spans)).backrefs == (
            SpanRef("context_0", 0, 3),
            SpanRef("context_0", 3, 3),
        )

    # Workers

    def test_ids_count_per_worker(self, store):
        """An id consists of the worker's name and its own counter, so ids of workers never collide,
        whatever their names.
        """
        names = ["worker_A", "worker_B", "worker_A_000001", "worker"]
        ids = [store.worker(name).create("note", name, "c") for name in names for _ in range(2)]
        assert ids[:3] == ["worker_A_000001", "worker_A_000002", "worker_B_000001"]
        assert len(set(ids)) == 8
        assert [store.get(id_).worker for id_ in ids] == [name for name in names for _ in range(2)]
        assert store.worker("worker_A").create("note", "d", "c") == "worker_A_000003"

    def test_all_workers_see_all_objects(self, store):
        """`view` returns the objects of all workers, `view_others` those of other workers, for the
        same query.
        """
        a, b = store.worker("a"), store.worker("b")
        mine, theirs, draft = (
            a.create("note", "d", "c"),
            b.create("note", "d", "c"),
            b.create("draft", "d", "c"),
        )
        assert [card["id"] for card in a.view()] == [draft, theirs, mine]
        assert [card["id"] for card in a.view_others("type=note")] == [theirs]
        assert [card["id"] for card in b.view_others()] == [mine]

    def test_a_proxy_reports_its_own_events(self, store):
        """`on_event` receives each event that its proxy wrote, once it can be read, and no other
        worker's events.
        """
        heard = []
        proxy = store.worker(
            "a",
            on_event=lambda event: heard.append(
                (event.brief()["op"], event.id, store.seq >= event.seq)
            ),
        )
        id_ = proxy.create("note", "d", "c")
        other = store.worker("a").create("note", "d", "c")
        proxy.link("refines", id_, other)
        proxy.invalidate(id_, "wrong")
        assert heard == [("create", id_, True), ("link", id_, True), ("invalidate", id_, True)]

    # Events

    def test_every_write_is_an_event(self, store, several):
        """Events are numbered from 1 without gaps and describe the write; `events_since` returns
        those after a number.
        """
        store.worker("b").invalidate("a_000002", "why not")
        events = store.events_since(0)
        assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
        assert [event["op"] for event in events] == ["create"] * 3 + ["link"] * 2 + ["invalidate"]
        assert events[0].keys() == {"seq", "op", "id", "type", "description", "worker", "ts"}
        assert (events[3]["type"], events[3]["description"]) == (
            "supports",
            "b_000001 supports a_000001",
        )
        assert (events[5]["id"], events[5]["type"], events[5]["description"]) == (
            "a_000002",
            "draft",
            "why not",
        )
        assert store.events_since(4) == events[4:]
        assert store.events_since(1, 2) == events[1:3]
        assert store.events_since(99) == []

    # Invalid input: an error that says what to do, and nothing is written

    @pytest.mark.parametrize("case", BAD_INPUT)
    def test_bad_input(self, make: Make, corpus, case: str):
        """Invalid arguments raise a short `InputError` with a hint, and write nothing."""
        call, message = BAD_INPUT[case]
        store = make(corpus)
        worker = store.worker("w")
        worker.create("note", "d", "c")
        before = (store.seq, store.view("invalid=any"), store.summary())
        with pytest.raises(InputError, match=message) as caught:
            call(worker)
        assert len(str(caught.value)) < 400
        assert (store.seq, store.view("invalid=any"), store.summary()) == before
        assert worker.create("note", "d", "c") == "w_000002"

    def test_a_query_error_points_at_the_column(self, store):
        """Every reading method raises `QueryError` with a column for a query that does not
        parse.
        """
        worker = store.worker("w")
        for method in (
            worker.view,
            worker.view_others,
            worker.search,
            worker.summary,
            worker.card_view,
        ):
            with pytest.raises(QueryError, match="column 11: 'colour' is not a key") as caught:
                method("type=note colour=red")
            assert caught.value.column == 11

    @pytest.mark.parametrize("name", ["", " ", "a/b", "a\n", None, "x" * 201])
    def test_a_worker_has_a_usable_name(self, store, name):
        """A worker's name must be valid as a part of an id."""
        with pytest.raises(InputError, match="a worker's name"):
            store.worker(name)

    def test_a_full_store_says_so(self, make: Make):
        """A write that would exceed the store's size is refused as a whole."""
        store = make(max_size=5_000)
        worker = store.worker("w")
        for _ in range(4):
            worker.create("note", "d", "c")
        with pytest.raises(
            InputError, match=r"the store is full: it holds 4,\d\d\d of 5,000 bytes"
        ):
            worker.create("note", "d", "c")
        with pytest.raises(InputError, match="full"):
            worker.create("note", "d", "x" * 10_000)
        assert len(store) == 4

    # Concurrency

    @pytest.mark.exhaustive
    def test_32_writers_lose_nothing(self, store):
        """With 16 threads and 16 tasks writing at once, every event is stored, and the events of
        each worker are in its order.
        """
        each = self.each

        def write(name: str) -> None:
            worker = store.worker(name)
            for number in range(each):
                worker.create("note", f"{name} {number}", number, tags=[name])

        async def task(name: str) -> None:
            worker = store.worker(name)
            for number in range(each):
                worker.create("note", f"{name} {number}", number, tags=[name])
                await asyncio.sleep(0)

        async def tasks() -> None:
            await asyncio.gather(*(task(f"task{number}") for number in range(16)))

        with ThreadPoolExecutor(17) as pool:
            jobs = [
                pool.submit(asyncio.run, tasks()),
                *(pool.submit(write, f"thread{number}") for number in range(16)),
            ]
            for job in jobs:
                job.result()
        events = store.events_since(0, 10_000)
        assert [event["seq"] for event in events] == list(range(1, 32 * each + 1))
        for name in (f"{kind}{number}" for kind in ("task", "thread") for number in range(16)):
            mine = [
                (event["id"], event["description"]) for event in events if event["worker"] == name
            ]
            assert mine == [
                (f"{name}_{number + 1:06d}", f"{name} {number}") for number in range(each)
            ]
            assert store.summary(f"tag={name}")["total"] == each

    def test_proxies_of_one_name_are_one_worker(self, store):
        """Threads that share a worker's name never get the same id twice."""

        def write(_: int) -> list[str]:
            worker = store.worker("w")
            return [worker.create("note", "d", "c") for _ in range(self.each)]

        with ThreadPoolExecutor(8) as pool:
            ids = [id_ for some in pool.map(write, range(8)) for id_ in some]
        assert sorted(ids) == [f"w_{number:06d}" for number in range(1, 8 * self.each + 1)]

    @pytest.mark.exhaustive
    def test_readers_during_writes(self, store):
        """All searches that run during writes return complete objects, and never fewer than
        before.
        """
        finished = threading.Event()

        def write(name: str) -> None:
            worker = store.worker(name)
            last = worker.create("note", "first", "word")
            for _ in range(self.written):
                last = worker.create("note", "word " * 3, {"word": 1}, parents=[last], tags=["x"])

        def read(ask: Callable[[], int]) -> int:
            seen = 0
            while not finished.is_set():
                found = ask()
                assert found >= seen
                seen = found
            return ask()

        questions = [
            lambda: len(store.view("type=note tag=x", 10_000)),
            lambda: len(store.view("desc~word", 10_000)),
            lambda: len(store.search_text("word", 1_000)),
            lambda: len(store.view("text~word sort=oldest -tag=y", 10_000)),
            lambda: store.summary()["total"],
        ]
        with ThreadPoolExecutor(len(questions) + 2) as pool:
            readers = [pool.submit(read, question) for question in questions]
            try:
                for job in [pool.submit(write, f"w{number}") for number in range(2)]:
                    job.result()
            finally:
                finished.set()
            total = 2 * self.written
            found = [total, total, min(total + 2, 1_000), total + 2, total + 2]
            assert [job.result() for job in readers] == found
