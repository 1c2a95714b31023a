"""A client that writes one wrong byte, to show that the verification would notice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import loops
from ..child import Line, Task
from . import websocket_client


class _Damaging(Line):
    def done(self, **result: Any) -> None:
        """Say the checksum of what should have been written."""
        super().done(**{**result, "crc": result["crc"] ^ 1})


def run(task: Task, line: Line) -> None:
    """Do the task, badly."""
    websocket_client.run(replace(task), _Damaging(task))


__all__ = ["loops", "run"]
