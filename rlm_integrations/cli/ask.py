"""The command line: `rlm-integrations ask FILE… "question"`.

The answer goes to stdout, everything else to stderr.
"""

import argparse
import io
import json
import os
import re
import stat
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_integrations.errors import (
    InputError,
    MissingExtraError,
    ModelError,
    RLMError,
    SandboxError,
)

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.engine.rlm import RLM
    from rlm_integrations.events import Event
    from rlm_integrations.lm.openai import OpenAILM
    from rlm_integrations.result import RLMResult

# With a key and without --model: it writes code well enough, and costs little
DEFAULT_MODEL = "gpt-5-mini"

ANSWERED, FAILED, BAD_INPUT, STOPPED, MODEL_ERROR, SANDBOX, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
_BY_STOP = {
    "final": ANSWERED,
    "model_error": MODEL_ERROR,
    "sandbox_lost": SANDBOX,
    "cancelled": INTERRUPTED,
}

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

# What the library says of its own options, in the words of this command.
_OPTIONS = {
    "max_parallel_calls": "--max-parallel",
    "max_cost": "--max-cost",
    "max_tokens": "--max-tokens",
    "max_calls": "--max-calls",
}
_IN_OUR_WORDS = [
    (
        re.compile(r"pass the encoding that it has, or errors='replace'"),
        "give its --encoding, or --errors replace",
    ),
    (
        re.compile(r"choose an encoding such as 'utf-8', and errors such as"),
        "choose an --encoding such as utf-8, and --errors such as",
    ),
    (
        re.compile(r"pass its files, such as sorted\(Path\(('.*')\)\.glob\('\*\.txt'\)\)"),
        r"name its files",
    ),
    (
        re.compile(
            r"pass api_key=…, set OPENAI_API_KEY, or use the model 'offline', which needs none"
        ),
        "set OPENAI_API_KEY, or use --model offline",
    ),
    (re.compile(r"read it yourself and pass what it says"), "name a file or a pipe"),
    (re.compile(r": pass the key as api_key"), ": set OPENAI_API_KEY"),
    (re.compile(r"\ba base_url\b"), "a --base-url"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    try:
        return _ask(_arguments(argv))
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except (InputError, MissingExtraError) as error:
        return _failed(_in_our_words(str(error)), BAD_INPUT)
    except ModelError as error:
        return _failed(str(error), MODEL_ERROR)
    except SandboxError as error:
        return _failed(str(error), SANDBOX)
    except (RLMError, OSError) as error:
        return _failed(str(error), FAILED)


def parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser of the whole command line, and the one of `ask`."""
    whole = argparse.ArgumentParser(
        prog="rlm-integrations",
        description="Ask a question over documents that no model's window holds.",
        allow_abbrev=False,
    )
    whole.add_argument(
        "--version", action="version", version=f"%(prog)s {version('rlm-integrations')}"
    )
    ask = whole.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser(
        "ask",
        help="answer a question over one or several files",
        description="Answer a question over files. The answer and its citations go to stdout, all else to stderr.",
        usage='%(prog)s FILE [FILE ...] "QUESTION" [options]',
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    ask.add_argument(
        "words",
        nargs="+",
        metavar="FILE … QUESTION",
        help="text files, pipes such as <(…), '-' for stdin, and last the question",
    )
    models = ask.add_argument_group("models")
    models.add_argument(
        "--model",
        metavar="NAME",
        help=f"who writes code; by default {DEFAULT_MODEL} with OPENAI_API_KEY, else offline",
    )
    models.add_argument(
        "--sub-model", metavar="NAME", help="whom the code asks; by default the same"
    )
    models.add_argument(
        "--base-url", metavar="URL", help="where both are served, such as http://localhost:11434/v1"
    )
    budget = ask.add_argument_group("budget")
    budget.add_argument("--max-calls", type=_count, metavar="N", help="calls to models")
    budget.add_argument("--max-tokens", type=_count, metavar="N", help="tokens, read and written")
    budget.add_argument("--max-cost", type=_amount, metavar="USD", help="US dollars")
    budget.add_argument("--max-seconds", type=_amount, metavar="S", help="wall time")
    run = ask.add_argument_group("run")
    run.add_argument(
        "--max-iterations",
        type=_count,
        default=20,
        metavar="N",
        help="turns of the model that writes code (%(default)s)",
    )
    run.add_argument(
        "--max-depth",
        type=_count,
        default=1,
        metavar="N",
        help="levels of runs (%(default)s: children are plain calls)",
    )
    run.add_argument(
        "--max-parallel", type=_count, default=10, metavar="N", help="calls at once (%(default)s)"
    )
    run.add_argument(
        "--store-mode",
        choices=["shared", "none"],
        default="shared",
        help="whether code has a store (%(default)s)",
    )
    run.add_argument(
        "--sandbox",
        choices=["process", "inprocess"],
        default="process",
        help="where code runs (%(default)s)",
    )
    files = ask.add_argument_group("files")
    files.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="of the files (%(default)s)"
    )
    files.add_argument(
        "--errors",
        default="strict",
        metavar="HOW",
        help="bytes that are no text: strict, replace … (%(default)s)",
    )
    output = ask.add_argument_group("output")
    output.add_argument(
        "--json",
        action="store_true",
        help="the whole result as JSON on stdout, also of a run that fails",
    )
    output.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the whole result to a file as JSON, also of a run that fails",
    )
    loud = output.add_mutually_exclusive_group()
    loud.add_argument(
        "--verbose", action="store_true", help="show each turn with its code and output"
    )
    loud.add_argument("--quiet", action="store_true", help="show errors only")
    return whole, ask


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return number


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"a number greater than 0 is needed, not {text!r}")
    return number


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the user wrote.

    Options may stand between the words, for which argparse takes what follows as unknown.
    """
    whole, ask = parsers()
    options, more = whole.parse_known_args(argv)
    if unknown := [word for word in more if word.startswith("-") and word != "-"]:
        ask.error(f"there is no option {unknown[0]} (a word that begins with '-' goes after '--')")
    words: list[str] = [*options.words, *more]
    options.files, options.question = words[:-1], _text(words[-1])
    if not options.files:
        ask.error("a file and a question are needed")
    if options.files.count("-") > 1:
        ask.error("stdin ('-') can be read once")
    return options


def _ask(options: argparse.Namespace) -> int:
    from rlm_integrations.engine.show import shortened, summary

    if not options.question.strip():
        raise InputError("the question is empty")
    if options.save is not None:
        _check_writable(options.save)
    name, told = _named(options)
    last = _Last()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rlm = _rlm(name, options, last)
    with _corpus(options) as corpus:
        for each in [told, *(str(warning.message) for warning in caught)]:
            _say(each)
        try:
            result = rlm.completion(options.question, corpus)
        except BaseException as error:
            if last.result is not None:
                _give(last.result, options)
                if isinstance(error, KeyboardInterrupt) and not options.quiet:
                    _say(f"{summary(last.result)}{_price(last.result)}")
            raise
    code = _BY_STOP.get(result.stop_reason, STOPPED)
    _give(result, options)
    if code in {MODEL_ERROR, SANDBOX}:
        _say(
            f"{result.stop_reason}: {shortened(result.error or 'no reason is known')}; what there is may be no answer"
        )
    if code == STOPPED and not options.quiet:
        found = (
            "this is the best answer so far" if result.answer else "nothing was found until then"
        )
        _say(f"stopped by a limit ({result.stop_reason}); {found}")
    if result.dropped_citations and not options.quiet:
        _say(
            f"{result.dropped_citations} of the model's citations were not found in the document, and are not shown"
        )
    if not options.quiet:
        _say(f"{summary(result)}{_price(result)}")
    return code


class _Last:
    """Keeps the result of a run, also of one that is interrupted or fails."""

    def __init__(self) -> None:
        self.result: RLMResult | None = None

    def __call__(self, event: "Event") -> None:
        """Take the result of the event that has one."""
        self.result = getattr(event, "result", None) or self.result


def _give(result: "RLMResult", options: argparse.Namespace) -> None:
    """Print what there is, and save it."""
    from rlm_integrations.engine.show import printable

    try:
        if options.json:
            _print(json.dumps(result.to_dict()))
        elif result.answer or result.citations:
            text = _readable(result)
            _print(printable(text) if sys.stdout.isatty() else text)
    finally:
        if options.save is not None:
            result.save(options.save)


def _named(options: argparse.Namespace) -> tuple[str, str]:
    """The model's name, and what is to be said about it."""
    from rlm_integrations.lm.offline import NOTICE

    if options.model is not None:
        return options.model, NOTICE if options.model == "offline" and not options.quiet else ""
    if options.base_url is not None:
        raise InputError("--base-url needs --model: the name of a model that is served there")
    if os.environ.get("OPENAI_API_KEY", "").strip():
        return (
            DEFAULT_MODEL,
            ""
            if options.quiet
            else f"no --model: asking {DEFAULT_MODEL}, because OPENAI_API_KEY is set",
        )
    # With --quiet too: nobody should take this for a language model.
    return "offline", f"no --model and no OPENAI_API_KEY: using offline. {NOTICE}"


def _rlm(name: str, options: argparse.Namespace, last: _Last) -> "RLM":
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
            max_calls=options.max_calls,
            max_tokens=options.max_tokens,
            max_cost=options.max_cost,
            max_seconds=options.max_seconds,
        ),
        sandbox=options.sandbox,
        verbose=options.verbose,
        on_event=last,
        show_progress=not (options.quiet or options.verbose) and sys.stderr.isatty(),
    )


def _model(name: str, base_url: str | None) -> "str | OpenAILM":
    if base_url is None:
        return name
    if name == "offline":
        raise InputError("--base-url does not go with the model 'offline', which asks nobody")
    from rlm_integrations.lm.openai import OpenAILM

    return OpenAILM(name, base_url=base_url)


def _corpus(options: argparse.Namespace) -> "Corpus":
    """The files, and stdin, as one document."""
    from rlm_integrations.corpus import Corpus

    # A mark at the start of a UTF-8 file says how it is encoded, and is no part of the text.
    encoding = (
        "utf-8-sig" if options.encoding.lower() in {"utf-8", "utf8", "utf_8"} else options.encoding
    )
    texts = [_document(file, encoding, options.errors) for file in options.files]
    corpus = Corpus.build(
        texts if len(texts) > 1 else texts[0], encoding=encoding, errors=options.errors
    )
    empty = [
        _shown(file)
        for file, source in zip(options.files, corpus.sources, strict=True)
        if not source.length
    ]
    if len(empty) == len(options.files):
        corpus.close()
        raise InputError(f"{', '.join(empty)}: there is no text in it")
    for each in empty:
        _say(f"{each} is empty")
    return corpus


@dataclass(frozen=True)
class _Piped:
    """What came through a pipe, as a document."""

    text: str
    metadata: Mapping[str, str]


def _document(file: str, encoding: str, errors: str) -> object:
    """A path, or what a pipe gives: a process substitution such as <(zcat archive.gz) is one."""
    if file == "-":
        if sys.stdin.isatty():
            _say("reading from the terminal; end with Ctrl-D")
        return _decoded(sys.stdin.buffer.read(), "stdin", encoding, errors)
    path = Path(file)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return path  # which says what is wrong with it
    if not stat.S_ISFIFO(mode):
        return path
    return _Piped(_decoded(path.read_bytes(), repr(file), encoding, errors), {"file": path.name})


def _decoded(data: bytes, name: str, encoding: str, errors: str) -> str:
    try:
        return data.decode(encoding, errors)
    except LookupError as error:
        raise InputError(
            f"{error}: choose an --encoding such as utf-8, and --errors such as strict or replace"
        ) from error
    except UnicodeDecodeError as error:
        where = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,}"
        named = encoding.removesuffix("-sig")
        raise InputError(
            f"{name} is no {named} text: {where}; give its --encoding, or --errors replace"
        ) from error


def _text(word: str) -> str:
    """A word of the command line. Where the locale is "C", Python has not decoded it."""
    try:
        return os.fsencode(word).decode()
    except UnicodeError as error:
        raise InputError(f"the question is no UTF-8 text: {word!r}") from error


def _shown(file: str) -> str:
    """A file's name on one line, whatever there is in it."""
    from rlm_integrations.engine.show import printable

    return (
        printable(os.fsencode(file).decode(errors="backslashreplace"))
        .replace("\n", "\\n")
        .replace("\t", "\\t")
    )


def _in_our_words(text: str) -> str:
    for pattern, ours in _IN_OUR_WORDS:
        text = pattern.sub(ours, text)
    text = re.sub(rf"\b({'|'.join(_OPTIONS)})\b", lambda found: _OPTIONS[found[1]], text)
    return text.replace(" utf-8-sig text", " utf-8 text")


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(
            f"--save {str(path)!r} cannot be written: name a file in a folder that exists"
        )


def _readable(result: "RLMResult") -> str:
    """The answer, and below it a line for each citation: source, place, and the document's words as
    a JSON text.
    """
    lines = []
    for number, each in enumerate(result.citations, 1):
        file = f" ({_shown(str(each.metadata['file']))})" if "file" in each.metadata else ""
        lines.append(
            f"[{number}] {each.source}{file} {each.start}-{each.end}: {json.dumps(each.quote, ensure_ascii=False)}"
        )
    return "\n".join([str(result.answer), *([""] if lines else []), *lines])


def _price(result: "RLMResult") -> str:
    if set(result.spent.by_model) <= {"offline"}:
        return ""
    return ", cost unknown" if result.cost is None else f", ${result.cost:.4f}"


def _print(text: str) -> None:
    """Write to stdout whatever its encoding; a reader that has gone away is none of our concern."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The locale "C" says nothing of the encoding; ASCII that was asked for is kept.
        is_unsaid = sys.stdout.encoding.lower() in {
            "ascii",
            "ansi_x3.4-1968",
        } and not os.environ.get("PYTHONIOENCODING")
        sys.stdout.reconfigure(encoding="utf-8" if is_unsaid else None, errors="backslashreplace")
    try:
        print(text, flush=True)  # noqa: T201 - this is a command
    except OSError as error:
        # So that the interpreter's last flush is quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def _say(text: str) -> None:
    from rlm_integrations.engine.show import print_whole, printable

    if text:
        print_whole(f"rlm-integrations: {printable(text)}\n")


def _failed(text: str, code: int) -> int:
    _say(text)
    return code
