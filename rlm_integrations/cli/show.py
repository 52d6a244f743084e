"""The command `rlm-integrations show RUN_ID`."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.arguments import DEFAULT_STORAGE, add_json, add_storage
from rlm_integrations.cli.output import price, print_json, print_text, quote_file, readable
from rlm_integrations.cli.parser import Parser
from rlm_integrations.cli.runs import shown_status
from rlm_integrations.cli.stored import existing_storage

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult
    from rlm_integrations.run_setup import RunSetup
    from rlm_integrations.storage import RunInfo


def add_show(commands: Any) -> None:
    """Add the command."""
    show: Parser = commands.add_parser(
        "show",
        help="show a stored run",
        description=(
            "Show a stored run: question, status, documents, usage, and the answer with its"
            " citations. Nothing is resumed, and no model is asked."
        ),
    )
    show.add_argument("run_id", metavar="RUN_ID", help="the run, as `runs` lists it")
    add_storage(show, DEFAULT_STORAGE)
    add_json(show, "print the run and its result as JSON")
    show.examples = ("show 1f0c9a3e57d24b1c --storage runs/",)
    show.set_defaults(run=show_run)


def show_run(options: argparse.Namespace) -> int:
    """Print the run; the exit code."""
    with existing_storage(options.storage) as storage:
        info, setup = storage.info(options.run_id), storage.setup(options.run_id)
        result = storage.run(options.run_id)  # of one without a result, what there is so far
    if options.json:
        print_json({**asdict(info), "result": result.to_dict()})
        return exit_codes.ANSWERED
    print_text("\n".join(_lines(info, setup, result)))
    return exit_codes.ANSWERED


def _lines(info: "RunInfo", setup: "RunSetup", result: "RLMResult") -> list[str]:
    from rlm_integrations.engine.show import counted, summary

    documents = [
        f"{each.name}{'' if each.file is None else f' ({quote_file(each.file)})'},"
        f" {counted(each.length, 'character')}"
        for each in setup.sources
    ]
    rows = {
        "run": info.run_id,
        "question": " ".join(info.question.split()),
        "status": shown_status(info),
        "model": info.root_model,
        "began": f"{info.created:%Y-%m-%d %H:%M:%S} UTC",
        "document": "; ".join(documents) or "none",
    }
    known = [each for each in result.usage.values() if each is not None]
    rows["usage"] = (
        f"{summary(result)}, {sum(each.input_tokens for each in known):,} tokens in,"
        f" {sum(each.output_tokens for each in known):,} out{price(result)}"
    )
    lines = [f"{name:<9} {value}" for name, value in rows.items()]
    if result.answer or result.citations:
        lines += ["", readable(result)]
    return lines
