"""What the pages of a server show: one run, or the runs of a storage."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Final, Protocol

from rlm_integrations.corpus import Corpus
from rlm_integrations.errors import InputError, RLMError
from rlm_integrations.events import logger
from rlm_integrations.report.data import MAX_TEXT_CHARS
from rlm_integrations.report.live.feed import Feed, PageMessage, StateSource
from rlm_integrations.report.live.server import EventStream, WebPage
from rlm_integrations.report.live.state import State, plain_state, run_state
from rlm_integrations.report.page import list_page, live_page, run_page
from rlm_integrations.result import RLMResult

_RUN_PLACE: Final = re.compile(r"runs/([A-Za-z0-9._-]{1,64})/(events)?")
_SECONDS_WITHOUT_PAGE: Final = 30.0  # that a run is followed
_LISTED_CHARS: Final = 300  # of a question


class RunSite:
    """The page of one run that happens in this process.

    Args:
        run: The run.
        corpus: Its document; None for a page without its text.
    """

    def __init__(self, run: StateSource, corpus: Corpus | None) -> None:
        self._feed = Feed(run)
        is_small = corpus is not None and corpus.characters <= MAX_TEXT_CHARS
        self._corpus = corpus if is_small else None
        self._making = asyncio.Lock()  # pages may be large

    async def run(self) -> None:
        """Follow the run."""
        await self._feed.follow()

    async def find(self, path: str, after: int) -> WebPage | EventStream | None:
        """The page, or its events."""
        if path == "events":
            return EventStream(self._feed.messages(after))
        if path:
            return None
        async with self._making:
            state = await self._feed.begun()
            number = self._feed.number
            return WebPage(await asyncio.to_thread(_live_page, state, number, self._corpus))


def _live_page(state: State, number: int, corpus: Corpus | None) -> str:
    return live_page(plain_state(state), number, corpus)


class _Storage(Protocol):
    """What the pages of stored runs need of a `Storage`."""

    def info(self, run_id: str) -> Any: ...
    def run(self, run_id: str) -> RLMResult: ...
    def revision(self, run_id: str) -> object: ...
    def document(self, run_id: str) -> Corpus | None: ...


class StorageSite:
    """The list of a storage's runs, and the page of each. Those that run are followed while a page
    shows them.

    Args:
        storage: The storage.
        list_runs: Returns the runs to list, as `Storage.runs` does. Blocks.
    """

    def __init__(self, storage: _Storage, list_runs: Callable[[], list[Any]]) -> None:
        self._storage = storage
        self._list_runs = list_runs
        self._followed: dict[str, _Followed] = {}
        self._tasks: asyncio.TaskGroup
        self._making = asyncio.Lock()

    async def run(self) -> None:
        """Follow what pages show."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()

    async def find(self, path: str, after: int) -> WebPage | EventStream | None:
        """The list, the page of a run, or the events of either."""
        if path in {"", "events"}:
            followed = self._follow("", lambda: _RunList(self._list_runs))
            if path:
                return EventStream(followed.messages(after))
            listed = await followed.feed.begun()
            return WebPage(list_page(dict(listed), followed.feed.number))
        place = _RUN_PLACE.fullmatch(path)
        if place is None:
            return None
        run_id, events = place.groups()
        try:
            info = await asyncio.to_thread(self._storage.info, run_id)
        except InputError:  # there is none
            return None
        if events:
            return EventStream(self._follow_run(run_id).messages(after))
        async with self._making:
            if not info.is_owned:
                return WebPage(await asyncio.to_thread(self._page, run_id))
            feed = self._follow_run(run_id).feed
            state, number = await feed.begun(), feed.number
            return WebPage(await asyncio.to_thread(self._page, run_id, state, number))

    def _page(self, run_id: str, state: State | None = None, number: int = 0) -> str:
        with _document_of(self._storage, run_id) as corpus:
            if state is not None:
                return live_page(plain_state(state), number, corpus)
            return run_page(self._storage.run(run_id), corpus)

    def _follow_run(self, run_id: str) -> "_Followed":
        return self._follow(run_id, lambda: _StoredRun(self._storage, run_id))

    def _follow(self, key: str, source: Callable[[], StateSource]) -> "_Followed":
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = _Followed(Feed(source()))
            self._tasks.create_task(self._run(key, followed))
        followed.touch()
        return followed

    async def _run(self, key: str, followed: "_Followed") -> None:
        try:
            await followed.feed.follow(followed.is_wanted)
        except RLMError as error:  # its pages ask again, and get the message
            logger.warning("run %s is not followed any more: %s", key or "list", error)
        except Exception:  # noqa: BLE001 - of one run: the pages of the others go on
            logger.exception("run %s is not followed any more", key or "list")
        finally:
            del self._followed[key]


class _Followed:
    """A feed, and who reads it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._pages = 0
        self._used = 0.0

    def touch(self) -> None:
        """Keep it for a while: a page asks for it."""
        self._used = asyncio.get_running_loop().time()

    def is_wanted(self) -> bool:
        """Whether a page reads it, or may soon."""
        idle = asyncio.get_running_loop().time() - self._used
        return self._pages > 0 or idle < _SECONDS_WITHOUT_PAGE

    async def messages(self, after: int) -> AsyncGenerator[PageMessage, None]:
        """The messages to one page."""
        self._pages += 1
        try:
            async with aclosing(self.feed.messages(after)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._pages -= 1
            self.touch()


class _RunList:
    """The runs of a storage; the list never ends."""

    is_over = False

    def __init__(self, list_runs: Callable[[], list[Any]]) -> None:
        self._list_runs = list_runs

    def look(self) -> State:
        """The list; a feed finds what changed."""
        return {"runs": [_listed(info) for info in self._list_runs()]}


def _listed(info: Any) -> dict[str, Any]:
    return {
        "run_id": info.run_id,
        "status": "interrupted" if info.status == "running" and not info.is_owned else info.status,
        "question": info.question[:_LISTED_CHARS],
        "root_model": info.root_model,
        "created": f"{info.created:%Y-%m-%d %H:%M:%S}",
    }


class _StoredRun:
    """A run that any process runs, by its records in a storage."""

    def __init__(self, storage: _Storage, run_id: str) -> None:
        self.is_over = False
        self._storage = storage
        self._run_id = run_id
        self._seen: object = None

    def look(self) -> State | None:
        """The state, if anything was recorded since the last look."""
        revision = self._storage.revision(self._run_id)
        if revision == self._seen:
            return None
        self._seen = revision
        result = self._storage.run(self._run_id)
        if result.stop_reason == "running":
            return run_state(result)
        self.is_over = True
        with _document_of(self._storage, self._run_id) as corpus:
            return run_state(result, corpus)


def _document_of(storage: _Storage, run_id: str) -> AbstractContextManager[Corpus | None]:
    """The document of a run, if the storage kept it and a page can have it."""
    corpus = storage.document(run_id)
    if corpus is not None and corpus.characters > MAX_TEXT_CHARS:
        corpus.close()
        corpus = None
    return nullcontext() if corpus is None else corpus
