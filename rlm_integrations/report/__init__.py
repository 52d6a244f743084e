"""The page that shows a run."""

from rlm_integrations.report.notebook import notebook_bundle
from rlm_integrations.report.page import run_page

__all__ = [
    "notebook_bundle",
    "run_page",
]
