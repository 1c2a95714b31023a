"""The threads on which handlers and callbacks run.

Grows as long as every thread is busy, so that handlers which call each other never wait for a thread; the
thread that was used last is used next, so that the others become idle and end.

``_lock`` guards every field; it is never held while user code runs or while waiting, and is a leaf in the order of
:mod:`iii_sync.net.waiting`.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections import deque
from typing import Callable, Optional

from .net.waiting import Condition

__all__ = ["HandlerPool"]

_log = logging.getLogger("iii_sync.worker")

Task = Callable[[], None]


class HandlerPool:
    """Daemon threads, made on demand and retired when idle.

    Args:
        name: Beginning of the threads' names.
        max_threads: How many there may be.
        idle_timeout: Seconds after which a thread without work ends.
    """

    def __init__(self, name: str, max_threads: int, idle_timeout: float = 5.0) -> None:
        self._name = name
        self._max_threads = max_threads
        self._idle_timeout = idle_timeout
        self._lock = Condition()
        self._idle: dict[queue.SimpleQueue[Optional[Task]], None] = {}  # a mailbox a waiting thread, newest last
        self._backlog: deque[Task] = deque()
        self._threads: set[threading.Thread] = set()
        self._started = 0
        self._stopped = False

    def try_run(self, task: Task) -> bool:
        """Run ``task`` on a thread now; ``False`` when none is free and none can be made. Never waits for one."""
        with self._lock:
            return not self._stopped and self._dispatch(task)

    def run_soon(self, task: Task) -> None:
        """Run ``task`` on a thread, now or when one becomes free. Never waits."""
        with self._lock:
            if not self._dispatch(task):
                self._backlog.append(task)

    @property
    def threads(self) -> int:
        """How many threads there are, busy or idle."""
        with self._lock:
            return len(self._threads)

    def drain(self, timeout: float) -> bool:
        """Wait until no task is running, the caller's own left aside; at most ``timeout`` seconds."""
        end = time.monotonic() + timeout
        own = 1 if threading.current_thread() in self._threads else 0
        while True:
            with self._lock:
                if len(self._threads) - len(self._idle) <= own and not self._backlog:
                    return True
                remaining = end - time.monotonic()
                if remaining <= 0:
                    return False
                self._lock.wait(remaining)

    def stop(self) -> None:
        """Take no new tasks from :meth:`try_run`; idle threads end. Running tasks go on."""
        with self._lock:
            self._stopped = True
            for mailbox in self._idle:
                mailbox.put(None)
            self._idle.clear()

    def _dispatch(self, task: Task) -> bool:
        # Ctrl-C may hit between any two steps, and must leave neither a thread that waits for ever nor a wrong count:
        # so the task comes first, and whoever gets it sees to the rest.
        if self._idle:
            mailbox = next(reversed(self._idle))
            mailbox.put(task)
            self._idle.pop(mailbox, None)
            return True
        return len(self._threads) < self._max_threads and self._start(task)

    def _start(self, task: Task) -> bool:
        self._started += 1
        # Not as an argument of the thread: that would keep the task, and what it holds, as long as the thread.
        mailbox: queue.SimpleQueue[Optional[Task]] = queue.SimpleQueue()
        mailbox.put(task)
        thread = threading.Thread(target=self._work, args=(mailbox,), name=f"{self._name}-{self._started}", daemon=True)
        handled = sys.exc_info()[1]
        try:
            self._threads.add(thread)
            thread.start()
        except BaseException as exc:
            self._threads.discard(thread)  # if it runs all the same, it counts itself
            # Ctrl-C makes the Condition in start() raise a RuntimeError, too: then the thread has the task.
            if isinstance(exc, RuntimeError) and exc.__context__ is handled:
                return False
            raise
        return True

    def _work(self, mailbox: queue.SimpleQueue[Optional[Task]]) -> None:
        task = mailbox.get()
        with self._lock:
            self._threads.add(threading.current_thread())
        while task is not None:
            try:
                task()
            except BaseException:
                _log.exception("a callback failed")
            task = None  # let go of what it holds while waiting
            with self._lock:
                if self._backlog:
                    task = self._backlog.popleft()
                    continue
                if self._stopped:
                    break
                self._idle[mailbox] = None
                self._lock.notify_all()
            task = self._wait(mailbox)
        with self._lock:
            self._threads.discard(threading.current_thread())
            self._lock.notify_all()

    def _wait(self, mailbox: queue.SimpleQueue[Optional[Task]]) -> Optional[Task]:
        try:
            task = mailbox.get(timeout=self._idle_timeout)
        except queue.Empty:
            task = None
        with self._lock:
            self._idle.pop(mailbox, None)
            # From here on nothing is put into it. What is still there came as the time was over, or is a second task
            # behind one whose handing over was interrupted: not ours, for ours may wait for it.
            while not mailbox.empty():
                more = mailbox.get()
                if task is None:
                    task = more
                elif more is not None and not self._dispatch(more):
                    self._backlog.append(more)
        return task
