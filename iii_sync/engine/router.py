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
from collections.abc import Iterable, Iterator
from typing import Callable, Optional, Union

from typing_extensions import assert_never

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
    Registration,
    Result,
    TriggerResult,
    UnregisterFunction,
    UnregisterTrigger,
    UnregisterTriggerType,
    canonical_uuid,
    parse,
)
from .invocations import Pending, answer, deliver
from .jsontext import JSON, JsonObject
from .records import (
    DEFAULT_NAMESPACE,
    Builtin,
    BuiltinError,
    Finish,
    Function,
    Invocation,
    Later,
    NoAnswer,
    Outcome,
    Peer,
    Success,
    Trigger,
    Worker,
)
from .triggers import Triggers, refuse

QUEUE_PROVIDER = "engine::queue::enqueue"
MAX_DEPTH = 20
"""Calls of the engine within each other: a trigger may name a builtin, which may fire a trigger."""

_logger = logging.getLogger("iii_sync.engine")


_REGISTRATIONS = (
    RegisterFunction,
    UnregisterFunction,
    RegisterTriggerType,
    UnregisterTriggerType,
    RegisterTrigger,
    UnregisterTrigger,
)

Prepare = Callable[[RegisterFunction], Callable[[JSON, Finish], None]]


def _random_id() -> str:
    return str(uuid.uuid4())


def _no_timer(_: float, __: Callable[[], None]) -> Callable[[], None]:
    return lambda: None


class _Nobody:
    """The peer of the engine itself, which calls but is not connected."""

    def send(self, frame: JsonObject) -> None:
        """Forget a frame."""

    def close(self) -> None:
        """Do nothing."""

    def drop(self) -> None:
        """Do nothing."""


class _NotFoundError(Exception):
    """No function of that id is there."""


def _ignore(_: Outcome) -> None:
    pass


class Router:
    """The registry of one engine and the routing of its frames.

    Args:
        now: Wall clock in seconds, for listings.
        new_id: Source of UUIDs for workers, tokens and invocations.
        later: Calls a function after so many seconds, in the same thread, and returns what takes it
            back. Without it nothing ever times out.

    Attributes:
        prepare_remote: Makes what calls a function over HTTP, or raises :class:`ValueError`; without it
            such functions are refused.
        enqueue: Takes what workers enqueue while no worker does, with the name of the queue and a receipt.
        observers: Called with each event in the life of a worker, and its id.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = _random_id,
        later: Callable[[float, Callable[[], None]], Callable[[], None]] = _no_timer,
    ) -> None:
        self.now = now
        self.new_id = new_id
        self.later = later
        self.prepare_remote: Optional[Prepare] = None
        self.enqueue: Optional[Callable[[Invoke, str, str], None]] = None
        self.observers: list[Callable[[str, str], None]] = []
        self.triggers = Triggers()
        self.started_at = now()
        self.workers: dict[str, Worker] = {}
        self.functions: dict[tuple[str, str], Function] = {}
        self.builtins: dict[str, Builtin] = {}
        self._pending = Pending()
        self._leases: dict[tuple[str, str], Worker] = {}
        self._depth = 0
        self._engine = Worker(_Nobody(), "engine", "", now())

    def add_builtins(self, builtins: Iterable[Builtin]) -> None:
        """Offer functions of the engine itself; workers cannot register their ids."""
        self.builtins.update((builtin.id, builtin) for builtin in builtins)

    # Life of a worker

    def connect(self, peer: Peer, address: Optional[str] = None) -> Worker:
        """Welcome a new connection with ``workerregistered``, the first frame it gets.

        Args:
            peer: Where its frames go.
            address: Its IP address, for listings.

        Returns:
            The worker, to be given back to :meth:`receive` and :meth:`disconnect`.
        """
        worker = Worker(peer, self.new_id(), self.new_id(), self.now(), address)
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
        stopped = self._pending.remove(worker)
        self.triggers.remove_worker(worker)
        if worker.lease is not None:
            del self._leases[worker.lease]
            worker.lease = None
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
        while worker.held:
            self._handle(worker, worker.held.popleft())

    def namespace_for(self, worker: Worker, declared: Optional[str] = None) -> str:
        """Return the namespace a worker has, or gets when it declares one now."""
        if worker.namespace is not None:
            return worker.namespace
        return DEFAULT_NAMESPACE if declared is None else declared

    def claim_name(self, worker: Worker, name: str, declared: Optional[str] = None) -> Optional[Worker]:
        """Lease a name to a worker, within the namespace it has or declares.

        Returns:
            The other live worker that holds the name, or ``None`` if it is now this worker's.
        """
        lease = (self.namespace_for(worker, declared), name)
        holder = self._leases.get(lease)
        if holder is not None and holder is not worker:
            return holder
        if worker.lease is not None and worker.lease != lease:
            del self._leases[worker.lease]
        self._leases[lease] = worker
        worker.lease = lease
        return None

    def active_invocations(self, worker: Worker) -> int:
        """Count the calls a worker is making or serving."""
        return len(worker.calls | worker.serves)

    # Frames

    def receive(self, worker: Worker, message: Union[str, bytes]) -> None:
        """Handle one message of a worker.

        What does not decode is logged at debug level and dropped, as on the real engine. Never raises
        because of what a worker has sent.
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
        # Callers and callees may act before their namespace is known; registrations depend on it.
        if worker.namespace is None and isinstance(frame, _REGISTRATIONS):
            worker.held.append(frame)
        else:
            self._handle(worker, frame)

    def _handle(self, worker: Worker, frame: Frame) -> None:
        if isinstance(frame, Invoke):
            self._invoke(worker, frame)
        elif isinstance(frame, Result):
            self._pending.settle(worker, frame)
        elif isinstance(frame, TriggerResult):
            self.triggers.result(worker, frame)
        elif isinstance(frame, Reattach):
            self._reattach(worker, frame)
        elif isinstance(frame, Ping):
            worker.peer.send({"type": "pong"})
        elif isinstance(frame, Ignored):
            pass
        else:
            self._register(worker, frame)

    def _register(self, worker: Worker, frame: Registration) -> None:
        if isinstance(frame, RegisterFunction):
            self._register_function(worker, frame)
        elif isinstance(frame, UnregisterFunction):
            self._unregister_function(worker, frame.id)
        elif isinstance(frame, RegisterTrigger):
            self._register_trigger(worker, frame)
        elif isinstance(frame, UnregisterTrigger):
            self.triggers.unregister(frame.id)
        elif isinstance(frame, (RegisterTriggerType, UnregisterTriggerType)):
            namespace = self.namespace_for(worker) if frame.namespace is None else frame.namespace
            if not namespace.strip():
                _logger.warning("trigger type %s: its namespace is blank", frame.id)
            elif isinstance(frame, RegisterTriggerType):
                self.triggers.register_type(worker, namespace, frame)
            else:
                self.triggers.unregister_type(worker, namespace, frame)
        else:
            assert_never(frame)

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

    def _register_function(self, worker: Worker, frame: RegisterFunction) -> None:
        namespace = self.namespace_for(worker)
        key = (namespace, frame.id)
        holder = self.functions.get(key)
        # A builtin replaced by a worker would be gone for everybody once that worker leaves.
        builtin = namespace == DEFAULT_NAMESPACE and frame.id in self.builtins
        if builtin or (namespace != DEFAULT_NAMESPACE and frame.id.startswith("engine::")):
            owner: Optional[str] = ""
        elif holder is not None and holder.owner is not worker:
            owner = holder.owner.id
        else:
            owner = None
        if owner is not None:
            worker.peer.send(
                {
                    "type": "registrationrejected",
                    "code": "FUNCTION_NAMESPACE_CONFLICT",
                    "namespace": namespace,
                    "function_id": frame.id,
                    "owner_worker_id": owner,
                }
            )
        else:
            function = Function(worker, namespace, frame)
            if frame.invocation is not None:
                try:
                    function.remote = self._prepare(frame)
                except ValueError as error:
                    _logger.warning("function %s was not registered: %s", frame.id, error)
                    return
            self.functions[key] = worker.functions[key] = function

    def _prepare(self, frame: RegisterFunction) -> Callable[[JSON, Finish], None]:
        if self.prepare_remote is None:
            raise ValueError("functions called over HTTP are not supported here")
        return self.prepare_remote(frame)

    def _unregister_function(self, worker: Worker, function_id: str) -> None:
        key = (self.namespace_for(worker), function_id)
        if worker.functions.pop(key, None) is not None:
            del self.functions[key]

    def _register_trigger(self, worker: Worker, frame: RegisterTrigger) -> None:
        for name, value in (("namespace", frame.namespace), ("trigger_namespace", frame.trigger_namespace)):
            if value is not None and not value.strip():
                refuse(Trigger(frame.id, frame.trigger_type, frame.function_id, None, owner=worker), blank(name))
                return
        self.triggers.register(worker, self.namespace_for(worker), frame)

    # Invocations

    def _invoke(self, worker: Worker, call: Invoke) -> None:
        if call.namespace is not None and not call.namespace.strip():
            answer(worker, call, blank("namespace"))
        elif call.queue is not None:
            self._enqueue(worker, call, call.queue)
        else:
            self._run(worker, call)

    def _run(self, worker: Worker, call: Invoke) -> None:
        namespace = DEFAULT_NAMESPACE if call.namespace is None else call.namespace
        data = call.data
        if isinstance(data, dict) and not self._is_builtin(namespace, call.function_id):
            data["_caller_worker_id"] = worker.id

        def finish(outcome: Outcome) -> None:
            answer(worker, call, outcome)

        waits = not call.void and call.invocation_id is not None
        try:
            self._dispatch(worker, call, namespace, finish, waits)
        except _NotFoundError:
            answer(worker, call, self._not_found(namespace, call.function_id))

    def call(
        self,
        function_id: str,
        data: JSON,
        finish: Optional[Finish] = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: JSON = None,
    ) -> None:
        """Call a function in the name of the engine.

        Args:
            function_id: What to call.
            data: Its input, which is passed on untouched.
            finish: Takes the outcome, at once or later; ``None`` if nobody wants it.
            namespace: Where to look for the function.
            metadata: What travels beside the input.
        """
        call = Invoke(function_id, data, self.new_id(), namespace, metadata=metadata)
        if self._depth >= MAX_DEPTH:
            _logger.warning("%s was not called: services of the engine trigger each other in a circle", function_id)
            (finish or _ignore)(Failure("too_deep", f"Function {function_id} was triggered in a circle"))
            return
        self._depth += 1
        try:
            self._dispatch(self._engine, call, namespace, finish or _ignore, finish is not None)
        except _NotFoundError:
            failure = Failure("function_not_found", f"Function {function_id} not found in namespace {namespace}")
            if finish is not None:
                finish(failure)
            else:
                _logger.warning("%s", failure.message)
        finally:
            self._depth -= 1

    def _is_builtin(self, namespace: str, function_id: str) -> bool:
        return namespace == DEFAULT_NAMESPACE and function_id in self.builtins

    def _dispatch(self, worker: Worker, call: Invoke, namespace: str, finish: Finish, waits: bool) -> None:
        if self._is_builtin(namespace, call.function_id):
            try:
                result = self.builtins[call.function_id].run(worker, call.data)
            except BuiltinError as error:
                finish(Failure(error.code, str(error)))
            except NoAnswer:
                pass
            else:
                if isinstance(result, Later):
                    result.start(finish)
                else:
                    finish(Success(result))
            return
        function = self.functions.get((namespace, call.function_id))
        if function is None:
            raise _NotFoundError
        invocation_id = call.invocation_id or self.new_id()
        if function.remote is not None:
            function.remote(call.data, finish)
            return
        if waits:
            caller = None if worker is self._engine else worker
            self._pending.add(Invocation(invocation_id, function.owner, finish, caller))
        deliver(function, call, invocation_id, call.data)

    def _enqueue(self, worker: Worker, call: Invoke, queue: str) -> None:
        receipt = self.new_id()
        provider = self.functions.get((DEFAULT_NAMESPACE, QUEUE_PROVIDER))
        if provider is None and self.enqueue is not None:
            self.enqueue(call, queue, receipt)
            answer(worker, call, Success({"messageReceiptId": receipt}))
            return
        if provider is None:
            message = (
                f"No queue provider is installed: no worker has registered {QUEUE_PROVIDER} "
                f"in {DEFAULT_NAMESPACE} (for the real engine: iii worker add queue)."
            )
            answer(worker, call, Failure("enqueue_error", message))
            return
        data: JsonObject = {
            "queue": queue,
            "function_id": call.function_id,
            "data": call.data,
            "messageReceiptId": receipt,
            "traceparent": call.traceparent,
            "baggage": call.baggage,
        }
        if call.namespace is not None and call.namespace != DEFAULT_NAMESPACE:
            data["namespace"] = call.namespace

        def finish(outcome: Outcome) -> None:
            if isinstance(outcome, Failure):
                outcome = Failure("enqueue_error", f"{outcome.code}: {outcome.message}")
            else:
                outcome = Success({"messageReceiptId": receipt})
            answer(worker, call, outcome)

        request = Invoke(QUEUE_PROVIDER, data, traceparent=call.traceparent, baggage=call.baggage)
        invocation_id = self.new_id()
        self._pending.add(Invocation(invocation_id, provider.owner, finish, worker))
        deliver(provider, request, invocation_id, data)

    def _not_found(self, namespace: str, function_id: str) -> Failure:
        message = f"Function {function_id} not found in namespace {namespace}."
        elsewhere = sorted(self.namespaces_of(function_id))
        if elsewhere:
            message += f" It is registered in namespace(s): {', '.join(elsewhere)}."
        return Failure("function_not_found", message)

    def namespaces_of(self, function_id: str) -> Iterator[str]:
        """Yield every namespace in which a function of that id exists."""
        if function_id in self.builtins:
            yield DEFAULT_NAMESPACE
        for namespace, name in self.functions:
            if name == function_id:
                yield namespace


def blank(name: str) -> Failure:
    """Return the error for a namespace that was named and left blank."""
    message = f"`{name}` is empty: it was named and left blank. Give it a name, or omit it to use `default`."
    return Failure("INVALID_NAMESPACE", message)
