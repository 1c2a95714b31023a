"""websocket-client as it is, one message a piece."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from .. import loops
from ..child import Line, Task


def run(task: Task, line: Line) -> None:
    """Do the task."""
    connect = importlib.import_module("websocket").create_connection
    sockets = [connect(f"{task.url}/bench") for _ in task.refs]
    if task.what == "write":
        loops.write(task, line, [loops.Writer(each.send_binary, each.close) for each in sockets])
    else:
        loops.read(task, line, [_chunks(each) for each in sockets])


def _chunks(sock: Any) -> Iterator[loops.Chunk]:
    while True:
        data = sock.recv()  # empty at the end, and for an empty message: there are none here
        if not data:
            return
        yield data
