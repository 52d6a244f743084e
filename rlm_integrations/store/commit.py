"""Commits: the findings of a worker as plain data, to be merged into a store. Merging one twice
changes nothing more.

    {"commit_id": "w7",
     "creates": [{"id": "e1", "type": "evidence", "description": "…", "content": …, "backrefs": […],
     "parents": […], "tags": […]}, …], "links": [{"type": "supports", "src": "e1", "dst":
     "worker_A_000001"}, …], "proposes_updates": [{"target": "worker_A_000001", "description": "…",
     …}, …], "error": None}

`e1` is an id within the commit; it becomes `w7/e1`, or `batch/w7/e1` with a prefix. Parents and
links name ids of the commit or of the store. A proposed update does not change its target: it is
kept as an object of type "proposal" that refines the target, for others to judge.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from itertools import chain, islice
from typing import Any, Final

from rlm_integrations.errors import InputError
from rlm_integrations.store import checks
from rlm_integrations.store.backend import StoreState
from rlm_integrations.store.draft import Draft, draft
from rlm_integrations.store.log import LINK_TYPES, Created, Linked, StoreEvent
from rlm_integrations.store.worker import WorkerStoreProxy

LISTS: Final = ("creates", "links", "proposes_updates")
FIELDS: Final = {"commit_id", *LISTS, "error"}
ENTRIES: Final = 1_000  # of each list: they are merged in one go
CREATE_FIELDS: Final = {"id", "type", "description", "content", "backrefs", "parents", "tags"}

MAX_STARTS: Final = 100  # places in an answer where a commit may begin

# Characters parsed in search of a commit: each start may be parsed to the end of the answer
MAX_CHARS_PARSED: Final = 5_000_000

_FENCE = re.compile(r"```\w*\s*(?=\{)")


def apply_commit(store: WorkerStoreProxy, commit: Any, batch_prefix: str = "") -> dict[str, Any]:
    """Merge a commit: all of it, or nothing if any of it is wrong.

    Returns:
        `commit_id`, `created_ids` (ids of the commit to ids of the store, those merged before too),
        `links_created` and `proposals_stored` (new ones only), and `error`: None, or a message
            about
        what is wrong with the commit. A bad commit never raises.
    """
    commit_id = (
        commit["commit_id"]
        if isinstance(commit, dict) and isinstance(commit.get("commit_id"), str)
        else ""
    )
    result: dict[str, Any] = {
        "commit_id": commit_id[: checks.NAME_CHARS],
        "created_ids": {},
        "links_created": 0,
        "proposals_stored": 0,
        "error": None,
    }
    try:
        merge = _Merge(store, commit, batch_prefix)

        def returned(events: Sequence[StoreEvent]) -> dict[str, Any]:
            return {**result, **merge.written(events)}

        return returned(store.append(merge.events, returned))
    except InputError as error:
        return {**result, "error": str(error)}


def commit_of(reply: Any, commit_id: str) -> dict[str, Any]:
    """The commit in a worker's answer: a dict, or a string that contains one as JSON; otherwise an
    empty commit with an `error`.

    `commit_id` is used if the answer does not name one.
    """
    empty: dict[str, Any] = {
        "commit_id": commit_id,
        "creates": [],
        "links": [],
        "proposes_updates": [],
        "error": None,
    }
    found = (
        reply
        if isinstance(reply, dict)
        else next(filter(_is_commit, _json_objects(reply)), None)
        if isinstance(reply, str)
        else None
    )
    if found is None or not _is_commit(found):
        return {
            **empty,
            "error": (
                f"the worker's answer is not a commit, a JSON object with {', '.join(LISTS)}: "
                f"{checks.quote_value(reply)}"
            ),
        }
    return {**empty, **found}


class _Merge:
    """A checked commit, and the events that a store still lacks of it."""

    def __init__(self, store: WorkerStoreProxy, commit: Any, prefix: Any) -> None:
        if not isinstance(commit, dict):
            raise InputError(
                f"a commit must be a dict with commit_id, {', '.join(LISTS)}, not "
                f"{checks.quote_value(commit)}"
            )
        if commit.get("error"):
            raise InputError(
                "the worker failed, so there is nothing to apply: "
                f"{checks.quote_value(commit['error'])}"
            )
        _check_fields(FIELDS, commit, "the commit")
        names = [checks.part("commit_id", commit.get("commit_id"))]
        if prefix:
            names = [
                checks.part("batch_prefix", name)
                for name in checks.text("batch_prefix", prefix, checks.NAME_CHARS).split("/")
            ] + names
        self._base = "/".join([store.namespace, *names] if store.namespace else names)
        self._store = store
        creates, links, updates = (_entries(commit, name) for name in LISTS)
        self.ids = self._local_ids(creates)
        self._drafts = self._in_order(
            {self.ids[entry["id"]]: self._draft(at, entry) for at, entry in enumerate(creates)}
        )
        self.proposals = {
            f"{self._base}/proposal.{at}": self._proposal(at, entry)
            for at, entry in enumerate(updates, 1)
        }
        if clash := self.proposals.keys() & self._drafts.keys():
            raise InputError(
                f"{min(clash)!r} is the id of a proposed update: name the object that is "
                "created another way"
            )
        self._links = [self._link(at, entry) for at, entry in enumerate(links)]
        self._links += [
            ("refines", id_, proposal.parents[0]) for id_, proposal in self.proposals.items()
        ]

    def events(self, state: StoreState, seq: int, ts: float) -> list[StoreEvent]:
        """The events that the store does not have yet.

        Raises:
            InputError: Another object has one of the ids already.
        """
        worker, origin = self._store.name, self._store.origin
        events: list[StoreEvent] = []
        for id_, made in {**self._drafts, **self.proposals}.items():
            kept = state.find(id_)
            if kept is None:
                events.append(Created(seq + len(events), ts, worker, id_, *made, 0, origin))
            elif _draft_of(kept.created) != made:
                raise InputError(
                    f"another object is called {id_!r}: give this commit a different id, "
                    "or a batch_prefix"
                )
        for kind, src, dst in dict.fromkeys(self._links):
            if not state.has_link(kind, src, dst):
                events.append(Linked(seq + len(events), ts, worker, src, kind, dst, origin))
        return events

    def written(self, events: Sequence[StoreEvent]) -> dict[str, Any]:
        """What the events contain of the commit."""
        proposals = len(
            {event.id for event in events if isinstance(event, Created)} & set(self.proposals)
        )
        return {
            "created_ids": self.ids,
            "links_created": sum(isinstance(event, Linked) for event in events) - proposals,
            "proposals_stored": proposals,
        }

    def _local_ids(self, creates: list[dict[str, Any]]) -> dict[str, str]:
        ids: dict[str, str] = {}
        for at, entry in enumerate(creates):
            local = entry["id"] = checks.part(f"creates[{at}].id", entry.get("id", str(at + 1)))
            if local in ids:
                raise InputError(f"creates[{at}].id: {local!r} is used twice")
            ids[local] = f"{self._base}/{local}"
        return ids

    def _draft(self, at: int, entry: dict[str, Any]) -> Draft:
        _check_fields(CREATE_FIELDS, entry, f"creates[{at}]")
        fields = [entry.get(name) for name in ("content", "backrefs", "parents", "tags")]
        try:
            return draft(
                entry.get("type"),
                entry.get("description", ""),
                *fields,
                spans=self._store.spans,
                parent=self._id,
            )
        except InputError as error:
            raise InputError(f"creates[{at}]: {error}") from None

    def _in_order(self, drafts: dict[str, Draft]) -> dict[str, Draft]:
        """The drafts with parents before their children."""
        above = {
            id_: [parent for parent in made.parents if parent in drafts]
            for id_, made in drafts.items()
        }
        try:
            return {id_: drafts[id_] for id_ in TopologicalSorter(above).static_order()}
        except CycleError as error:
            raise InputError(
                f"creates: these objects are each other's parents: {', '.join(error.args[1])}"
            ) from None

    def _proposal(self, at: int, entry: dict[str, Any]) -> Draft:
        what = f"proposes_updates[{at - 1}]"
        target = self._id(
            f"{what}.target",
            next((entry[name] for name in ("target", "target_id", "id") if name in entry), None),
        )
        description = entry.get("description") or f"proposed update of {target}"
        try:
            return draft(
                "proposal",
                description,
                entry,
                None,
                [target],
                None,
                spans=tuple,
                parent=lambda _, parent: str(parent),
            )
        except InputError as error:
            raise InputError(f"{what}: {error}") from None

    def _link(self, at: int, entry: dict[str, Any]) -> tuple[Any, str, str]:
        what = f"links[{at}]"
        _check_fields({"type", "src", "dst"}, entry, what)
        if entry.get("type") not in LINK_TYPES:
            raise InputError(
                f"{what}.type must be one of {', '.join(LINK_TYPES)}, not "
                f"{checks.quote_value(entry.get('type'))}"
            )
        return (
            entry["type"],
            self._id(f"{what}.src", entry.get("src")),
            self._id(f"{what}.dst", entry.get("dst")),
        )

    def _id(self, name: str, value: Any) -> str:
        """The id in the store of an id of the commit or of the store."""
        return (
            self.ids[value]
            if isinstance(value, str) and value in self.ids
            else self._store.required_id(name, value)
        )


def _entries(commit: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Copies of the entries of a list."""
    entries = commit.get(name) or []
    if not isinstance(entries, list | tuple) or len(entries) > ENTRIES:
        raise InputError(f"{name} must be a list of at most {ENTRIES:,} entries")
    for at, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{name}[{at}] must be a dict, not {checks.quote_value(entry)}")
    return [dict(entry) for entry in entries]


def _check_fields(names: set[str], entry: dict[str, Any], what: str) -> None:
    unknown = next((name for name in entry if name not in names), None)
    if unknown is not None:
        raise InputError(
            f"{what} has no field {checks.quote_value(unknown)}, only "
            f"{', '.join(sorted(names))}: put everything else into content"
        )


def _draft_of(event: Created) -> Draft:
    return Draft(
        event.type, event.description, event.content, event.backrefs, event.parents, event.tags
    )


def _is_commit(value: Any) -> bool:
    return isinstance(value, dict) and any(name in value for name in LISTS)


def _json_objects(text: str) -> Iterator[Any]:
    """The JSON objects in an answer: those in code fences first, then at each opening brace."""
    fenced = (match.end() for match in _FENCE.finditer(text))
    bare = (match.start() for match in re.finditer(r"\{", text))
    tried = max(2, min(MAX_STARTS, MAX_CHARS_PARSED // max(1, len(text))))
    for start in chain(islice(fenced, tried), islice(bare, tried)):
        with suppress(ValueError, RecursionError):
            yield json.JSONDecoder().raw_decode(text, start)[0]
