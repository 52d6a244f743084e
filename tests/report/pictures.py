"""Pictures of the pages to look at: `python -m tests.report.pictures FOLDER`."""

import sys
from pathlib import Path

from rlm_integrations.corpus import Corpus
from tests.report._browser import CHROMIUM, HOW_TO_GET_IT, Browser
from tests.report._made import DOCUMENT, made_run

_MAX_HEIGHT = 4_000


def main(folder: Path) -> None:
    if CHROMIUM is None:
        raise SystemExit(HOW_TO_GET_IT)
    folder.mkdir(parents=True, exist_ok=True)
    with Corpus.build(DOCUMENT) as corpus, Browser() as browser:
        run = made_run(corpus)
        run.to_html(folder / "run.html", context=corpus)
        run.diff(made_run(corpus, answer="Nobody.", trajectory=run.trajectory[:1])).to_html(
            folder / "diff.html"
        )
        for name, fragment in (("run", "#object-root_000002"), ("diff", "")):
            for scheme in ("light", "dark"):
                browser.scheme(scheme)
                for width in (400, 1_200, 2_000):
                    browser.resize(width, 900)
                    browser.open(folder / f"{name}.html", fragment)
                    height = browser.run("document.documentElement.scrollHeight")
                    browser.resize(width, min(height, _MAX_HEIGHT))
                    browser.run("scrollTo(0, 0)")
                    browser.frame()
                    browser.picture(folder / f"{name}-{scheme}-{width}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
