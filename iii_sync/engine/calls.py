"""Calls: who may make them, who gets them, what comes back. Pure."""

from __future__ import annotations

import logging
from typing import Callable, Optional

from .frames import Failure, Invoke, Result
from .invocations import Pending, answer, deliver
from .jsontext import JSON, JsonObject
from .records import (
    DEFAULT_NAMESPACE,
    BuiltinError,
    Finish,
    Function,
    Invocation,
    Later,
    NoAnswer,
    Outcome,
    Success,
    Worker,
)
from .registry import Registry
from .rights import REGISTER, Rights

QUEUE_PROVIDER = "engine::queue::enqueue"
MAX_DEPTH = 20
"""Calls of the engine within each other: a trigger may name a builtin, which may fire a trigger."""

_logger = logging.getLogger("iii_sync.engine")


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


class Calls:
    """The calls of one engine, those of its workers and its own."""

    def __init__(self, registry: Registry, now: float) -> None:
        self._registry = registry
        self._pending = Pending()
        self._depth = 0
        self._engine = Worker(_Nobody(), "engine", "", now)

    def settle(self, worker: Worker, result: Result) -> None:
        """Take the answer of a worker."""
        self._pending.settle(worker, result)

    def remove(self, worker: Worker) -> list[Invocation]:
        """Forget everything a worker has to do with; return what others still wait for."""
        return self._pending.remove(worker)

    # Calls of a worker

    def invoke(self, worker: Worker, call: Invoke) -> None:
        """Do what a worker asks for, if it may."""
        if call.namespace is not None and not call.namespace.strip():
            answer(worker, call, blank("namespace"))
            return
        namespace = DEFAULT_NAMESPACE if call.namespace is None else call.namespace
        own = self._registry.is_builtin(namespace, call.function_id)
        if worker.rights is not None:
            refusal = self._refusal(worker, worker.rights, call, namespace)
            if refusal is not None:
                self._answer_anyway(worker, call, refusal)
                return
            middleware = worker.rights.guard.middleware_function_id
            if middleware is not None and not (own and call.function_id.startswith("engine::")):
                self._ask_middleware(worker, worker.rights, call, namespace, middleware)
                return
        if call.queue is not None:
            self._enqueue(worker, call, call.queue)
        else:
            self._run(worker, call, namespace, own)

    def _refusal(self, worker: Worker, rights: Rights, call: Invoke, namespace: str) -> Optional[Failure]:
        metadata = self._registry.metadata_of(namespace, call.function_id)
        refusal = rights.refusal(call.function_id, namespace, metadata)
        if refusal is None and call.function_id == REGISTER and isinstance(call.data, dict):
            declared = call.data.get("namespace")
            if declared is None or (isinstance(declared, str) and declared.strip()):
                refusal = rights.refuse_namespace(self._registry.namespace_for(worker, declared))
        return refusal

    def _answer_anyway(self, worker: Worker, call: Invoke, outcome: Outcome) -> None:
        """Answer even a call that wants no answer."""
        answer(worker, call._replace(invocation_id=call.invocation_id or self._registry.new_id(), void=False), outcome)

    def _ask_middleware(self, worker: Worker, rights: Rights, call: Invoke, namespace: str, middleware: str) -> None:
        action: Optional[JsonObject] = None
        if call.queue is not None:
            action = {"type": "enqueue", "queue": call.queue}
        elif call.void:
            action = {"type": "void"}
        data: JsonObject = {
            "function_id": call.function_id,
            "payload": call.data,
            "action": action,
            "context": rights.context,
            "namespace": namespace,
        }

        def finish(outcome: Outcome) -> None:
            self._answer_anyway(worker, call, outcome)

        asked = call._replace(function_id=middleware, data=data, void=False, queue=None)
        try:
            self._dispatch(worker, asked, namespace, finish, True)
        except _NotFoundError:
            finish(self._not_found(namespace, middleware))

    def _run(self, worker: Worker, call: Invoke, namespace: str, own: bool) -> None:
        data = call.data
        if isinstance(data, dict) and not own:
            data["_caller_worker_id"] = worker.id

        def finish(outcome: Outcome) -> None:
            answer(worker, call, outcome)

        waits = not call.void and call.invocation_id is not None
        try:
            self._dispatch(worker, call, namespace, finish, waits)
        except _NotFoundError:
            answer(worker, call, self._not_found(namespace, call.function_id))

    # Calls of the engine

    def call(
        self,
        function_id: str,
        data: JSON,
        finish: Optional[Finish] = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: JSON = None,
    ) -> Callable[[], None]:
        """Call a function in the name of the engine; see :meth:`.router.Router.call`."""
        invocation_id = self._registry.new_id()
        call = Invoke(function_id, data, invocation_id, namespace, metadata=metadata)

        def give_up() -> None:
            self._pending.give_up(invocation_id)

        if self._depth >= MAX_DEPTH:
            _logger.warning("%s was not called: services of the engine trigger each other in a circle", function_id)
            (finish or _ignore)(Failure("too_deep", f"Function {function_id} was triggered in a circle"))
            return give_up
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
        return give_up

    def _dispatch(self, worker: Worker, call: Invoke, namespace: str, finish: Finish, waits: bool) -> None:
        if self._registry.is_builtin(namespace, call.function_id):
            try:
                result = self._registry.builtins[call.function_id].run(worker, call.data)
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
        function = self._registry.functions.get((namespace, call.function_id))
        if function is None:
            raise _NotFoundError
        if function.remote is not None:
            function.remote(call.data, finish)
            return
        self._send(function, call, worker, finish if waits else None)

    def _send(self, function: Function, call: Invoke, worker: Worker, finish: Optional[Finish]) -> None:
        invocation_id = call.invocation_id or self._registry.new_id()
        if finish is not None:
            caller = None if worker is self._engine else worker
            self._pending.add(Invocation(invocation_id, function.owner, finish, caller))
        deliver(function, call, invocation_id, call.data)

    # Queues

    def _enqueue(self, worker: Worker, call: Invoke, queue: str) -> None:
        receipt = self._registry.new_id()
        provider = self._registry.functions.get((DEFAULT_NAMESPACE, QUEUE_PROVIDER))
        if provider is None and self._registry.enqueue is not None:
            try:
                self._registry.enqueue(call, queue, receipt)
            except BuiltinError as error:
                answer(worker, call, Failure("enqueue_error", f"{error.code}: {error}"))
            else:
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
        self._send(provider, request, worker, finish)

    def _not_found(self, namespace: str, function_id: str) -> Failure:
        message = f"Function {function_id} not found in namespace {namespace}."
        elsewhere = sorted(self._registry.namespaces_of(function_id))
        if elsewhere:
            message += f" It is registered in namespace(s): {', '.join(elsewhere)}."
        return Failure("function_not_found", message)


def blank(name: str) -> Failure:
    """Return the error for a namespace that was named and left blank."""
    message = f"`{name}` is empty: it was named and left blank. Give it a name, or omit it to use `default`."
    return Failure("INVALID_NAMESPACE", message)
