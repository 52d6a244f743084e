"""Objects that models write: a child for each task as it completes, and a tree of replies that fit
the context window.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError
from rlm_integrations.store import SharedStore
from rlm_integrations.store.derive import llm_map, llm_reduce
from tests.store.examples import examples


@pytest.fixture
def worker():
    return SharedStore().worker("w")


class Model:
    """Answers each prompt with a function, in a chosen order, and records the prompts."""

    def __init__(
        self, answer=lambda prompt: f"<{len(prompt)}>", order=lambda numbers: numbers
    ) -> None:
        self.answer, self.order = answer, order
        self.asked: list[list[str]] = []
        self.closed = 0

    async def __call__(self, prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
        self.asked.append(list(prompts))
        try:
            for number in self.order(range(len(prompts))):
                await asyncio.sleep(0)
                yield number, self.answer(prompts[number])
        finally:
            self.closed += 1


TASKS = [{"name": name, "prompt": f"about {name}"} for name in ("one", "two", "three")]


async def test_map_keeps_a_child_for_each_task(worker) -> None:
    """The batch is an object, and each reply is a child of it; ids and `children` follow the order
    of the tasks, whatever the order of the replies.
    """
    batch = await llm_map(worker, TASKS, Model(lambda prompt: prompt.upper(), reversed))
    assert (batch, worker.get(batch).type, worker.get(batch).content) == (
        "w_000001",
        "batch",
        {"tasks": ["one", "two", "three"]},
    )
    children = worker.children(batch)
    assert [(child.id, child.content) for child in children] == [
        ("w_000002", "ABOUT ONE"),
        ("w_000003", "ABOUT TWO"),
        ("w_000004", "ABOUT THREE"),
    ]
    assert {(child.type, child.worker, child.tags) for child in children} == {
        ("result", "w", ("llm_map",))
    }
    assert [child.description for child in children] == ["one", "two", "three"]
    assert worker.create("note", "d", "c", parents=[batch]) == "w_000005"
    assert [child.id for child in worker.children(batch)][-1] == "w_000005"


async def test_children_of_an_imported_batch_follow_its_tasks(tmp_path: Path) -> None:
    """The order of the tasks is preserved by an export and an import into a store with other
    objects.
    """
    store = SharedStore()
    worker = store.worker("w")
    tasks = [{"name": str(number), "prompt": str(number)} for number in range(12)]
    batch = await llm_map(worker, tasks, Model(lambda prompt: prompt, reversed))
    store.export(tmp_path / "store")
    store.import_(tmp_path / "store")
    for each in (batch, f"import1/{batch}"):
        assert [child.description for child in worker.children(each)] == [
            task["name"] for task in tasks
        ]


async def test_a_reader_sees_results_arrive(worker) -> None:
    """Each child can be read as soon as its reply arrives; its id does not collide with objects
    that the same worker writes meanwhile.
    """
    seen: list[int] = []

    async def slow(prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
        for number, prompt in enumerate(prompts):
            seen.append(worker.summary("parent=w_000001")["total"])
            worker.create("note", "meanwhile", "c")
            yield number, prompt

    await llm_map(worker, TASKS, slow)
    assert seen == [0, 1, 2]
    assert len({event["id"] for event in worker.events_since(0)}) == 7


async def test_failures_have_their_place(worker) -> None:
    """A failed call, a malformed task and a call without a reply are children of type "error"; the
    other children are unaffected.
    """

    async def some(prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
        assert prompts == ["good", "bad", "lost"]
        yield 1, LLMError("timeout", "too late", 2)
        yield 0, "fine"

    tasks = [
        "good",
        None,
        {"name": "b", "prompt": "bad"},
        {"prompt": 5},
        {"name": "", "prompt": "lost"},
        LLMError("server", "gone"),
    ]
    batch = await llm_map(worker, tasks, some)
    found = {child.id: child for child in worker.children(batch)}
    assert [found[f"w_{number:06d}"].type for number in range(2, 8)] == ["result", *["error"] * 5]
    assert found["w_000004"].content == {"type": "timeout", "message": "too late", "retries": 2}
    assert found["w_000004"].tags == ("llm_map", "error")
    assert found["w_000003"].content["type"] == "input"
    assert "tasks[1] has no prompt that is a string: None" in found["w_000003"].content["message"]
    assert found["w_000006"].content["message"] == "no reply arrived"
    assert [found[id_].description for id_ in sorted(found)] == [
        "task 1",
        "task 2",
        "b",
        "task 4",
        "task 5",
        "task 6",
    ]


async def test_no_tasks_and_no_list(worker) -> None:
    """An empty list of tasks makes an empty batch; anything but a list of tasks is refused before
    the store is changed.
    """
    assert worker.children(await llm_map(worker, [], Model())) == []
    for tasks in (None, "prompt", {"name": "a", "prompt": "b"}, ["x"] * 10_001):
        with pytest.raises(InputError, match="tasks must be a list"):
            await llm_map(worker, tasks, Model())
    assert len(worker.events_since(0)) == 1


async def test_a_cancelled_map_keeps_complete_children(worker) -> None:
    """Cancelling keeps the complete children and closes the source of replies at once; reserved
    numbers are not used again.
    """
    arrived = asyncio.Event()
    closed = []

    async def endless(prompts: Sequence[str]) -> AsyncGenerator[tuple[int, str], None]:
        try:
            yield 2, "third"
            arrived.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    task = asyncio.create_task(llm_map(worker, TASKS, endless))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed
    assert [child.id for child in worker.children("w_000001")] == ["w_000004"]
    assert worker.create("note", "d", "c") == "w_000005"


async def test_reduce_in_one_call(worker) -> None:
    """Objects that fit the window together are reduced in one call, oldest first, each under its id
    and description.
    """
    ids = [worker.create("note", f"about {name}", f"text {name}") for name in ("one", "two")]
    model = Model(lambda _: "both")
    result = worker.get(await llm_reduce(worker, "type=note", "Combine.", model, window=5_000))
    assert model.asked == [
        ["Combine.\n\n[w_000001] about one\ntext one\n\n[w_000002] about two\ntext two"]
    ]
    assert (result.type, result.content, result.parents, result.tags) == (
        "reduction",
        "both",
        tuple(ids),
        ("llm_reduce",),
    )
    assert (result.description, model.closed) == ("Combine.", 1)


async def test_arguments_of_reduce(worker) -> None:
    """A list of ids keeps its order, a batch stands for its results in the order of its tasks, and
    any other id for its object.
    """
    batch = await llm_map(worker, TASKS, Model(lambda prompt: prompt, reversed))
    for chosen, parents in {
        ("w_000003", "w_000002"): ("w_000003", "w_000002"),
        batch: ("w_000002", "w_000003", "w_000004"),
        "w_000004": ("w_000004",),
        "tag=llm_map type=result": ("w_000004", "w_000003", "w_000002"),
        "tag=llm_map type=result sort=newest": ("w_000002", "w_000003", "w_000004"),
        "type=result limit=1": ("w_000002",),
        "type=result sort=description": ("w_000002", "w_000004", "w_000003"),
    }.items():
        result = await llm_reduce(
            worker,
            list(chosen) if isinstance(chosen, tuple) else chosen,
            "p",
            Model(),
            window=5_000,
        )
        assert worker.get(result).parents == parents


async def test_reduce_as_a_tree(worker) -> None:
    """Objects that do not fit one prompt are reduced in steps; every prompt fits the window, and
    parents lead from the result to every object.
    """
    ids = [worker.create("note", f"number {number}", "x" * 900) for number in range(40)]
    model = Model(lambda prompt: "y" * 700)
    result = await llm_reduce(worker, ids, "Combine.", model, window=3_000)
    assert [len(prompts) for prompts in model.asked] == [14, 4, 1]
    assert max(len(prompt) for prompts in model.asked for prompt in prompts) <= 3_000
    assert {step["id"] for step in worker.trace(result)} >= set(ids)
    assert worker.get(result).type == "reduction"
    assert worker.summary("type=reduction_step")["total"] == 18


@examples(60)
@given(
    st.lists(st.integers(0, 9_000), min_size=1, max_size=12),
    st.integers(1_010, 4_000),
    st.integers(0, 12_000),
    st.randoms(use_true_random=False),
)
def test_every_reduction_ends_and_fits(
    lengths: list[int], window: int, reply: int, pick: random.Random
) -> None:
    """For any sizes of objects and replies, no prompt exceeds the window, every character is sent,
    and one object remains.
    """
    worker = SharedStore().worker("w")
    ids = [worker.create("note", "d", "x" * length) for length in lengths]
    model = Model(
        lambda _: "y" * pick.randint(0, reply), lambda numbers: pick.sample(numbers, len(numbers))
    )
    result = asyncio.run(llm_reduce(worker, ids, "Fold.", model, window=window))
    assert max(len(prompt) for prompts in model.asked for prompt in prompts) <= window
    assert sum(prompt.count("x") for prompt in model.asked[0]) == sum(lengths)
    assert len(model.asked[-1]) == 1
    assert worker.get(result).type == "reduction"
    assert {step["id"] for step in worker.trace(result)} >= set(ids)


async def test_long_replies_are_truncated_with_a_note(worker) -> None:
    """A reply that is too long to share a prompt with another is truncated, with a count of the
    omitted characters.
    """
    ids = [worker.create("note", "d", "x" * 1_500) for _ in range(2)]
    model = Model(lambda _: "y" * 5_000)
    await llm_reduce(worker, ids, "Fold.", model, window=2_000)
    [last] = model.asked[-1]
    assert last.count("characters left out]") == 2


async def test_failed_parts_leave_an_incomplete_result(worker) -> None:
    """A failed part is an "error" with its parents, the rest continues, and the result is tagged
    "incomplete", as it is when errors were left out.
    """
    ids = [worker.create("note", f"number {number}", "x" * 900) for number in range(4)]
    replies = iter([LLMError("server", "no"), "fine", "last"])
    model = Model(lambda _: next(replies))
    result = worker.get(await llm_reduce(worker, ids, "Fold.", model, window=2_100))
    assert (result.type, result.content, result.tags) == (
        "reduction",
        "last",
        ("llm_reduce", "incomplete"),
    )
    [error] = worker.view("type=error")
    assert error["parents"] == ids[:2]
    whole = worker.get(
        await llm_reduce(worker, [ids[0], error["id"]], "Fold.", Model(), window=2_100)
    )
    assert (whole.parents, whole.tags) == ((ids[0],), ("llm_reduce", "incomplete"))


async def test_when_every_part_fails(worker) -> None:
    """If every part fails, the result is an "error" whose ancestors are all the parts."""
    ids = [worker.create("note", f"number {number}", "x" * 900) for number in range(4)]
    model = Model(lambda _: LLMError("server", "no"))
    result = worker.get(await llm_reduce(worker, ids, "Fold.", model, window=2_100))
    assert (result.type, result.content["message"], len(result.parents)) == (
        "error",
        "every part failed",
        2,
    )
    single = worker.get(await llm_reduce(worker, ids[:1], "Fold.", model, window=2_100))
    assert (single.type, single.content["message"], single.parents) == ("error", "no", (ids[0],))


@pytest.mark.parametrize(
    ("chosen", "prompt", "window", "message"),
    [
        ("type=nothing", "p", 5_000, "nothing to reduce: 'type=nothing' selects no objects"),
        ([], "p", 5_000, "nothing to reduce"),
        ("type=error", "p", 5_000, "all of type error"),
        ("type=", "p", 5_000, "column 6"),
        (["gone"], "p", 5_000, r"ids_or_query\[0\]: no object has the id 'gone'"),
        (None, "p", 5_000, "must be a query or a list"),
        ({"id": 1}, "p", 5_000, "must be a query or a list"),
        (["w_000001"] * 10_001, "p", 5_000, "must be a query or a list of at most 10,000 ids"),
        (["w_000001"], "", 5_000, "prompt must say what to do"),
        (["w_000001"], None, 5_000, "prompt must say what to do"),
        (
            ["w_000001"],
            "p" * 4_001,
            5_000,
            "the prompt takes 4,001 of the window's 5,000 characters",
        ),
    ],
)
async def test_invalid_arguments_of_reduce_are_refused(
    worker, chosen, prompt, window: int, message: str
) -> None:
    """Invalid arguments are refused before a model is called."""
    worker.create("error", "d", "c")
    model = Model()
    with pytest.raises(InputError, match=message):
        await llm_reduce(worker, chosen, prompt, model, window=window)
    assert model.asked == []
    assert len(worker.events_since(0)) == 1
