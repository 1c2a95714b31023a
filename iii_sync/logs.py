"""A handler of :mod:`logging` that sends records to the engine's log.

::

    logging.getLogger().addHandler(EngineLogHandler(worker, level=logging.INFO))

The logging program never waits for the engine. Records go into a queue of limited length; a thread of the worker sends
them, one void call each, while there is a connection. What comes in while the queue is full is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import Any, Optional

from .errors import ConfigurationError, IIISyncError, InvalidPayloadError
from .net.waiting import Condition, Deadline
from .request import TriggerAction
from .tracing import current_ids
from .wire import messages
from .worker import Worker

__all__ = ["EngineLogHandler"]

#: Characters of a line; a longer one is cut.
_LONGEST = 64 * 1024

#: Seconds that sending one record may take, and that ``flush()`` waits.
_SEND_TIMEOUT = 5.0
_FLUSH_TIMEOUT = 2.0

#: What every record has; anything else was given with ``extra=``.
_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_sending = threading.local()


class EngineLogHandler(logging.Handler):
    """Sends records to the engine's log, where functions with the trigger type ``log`` hear of them.

    A record's line is what the formatter makes of it, with its traceback. Beside it go the logger's name, the level,
    the place in the source, the thread, and what was given with ``extra=``; and the ids of the current trace and span.
    Records of ``iii_sync`` itself are left out: sending them would make new ones.

    What is logged before ``worker.shutdown()`` is sent by it, within its timeout. :meth:`close`,
    which ``logging.shutdown`` calls at the end of the process, waits at most two seconds for what is still to be sent.
    In a forked child, and after the worker's end, records are dropped and counted. A function that is called for log
    lines must not log through this handler: each line would make the next.

    Args:
        worker: Sends them.
        level: Records below it are ignored.
        service_name: What the log says they are from. Default: the worker's name.
        capacity: Records that may wait; what comes in while there are so many is dropped.

    Attributes:
        dropped: How many records were not sent.
    """

    def __init__(
        self, worker: Worker, level: int = logging.NOTSET, *, service_name: Optional[str] = None, capacity: int = 1000
    ) -> None:
        if not isinstance(worker, Worker):
            raise TypeError(f"worker must be a Worker, not {type(worker).__name__}")
        if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
            raise ConfigurationError(f"capacity={capacity!r} must be a number of records above 0")
        if service_name is not None and not isinstance(service_name, str):
            raise ConfigurationError(f"service_name={service_name!r} must be text")
        super().__init__(level)
        self.dropped: int = 0
        self._pid = os.getpid()
        self._worker = worker
        self._service_name = service_name
        self._capacity = capacity
        self._queue: deque[tuple[str, dict[str, Any]]] = deque()
        self._lock = Condition()  # guards the queue, the counter, and who sends
        self._active = False  # whether a thread is sending
        self._remove_listener = worker.add_connection_state_listener(self._state_changed)

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record into the queue; one that finds it full is dropped and counted.

        Args:
            record: The record.

        Blocks: Never.
        Threads: Any.
        """
        if record.name.partition(".")[0] == "iii_sync" or getattr(_sending, "now", False):
            return
        try:
            item = (f"engine::log::{_level(record.levelno)}", self._line(record))
        except Exception:
            self.dropped += 1
            self.handleError(record)
            return
        if self._over():
            self.dropped += 1
            return
        with self._lock:
            if len(self._queue) >= self._capacity:
                self.dropped += 1
                return
            self._queue.append(item)
        self._start()

    def flush(self) -> None:
        """Wait until the queue is empty.

        Blocks: At most two seconds, and only while there is a connection.
        Threads: Any.
        """
        if self._over():
            return
        end = time.monotonic() + _FLUSH_TIMEOUT
        while True:
            with self._lock:
                remaining = end - time.monotonic()
                if not (self._queue or self._active) or remaining <= 0:
                    return
                if self._worker.get_connection_state() != "connected":
                    return
                self._lock.wait(min(remaining, 0.1))

    def close(self) -> None:
        """Send what is waiting, as far as :meth:`flush` does, and drop the rest.

        Blocks: Like :meth:`flush`.
        Threads: Any.
        """
        if not getattr(_sending, "now", False):
            self.flush()
        if os.getpid() == self._pid:  # in a forked child the locks may be held for good
            self._remove_listener()
            with self._lock:
                self.dropped += len(self._queue)
                self._queue.clear()
        super().close()

    def _over(self) -> bool:
        """Whether nothing will ever be sent any more."""
        return os.getpid() != self._pid or self._worker.get_connection_state() in ("disconnected", "failed")

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        extra = {_text(key): _sendable(value) for key, value in record.__dict__.items() if key not in _USUAL}
        line: dict[str, Any] = {
            "message": _text(self.format(record)),
            "data": {
                **extra,
                "logger": _text(record.name),
                "level": _text(record.levelname),
                "file": _text(record.pathname),
                "line": record.lineno,
                "function": _text(record.funcName),
                "thread": _text(record.threadName),
            },
            "service_name": _text(self._service_name or self._worker.worker_name),
        }
        ids = current_ids()
        if ids is not None:
            line["trace_id"], line["span_id"] = ids
        return line

    def _state_changed(self, state: str) -> None:
        if state == "connected":
            self._start()

    def _start(self) -> None:
        """Have a thread send, unless one does, or there is nobody to send to."""
        if self._worker.get_connection_state() != "connected":
            return
        with self._lock:
            if self._active or not self._queue:
                return
            self._active = True
        self._worker._pool.run_soon(self._send_all)

    def _send_all(self) -> None:
        """Send until the queue is empty or the connection gone. On a handler thread."""
        _sending.now = True
        try:
            while True:
                with self._lock:
                    if not self._queue or self._worker.get_connection_state() != "connected":
                        break
                    function_id, line = self._queue.popleft()
                message = messages.invoke_function(function_id, line, invocation_id=None, action=TriggerAction.Void())
                try:
                    # Not by trigger(): that refuses as soon as the worker is shutting down, which waits for this.
                    self._worker._session.call(function_id, message, [], Deadline(_SEND_TIMEOUT), answered=False)
                except (IIISyncError, OSError):
                    # Nobody can be told: telling is what has just failed.
                    with self._lock:
                        self.dropped += 1
        finally:
            _sending.now = False
            with self._lock:
                self._active = False
                self._lock.notify_all()
        self._start()  # a record, or a connection, may have come after the last look


def _level(number: int) -> str:
    if number < logging.DEBUG:
        return "trace"
    if number < logging.INFO:
        return "debug"
    if number < logging.WARNING:
        return "info"
    return "warn" if number < logging.ERROR else "error"


def _text(text: Any) -> str:
    return messages.sendable(text, _LONGEST)


def _sendable(value: Any) -> Any:
    """Return a value as JSON can carry it: as it is if it can, else what ``str()`` makes of it."""
    try:
        return messages.check(value, "extra")
    except InvalidPayloadError:
        return _text(value)
