"""``iii-sync call``: one call of one function."""

from __future__ import annotations

from typing import Optional

import click

from . import options
from .connecting import connected
from .jsontext import payload_argument, print_json, read_payload

__all__ = ["command"]

_EPILOG = """\
\b
examples:
  iii-sync call greetings::hello '{"name": "iii"}'
  iii-sync call orders::price - < order.json
  iii-sync call state::get '{"scope": "orders", "key": "17"}' | jq .pieces
"""


@click.command("call", epilog=_EPILOG)
@options.function
@payload_argument
@options.url
@options.namespace
@options.timeout("30")
@options.verbose
def command(
    function: str, payload: Optional[str], url: Optional[str], namespace: Optional[str], timeout: Optional[float]
) -> None:
    """Call FUNCTION with a payload and print its result.

    The payload is JSON, '-' reads it from standard input, and without one the function gets null. The result is JSON,
    on a terminal with line breaks, else in one line.
    """
    value = read_payload(payload)
    with connected(url) as worker:
        result = worker.trigger(function, value, timeout=timeout, namespace=namespace)
    print_json(result)
