"""Routing between workers: what each frame of a worker causes.

Pure: no sockets, no threads, no clock of its own. Frames come in through :meth:`Router.receive`,
effects are calls on the :class:`~.records.Peer` of a worker, which may be anything. Not thread-safe;
the server calls it from its event loop only, so every frame is handled completely, in order.

Life of a worker::

    connect ── pending ── namespace known (its register call, or the grace is over) ── resolved
                  │ registrations are held, in order      │ they are applied at once
                  └────────────── disconnect (its own, or evicted by a reattach) ──── gone
"""

from __future__ import annotations

import hmac
import logging
import time
import uuid
from typing import Callable, Optional, Union

from .calls import Calls
from .frames import (
    Failure,
    Frame,
    Ignored,
    Invoke,
    Ping,
    Reattach,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    Result,
    TriggerResult,
    UnregisterFunction,
    UnregisterTrigger,
    UnregisterTriggerType,
    canonical_uuid,
    parse,
)
from .invocations import answer
from .jsontext import JSON
from .records import DEFAULT_NAMESPACE, Finish, Peer, Worker
from .registrations import Registrations
from .registry import Registry
from .rights import Rights
from .triggers import Triggers

MAX_HELD = 10_000
"""Frames of a worker that may wait for its namespace, or for the answer of a hook."""

_logger = logging.getLogger("iii_sync.engine")

_REGISTRATIONS = (
    RegisterFunction,
    UnregisterFunction,
    RegisterTriggerType,
    UnregisterTriggerType,
    RegisterTrigger,
    UnregisterTrigger,
)


def _random_id() -> str:
    return str(uuid.uuid4())


def _no_timer(_: float, __: Callable[[], None]) -> Callable[[], None]:
    return lambda: None


class Router(Registry):
    """The registry of one engine and the routing of its frames.

    Args:
        now: Wall clock in seconds, for listings.
        new_id: Source of UUIDs for workers, tokens and invocations.
        later: Calls a function after so many seconds, in the same thread, and returns what takes it
            back. Without it nothing ever times out.

    Attributes:
        observers: Called with each event in the life of a worker, and its id.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = _random_id,
        later: Callable[[float, Callable[[], None]], Callable[[], None]] = _no_timer,
    ) -> None:
        super().__init__(new_id)
        self.now = now
        self.later = later
        self.observers: list[Callable[[str, str], None]] = []
        self.triggers: Triggers = Triggers()
        self.started_at: float = now()
        self._calls = Calls(self, self.started_at)
        self._registrations = Registrations(self, self.triggers, self._calls, self._go_on)

    # Life of a worker

    def connect(self, peer: Peer, address: Optional[str] = None, rights: Optional[Rights] = None) -> Worker:
        """Welcome a new connection with ``workerregistered``, the first frame it gets.

        Args:
            peer: Where its frames go.
            address: Its IP address, for listings.
            rights: What its session may do; ``None`` for everything.

        Returns:
            The worker, to be given back to :meth:`receive` and :meth:`disconnect`.
        """
        worker = Worker(peer, self.new_id(), self.new_id(), self.now(), address, rights)
        self.workers[worker.id] = worker
        peer.send({"type": "workerregistered", "worker_id": worker.id, "reattach_token": worker.reattach_token})
        self.announce("worker_connected", worker)
        return worker

    def announce(self, event: str, worker: Worker) -> None:
        """Tell the observers of an event in the life of a worker."""
        for observer in self.observers:
            observer(event, worker.id)

    def disconnect(self, worker: Worker) -> None:
        """Forget a worker: its functions, its name, and every call it made or was serving.

        Callers of what it was serving get ``invocation_stopped``. A second call does nothing.
        """
        if worker.gone:
            return
        worker.gone = True
        worker.held.clear()
        for key in worker.functions:
            del self.functions[key]
        worker.functions.clear()
        stopped = self._calls.remove(worker)
        self.triggers.remove_worker(worker)
        self.release_name(worker)
        del self.workers[worker.id]
        # Last, so that a caller finds the registry already without the worker.
        for invocation in stopped:
            invocation.finish(Failure("invocation_stopped", "Invocation stopped"))
        self.announce("worker_disconnected", worker)

    def pin(self, worker: Worker, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Settle the namespace of a worker and apply the registrations it has sent so far.

        The first settlement counts; later ones change nothing.
        """
        if worker.gone or worker.namespace is not None:
            return
        worker.namespace = namespace
        self._go_on(worker)

    def active_invocations(self, worker: Worker) -> int:
        """Count the calls a worker is making or serving."""
        return len(worker.calls | worker.serves)

    # Frames

    def receive(self, worker: Worker, message: Union[str, bytes]) -> None:
        """Handle one message of a worker.

        What does not decode is logged at debug level and dropped, as on the real engine. What the engine
        itself fails at is logged with its traceback, and answered if it was a call: nobody loses a connection.
        """
        if worker.gone:
            return
        try:
            frame = parse(message)
        except ValueError as error:
            _logger.debug("worker %s: dropped a message: %s", worker.id, error)
            return
        if frame is None:
            return
        if self._must_wait(worker, frame):
            worker.held.append(frame)
            if len(worker.held) > MAX_HELD:
                _logger.warning("dropped a worker that has sent more than %d frames too early", MAX_HELD)
                worker.peer.drop()
                self.disconnect(worker)
        else:
            self._handle(worker, frame)

    def _must_wait(self, worker: Worker, frame: Frame) -> bool:
        if isinstance(frame, _REGISTRATIONS):
            # Callers and callees may act before their namespace is known; registrations depend on it.
            return worker.namespace is None or worker.asking
        # Answers never wait: the hook that is asked may be the worker's own.
        return worker.asking and isinstance(frame, Invoke)

    def _go_on(self, worker: Worker) -> None:
        while worker.held and not worker.asking:
            self._handle(worker, worker.held.popleft())

    def _handle(self, worker: Worker, frame: Frame) -> None:
        try:
            self._act(worker, frame)
        except Exception:
            _logger.exception("worker %s: failed at a frame, %s", worker.id, type(frame).__name__)
            if isinstance(frame, Invoke):
                message = f"The engine has failed at calling {frame.function_id}; its log says why"
                answer(worker, frame, Failure("internal_error", message))

    def _act(self, worker: Worker, frame: Frame) -> None:
        if isinstance(frame, Invoke):
            self._calls.invoke(worker, frame)
        elif isinstance(frame, Result):
            self._calls.settle(worker, frame)
        elif isinstance(frame, TriggerResult):
            self.triggers.result(worker, frame)
        elif isinstance(frame, Reattach):
            self._reattach(worker, frame)
        elif isinstance(frame, Ping):
            worker.peer.send({"type": "pong"})
        elif isinstance(frame, Ignored):
            pass
        else:
            self._registrations.apply(worker, frame)

    def _reattach(self, worker: Worker, frame: Reattach) -> None:
        try:
            old = self.workers.get(canonical_uuid(frame.previous_worker_id))
        except ValueError:
            return
        token = (frame.reattach_token or "").encode("utf-8")
        if old is None or old is worker or not hmac.compare_digest(token, old.reattach_token.encode("utf-8")):
            return
        old.peer.drop()
        self.disconnect(old)

    def call(
        self,
        function_id: str,
        data: JSON,
        finish: Optional[Finish] = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: JSON = None,
    ) -> Callable[[], None]:
        """Call a function in the name of the engine.

        Args:
            function_id: What to call.
            data: Its input, which is passed on untouched.
            finish: Takes the outcome, at once or later; ``None`` if nobody wants it.
            namespace: Where to look for the function.
            metadata: What travels beside the input.

        Returns:
            What gives up waiting: without it a call that nobody answers is remembered for as long as its worker lives.
        """
        return self._calls.call(function_id, data, finish, namespace=namespace, metadata=metadata)
