"""Pages that follow runs while they happen, served to the browser of this user."""

from rlm_integrations.report.live.live_run import LiveRun
from rlm_integrations.report.live.server import PageServer
from rlm_integrations.report.live.sites import RunSite, StorageSite

__all__ = [
    "LiveRun",
    "PageServer",
    "RunSite",
    "StorageSite",
]
