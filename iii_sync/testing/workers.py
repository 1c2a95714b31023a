"""Workers for one test, which are looked at and shut down after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..worker import Worker, register_worker

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options import OptionArguments

__all__ = ["Connect"]

#: Seconds that handlers of a test that is over may take before their streams are looked at.
_PATIENCE = 2.0


class Connect:
    """What the fixture ``iii_connect`` gives: call it for one more worker.

    Args:
        url: Where workers connect if they are not told otherwise.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._workers: list[Worker] = []

    def __call__(self, url: Optional[str] = None, /, **options: Unpack[OptionArguments]) -> Worker:
        """Connect a worker that lives until the end of the test.

        Args:
            url: Default: the address of ``iii_engine``.
            **options: Those of :class:`~iii_sync.InitOptions`.

        Returns:
            The worker.

        Raises:
            IIISyncError: As :func:`iii_sync.register_worker`.

        Blocks: Like :func:`iii_sync.register_worker`.
        Threads: One at a time.
        """
        worker = register_worker(url or self._url, **options)
        self._workers.append(worker)
        return worker

    def close(self) -> list[Any]:
        """Shut every worker down, the last one first.

        Returns:
            The writers that were still open.

        Blocks: Two seconds for the handlers of each worker, and as long as :meth:`~iii_sync.Worker.shutdown`.
        Threads: One at a time.
        """
        left: list[Any] = []
        while self._workers:
            worker = self._workers.pop()
            try:
                worker._pool.drain(_PATIENCE)  # a handler that is about to end its stream has not forgotten it
                left += worker._ends.open_writers()
            finally:
                worker.shutdown()
        return left
