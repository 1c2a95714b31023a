"""The commands, and what all of them have in common: help, errors in one line, exit codes.

An exit code is 0 for success, 1 for an error, 2 for a wrong command line, and 130 after Ctrl-C (of the
engine it is 0, for that is how one ends it).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Optional

from .._version import __version__
from ..engine import main as engine
from ..errors import IIISyncError
from . import demo, info

__all__ = ["main"]

_EXTRAS = ("aiohttp", "tqdm")

_EPILOG = """\
examples:
  python -m iii_sync engine            run an engine on ws://127.0.0.1:49134
  python -m iii_sync demo              stream 1 GiB to another process and back
"""

_ENGINE_EPILOG = """\
example:
  python -m iii_sync engine --port 5000 &
  III_URL=ws://127.0.0.1:5000 python my_worker.py
"""

_DEMO_EPILOG = """\
examples:
  python -m iii_sync demo --size 100MiB
  III_URL=ws://engine.example:49134 python -m iii_sync demo photos.tar
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: The arguments; default: those of the process.

    Raises:
        SystemExit: For ``--help`` and ``--version``, and with 2 for arguments that make no sense.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    log = logging.getLogger("iii_sync.worker")
    level = log.level
    log.setLevel(logging.ERROR)  # what the commands have to say they say themselves
    try:
        status: int = arguments.run(arguments)
        return status
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        if error.name not in _EXTRAS:
            raise
        return _failed(error)
    except (IIISyncError, OSError, demo.DemoFailed) as error:
        return _failed(error)
    finally:
        log.setLevel(level)


def _parser() -> argparse.ArgumentParser:
    parser = _with_epilog(
        argparse.ArgumentParser(
            prog="python -m iii_sync", description="The command line of iii_sync, the synchronous iii client."
        ),
        _EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"iii_sync {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    text = "run the local engine in the foreground, until Ctrl-C"
    command = _with_epilog(commands.add_parser("engine", help=text, description=text), _ENGINE_EPILOG)
    engine.add_arguments(command)
    command.set_defaults(run=engine.main)

    text = "stream data to another process and back, and check every byte"
    command = _with_epilog(commands.add_parser("demo", help=text, description=demo.DESCRIPTION), _DEMO_EPILOG)
    demo.add_arguments(command)
    command.set_defaults(run=demo.main)

    command = commands.add_parser("info", help=info.DESCRIPTION, description=info.DESCRIPTION)
    command.set_defaults(run=info.main)
    return parser


def _with_epilog(parser: argparse.ArgumentParser, epilog: str) -> argparse.ArgumentParser:
    parser.epilog = epilog
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _failed(error: BaseException) -> int:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    print("iii_sync:", " ".join(text.split()) or type(error).__name__, file=sys.stderr)
    return 1
