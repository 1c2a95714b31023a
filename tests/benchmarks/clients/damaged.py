"""A client that writes one wrong bit a piece, to show that the verification would notice."""

from __future__ import annotations

import importlib
from typing import Any

from .. import loops
from ..child import Line, Task


def run(task: Task, line: Line) -> None:
    """Do the task, badly."""
    sock: Any = importlib.import_module("websocket").create_connection(f"{task.url}/bench")
    loops.write(
        task, line, [loops.Writer(lambda piece: sock.send_binary(bytes([piece[0] ^ 1]) + piece[1:]), sock.close)]
    )
