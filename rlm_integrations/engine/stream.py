"""The events of a run as they occur."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from rlm_integrations._concurrency.cleanup import wait_until_done
from rlm_integrations.events import Event, Hook, RunFinished
from rlm_integrations.result import RLMResult

Wanted = Callable[[Event], bool]


async def stream_events(
    ask: Callable[[Hook], Awaitable[RLMResult]], only: Wanted | None
) -> AsyncGenerator[Event, None]:
    """The events of a run; the last one is `RunFinished`. Closing the generator cancels the run and
    waits for its end.

    Args:
        ask: Starts the run with a hook for its events.
        only: Returns whether to yield an event. The last event is always yielded.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    def keep(event: Event) -> None:
        if only is None or isinstance(event, RunFinished) or only(event):
            events.put_nowait(event)

    run = asyncio.ensure_future(ask(keep))
    run.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await run
    finally:
        run.cancel()
        await wait_until_done(run)
