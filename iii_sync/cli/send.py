"""``iii-sync send``: a file, or standard input, through a channel into a function."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import IO, Any, Callable, Optional

import click

from iii_sync import Worker

from ..errors import ChannelBrokenError
from . import options
from .connecting import connected
from .jsontext import payload_argument, print_json, read_object
from .pieces import pieces_of, standard_input
from .progress import progress_bar, terminal_can_show_bars

__all__ = ["command"]

_EPILOG = """\
\b
examples:
  iii-sync send files::store report.csv '{"name": "report.csv"}'
  tar -cz photos | iii-sync send archive::store -
"""


@click.command("send", epilog=_EPILOG)
@options.function
@click.argument("file", metavar="FILE|-")
@payload_argument
@options.key
@options.url
@options.namespace
@options.timeout("none")
@options.quiet
@options.verbose
def command(
    function: str,
    file: str,
    payload: Optional[str],
    key: Optional[str],
    url: Optional[str],
    namespace: Optional[str],
    timeout: Optional[float],
    quiet: bool,
) -> None:
    """Stream FILE, or standard input for '-', into FUNCTION and print its result.

    The payload is a JSON object, '-' reads it from standard input. The stream is added to it: as "reader", or under the
    name that --key gives. Input arrives at the function as it comes, and memory use does not grow with it. If this
    command dies, the function notices that its stream was cut.
    """
    if file == payload == "-":
        raise click.UsageError("standard input can be the file or the payload, not both")
    key = key or "reader"
    value = read_object(payload, key)
    shown = not quiet and terminal_can_show_bars("cli")
    with contextlib.ExitStack() as stack:
        source, size = _open(stack, file)
        worker = stack.enter_context(connected(url))
        title = "standard input" if file == "-" else os.path.basename(file)
        advance = stack.enter_context(progress_bar(title, size, shown, leave=True))
        result = _send(worker, source, advance, function, value, key=key, namespace=namespace, timeout=timeout)
    print_json(result)


def _open(stack: contextlib.ExitStack, path: str) -> tuple[IO[bytes], Optional[int]]:
    """Open what is to be sent; return it with its size, if that is known."""
    if path == "-":
        file = standard_input()
    else:
        file = open(path, "rb", buffering=0)
    stack.enter_context(file)
    status = os.fstat(file.fileno())
    # Standard input may have been read from before.
    return file, max(0, status.st_size - file.tell()) if stat.S_ISREG(status.st_mode) else None


def _send(
    worker: Worker, source: IO[bytes], advance: Callable[[int], Any], function: str, payload: Any, **opening: Any
) -> Any:
    target = worker.open(function, "wb", payload, buffering=0, **opening)
    try:
        with target:
            for piece in pieces_of(source):
                target.write(piece)
                advance(len(piece))
    except ChannelBrokenError:
        call = target.call
        if not call.done() or call.cancelled() or call.exception(0) is not None:
            raise
        print(f"iii-sync: {function} has returned without reading everything", file=sys.stderr)
    return target.call.result(0)
