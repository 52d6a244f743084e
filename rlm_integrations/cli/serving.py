"""The option `--serve`: pages in the browser that follow runs."""

import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from rlm_integrations.cli.output import say
from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    import argparse

    from rlm_integrations.corpus import Corpus
    from rlm_integrations.report.live import LiveRun, PageServer
    from rlm_integrations.report.live.server import Site

SERVE_HELP: Final = (
    "show the run in the browser while it happens, at an address on this machine that stderr names;"
    " after the answer, a terminal waits until a page has the finished run, or for Ctrl-C"
)
_SECONDS_AFTER_ERROR: Final = 2.0  # for open pages to get how the run ended


def add_serve(parser: Any, text: str = SERVE_HELP) -> None:
    """Add `--serve`, with this help, and `--open`."""
    page = parser.add_argument_group("page")
    page.add_argument("--serve", action="store_true", help=text)
    page.add_argument("--open", action="store_true", help="with --serve: open the browser")


def check_open(options: "argparse.Namespace") -> None:
    """Refuse `--open` without `--serve`."""
    if options.open and not options.serve:
        raise InputError("--open needs --serve, which makes the page")


@contextmanager
def served_run(
    options: "argparse.Namespace", corpus: "Corpus | None"
) -> "Iterator[LiveRun | None]":
    """A hook for the events of a run, which is shown during the block, and after it until the open
    pages have all of it; None without `--serve`.
    """
    check_open(options)
    if not options.serve:
        yield None
        return
    from rlm_integrations.report.live import LiveRun, RunSite

    live = LiveRun(corpus)
    with served(options, RunSite(live, corpus), "the run is shown at") as (server, is_opened):
        try:
            yield live
        except BaseException:
            server.wait_until_shown(for_a_page=False, seconds=_SECONDS_AFTER_ERROR)
            raise
        for_a_page = is_opened or sys.stderr.isatty()
        if for_a_page and not server.is_shown:
            say("waiting until a page shows the finished run; Ctrl-C ends the wait")
        with suppress(KeyboardInterrupt):  # the run itself has ended
            server.wait_until_shown(for_a_page=for_a_page)


@contextmanager
def served(
    options: "argparse.Namespace", site: "Site", words: str
) -> Iterator[tuple["PageServer", bool]]:
    """Serve a site, say where, and open the browser if that is wanted. Gives the server, and
    whether a browser was opened.
    """
    from rlm_integrations.report.live import PageServer

    with PageServer(site) as server:
        say(f"{words} {server.address}")
        is_opened = options.open and webbrowser.open(server.address)
        if options.open and not is_opened:
            say("there is no browser to open it with")
        yield server, is_opened
