"""All objects of a store, one after the other, so that a large store is never held as a whole."""

from collections.abc import Iterator, Sequence

from rlm_integrations.records import StoreObject
from rlm_integrations.store.backend import StoreBackend
from rlm_integrations.store.content import decode_content
from rlm_integrations.store.log import Created, Invalidated, LinkType


def object_of(
    event: Created, invalid: str | None, links: Sequence[tuple[LinkType, str]]
) -> StoreObject:
    """The object of the event that created it, why it is invalid, and what it links to."""
    return StoreObject(
        id=event.id,
        type=event.type,
        description=event.description,
        content=decode_content(event.content),
        backrefs=event.backrefs,
        parents=event.parents,
        tags=event.tags,
        worker=event.worker,
        seq=event.seq,
        ts=event.ts,
        links=tuple(links),
        invalid=invalid,
    )


def all_objects(backend: StoreBackend) -> Iterator[StoreObject]:
    """Every object as the store has it now, oldest first, invalid ones included.

    The events are read twice: what happened to an object is known only after the last one.
    """
    last = 0
    invalid: dict[str, str] = {}
    links: dict[str, dict[tuple[LinkType, str], None]] = {}
    for event in backend.events(0):
        last = event.seq
        if isinstance(event, Invalidated):
            invalid[event.id] = event.reason
        elif not isinstance(event, Created):
            links.setdefault(event.id, {})[event.type, event.dst] = None
    for event in backend.events(0):
        if event.seq > last:
            return
        if isinstance(event, Created):
            yield object_of(event, invalid.get(event.id), tuple(links.get(event.id, ())))
