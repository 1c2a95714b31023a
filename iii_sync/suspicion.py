"""The deadlock that everybody writes once: waiting for a function that waits for the waiting program's own stream."""

from __future__ import annotations

import logging
import weakref
from typing import Callable, Optional

from .calls import Call
from .channels.end import End
from .channels.refs import WRITE

__all__ = ["Suspicion"]

_log = logging.getLogger("iii_sync.worker")

#: After how many seconds of waiting it is said.
_AFTER = 5.0


class Suspicion:
    """That a call waits for what its own caller would only do afterwards.

    It holds neither the call nor the end: what nobody else holds any more is nobody's problem.

    Args:
        call: A call that carries one end of a channel.
        end: The other one, which is here.
        later: Calls something after some seconds.
    """

    def __init__(self, call: Call, end: End, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._call = weakref.ref(call)
        self._end = weakref.ref(end)
        self._later = later
        self._watching = False

    def watch(self) -> None:
        """A thread begins to wait for the call: say so in the log, once, if the suspicion stands in some seconds."""
        if self._watching or not self.text():
            return
        self._watching = True
        before = self._written()

        def say() -> None:
            call, text = self._call(), self.text()
            if call is not None and not call.done() and text and self._written() == before:
                _log.warning("%s has not answered yet; %s", call.function_id, text)

        self._later(_AFTER, say)

    def text(self) -> str:
        """Return what to do about it; nothing when the end was closed, or is read from."""
        end = self._end()
        if end is None or end.closed:
            return ""
        if end._is_idle():
            verb = "write to" if end.direction == WRITE else "read from"
            return (
                f"the function may be waiting for this process to {verb} channel {end.channel_id}: use submit() or "
                f"open() instead of trigger(), then {verb} it, then take the result"
            )
        if end.direction == WRITE:
            return (
                f"the function may be waiting for the end of channel {end.channel_id}, whose writer is still open "
                "here: close it, then take the result"
            )
        return ""

    def _written(self) -> Optional[int]:
        end = self._end()
        try:
            return None if end is None else end.tell()
        except ValueError:
            return None  # it is closed
