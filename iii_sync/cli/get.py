"""``iii-sync get``: what a function writes through a channel, into a file or to standard output."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from functools import partial
from typing import IO, Any, Optional

import click

from ..signals import terminating
from . import options
from .connecting import connected
from .jsontext import payload_argument, print_json, read_object
from .pieces import PIECE
from .progress import progress_bar, terminal_can_show_bars
from .replacing import replacing

__all__ = ["command"]

_EPILOG = """\
\b
examples:
  iii-sync get reports::yearly '{"year": 2026}' -o report.csv
  iii-sync get archive::fetch | tar -xz
"""

#: What tells a process to end: whoever stops it, and the terminal that goes.
_ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@click.command("get", epilog=_EPILOG)
@options.function
@payload_argument
@click.option("-o", "--output", metavar="FILE|-", default="-", help="Where it goes.  [default: standard output]")
@options.key
@options.url
@options.namespace
@options.timeout("none")
@options.quiet
@options.verbose
def command(
    function: str,
    payload: Optional[str],
    output: str,
    key: Optional[str],
    url: Optional[str],
    namespace: Optional[str],
    timeout: Optional[float],
    quiet: bool,
) -> None:
    """Stream what FUNCTION writes into a file, or to standard output.

    The payload is a JSON object, '-' reads it from standard input. The stream is added to it: as "writer", or under the
    name that --key gives.

    The file appears, or replaces the one that was there, when the stream is complete and the function has returned.
    Until then it has another name, FILE.*.part, and goes when anything fails: a stream that was cut never leaves a file
    that looks whole. Standard output has had what came before the cut; then the exit code tells. With -o, what the
    function returns is printed, unless it is null.
    """
    key = key or "writer"
    value = read_object(payload, key)
    to_file = output != "-"
    shown = not quiet and (to_file or not sys.stdout.isatty()) and terminal_can_show_bars("cli")
    with contextlib.ExitStack() as stack:
        for number in _ENDS:
            stack.enter_context(terminating(partial(_end, number), number))
        target = stack.enter_context(replacing(output) if to_file else _standard_output())
        worker = stack.enter_context(connected(url))
        title = os.path.basename(output) if to_file else function
        advance = stack.enter_context(progress_bar(title, None, shown, leave=True))
        view = memoryview(bytearray(PIECE))
        with worker.open(function, "rb", value, key=key, namespace=namespace, timeout=timeout) as source:
            while True:
                count = source.readinto1(view)
                if not count:
                    break
                target.write(view[:count])
                target.flush()
                advance(count)
            marked = source.raw.complete  # type: ignore[attr-defined]
    if not marked:
        # Its function has returned, so it is probably whole; that is all that can be said.
        print(f"iii-sync: {function} does not mark the end of its stream: a cut would look the same", file=sys.stderr)
    if to_file and source.result is not None:
        print_json(source.result)


def _standard_output() -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(sys.stdout.buffer)


def _end(number: int) -> Any:
    """Let signals, too, take away the file that is not whole."""
    raise SystemExit(128 + number)  # as a shell tells it
