"""The command `rlm-integrations storage`, which keeps a storage in order."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_json, add_storage
from rlm_integrations.cli.output import print_json, print_text
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.stored import existing_storage

if TYPE_CHECKING:
    from rlm_integrations.storage import Removed, Storage

_UNITS = ("B", "KB", "MB", "GB", "TB")


def add_upkeep(commands: Any) -> None:
    """Add the command with its own commands."""
    upkeep: Parser = commands.add_parser(
        "storage",
        help="check a storage, measure it, and remove runs",
        description="Check a storage, measure it, and remove runs.",
    )
    actions = upkeep.add_commands("action")

    def action(
        name: str, words: str, example: str, run: Callable[[argparse.Namespace], int]
    ) -> Parser:
        parser: Parser = actions.add_parser(
            name, help=words, description=f"{words[0].upper()}{words[1:]}."
        )
        add_storage(parser, DEFAULT_STORAGE)
        add_json(parser)
        parser.examples = (f"storage {example}",)
        parser.set_defaults(run=run)
        return parser

    action("check", "read everything, and report what is damaged or missing", "check", _check)
    action("stats", "count runs and jobs, and measure what they take", "stats --json", _stats)
    prune = action(
        "prune",
        "remove the runs that were not changed for so long, and cached answers of that age",
        "prune --older-than 30d",
        _prune,
    )
    prune.add_argument("--older-than", required=True, metavar="AGE", help="such as 12h, 30d or 2w")
    forget = action(
        "forget",
        "remove a run, and every document and blob that no other run uses",
        "forget 1f0c9a3e57d24b1c",
        _forget,
    )
    forget.add_argument("run_id", metavar="RUN_ID", help="the run, as `runs` lists it")


def _opened(options: argparse.Namespace) -> "Storage":
    return existing_storage(options.storage)


def _check(options: argparse.Namespace) -> int:
    from rlm_integrations.engine.show import counted

    with _opened(options) as storage:
        report = storage.check()
    if options.json:
        print_json({"is_sound": report.is_sound, **asdict(report)})
    else:
        for each in report.problems:
            whose = f" of run {each.run_id}" if each.run_id not in {None, each.name} else ""
            print_text(f"{each.kind} {each.name}{whose}: {each.message}")
        print_text(f"read: {_counts(report.checked)}")
        print_text(f"unused: {_counts(report.unused)}")
        found = counted(len(report.problems), "problem") if report.problems else "no problem"
        print_text(found)
    return exit_codes.ANSWERED if report.is_sound else exit_codes.FAILED


def _stats(options: argparse.Namespace) -> int:
    with _opened(options) as storage:
        stats = storage.stats()
    if options.json:
        print_json(stats)
        return exit_codes.ANSWERED
    print_text(f"runs: {_counts(stats.runs)}")
    print_text(f"jobs: {_counts(stats.jobs)}")
    for kind, amount in stats.kinds.items():
        print_text(f"{kind:<10} {amount.count:>12,} {_size(amount.size):>12}")
    if stats.database_size is not None:
        print_text(f"{'database':<10} {'':>12} {_size(stats.database_size):>12}")
    return exit_codes.ANSWERED


def _prune(options: argparse.Namespace) -> int:
    with _opened(options) as storage:
        return _say_removed(storage.prune(older_than=options.older_than), options)


def _forget(options: argparse.Namespace) -> int:
    with _opened(options) as storage:
        return _say_removed(storage.forget(options.run_id), options)


def _say_removed(removed: "Removed", options: argparse.Namespace) -> int:
    from rlm_integrations.engine.show import counted

    if options.json:
        print_json(removed)
    else:
        runs, blobs = counted(removed.runs, "run"), counted(removed.blobs, "blob")
        replies = f", {counted(removed.replies, 'cached answer')}" if removed.replies else ""
        of_agents = f", {counted(removed.documents, 'document of agents')}"
        more = f"{replies}{of_agents if removed.documents else ''}"
        print_text(f"removed: {runs}, {blobs} ({_size(removed.blob_bytes)} of content){more}")
    return exit_codes.ANSWERED


def _counts(counts: "Any") -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _size(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1_000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1_000
    return f"{size:.1f} {_UNITS[-1]}"
