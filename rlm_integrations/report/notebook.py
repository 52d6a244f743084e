"""How a result is displayed in a notebook."""

from html import escape
from typing import TYPE_CHECKING, Final

from rlm_integrations.report.page import run_page

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult

# A larger page would be stored in the notebook's file at every display.
_MAX_PAGE_CHARS: Final = 2_000_000


def notebook_bundle(result: "RLMResult") -> dict[str, str]:
    """The result as text, and as a page in a sandboxed frame unless that is too large."""
    text = str(result)
    page = run_page(result)
    if len(page) > _MAX_PAGE_CHARS:
        hint = f"{text}\n(the page of this run is large: result.to_html(path) writes it to a file)"
        return {"text/plain": hint}
    frame = (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts allow-downloads" '
        'title="The run" style="width: 100%; height: 720px; border: 0"></iframe>'
    )
    return {"text/plain": text, "text/html": frame}
