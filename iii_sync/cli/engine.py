"""``iii-sync engine``: the local engine in the foreground."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Optional

import click

if TYPE_CHECKING:
    from ..engine.guard import Guard

__all__ = ["command"]

_EPILOG = """\
\b
example:
  python -m iii_sync engine --port 5000 &
  III_URL=ws://127.0.0.1:5000 python my_worker.py
"""


class _GuardType(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in newer versions only
    name = "json"

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Guard:
        from ..engine.guard import Guard

        try:
            return Guard.from_json(json.loads(value))
        except (ValueError, RecursionError) as error:
            self.fail(f"{error}: {value:.200}", param, ctx)


@click.command("engine", epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=49134, show_default=True, help="0 for any.")
@click.option(
    "--http-port", type=click.IntRange(0, 65535), help="Port to serve HTTP triggers on, 0 for any.  [default: none]"
)
@click.option(
    "--stream-port", type=click.IntRange(0, 65535), help="Port for consumers of streams, 0 for any.  [default: none]"
)
@click.option(
    "--guard",
    type=_GuardType(),
    metavar="JSON",
    help='A second listener that asks who may come in, as an object: {"port": 49135, "auth_function_id": '
    '"guard::auth", "expose_functions": ["open::*"]}; see LocalEngine for all keys.',
)
@click.option("--exit-with-parent", is_flag=True, hidden=True)  # for LocalEngine(in_process=False) only
def command(
    host: str,
    port: int,
    http_port: Optional[int],
    stream_port: Optional[int],
    guard: Optional[Guard],
    exit_with_parent: bool,
) -> int:
    """Run the local engine until Ctrl-C.

    It keeps everything in memory, and is for first steps and tests. Ctrl-C and SIGTERM end it, with the exit code 0.
    """
    from ..engine.main import run

    return run(host, port, exit_with_parent, http_port, stream_port=stream_port, guard=guard)
