"""Waiting: with a deadline, for a socket, for another thread.

Ctrl-C and locks. KeyboardInterrupt hits the main thread between two bytecodes, wherever the interpreter looks for
signals: behind every call and at the beginning of every function. So it hits, too, between a lock's ``acquire()`` and
whatever is noted of that; and inside ``__enter__`` and ``__exit__`` where these are Python, as in
``threading.Condition`` (and so in ``threading.Event``, ``queue.Queue`` and ``concurrent.futures.Future``), which then
leave their lock taken for ever: the next to want it, the reader thread say, hangs, and every socket of the worker with
it. Two things are safe, and nothing else is used where the main thread can come by:

* ``with lock``, for a lock of C: the interpreter does not look between the end of ``__enter__`` and the ``with`` that
  covers it, nor before ``__exit__`` takes effect (from Python 3.10 on; 3.9 has a gap of one bytecode there).
  :class:`Condition` is such a lock, and so are those who are given one.
* A lock that knows its holder (``RLock``), asked for that in a ``finally`` around the ``acquire()``, and in one more
  around that, for an interruption that hits inside the first.

From Python 3.12 on neither covers the jump back of a ``while`` or a comprehension that stands directly inside it,
and the interpreter looks there, too. Such a loop goes around the ``with``, or into a function that is called inside
it; ``tests/test_architecture.py`` looks for others.

The order of the locks. Whoever holds one may take those below it, and no other; ``tests/test_lock_order.py`` watches:

1. A reader's ``_using``, a response's ``_head_lock``, and below them an end's ``_connect_lock``: held while waiting,
   each with a deadline. Nobody but their own end or response takes them.
2. The turn of a connection: held while its socket is waited for; the reader thread never waits for it.
3. ``_lock`` of the session: for the moment of a look or a change.
4. ``_lock`` of the tables of triggers and of providers, which the session asks for all registrations while it holds its
   own; and of its registering, which tells the functions what became of them while it holds its own.
5. The leaves, which take no other but the locks inside calls, events, queues and threads: ``_lock`` of the worker, its
   registrations, functions, ends and providers' tasks, of the session's pending calls, states, reconnecting and
   repeated answers, of the pool, the log handler, an inbox and the attempts to connect; ``_state_lock`` and
   ``_tls_lock`` of a connection; ``_state_lock`` of an end.

Locks that the main thread can hold are ``RLock``: a signal handler of the program's, or a finalizer, may call into the
package amid any step of it.
"""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

if TYPE_CHECKING:

    class RLock:
        """A lock that knows its holder."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
        def release(self) -> None: ...
        def _is_owned(self) -> bool: ...
        def _release_save(self) -> Any: ...
        def _acquire_restore(self, state: Any) -> None: ...
        def __enter__(self) -> bool: ...
        def __exit__(self, *exc: object) -> None: ...

else:
    RLock = type(threading.RLock())

__all__ = [
    "LONGEST_WAIT",
    "NO_DEADLINE",
    "Condition",
    "Deadline",
    "Event",
    "RLock",
    "acquire",
    "join",
    "wait_for_socket",
]

#: The longest single wait of the main thread, in seconds. Handlers of signals run there and only while it is awake,
#: and it is not woken by a signal that another thread gets, or that comes just before it falls asleep.
_NAP = 0.4

#: The longest single wait of another thread, in seconds: ``poll`` and selectors count milliseconds in 32 bits.
LONGEST_WAIT = 86_400.0


class Deadline:
    """``timeout`` seconds from now; ``None`` never ends.

    Not thread-safe; belongs to one call.

    Args:
        timeout: Seconds.
        silence: Whether the time counts anew after each progress, or in total.
    """

    __slots__ = ("timeout", "silence", "_end")

    def __init__(self, timeout: Optional[float], *, silence: bool = False) -> None:
        # Locks can wait for so long; what is longer, and infinity, is no limit.
        if timeout is not None and not timeout <= threading.TIMEOUT_MAX:
            if timeout != timeout:
                raise ValueError("a timeout must be a number of seconds, not NaN")
            timeout = None
        self.timeout: Optional[float] = timeout
        self.silence: bool = silence
        self._end = None if timeout is None else time.monotonic() + timeout

    def progress(self) -> None:
        """Something moved: start again from now when it is silence that counts."""
        if self.silence and self.timeout is not None:
            self._end = time.monotonic() + self.timeout

    def remaining(self) -> Optional[float]:
        """Return the seconds left, at least 0, or ``None`` for no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end


#: Never ends, notes nothing, and so is shared by all.
NO_DEADLINE: Deadline = Deadline(None)


def _single_wait(remaining: Optional[float]) -> float:
    """Return how many of the seconds that remain the calling thread may sleep at once."""
    longest = _NAP if threading.get_ident() == threading.main_thread().ident else LONGEST_WAIT
    return longest if remaining is None else min(longest, remaining)


def _in_naps(wait: Callable[[float], object], timeout: Optional[float]) -> bool:
    """Call ``wait`` with what :func:`_single_wait` allows until it succeeds; ``False`` after ``timeout`` seconds."""
    deadline = Deadline(timeout)
    while not wait(_single_wait(deadline.remaining())):
        if deadline.expired:
            return False
    return True


def acquire(lock: Union[threading.Lock, RLock], timeout: Optional[float]) -> bool:
    """Take a lock, waiting at most ``timeout`` seconds; a signal is handled within half a second meanwhile."""
    if timeout is not None and not timeout > _NAP:
        return lock.acquire(timeout=max(0.0, timeout))  # -1 would be no limit; NaN is no time at all
    # Most waits are short, and for them this is all.
    if lock.acquire(timeout=_NAP):
        return True
    return _in_naps(lambda seconds: lock.acquire(timeout=seconds), None if timeout is None else timeout - _NAP)


def join(thread: threading.Thread, timeout: Optional[float]) -> bool:
    """Wait until ``thread`` has ended, at most ``timeout`` seconds; a signal is handled within half a second meanwhile.

    Returns:
        Whether it has ended.
    """

    def ended(seconds: float) -> bool:
        thread.join(seconds)
        return not thread.is_alive()

    return _in_naps(ended, timeout)


def wait_for_socket(sock: socket.socket, timeout: Optional[float], *, write: bool) -> bool:
    """Wait until ``sock`` can be written (or read), or was shut down; ``False`` when ``timeout`` passed first.

    A signal is handled within half a second meanwhile.

    Uses ``poll``: ``select`` cannot look at descriptors above 1,023.
    """
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLOUT if write else select.POLLIN)
        # Rounded up: poll counts in milliseconds, and returning early would only turn the wait into a spin.
        return _in_naps(lambda seconds: poller.poll(int(seconds * 1000) + 1), timeout)
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE if write else selectors.EVENT_READ)
        return _in_naps(selector.select, timeout)


class Condition(RLock):
    """A lock, and waiting for what it guards; like ``threading.Condition``, and Ctrl-C cannot leave it taken.

    It is its own lock, so that ``with`` enters and leaves it in C. It takes the place of the conditions inside
    ``Queue`` and ``Future`` as well, for waiters that look again at what they wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: deque[threading.Lock] = deque()  # each held until it is woken

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Let go of the lock until :meth:`notify_all`, at most ``timeout`` seconds; returns whether that came.

        The lock must be held; it is held again afterwards, as often as before, even when the wait was interrupted. A
        signal handler that has interrupted somebody who holds it may wait, too: others can go on meanwhile.
        """
        sleeper = threading.Lock()
        sleeper.acquire()
        woken = False
        state: Any = None
        self._sleepers.append(sleeper)
        try:
            try:
                state = self._release_save()
                woken = acquire(sleeper, timeout)
            finally:
                if not self._is_owned():
                    self._take_again(state)
        finally:
            if not self._is_owned():
                self._take_again(state)
            # An interruption leaves it there at worst, until the next time all are woken.
            if not woken and sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
        return woken

    def _take_again(self, state: Any) -> None:
        if state is None:  # Ctrl-C has hit before that was noted
            self.acquire()
        else:
            self._acquire_restore(state)

    def notify_all(self) -> None:
        """Wake whoever waits; the lock must be held."""
        while self._sleepers:
            sleeper = self._sleepers[0]
            # Left already when an interruption has hit behind this the last time.
            if sleeper.locked():
                sleeper.release()
            self._sleepers.popleft()

    def notify(self, n: int = 1) -> None:
        """Like :meth:`notify_all`: among the waiters may be one that was interrupted, and would not pass it on."""
        self.notify_all()


class Event:
    """Like ``threading.Event``; once set it stays so."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def set(self) -> None:
        """Set it and wake whoever waits. Any thread."""
        with self._changed:
            self._set = True
            self._changed.notify_all()

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Block until it is set, at most ``timeout`` seconds; returns whether it is."""
        deadline = Deadline(timeout)
        while True:
            with self._changed:
                if self._set or deadline.expired:
                    return self._set
                self._changed.wait(deadline.remaining())
