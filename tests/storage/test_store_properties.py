"""Random histories and queries: a store in a database answers as one in memory does."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_integrations.errors import InputError
from rlm_integrations.storage import Storage
from rlm_integrations.storage.stores import queries, text_indexes
from rlm_integrations.store import SharedStore, fulltext, search
from tests.storage.test_stored_store import storage, store_of
from tests.store.examples import examples
from tests.store.test_properties import histories, perform, terms

__all__ = ["storage"]
FREE_TEXTS = ["ppo", "atari trpo", "straße 中国", "x", "nothing here"]


def answer(ask: Callable[[], Any]) -> Any:
    """What a call returns or raises, with the order of dicts."""
    try:
        found = ask()
    except InputError as error:
        return str(error)
    if isinstance(found, dict):
        return [
            (key, list(each.items()) if isinstance(each, dict) else each)
            for key, each in found.items()
        ]
    return found


def questions(store: SharedStore, query: str, text: str) -> Iterator[Callable[[], Any]]:
    """Everything that a store can be asked."""
    yield lambda: store.view(query, 10_000)
    yield lambda: store.view(query, 3)
    yield lambda: store.summary(query, 2)
    yield lambda: store.summary("", 100)
    yield lambda: store.search_text(text, 5)
    yield lambda: store.worker("a").view_others(query)
    yield lambda: store.events_since(0)
    yield lambda: len(store)
    yield lambda: store.get("nothing")
    for card in store.view("invalid=any", 10_000):
        for ask in (store.get, store.children, store.parents, store.trace):
            yield lambda ask=ask, id_=card["id"]: ask(id_)  # type: ignore[misc]


@pytest.mark.parametrize(
    "indexed", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["read", "indexed"]
)
@examples(20)
@given(
    history=histories,
    more=histories,
    asked=st.lists(terms, max_size=4),
    text=st.sampled_from(FREE_TEXTS),
)
def test_a_stored_store_answers_as_one_in_memory(
    storage: Storage, indexed: bool, history: Any, more: Any, asked: list[str], text: str
) -> None:
    """The same history gives the same events, and every question the same answer in the same order,
    or the same error; whichever index is used, and while objects are missing in it.
    """
    query = " ".join(dict.fromkeys(asked))
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in [
            (fulltext, "READ_BELOW_OBJECTS", {"desc": 0, "text": 0}),
            (text_indexes, "READ_BELOW_OBJECTS", {"desc": 2, "text": 2}),
            (text_indexes, "CHUNK_OBJECTS", 3),
            (search, "MAX_ROWS_READ", 0),
            (queries, "MAX_OBJECTS_READ", 0),
            (queries, "FIRST", 2),
            (queries, "LARGEST", 3),
        ]:
            if indexed:
                patch.setattr(module, name, value)
        memory, stored = SharedStore(clock=lambda: 1.25), store_of(storage, clock=lambda: 1.25)
        for part in (history, more):
            for worker, operation in part:
                perform(memory, worker, operation)
                perform(stored, worker, operation)
            for of_memory, of_stored in zip(
                questions(memory, query, text), questions(stored, query, text), strict=True
            ):
                assert answer(of_stored) == answer(of_memory)
