"""Objects that models make: one for each task of a batch, and one out of many by folding.

Whoever calls brings the way to ask a model.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, Protocol

from rlm_integrations._concurrency.runtime import offload
from rlm_integrations._concurrency.work import spend
from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError
from rlm_integrations.store import checks
from rlm_integrations.store.content import content_text, encode_content, length
from rlm_integrations.store.draft import Draft
from rlm_integrations.store.log import Created
from rlm_integrations.store.query import MAX_RESULTS, parse_query
from rlm_integrations.store.view import MAPPED
from rlm_integrations.store.worker import WorkerStoreProxy

TASKS: Final = 10_000  # of one batch
ROOM: Final = 1_000  # characters that a prompt must leave in the window for what it folds
# Characters that repeating the prompt for all parts of one round may take
REPEATED: Final = 100_000_000
HEAD: Final = 200  # characters of an object's id and description above its text


class AskMany(Protocol):
    """Asks a model many prompts at once."""

    def __call__(self, prompts: Sequence[str], /) -> AsyncGenerator[tuple[int, str], None]:
        """Each prompt's number, from 0, with its reply (an `LLMError` where it failed), in the
        order in which they come.
        """
        ...


# Has a function called where it may block, and gives what it returns
Away = Callable[..., Awaitable[Any]]


async def llm_map(
    store: WorkerStoreProxy, tasks: Any, ask: AskMany, *, away: Away = offload
) -> str:
    """Ask every task's prompt, and keep an object for the batch and a child for each task as soon
    as its reply is there.

    A child is of type "result" with the reply as content, or of type "error". Its id follows from
    its task's place in the batch, not from when it came. A task that is none costs nothing but an
    "error" in its own place.

    Args:
        store: As the worker sees it who asks.
        tasks: A list of `{"name", "prompt"}`.
        ask: How a model is asked.
        away: Where the store is read and written: that waits for other writers.

    Returns:
        The id of the batch.
    """
    if not isinstance(tasks, list | tuple) or len(tasks) > TASKS:
        raise InputError(
            f'tasks must be a list of at most {TASKS:,} dicts {{"name": …, "prompt": …}}'
        )
    named = [_task(at, task) for at, task in enumerate(tasks)]
    content = encode_content({"tasks": [name for name, _ in named]})
    batch: str = await away(
        store.put,
        Draft("batch", f"{len(named)} tasks", content, (), (), (MAPPED,)),
        takes=1 + len(named),
    )
    first = int(batch.rpartition("_")[2]) + 1

    def keep(at: int, reply: str) -> None:
        store.put(_answer("result", named[at][0], reply, (batch,), (MAPPED,)), number=first + at)

    def keep_all(numbers: Sequence[int]) -> None:
        for at in numbers:
            keep(at, named[at][1])

    failed = [at for at, (_, prompt) in enumerate(named) if isinstance(prompt, LLMError)]
    await away(keep_all, failed)
    asked = [at for at, (_, prompt) in enumerate(named) if not isinstance(prompt, LLMError)]
    waiting = dict(enumerate(asked))
    async with aclosing(ask([named[at][1] for at in asked])) as replies:
        async for index, reply in replies:
            await away(keep, waiting.pop(index), reply)
    for at in waiting.values():
        await away(keep, at, LLMError("server", "no reply came"))
    return batch


async def llm_reduce(
    store: WorkerStoreProxy,
    ids_or_query: Any,
    prompt: Any,
    ask: AskMany,
    *,
    window: int,
    away: Away = offload,
) -> str:
    """Fold objects into one: a model is asked the prompt over as many as fit its window, then over
    its replies, until one is left.

    What is longer than the window goes in as several parts. Replies are of type "reduction_step",
    and the last one of type "reduction"; the parents of each are the objects that it was asked
    about. Objects of type "error" are left out, and so are replies that fail: the result is then
    tagged "incomplete", or an "error" itself if nothing is left.

    Args:
        store: As the worker sees it who asks.
        ids_or_query: A list of ids, the id of a batch (for its results) or of any other object, or
            a query, whose matches are taken in the order in which they were created unless it
            sorts.
        prompt: What to do with the objects; their texts follow it.
        ask: How a model is asked.
        window: How many characters one prompt may have.
        away: Where the store is read and written, which takes long for many objects.

    Returns:
        The id of the result.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(
            f"prompt must say what to do with the objects, not {checks.quote_value(prompt)}"
        )
    room = window - len(prompt) - 2
    if room < ROOM:
        raise InputError(
            f"the prompt takes {len(prompt):,} of the window's {window:,} characters: leave {ROOM + 2:,} for the objects"
        )
    blocks, tags = await away(_gathered, store, ids_or_query, room)
    while True:
        groups = _packed(blocks, room)
        if len(groups) * len(prompt) > REPEATED:
            raise InputError(
                f"the prompt takes {len(prompt):,} of the window's {window:,} characters, and {len(groups):,} parts would repeat it: "
                "shorten it, or reduce fewer objects"
            )
        kind = "reduction" if len(groups) == 1 else "reduction_step"
        texts = await away(
            lambda groups: [
                "\n\n".join([prompt, *(block.text for block in group)]) for group in groups
            ],
            groups,
        )
        replies = await _replies(ask, texts)
        if any(isinstance(reply, LLMError) for reply in replies):
            tags = ("llm_reduce", "incomplete")
        made = [
            await away(
                store.put,
                _answer(
                    kind, prompt[:HEAD], reply, dict.fromkeys(block.id for block in group), tags
                ),
            )
            for group, reply in zip(groups, replies, strict=True)
        ]
        if len(made) == 1:
            return str(made[0])
        blocks = [
            _cut(id_, reply, room // 2)
            for id_, reply in zip(made, replies, strict=True)
            if not isinstance(reply, LLMError)
        ]
        if not blocks:
            failed = _answer(
                "error", prompt[:HEAD], LLMError("server", "every part failed"), made, tags
            )
            return str(await away(store.put, failed))


class _Block(NamedTuple):
    """A piece of a prompt, and the object that it comes from."""

    id: str
    text: str


def _gathered(
    store: WorkerStoreProxy, ids_or_query: Any, room: int
) -> tuple[list[_Block], tuple[str, ...]]:
    """The texts of the objects that are meant, and the tags of what is made from them."""
    chosen = _chosen(store, ids_or_query)
    whole = [event for event in chosen if event.type != "error"]
    if not whole:
        raise InputError(
            f"there is nothing to reduce: {checks.quote_value(ids_or_query)} gives {len(chosen)} objects, all of type error"
        )
    blocks: list[_Block] = []
    for event in whole:
        spend(length(event.content))
        blocks += _parts(
            event.id, f"[{event.id}] {event.description}", content_text(event.content), room
        )
    return blocks, ("llm_reduce",) if len(whole) == len(chosen) else ("llm_reduce", "incomplete")


def _task(at: int, task: Any) -> tuple[str, str]:
    """A task's name and prompt, or an error in the prompt's place."""
    name, prompt = (
        (task.get("name"), task.get("prompt")) if isinstance(task, dict) else (None, task)
    )
    name = (
        str.__str__(name)[: checks.DESCRIPTION_CHARS]
        if isinstance(name, str) and name
        else f"task {at + 1}"
    )
    if not isinstance(prompt, str) or not prompt.strip() or isinstance(prompt, LLMError):
        return name, LLMError(
            "input", f"tasks[{at}] has no prompt that is a text: {checks.quote_value(prompt)}"
        )
    return name, prompt


def _answer(
    kind: str, description: str, reply: str, parents: Iterable[str], tags: tuple[str, ...]
) -> Draft:
    """The object that a reply becomes."""
    if not isinstance(reply, LLMError):
        return Draft(kind, description, encode_content(reply), (), tuple(parents), tags)
    content = encode_content(
        {"type": reply.type, "message": reply.message, "retries": reply.retries}
    )
    return Draft("error", description, content, (), tuple(parents), (*tags, "error"))


async def _replies(ask: AskMany, prompts: Sequence[str]) -> list[str]:
    replies: list[str] = [LLMError("server", "no reply came")] * len(prompts)
    async with aclosing(ask(prompts)) as coming:
        async for index, reply in coming:
            replies[index] = reply
    return replies


def _chosen(store: WorkerStoreProxy, ids_or_query: Any) -> list[Created]:
    ids: Iterable[str]
    if isinstance(ids_or_query, list | tuple) and len(ids_or_query) <= MAX_RESULTS:
        ids = dict.fromkeys(
            store.required_id(f"ids_or_query[{at}]", id_) for at, id_ in enumerate(ids_or_query)
        )
    elif not isinstance(ids_or_query, str):
        raise InputError(
            f"ids_or_query must be a query or a list of at most {MAX_RESULTS:,} ids, not {checks.quote_value(ids_or_query)}"
        )
    elif (event := store.created(ids_or_query)) is None:
        ids = [card["id"] for card in store.view(ids_or_query, MAX_RESULTS)]
        if parse_query(ids_or_query).sort is None:
            ids.reverse()
    elif MAPPED in event.tags:
        ids = [child.id for child in store.children(ids_or_query) if MAPPED in child.tags] or [
            ids_or_query
        ]
    else:
        ids = [ids_or_query]
    chosen = [event for id_ in ids if (event := store.created(id_)) is not None]
    if not chosen:
        raise InputError(
            f"there is nothing to reduce: {checks.quote_value(ids_or_query)} gives no objects"
        )
    return chosen


def _parts(id_: str, head: str, text: str, room: int) -> list[_Block]:
    """An object's text under its head, in as many parts as it needs."""
    head = head[:HEAD]
    if len(head) + 1 + len(text) <= room:
        return [_Block(id_, f"{head}\n{text}")]
    size = room - HEAD - 40
    count = -(-len(text) // size)
    return [
        _Block(id_, f"{head} (part {at + 1} of {count})\n{text[at * size : (at + 1) * size]}")
        for at in range(count)
    ]


def _cut(id_: str, text: str, room: int) -> _Block:
    """A reply so short that two of them fit."""
    head = f"[{id_}]"[:HEAD]
    most = room - len(head) - 40
    left_out = f"\n[{len(text) - most:,} characters left out]" if len(text) > most else ""
    return _Block(id_, f"{head}\n{text[:most]}{left_out}")


def _packed(blocks: Sequence[_Block], room: int) -> list[list[_Block]]:
    """Neighbouring blocks together, as many as fit."""
    groups: list[list[_Block]] = []
    free = -1
    for block in blocks:
        free -= len(block.text) + 2
        if free < 0:
            groups.append([])
            free = room - len(block.text)
        groups[-1].append(block)
    return groups
