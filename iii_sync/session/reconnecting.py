"""How a lost connection is made again: on a thread of its own, with growing delays, until it is there or hopeless."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Optional, Protocol

from ..errors import (
    AuthenticationError,
    EngineConnectionError,
    EngineTimeoutError,
    InvocationError,
    RegistrationRejectedError,
)
from ..net.connect import Address
from ..net.loop import Loop
from ..net.waiting import Event

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["REFUSED_FOR", "Reconnecting"]

_log = logging.getLogger("iii_sync.worker")

#: A link that lived this long proves that the engine is well: the next loss starts with short delays again.
_STABLE_AFTER = 10.0

#: So long in an outage no delay is longer than a second: an engine that was away for a minute is found at once,
#: the time it takes to start included.
_EAGER_FOR = 90.0

#: How long an engine may refuse a worker that comes back before the refusal is final: the name may still be leased
#: to the lost connection, and the worker that authenticates the others may not be back itself (PROTOCOL 8.2).
REFUSED_FOR = 30.0


class Reconnects(Protocol):
    """What is made again: a session."""

    address: Address
    options: InitOptions
    loop: Loop
    closing: Event

    def has_link(self) -> bool:
        """Whether there is a current link."""
        raise NotImplementedError

    def has_given_up(self) -> bool:
        """Whether there will be no link any more."""
        raise NotImplementedError

    def make_link(self) -> None:
        """Make a link and make it current; raises what is in the way."""

    def reconnecting(self) -> None:
        """The first try is about to be made."""

    def give_up(self, error: BaseException) -> None:
        """There will be no more tries."""


class Reconnecting:
    """Makes the link of one session again, one try at a time.

    ``_lock`` guards ``_running``. Whoever loses a link calls :meth:`start` after it is gone, and the thread looks for
    the link after it has put ``_running`` back: so one of the two sees what the other has done.

    Args:
        session: What is made again.
    """

    def __init__(self, session: Reconnects) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._running = False
        self._tries = 0  # since the last stable link
        self._lost: Optional[BaseException] = None  # why there is no link

    @property
    def tries(self) -> int:
        """How many there were since a link lasted."""
        return self._tries

    def first_try_failed(self, error: BaseException) -> None:
        """There was no link to lose: the first one could not be made."""
        self._tries, self._lost = 1, error

    def link_lost(self, reason: BaseException, since: float) -> None:
        """The link that was current since then is gone, and why. Before :meth:`start`; does not block."""
        self._lost = reason
        if time.monotonic() - since > _STABLE_AFTER:
            self._tries = 0

    def start(self) -> None:
        """Begin, unless that was done. Any thread; starting a thread may wait for it to run, but for nothing else."""
        session = self._session
        with self._lock:
            if self._running or session.closing.is_set() or session.has_link():
                return
            self._running = True
        session.reconnecting()
        try:
            threading.Thread(target=self._run, name="iii-reconnect", daemon=True).start()
        except RuntimeError as exc:
            _log.error("no thread can be started to reconnect, trying again: %s", exc)
            with self._lock:
                self._running = False
            session.loop.call_later(1.0, self.start)

    def _run(self) -> None:
        session = self._session
        started = time.monotonic()
        refused_since: Optional[float] = None
        retries = session.options.reconnection_config.max_retries
        error = self._lost or EngineConnectionError("no connection")
        try:
            while retries is None or self._tries < retries:
                if session.closing.wait(self._delay(started)):
                    return
                self._tries += 1
                try:
                    session.make_link()
                    _log.info("connected to %s again, after %.1f s", session.address, time.monotonic() - started)
                    return
                except (AuthenticationError, RegistrationRejectedError, InvocationError) as exc:
                    error = exc
                    refused_since = refused_since or time.monotonic()
                    if time.monotonic() - refused_since >= REFUSED_FOR:
                        break
                except (EngineConnectionError, EngineTimeoutError) as exc:
                    error, refused_since = exc, None
                except Exception as exc:
                    error = exc
                    break
                _log.debug("not reconnected: %s", error)
            session.give_up(error)
        finally:
            with self._lock:
                self._running = False
                lost_again = not session.has_link() and not session.has_given_up()
            if lost_again:
                self.start()

    def _delay(self, started: float) -> float:
        import random  # with the first loss

        config = self._session.options.reconnection_config
        if not self._tries:
            return 0.0
        delay = config.initial_delay * config.backoff_multiplier ** min(self._tries - 1, 30)
        limit = config.max_delay
        if time.monotonic() - started < _EAGER_FOR:
            limit = min(limit, 1.0)
        return min(delay, limit) * (1 - config.jitter_factor * random.random())
