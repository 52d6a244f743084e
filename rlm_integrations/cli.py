"""The command line: `rlm-integrations ask FILE… "question"`. The answer goes to stdout, everything else to stderr."""

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_integrations.errors import InputError, MissingExtraError, ModelError, RLMError, SandboxError

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.result import RLMResult

DEFAULT_MODEL = "gpt-5-mini"  # with a key and without --model: it writes code well enough, and costs little

ANSWERED, FAILED, BAD_INPUT, STOPPED, MODEL_ERROR, SANDBOX, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
_BY_STOP = {"final": ANSWERED, "model_error": MODEL_ERROR, "sandbox_lost": SANDBOX, "cancelled": INTERRUPTED}

_EXIT_CODES = """\
exit codes:
  0    answered
  1    something else failed, such as writing --save
  2    wrong usage, or input that cannot work; nothing was spent
  3    stopped by a limit (budget, turns, repetition); the best answer so far is printed
  4    the model could not be asked, or gave no usable reply
  5    the sandbox is not available on this machine, or was lost
  130  interrupted by Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    try:
        return _ask(_arguments(argv))
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except (InputError, MissingExtraError) as error:
        return _failed(str(error), BAD_INPUT)
    except ModelError as error:
        return _failed(str(error), MODEL_ERROR)
    except SandboxError as error:
        return _failed(str(error), SANDBOX)
    except (RLMError, OSError) as error:
        return _failed(str(error), FAILED)


def parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser of the whole command line, and the one of `ask`."""
    whole = argparse.ArgumentParser(
        prog="rlm-integrations", description="Ask a question over documents that no model's window holds.", allow_abbrev=False
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {version('rlm-integrations')}")
    ask = whole.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser(
        "ask",
        help="answer a question over one or several files",
        description="Answer a question over files. The answer and its citations go to stdout, all else to stderr.",
        usage='%(prog)s FILE [FILE ...] "QUESTION" [options]',
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    ask.add_argument("words", nargs="+", metavar="FILE … QUESTION", help="text files, '-' for stdin, and last the question")
    models = ask.add_argument_group("models")
    models.add_argument("--model", metavar="NAME", help=f"who writes code; by default {DEFAULT_MODEL} with OPENAI_API_KEY, else offline")
    models.add_argument("--sub-model", metavar="NAME", help="whom the code asks; by default the same")
    models.add_argument("--base-url", metavar="URL", help="where both are served, such as http://localhost:11434/v1")
    budget = ask.add_argument_group("budget")
    budget.add_argument("--max-calls", type=int, metavar="N", help="calls to models")
    budget.add_argument("--max-tokens", type=int, metavar="N", help="tokens, read and written")
    budget.add_argument("--max-cost", type=float, metavar="USD", help="US dollars")
    budget.add_argument("--max-seconds", type=float, metavar="S", help="wall time")
    run = ask.add_argument_group("run")
    run.add_argument("--max-iterations", type=int, default=20, metavar="N", help="turns of the model that writes code (%(default)s)")
    run.add_argument("--max-depth", type=int, default=1, metavar="N", help="levels of runs (%(default)s: children are plain calls)")
    run.add_argument("--max-parallel", type=int, default=10, metavar="N", help="calls at once (%(default)s)")
    run.add_argument("--store-mode", choices=["shared", "none"], default="shared", help="whether code has a store (%(default)s)")
    run.add_argument("--sandbox", choices=["process", "inprocess"], default="process", help="where code runs (%(default)s)")
    files = ask.add_argument_group("files")
    files.add_argument("--encoding", default="utf-8", metavar="NAME", help="of the files (%(default)s)")
    files.add_argument("--errors", default="strict", metavar="HOW", help="bytes that are no text: strict, replace … (%(default)s)")
    output = ask.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="the whole result as JSON on stdout")
    output.add_argument("--save", type=Path, metavar="FILE", help="write the whole result to a file as JSON")
    loud = output.add_mutually_exclusive_group()
    loud.add_argument("--verbose", action="store_true", help="show each turn with its code and output")
    loud.add_argument("--quiet", action="store_true", help="show errors only")
    return whole, ask


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the user wrote. Options may stand between the words, for which argparse takes what follows as unknown."""
    whole, ask = parsers()
    options, more = whole.parse_known_args(argv)
    if unknown := [word for word in more if word.startswith("-") and word != "-"]:
        ask.error(f"there is no option {unknown[0]} (a word that begins with '-' goes after '--')")
    words: list[str] = [*options.words, *more]
    options.files, options.question = words[:-1], words[-1]
    if not options.files:
        ask.error("a file and a question are needed")
    if options.files.count("-") > 1:
        ask.error("stdin ('-') can be read once")
    return options


def _ask(options: argparse.Namespace) -> int:
    from rlm_integrations.engine.show import printable, shortened, summary

    if not options.question.strip():
        raise InputError("the question is empty")
    if options.save is not None:
        _check_writable(options.save)
    name, told = _named(options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rlm = _rlm(name, options)
    with _corpus(options) as corpus:
        for each in [told, *(str(warning.message) for warning in caught)]:
            _say(each)
        result = rlm.completion(options.question, corpus)
    code = _BY_STOP.get(result.stop_reason, STOPPED)
    if options.json:
        _print(json.dumps(result.to_dict()))
    elif result.answer or result.citations:
        text = _readable(result)
        _print(printable(text) if sys.stdout.isatty() else text)
    if code in {MODEL_ERROR, SANDBOX}:
        _say(f"{result.stop_reason}: {shortened(result.error or 'no reason is known')}; what there is may be no answer")
    if code == STOPPED and not options.quiet:
        _say(f"stopped by a limit ({result.stop_reason}); this is the best answer so far")
    if result.dropped_citations and not options.quiet:
        _say(f"{result.dropped_citations} of the model's citations are not in the document, and not shown")
    if not options.quiet:
        _say(f"{summary(result)}{_price(result)}")
    if options.save is not None:
        result.save(options.save)
    return code


def _named(options: argparse.Namespace) -> tuple[str, str]:
    """The model's name, and what is to be said about it."""
    from rlm_integrations.lm.offline import NOTICE

    if options.model is not None:
        return options.model, NOTICE if options.model == "offline" and not options.quiet else ""
    if options.base_url is not None:
        raise InputError("--base-url needs --model: the name of a model that is served there")
    if os.environ.get("OPENAI_API_KEY", "").strip():
        return DEFAULT_MODEL, "" if options.quiet else f"no --model: asking {DEFAULT_MODEL}, because OPENAI_API_KEY is set"
    # With --quiet too: nobody should take this for a language model.
    return "offline", f"no --model and no OPENAI_API_KEY: using offline. {NOTICE}"


def _rlm(name: str, options: argparse.Namespace) -> "RLM":
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.records import Budget

    return RLM(
        _model(name, options.base_url),
        None if options.sub_model is None else _model(options.sub_model, options.base_url),
        max_iterations=options.max_iterations,
        max_depth=options.max_depth,
        max_parallel_calls=options.max_parallel,
        store_mode=options.store_mode,
        budget=Budget(
            max_calls=options.max_calls, max_tokens=options.max_tokens, max_cost=options.max_cost, max_seconds=options.max_seconds
        ),
        sandbox=options.sandbox,
        verbose=options.verbose,
        show_progress=not (options.quiet or options.verbose) and sys.stderr.isatty(),
    )


def _model(name: str, base_url: str | None) -> object:
    if base_url is None:
        return name
    if name == "offline":
        raise InputError("--base-url does not go with the model 'offline', which asks nobody")
    from rlm_integrations.lm.openai import OpenAILM

    return OpenAILM(name, base_url=base_url)


def _corpus(options: argparse.Namespace) -> "Corpus":
    """The files, and stdin, as one document."""
    from rlm_integrations.corpus import Corpus

    texts = [_stdin(options.encoding, options.errors) if file == "-" else Path(file) for file in options.files]
    return Corpus.build(texts if len(texts) > 1 else texts[0], encoding=options.encoding, errors=options.errors)


def _stdin(encoding: str, errors: str) -> str:
    if sys.stdin.isatty():
        _say("reading from the terminal; end with Ctrl-D")
    try:
        return sys.stdin.buffer.read().decode(encoding, errors)
    except LookupError as error:
        raise InputError(f"{error}: choose an encoding such as 'utf-8', and errors such as 'strict' or 'replace'") from error
    except UnicodeDecodeError as error:
        where = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,}"
        raise InputError(f"stdin is no {encoding} text: {where}; give its --encoding, or --errors replace") from error


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"--save {str(path)!r} cannot be written: name a file in a folder that exists")


def _readable(result: "RLMResult") -> str:
    """The answer, and below it a line for each citation: source, place, and the document's words as a JSON text."""
    lines = []
    for number, each in enumerate(result.citations, 1):
        file = f" ({each.metadata['file']})" if "file" in each.metadata else ""
        lines.append(f"[{number}] {each.source}{file} {each.start}-{each.end}: {json.dumps(each.quote, ensure_ascii=False)}")
    return "\n".join([str(result.answer), *([""] if lines else []), *lines])


def _price(result: "RLMResult") -> str:
    if set(result.spent.by_model) <= {"offline"}:
        return ""
    return ", cost unknown" if result.cost is None else f", ${result.cost:.4f}"


def _print(text: str) -> None:
    """Write to stdout whatever its encoding; a reader that has gone away is none of our concern."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(text, flush=True)  # noqa: T201 - this is a command
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is quiet
        if not isinstance(error, BrokenPipeError):
            raise


def _say(text: str) -> None:
    from rlm_integrations.engine.show import print_whole, printable

    if text:
        print_whole(f"rlm-integrations: {printable(text)}\n")


def _failed(text: str, code: int) -> int:
    _say(text)
    return code
