"""Objects that models write: one for each task of a batch, and one out of many by reduction.

The caller provides the function that asks a model.
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

MAX_TASKS: Final = 10_000  # of one batch
MIN_ROOM: Final = 1_000  # characters that a prompt must leave in the window for the objects
# Of a prompt that is repeated for all parts of one round
MAX_REPEATED_CHARS: Final = 100_000_000
HEAD_CHARS: Final = 200  # of an object's id and description above its text


class AskMany(Protocol):
    """Asks a model many prompts at once."""

    def __call__(self, prompts: Sequence[str], /) -> AsyncGenerator[tuple[int, str], None]:
        """Each prompt's index with its reply (an `LLMError` if the call failed), in the order in
        which replies arrive.
        """
        ...


# Calls a function where blocking is allowed, and returns its result
Away = Callable[..., Awaitable[Any]]


async def llm_map(
    store: WorkerStoreProxy, tasks: Any, ask: AskMany, *, away: Away = offload
) -> str:
    """Ask every task's prompt; keep an object for the batch, and a child for each task as soon as
    its reply arrives.

    A child is of type "result" with the reply as content, or of type "error". Its id follows
    from its task's place in the batch, not from the time of the reply. A malformed task costs no
    call and becomes an "error" in its own place.

    If the proxy's writes have an origin, ids derive from it: `r.b2/m1f0c9a3e57` is the batch and
    `r.b2/m1f0c9a3e57.17` a child. A repetition of the call finds the objects of its first attempt
    and leaves them as they are.

    Args:
        store: The proxy of the worker that asks.
        tasks: A list of `{"name", "prompt"}`.
        ask: Asks a model.
        away: Runs reads and writes of the store, which wait for other writers.

    Returns:
        The id of the batch.
    """
    if not isinstance(tasks, list | tuple) or len(tasks) > MAX_TASKS:
        raise InputError(
            f'tasks must be a list of at most {MAX_TASKS:,} dicts {{"name": …, "prompt": …}}'
        )
    named = [_checked_task(at, task) for at, task in enumerate(tasks)]
    content = encode_content({"tasks": [name for name, _ in named]})
    batch: str = await away(
        store.put,
        Draft("batch", f"{len(named)} tasks", content, (), (), (MAPPED,)),
        takes=1 + len(named),
        id=store.origin,
    )

    def keep(at: int, reply: str) -> None:
        made = _answer_draft("result", named[at][0], reply, (batch,), (MAPPED,))
        if store.origin is None:
            store.put(made, number=int(batch.rpartition("_")[2]) + 1 + at)
        else:
            store.put(made, id=f"{batch}.{at}")

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
        await away(keep, at, LLMError("server", "no reply arrived"))
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
    """Reduce objects to one: ask the prompt about as many as fit the model's context window, then
    about the replies, until one is left.

    An object longer than the window is split into parts. Replies are of type "reduction_step", and
    the last one of type "reduction"; the parents of each are the objects that it was asked about.
    Objects of type "error" and failed replies are left out: the result is then tagged
    "incomplete", or is itself an "error" if nothing is left.

    Args:
        store: The proxy of the worker that asks.
        ids_or_query: A list of ids, the id of a batch (for its results) or of any other object, or
            a query, whose matches are taken in the order in which they were created unless it
            sorts.
        prompt: What to do with the objects, whose texts follow it.
        ask: Asks a model.
        window: The most characters of one prompt.
        away: Runs reads and writes of the store, which are slow for many objects.

    Returns:
        The id of the result.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(
            f"prompt must say what to do with the objects, not {checks.quote_value(prompt)}"
        )
    room = window - len(prompt) - 2
    if room < MIN_ROOM:
        raise InputError(
            f"the prompt takes {len(prompt):,} of the window's {window:,} characters: leave "
            f"{MIN_ROOM + 2:,} for the objects"
        )
    blocks, tags = await away(_chosen_blocks, store, ids_or_query, room)
    rounds = 0
    while True:
        rounds += 1
        groups = _grouped(blocks, room)
        if len(groups) * len(prompt) > MAX_REPEATED_CHARS:
            raise InputError(
                f"the prompt takes {len(prompt):,} of the window's {window:,} characters, and "
                f"{len(groups):,} parts would repeat it: shorten it, or reduce fewer objects"
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
                _answer_draft(
                    kind,
                    prompt[:HEAD_CHARS],
                    reply,
                    dict.fromkeys(block.id for block in group),
                    tags,
                ),
                id=_step_id(store.origin, rounds, at, len(groups)),
            )
            for at, (group, reply) in enumerate(zip(groups, replies, strict=True))
        ]
        if len(made) == 1:
            return str(made[0])
        blocks = [
            _shortened(id_, reply, room // 2)
            for id_, reply in zip(made, replies, strict=True)
            if not isinstance(reply, LLMError)
        ]
        if not blocks:
            failed = _answer_draft(
                "error", prompt[:HEAD_CHARS], LLMError("server", "every part failed"), made, tags
            )
            return str(await away(store.put, failed, id=store.origin))


def _step_id(origin: str | None, rounds: int, at: int, count: int) -> str | None:
    """The id of a reduction or of one of its steps, derived from the call as in `llm_map`."""
    return origin if origin is None or count == 1 else f"{origin}.{rounds}.{at}"


class _Block(NamedTuple):
    """A piece of a prompt, and the id of its object."""

    id: str
    text: str


def _chosen_blocks(
    store: WorkerStoreProxy, ids_or_query: Any, room: int
) -> tuple[list[_Block], tuple[str, ...]]:
    """The texts of the chosen objects, and the tags of the reduction."""
    chosen = _chosen_events(store, ids_or_query)
    whole = [event for event in chosen if event.type != "error"]
    if not whole:
        raise InputError(
            f"there is nothing to reduce: {checks.quote_value(ids_or_query)} selects "
            f"{len(chosen)} objects, all of type error"
        )
    blocks: list[_Block] = []
    for event in whole:
        spend(length(event.content))
        blocks += _object_blocks(
            event.id, f"[{event.id}] {event.description}", content_text(event.content), room
        )
    return blocks, ("llm_reduce",) if len(whole) == len(chosen) else ("llm_reduce", "incomplete")


def _checked_task(at: int, task: Any) -> tuple[str, str]:
    """A task's name and its prompt, or an `LLMError` instead of a prompt that is missing."""
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
            "input", f"tasks[{at}] has no prompt that is a string: {checks.quote_value(prompt)}"
        )
    return name, prompt


def _answer_draft(
    kind: str, description: str, reply: str, parents: Iterable[str], tags: tuple[str, ...]
) -> Draft:
    """The draft of the object for a reply."""
    if not isinstance(reply, LLMError):
        return Draft(kind, description, encode_content(reply), (), tuple(parents), tags)
    content = encode_content(
        {"type": reply.type, "message": reply.message, "retries": reply.retries}
    )
    return Draft("error", description, content, (), tuple(parents), (*tags, "error"))


async def _replies(ask: AskMany, prompts: Sequence[str]) -> list[str]:
    replies: list[str] = [LLMError("server", "no reply arrived")] * len(prompts)
    async with aclosing(ask(prompts)) as coming:
        async for index, reply in coming:
            replies[index] = reply
    return replies


def _chosen_events(store: WorkerStoreProxy, ids_or_query: Any) -> list[Created]:
    ids: Iterable[str]
    if isinstance(ids_or_query, list | tuple) and len(ids_or_query) <= MAX_RESULTS:
        ids = dict.fromkeys(
            store.required_id(f"ids_or_query[{at}]", id_) for at, id_ in enumerate(ids_or_query)
        )
    elif not isinstance(ids_or_query, str):
        raise InputError(
            f"ids_or_query must be a query or a list of at most {MAX_RESULTS:,} ids, not "
            f"{checks.quote_value(ids_or_query)}"
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
            f"there is nothing to reduce: {checks.quote_value(ids_or_query)} selects no objects"
        )
    return chosen


def _object_blocks(id_: str, head: str, text: str, room: int) -> list[_Block]:
    """An object's text under its head, in as many blocks as it needs."""
    head = head[:HEAD_CHARS]
    if len(head) + 1 + len(text) <= room:
        return [_Block(id_, f"{head}\n{text}")]
    size = room - HEAD_CHARS - 40
    count = -(-len(text) // size)
    return [
        _Block(id_, f"{head} (part {at + 1} of {count})\n{text[at * size : (at + 1) * size]}")
        for at in range(count)
    ]


def _shortened(id_: str, text: str, room: int) -> _Block:
    """A reply, shortened so that two of them fit into one prompt."""
    head = f"[{id_}]"[:HEAD_CHARS]
    most = room - len(head) - 40
    left_out = f"\n[{len(text) - most:,} characters left out]" if len(text) > most else ""
    return _Block(id_, f"{head}\n{text[:most]}{left_out}")


def _grouped(blocks: Sequence[_Block], room: int) -> list[list[_Block]]:
    """The blocks in groups of neighbours, as many as fit into one prompt."""
    groups: list[list[_Block]] = []
    free = -1
    for block in blocks:
        free -= len(block.text) + 2
        if free < 0:
            groups.append([])
            free = room - len(block.text)
        groups[-1].append(block)
    return groups
