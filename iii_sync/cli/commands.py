"""The commands, and what all of them have in common: help, errors in one line, exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Optional

import click

from .._version import __version__
from ..errors import IIISyncError
from .failures import EXIT_CODES, INTERRUPTED, let_go_of_output, report
from .options import is_verbose

__all__ = ["COMMANDS", "run"]

#: In the order of the help; each is a module with this name here, whose ``command`` it is.
COMMANDS = ("engine", "demo", "call", "send", "get", "serve", "functions", "info")

_EPILOG = f"""\
\b
examples:
  python -m iii_sync engine             run an engine on ws://127.0.0.1:49134
  python -m iii_sync demo               stream 1 GiB to another process and back
  iii-sync functions                    what can be called
  iii-sync call greetings::hello '{{"name": "iii"}}'
  iii-sync send files::store photos.tar
  iii-sync get files::fetch -o photos.tar

{EXIT_CODES}

\b
environment:
  III_URL        the engine's address (default: ws://127.0.0.1:49134)
  III_TOKEN      sent to the engine as a bearer token; no option, for every user can see the options
  III_NAMESPACE  where functions live, unless the engine's default namespace

\b
completion:
  bash, zsh  eval "$(_III_SYNC_COMPLETE=bash_source iii-sync)", with zsh_source in zsh
  fish       _III_SYNC_COMPLETE=fish_source iii-sync | source
"""


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Imports a command when it is asked for; turns what goes wrong in it into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def invoke(self, ctx: click.Context) -> int:
        try:
            status: Optional[int] = super().invoke(ctx)
            sys.stdout.flush()
            return status or 0
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError as error:
            # Of a channel it is an error like any other; of standard output it is how `| head` ends.
            return report(error, verbose=is_verbose()) if isinstance(error, IIISyncError) else let_go_of_output()
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            return report(error, verbose=is_verbose())


@click.command(cls=_Commands, invoke_without_command=True, epilog=_EPILOG, context_settings=_SETTINGS)
@click.version_option(__version__, message=f"iii_sync {__version__}")
@click.pass_context
def commands(ctx: click.Context) -> Any:
    """The command line of iii_sync, the synchronous client for iii."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def run(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return its exit code.

    Raises:
        SystemExit: For a shell that asks what could come next.
    """
    try:
        arguments = None if argv is None else list(argv)
        status = commands.main(arguments, prog_name="iii-sync", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:  # found before any command was run
        return report(error)
