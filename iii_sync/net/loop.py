"""The reader thread: one per worker, owner of every socket of that worker.

Theory of operation. A selector waits for all sockets at once. Whatever has to happen to a socket besides
sending (registering, pausing, shutting down, closing) happens on this thread and nowhere else; other threads
post a function with :meth:`Loop.call_soon` and return. So a descriptor is never closed, and its number never
reused, while somebody else still looks at it, and posting is safe even in a finalizer: it takes no lock.

The loop never blocks: not on a socket, not on a lock another thread may hold for long, not on user code.

After a fork the child has a copy of every descriptor but no thread. The copies are closed there (and only
closed: unregistering or shutting down would reach into the parent), so that a connection ends when the
parent ends it.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from typing import Any, Callable, Optional, Protocol

from ..errors import WorkerClosedError
from . import direct
from .attempts import Attempts
from .lowwater import LowWater
from .waiting import LONGEST_WAIT, Event, join
from .windows import Windows

__all__ = ["Loop", "Timer", "Watched"]

_log = logging.getLogger("iii_sync.io")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Watched(Protocol):
    """What the loop calls about a socket. Called on the loop's thread; must not block."""

    def on_readable(self) -> None:
        """The socket can be read, or has ended."""

    def on_writable(self) -> None:
        """The socket can be written, or has ended."""

    def on_broken(self, error: BaseException) -> None:
        """One of the two raised; drop the connection."""

    def forget(self) -> None:
        """Close the descriptor in a forked child, without touching the connection."""


class Timer:
    """A call in the future; :meth:`cancel` may be called from any thread."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Optional[Callable[[], None]] = function

    def cancel(self) -> None:
        """Make the call not happen, unless it is happening already."""
        self.function = None


class Loop:
    """A selector and the thread that runs it.

    Args:
        name: The thread's name.

    Attributes:
        attempts: The sockets that are to become its own, and belong to whoever connects them until then.
        windows: What its streams are received into.
        low_water: How much must arrive on a socket before the thread is woken for it.
    """

    def __init__(self, name: str) -> None:
        self.attempts: Attempts = Attempts()
        self.windows: Windows = Windows()
        self.low_water: LowWater = LowWater()
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_in, READ)
        self._posted: collections.deque[Callable[[], None]] = collections.deque()
        self._wakes = bytearray(4096)  # what they are received into
        self._awake = False  # a wake-up byte is under way
        self._timers: list[tuple[float, int, Timer]] = []  # touched by the loop's thread only
        self._sweep_at = 1000  # reader thread only
        self._order = itertools.count()
        # Everything with a descriptor. Added to by any thread, taken from by the loop's; single operations on
        # a set are atomic, and a forked child finds it whole.
        self._watched: set[Watched] = set()
        # What each is watched for. The selector knows, too, but asking it for what it does not watch is slow: it
        # describes the socket in an error that nobody reads.
        self._events: dict[Watched, int] = {}  # the loop's thread only
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # Daemon: a process must be able to end without shutdown().
        _loops.add(self)
        self._thread.start()

    @property
    def on_thread(self) -> bool:
        """Whether the caller is the reader thread itself."""
        return threading.current_thread() is self._thread

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have ``function`` called on the loop's thread. Any thread, finalizers too; never blocks."""
        # The flag is set before the byte is sent and cleared before the calls are made: a call appended in
        # between is either seen by that round or sends a byte of its own.
        try:
            self._posted.append(function)
            if self._awake or os.getpid() != self._pid:
                return
            self._awake = True
            direct.send(self._wake_out, b"\0")
        except OSError:
            pass  # full: it will wake anyway; closed: the loop has ended
        except BaseException:
            # Ctrl-C: perhaps no byte is under way, and with the flag set nobody would ever send one.
            self._awake = False
            if os.getpid() == self._pid:
                with contextlib.suppress(OSError):
                    direct.send(self._wake_out, b"\0")
            raise

    def catch_up(self, timeout: float) -> None:
        """Wait until everything posted so far has been called, at most ``timeout`` seconds. Any thread but this one."""
        done = Event()
        self.call_soon(done.set)
        done.wait(timeout)

    def call_later(self, delay: float, function: Callable[[], None]) -> Timer:
        """Have ``function`` called on the loop's thread in ``delay`` seconds. Any thread; never blocks."""
        timer = Timer(function)
        entry = (time.monotonic() + delay, next(self._order), timer)
        if self.on_thread:
            self._add_timer(entry)
        else:
            self.call_soon(lambda: self._add_timer(entry))
        return timer

    def _add_timer(self, entry: tuple[float, int, Timer]) -> None:
        if len(self._timers) >= self._sweep_at:
            # Most timers are cancelled long before they are due; they must not pile up until then.
            self._timers = [item for item in self._timers if item[2].function is not None]
            heapq.heapify(self._timers)
            self._sweep_at = 1000 + 2 * len(self._timers)
        heapq.heappush(self._timers, entry)

    def adopt(self, owner: Watched) -> None:
        """Count ``owner`` among the connections, before it is watched: a fork may come in between. Any thread."""
        self._watched.add(owner)

    def watch(self, sock: socket.socket, owner: Watched, events: int) -> None:
        """Set what to watch ``sock`` for; 0 for nothing. On the loop's thread only."""
        known = self._events.get(owner, 0)
        if events == known:
            return
        if not events:
            self._selector.unregister(sock)
            del self._events[owner]
            return
        if known:
            self._selector.modify(sock, events, owner)
        else:
            self._selector.register(sock, events, owner)
        self._events[owner] = events

    def unwatch(self, sock: socket.socket, owner: Watched) -> None:
        """Take ``sock`` out, before it is closed. On the loop's thread only."""
        self.watch(sock, owner, 0)
        self._watched.discard(owner)

    def stop(self, timeout: float) -> bool:
        """End the thread; every socket still open is dropped. Any thread.

        Blocks until it has ended, at most ``timeout`` seconds.

        Returns:
            Whether it has ended.
        """
        self._stopping = True
        self.call_soon(lambda: None)
        return not self.on_thread and join(self._thread, timeout)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._turn(0)  # what was posted before stop()
            for owner in list(self._watched):
                owner.on_broken(WorkerClosedError("the worker was shut down"))
            # A sender that was inside its socket needs a moment to get out before it can be closed.
            end = time.monotonic() + 1
            while self._watched and time.monotonic() < end:
                self._turn(0.02)
            for owner in list(self._watched):
                owner.forget()  # its sender was interrupted with the turn in hand, and will not give it back
        finally:
            self._selector.close()
            self._wake_in.close()
            self._wake_out.close()

    def _turn(self, at_most: Optional[float] = None) -> None:
        timeout = at_most
        if at_most is None:
            due = self.low_water.due()
            if self._timers and (due is None or self._timers[0][0] < due):
                due = self._timers[0][0]
            if due is not None:
                timeout = min(max(0.0, due - time.monotonic()), LONGEST_WAIT)
        for key, events in self._selector.select(timeout):
            owner = key.data
            if owner is None:
                self._drain_wake()
                continue
            try:
                if events & READ:
                    owner.on_readable()
                if events & WRITE:
                    owner.on_writable()
            except Exception as exc:
                _log.debug("dropping a connection", exc_info=True)
                self._guarded(owner.on_broken, exc)
        while self._posted:
            self._guarded(self._posted.popleft())
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            function = heapq.heappop(self._timers)[2].function
            if function is not None:
                self._guarded(function)
        self._guarded(self.low_water.look, now)

    def _drain_wake(self) -> None:
        try:
            direct.recv_into(self._wake_in, self._wakes)
        except BlockingIOError:
            pass
        self._awake = False

    def _guarded(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            function(*args)
        except Exception:
            # One connection's trouble must not stop the reading of all others.
            _log.exception("a call on the reader thread failed")

    def _forget_after_fork(self) -> None:
        """In the child: close the copies of the parent's descriptors, touching nothing they lead to."""
        self._stopping = True  # under gevent the reader thread is a greenlet, and those survive
        for owner in list(self._watched):
            owner.forget()
        for sock in (self._wake_in, self._wake_out):
            sock.close()
        try:
            # Closing the copy of an epoll descriptor changes nothing in it; unregistering would.
            self._selector.close()
        except Exception:
            pass


_loops: weakref.WeakSet[Loop] = weakref.WeakSet()


def _forget_all_after_fork() -> None:
    for loop in list(_loops):
        loop._forget_after_fork()
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_after_fork)
