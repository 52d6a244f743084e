"""Starts what a run will need soon."""

from contextlib import suppress

from rlm_integrations.engine.settings import Settings
from rlm_integrations.lm.base import Prepared
from rlm_integrations.sandbox.base import Preparable


async def prepare_run(settings: Settings) -> None:
    """Start the sandbox, and load the client of the root model meanwhile, unless that is done. The
    first session and the first call raise its errors.
    """
    # A short document may need no session
    if not settings.limits.single_call_below and isinstance(settings.sandbox, Preparable):
        settings.sandbox.prepare()
    if isinstance(settings.root, Prepared):
        with suppress(Exception):
            await settings.root.prepare()
