"""Ids of the runs in a workflow, from its `Context`.

LlamaIndex saves the events of the steps that are under way in a context, and gives neither them nor
their visits an id. So the context's store keeps an id of the conversation, and which of its
questions have been answered: a step that is made again finds its run by its question.
"""

import secrets
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

from llama_index.core.workflow import Context

from rlm_integrations import RLM
from rlm_integrations._concurrency.runtime import offload, shared
from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import IncompleteError, InputError
from rlm_integrations.faces.run_ids import derive_run_id

KEY: Final = "rlm_runs"
_THREAD: Final = "thread"


@asynccontextmanager
async def run_in_workflow(
    ctx: Context | None, rlm: RLM, question: str, corpus: Corpus
) -> AsyncGenerator[str | None, None]:
    """The id of the run that answers this question in this context; None for a random one.

    A question that is asked again gets another id once its run has ended, or while it lasts.
    """
    if ctx is None or rlm.options["storage"] is None:
        yield None
        return
    thread = await thread_of(ctx)
    first = await offload(derive_run_id, rlm, ("llama_index", thread), question, corpus)
    under_way = shared("questions in workflows", _UnderWay)
    number = under_way.begin(first, await _ended(ctx, first))
    place = ("llama_index", thread, str(number))
    try:
        yield await offload(derive_run_id, rlm, place, question, corpus)
    except IncompleteError:
        await _end(ctx, first, number)
        raise
    else:
        await _end(ctx, first, number)
    finally:
        under_way.end(first, number)


class _UnderWay:
    """The numbers of the runs of the same question that are under way in this process."""

    def __init__(self) -> None:
        self._numbers: dict[str, set[int]] = {}
        self._lock = threading.Lock()

    def begin(self, first: str, ended: set[int]) -> int:
        """The first number that is neither under way nor ended."""
        with self._lock:
            taken = self._numbers.setdefault(first, set())
            number = next(each for each in count() if each not in taken | ended)
            taken.add(number)
            return number

    def end(self, first: str, number: int) -> None:
        """Free a number."""
        with self._lock:
            self._numbers[first].discard(number)
            if not self._numbers[first]:
                del self._numbers[first]


async def thread_of(ctx: Context) -> str:
    """The id of the conversation, which is made at its first question."""
    async with ctx.store.edit_state() as state:
        known = getattr(state, KEY, None) or {}
        if _THREAD not in known:
            try:
                setattr(state, KEY, {_THREAD: secrets.token_hex(16)})
            except ValueError as error:
                raise InputError(
                    f"the state of this workflow needs a field for its runs: {KEY}: dict = {{}}"
                ) from error
        return str(getattr(state, KEY)[_THREAD])


async def _ended(ctx: Context, first: str) -> set[int]:
    return set((await ctx.store.get(KEY)).get(first, ()))


async def _end(ctx: Context, first: str, number: int) -> None:
    async with ctx.store.edit_state() as state:
        known = getattr(state, KEY)
        setattr(state, KEY, {**known, first: [*known.get(first, ()), number]})
