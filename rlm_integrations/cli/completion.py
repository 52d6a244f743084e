"""Completion in shells: each asks the program itself, so that it never differs from the parser."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import Final

from rlm_integrations.cli.arguments import DEFAULT_STORAGE
from rlm_integrations.cli.output import one_line
from rlm_integrations.cli.parser import Parser
from rlm_integrations.errors import RLMError

# A line of the answer; the shell adds names of files
FILES: Final = ":files"
# What an argument is, by its name in the help
_FILES: Final = {"FILE", "FILE.zip", "FILE … QUESTION", "PLACE", "RUN", "STORE", "A", "B"}
_RUNS: Final = {"RUN_ID", "RUN", "STORE", "A", "B"}
_SHOWN_RUNS: Final = 100
_MEANING_CHARS: Final = 70

SCRIPTS: Final = {
    "bash": """\
_rlm_integrations() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o default -o filenames 2>/dev/null
            while IFS= read -r line; do
                COMPREPLY+=("$line")
            done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        else
            COMPREPLY+=("${line%%$'\\t'*}")
        fi
    done < <("$1" --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _rlm_integrations rlm-integrations""",
    "zsh": """\
#compdef rlm-integrations
_rlm_integrations() {
    local line files=
    local -a found
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            files=1
        else
            found+=("${${line//:/\\\\:}/$'\\t'/:}")
        fi
    done < <("${words[1]}" --complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    local -a kind
    [[ ${words[CURRENT]} == -* ]] && kind=(-o)
    (( $#found )) && _describe $kind rlm-integrations found
    [[ -n $files ]] && _files
}
if [[ $funcstack[1] == _rlm_integrations ]]; then
    _rlm_integrations "$@"
else
    compdef _rlm_integrations rlm-integrations
fi""",
    "fish": """\
function __rlm_integrations
    set -l words (commandline -opc)
    set -l part (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    for line in ($program --complete $words "$part" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$part"
        else
            printf '%s\\n' $line
        end
    end
end
complete -c rlm-integrations -f -a '(__rlm_integrations)'""",
}


def complete(whole: Parser, words: Sequence[str]) -> Iterator[str]:
    """What the last word may become, one a line: the word, a tab, and what it is. `FILES` stands
    for names of files.

    Args:
        whole: The parser of the command line.
        words: Those after the program's name. The last one is not complete.
    """
    *before, part = [word for word in words[:-1] if word != "="] + [words[-1].removeprefix("=")]
    parser, wanted = _place(whole, before)
    if part.startswith("-"):
        found = _options(parser)
    elif parser.commands and wanted is None:
        found = _commands(parser)
    else:
        found = _values(wanted, before)
    for value, meaning in found:
        if value == FILES:
            yield value
        elif value.startswith(part):
            yield f"{value}\t{shorten(one_line(meaning), _MEANING_CHARS, placeholder='…')}"


def _place(parser: Parser, words: Sequence[str]) -> tuple[Parser, argparse.Action | None]:
    """The command that the words name, and which argument comes after them."""
    option: argparse.Action | None = None
    arguments = 0
    for word in words:
        named = next((each for each in parser.actions if word in each.option_strings), None)
        if named is not None:
            option = None if named.nargs == 0 else named
        elif option is not None:
            option = option if option.nargs == "+" else None
        elif word in parser.commands:
            parser = parser.commands[word]
        else:
            arguments += 1
    if option is not None or parser.commands:
        return parser, option
    wanted = [each for each in parser.actions if not each.option_strings]
    if arguments >= len(wanted) and not (wanted and wanted[-1].nargs == "+"):
        return parser, None
    return parser, wanted[min(arguments, len(wanted) - 1)]


def _options(parser: Parser) -> Iterator[tuple[str, str]]:
    for each in parser.actions:
        if each.help != argparse.SUPPRESS:
            meaning = (each.help or "") % {**vars(each), "prog": parser.prog}
            yield from ((name, meaning) for name in each.option_strings)


def _commands(parser: Parser) -> Iterator[tuple[str, str]]:
    return ((name, _sentence(each)) for name, each in parser.commands.items())


def _sentence(parser: Parser) -> str:
    return (parser.description or "").partition(". ")[0].removesuffix(".")


def _values(wanted: argparse.Action | None, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What an argument may be."""
    if wanted is None:
        return
    if wanted.choices is not None:
        yield from ((str(each), "") for each in wanted.choices)
    if wanted.metavar in _RUNS:
        yield from _runs(words)
    if wanted.metavar in _FILES:
        yield FILES, ""


def _runs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The newest runs of the storage that the words name, if it is a folder."""
    place = dict(pairwise(words)).get("--storage", DEFAULT_STORAGE)
    if "--shared" in words or not Path(place).is_dir():
        return
    with suppress(RLMError, OSError):
        from rlm_integrations.storage import Storage

        with Storage(place) as storage:
            runs = storage.runs(limit=_SHOWN_RUNS)
        yield from ((run.run_id, run.question) for run in runs)
