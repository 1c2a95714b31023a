"""What one engine knows: workers, functions, names, and what its services have plugged in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable, Optional

from .frames import Invoke, RegisterFunction
from .jsontext import JSON
from .records import DEFAULT_NAMESPACE, Builtin, Finish, Function, Worker

Prepare = Callable[[RegisterFunction], Callable[[JSON, Finish], None]]


class Registry:
    """The workers and functions of one engine.

    Attributes:
        workers: Those that are connected, by id.
        functions: Those of workers, by namespace and id.
        builtins: Those of the engine itself, by id; they live in ``default``.
        prepare_remote: Makes what calls a function over HTTP, or raises :class:`ValueError`; without it
            such functions are refused.
        enqueue: Takes what workers enqueue while no worker does, with the name of the queue and a receipt.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.new_id = new_id
        self.workers: dict[str, Worker] = {}
        self.functions: dict[tuple[str, str], Function] = {}
        self.builtins: dict[str, Builtin] = {}
        self.prepare_remote: Optional[Prepare] = None
        self.enqueue: Optional[Callable[[Invoke, str, str], None]] = None
        self._leases: dict[tuple[str, str], Worker] = {}

    def add_builtins(self, builtins: Iterable[Builtin]) -> None:
        """Offer functions of the engine itself; workers cannot register their ids."""
        self.builtins.update((builtin.id, builtin) for builtin in builtins)

    def is_builtin(self, namespace: str, function_id: str) -> bool:
        """Tell whether the engine itself serves a function."""
        return namespace == DEFAULT_NAMESPACE and function_id in self.builtins

    def metadata_of(self, namespace: str, function_id: str) -> JSON:
        """Return what a function was registered with, ``None`` if there is none."""
        function = self.functions.get((namespace, function_id))
        return None if function is None else function.registration.metadata

    def namespaces_of(self, function_id: str) -> Iterator[str]:
        """Yield every namespace in which a function of that id exists."""
        if function_id in self.builtins:
            yield DEFAULT_NAMESPACE
        for namespace, name in self.functions:
            if name == function_id:
                yield namespace

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

    def release_name(self, worker: Worker) -> None:
        """Give the name of a worker free."""
        if worker.lease is not None:
            del self._leases[worker.lease]
            worker.lease = None
