"""Reports wrong usage, which Typer detects, in the same form as all other errors: a single line on stderr."""

from __future__ import annotations

import re
import sys
from shutil import get_terminal_size
from typing import Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from captum_scorecam._messages import closest_matches
from captum_scorecam.command_line.messages import one_line

_UsageError: Any = typer.BadParameter.__mro__[1]  # Typer does not export this base class

_REWORDED = (
    (r"^Invalid value for '[^']+': (Expected .*)$", r"\1"),
    (r"^Invalid value for '([^']+)': .* integer, .*$", r"Expected `\1` to be a whole number."),
    (r"^Invalid value for '([^']+)': .* valid number, .*$", r"Expected `\1` to be a number."),
    (
        r"^Invalid value for '([^']+)': Input should be greater than or equal to (.*)$",
        r"Expected `\1` to be at least \2.",
    ),
    (r" \(Possible options: (.*)\)$", r". Closest matches: \1."),
    (r"'(--?[\w-]+)'", r"`\1`"),
)
_NOT_A_CHOICE = re.compile(r"Invalid value for '(.+?)': (?:Value error, )?(['\"])(.*)\2 is not one of (.*?)\.?")


_NARROW = 80  # columns


def _markup_mode() -> Literal["rich"] | None:
    return "rich" if get_terminal_size().columns >= _NARROW else None


class Commands(TyperGroup):
    """The commands; wrong usage ends with a single line and status 2."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Same as Typer's, but plain text on a narrow terminal, where tables would cut options."""
        self.rich_markup_mode = _markup_mode()
        formatter.width = max(formatter.width, _NARROW)  # else the commands' descriptions are cut
        super().format_help(ctx, formatter)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Same as Typer's, except for the form of errors."""
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        try:
            status = super().main(*args, **(extra | {"standalone_mode": False}))
        except _UsageError as error:
            if type(error).__name__ != "NoArgsIsHelpError":  # Typer does not export it
                typer.echo(f"Error: {_line(error)}", err=True)
            elif help_text := error.format_message():  # empty if it is printed already
                typer.echo(help_text)
            sys.exit(error.exit_code)
        sys.exit(status or 0)


class Command(TyperCommand):
    """A command that accepts no empty values, which mostly come from unset variables of a shell.

    An empty path would mean the current directory.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Same as Typer's, but plain text on a narrow terminal, where tables would cut options."""
        self.rich_markup_mode = _markup_mode()
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Same as Typer's, except that empty values are wrong usage."""
        for before, value in zip([ctx.info_name, *args], args, strict=False):
            if not value or (value.startswith("--") and value.endswith("=")):
                raise _UsageError(f"Expected no empty values, but got one after `{value.rstrip('=') or before}`.", ctx)
        return super().parse_args(ctx, args)


def _line(error: Any) -> str:
    text = one_line(error.format_message())
    if choice := _NOT_A_CHOICE.fullmatch(text):
        option, _, value, quoted = choice.groups()
        choices = quoted.replace("'", "")
        closest = closest_matches(value, choices.split(", "))
        text = f"Expected `{option}` to be one of {choices}, but got {value!r}.{closest}"
    for pattern, replacement in _REWORDED:
        text = re.sub(pattern, replacement, text)
    if not text.endswith((".", "?")):
        text += "."
    return f"{text} See {error.ctx.command_path} --help." if error.ctx else text
