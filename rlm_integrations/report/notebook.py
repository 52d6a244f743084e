"""How a result is displayed in a notebook."""

from typing import TYPE_CHECKING, Final

from rlm_integrations.report.page import run_page

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult

# A notebook's file has each output again at every display.
_MAX_FRAME_CHARS: Final = 1_000_000


def notebook_bundle(result: "RLMResult") -> dict[str, str]:
    """The result as text, and as a page in a sandboxed frame unless that is too large."""
    text = str(result)
    frame = (
        f"<iframe srcdoc='{_in_single_quotes(run_page(result))}' "
        'sandbox="allow-scripts allow-downloads" title="The run" '
        'style="width: 100%; height: 720px; border: 0"></iframe>'
    )
    if len(frame) > _MAX_FRAME_CHARS:
        hint = f"{text}\n(the page of this run is large: result.to_html(path) writes it to a file)"
        return {"text/plain": hint}
    return {"text/plain": text, "text/html": frame}


def _in_single_quotes(page: str) -> str:
    """The page as an attribute in single quotes: most quotes in it are double ones."""
    return page.replace("&", "&amp;").replace("'", "&#39;")
