"""The parser of a command: help with examples, errors in one line, options that print and exit."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

from rlm_integrations.cli import exit_codes
from rlm_integrations.cli.output import print_text, say


class Parser(argparse.ArgumentParser):
    """The parser of a command, or of a group of commands.

    Args:
        options: Those of `ArgumentParser`.

    Attributes:
        commands: The commands of a group, by name.
        examples: Command lines that its help ends with.
        notes: A text after them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self.commands: Mapping[str, Parser] = {}
        self.examples: tuple[str, ...] = ()
        self.notes = ""

    @property
    def path(self) -> str:
        """The words of the command, such as "storage check"; "" for the whole command line."""
        return self.prog.partition(" ")[2]

    @property
    def actions(self) -> Sequence[argparse.Action]:
        """All options and arguments."""
        return self._actions

    def add_commands(self, dest: str) -> Any:
        """Make it a group, and return what commands are added to. Without a command the group
        prints its help on stderr.
        """
        added = self.add_subparsers(dest=dest, metavar=dest.upper())
        self.commands = cast("Mapping[str, Parser]", added.choices)
        self.set_defaults(run=self._without_command)
        return added

    def _without_command(self, _: argparse.Namespace) -> int:
        self.print_help(sys.stderr)
        return exit_codes.BAD_INPUT

    def format_help(self) -> str:
        """The help, with examples and notes."""
        title = "example" if len(self.examples) == 1 else "examples"
        lines = "".join(f"  rlm-integrations {each}\n" for each in self.examples)
        parts = [super().format_help(), f"{title}:\n{lines}" if lines else "", self.notes]
        return "\n".join(filter(None, parts))

    def print_help(self, file: Any = None) -> None:
        """Print the help, also into a pipe that is closed."""
        if file is None:
            print_text(self.format_help().rstrip("\n"))
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and exit."""
        say(f"{message}; see `{self.prog} --help`")
        raise SystemExit(exit_codes.BAD_INPUT)


class PrintAndExit(argparse.Action):
    """An option that prints a text and exits, whatever else there is.

    Args:
        make: Makes the text, from the parser and the value of the option.
        options: Those of `Action`.
    """

    def __init__(self, make: Callable[[Parser, Any], str], **options: Any) -> None:
        super().__init__(**{"nargs": 0, "dest": argparse.SUPPRESS, **options})
        self._make = make

    def __call__(self, parser: Any, _: Any, values: Any, __: Any = None) -> NoReturn:
        """Print the text, and exit."""
        if text := self._make(parser, values):
            print_text(text)
        raise SystemExit(exit_codes.ANSWERED)


def commands_of(parser: Parser) -> list[Parser]:
    """All commands below a parser, groups left out, in the order of the help."""
    if not parser.commands:
        return [parser]
    return [leaf for each in parser.commands.values() for leaf in commands_of(each)]
