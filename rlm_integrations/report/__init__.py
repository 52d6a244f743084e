"""The page that shows a run, and the comparison of two runs."""

from rlm_integrations.report.diff import RunDiff
from rlm_integrations.report.notebook import notebook_bundle
from rlm_integrations.report.page import run_page

__all__ = [
    "RunDiff",
    "notebook_bundle",
    "run_page",
]
