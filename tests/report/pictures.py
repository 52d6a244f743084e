"""Pictures of the pages to look at: `python -m tests.report.pictures [FOLDER]`; without a folder,
those in `tests/report/pictures` are made anew.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from rlm_integrations.corpus import Corpus
from tests.report._browser import CHROMIUM, HOW_TO_GET_IT, Browser
from tests.report._made import DOCUMENT, resumed_run
from tests.report.test_diff import changed

_MAX_HEIGHT = 4_000
_WIDTHS = {400: 0.9, 1_200: 0.6, 2_000: 0.45}  # of the page in pixels, and the scale of its picture
_KEPT = Path(__file__).with_name("pictures")


def main(folder: Path) -> None:
    if CHROMIUM is None:
        raise SystemExit(HOW_TO_GET_IT)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Corpus.build(DOCUMENT) as corpus,
        Browser() as browser,
        tempfile.TemporaryDirectory() as pages,
    ):
        run = resumed_run(corpus)
        run.to_html(Path(pages) / "run.html", context=corpus)
        run.diff(changed(run)).to_html(Path(pages) / "diff.html")
        for name, fragment in (("run", "#object-root_000002"), ("diff", "#place-6")):
            for scheme in ("light", "dark"):
                browser.scheme(scheme)
                for width, scale in _WIDTHS.items():
                    browser.resize(width, 900)
                    browser.open(Path(pages) / f"{name}.html", fragment)
                    height = browser.run("document.documentElement.scrollHeight")
                    browser.resize(width, min(height, _MAX_HEIGHT), scale=scale)
                    browser.run("document.activeElement.blur(), scrollTo(0, 0)")
                    browser.frame()
                    shot = Image.open(BytesIO(browser.picture())).convert("RGB")
                    shot.save(folder / f"{name}-{scheme}-{width}.webp", lossless=True, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _KEPT)
