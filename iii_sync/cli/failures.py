"""How a command fails: one line on standard error, and an exit code that says what kind of failure it was."""

from __future__ import annotations

import os
import sys
from typing import Optional

import click

from ..errors import IIISyncError, InvocationError

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "CommandFailed",
    "UnreachableError",
    "let_go_of_output",
    "report",
    "visible",
]

FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 69  # EX_UNAVAILABLE of sysexits.h
INTERRUPTED = 130  # what a shell makes of SIGINT
OUTPUT_CLOSED = 141  # and of SIGPIPE

EXIT_CODES = f"""\
\b
exit codes:
  0    success
  {FAILED}    the function failed, or anything else did
  {WRONG_USAGE}    a wrong command line
  {UNREACHABLE}   no engine could be reached; nothing was called
  {INTERRUPTED}  Ctrl-C
  {OUTPUT_CLOSED}  whoever read standard output has left"""

#: Packages of the extras; without one of them a command says what to install.
_EXTRAS = ("aiohttp", "croniter", "tqdm")


class CommandFailed(Exception):
    """Something that a command noticed by itself; the message is for the user."""


class UnreachableError(CommandFailed):
    """No engine could be reached, before anything was called."""


def visible(text: str) -> str:
    """Return text from elsewhere so that a terminal shows it: what would steer the terminal is escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _described(error: BaseException) -> Optional[str]:
    """Return an error in one line; ``None`` for what is a bug and deserves its traceback."""
    if isinstance(error, click.UsageError):
        where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        text = error.format_message() + where
    elif isinstance(error, ImportError):
        if error.name not in _EXTRAS:
            return None
        text = str(error)
    elif isinstance(error, OSError) and not isinstance(error, IIISyncError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    elif isinstance(error, (IIISyncError, OSError, CommandFailed)):
        text = str(error)
    else:
        return None
    return visible(" ".join(text.split())) or type(error).__name__


def _exit_code(error: BaseException) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, click.UsageError):
        return WRONG_USAGE
    return UNREACHABLE if isinstance(error, UnreachableError) else FAILED


def report(error: BaseException, *, verbose: bool = False) -> int:
    """Say what went wrong and return the exit code; re-raises what is a bug.

    Args:
        error: What a command has raised.
        verbose: Also show the remote function's traceback, if there is one.
    """
    text = _described(error)
    if text is None:
        raise error
    print(f"iii-sync: {text}", file=sys.stderr)
    if verbose and isinstance(error, InvocationError) and error.stacktrace:
        print("\n".join(map(visible, error.stacktrace.expandtabs().splitlines())), file=sys.stderr)
    return _exit_code(error)


def let_go_of_output() -> int:
    """Nobody reads standard output any more: drop what is still on its way there, and return the exit code."""
    # Else the interpreter tries to flush it at the end, and complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OUTPUT_CLOSED
