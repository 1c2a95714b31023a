"""The calls under way: sent on a link, and not answered yet."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ..calls import Answer, Call, PassedRef
from ..errors import ConnectionLostError, WorkerClosedError, invocation_error
from ..wire import messages

if TYPE_CHECKING:
    from .link import Link

__all__ = ["PendingCalls"]


class PendingCalls:
    """The table of the calls under way.

    ``_lock`` guards the table and is a leaf: nothing is called back while it is held.

    Args:
        run_soon: Runs a callback on a handler thread.
        call_failed: Is told of a call that ended with an error.
    """

    def __init__(
        self,
        run_soon: Callable[[Callable[[], None]], None],
        call_failed: Callable[[Union[Call, Answer], BaseException], None],
    ) -> None:
        self._run_soon = run_soon
        self._call_failed = call_failed
        self._lock = threading.RLock()
        self._table: dict[str, tuple[Union[Call, Answer], Link]] = {}

    def __len__(self) -> int:
        return len(self._table)

    def new_call(self, function_id: str, invocation_id: str, refs: list[PassedRef]) -> Call:
        """Return a call that is not in the table yet."""
        return Call(function_id, invocation_id, forget=self.forget, run_callback=self._run_soon, refs=refs)

    def enter(self, call: Union[Call, Answer], link: Link) -> None:
        """Enter a call into the table, before it is sent.

        So nobody misses an end of the link: one that was before this makes the sending fail, and one that
        comes later finds the call here.
        """
        with self._lock:
            self._table[call.invocation_id or ""] = (call, link)

    def forget(self, call: Union[Call, Answer]) -> None:
        """Take a call out; its answer, if one comes, is dropped."""
        with self._lock:
            self._table.pop(call.invocation_id or "", None)

    def fail(self, link: Optional[Link], reason: BaseException) -> None:
        """Fail the calls of one link, or of all."""
        with self._lock:
            lost = self._take_out(link)
        for call in lost:
            error: BaseException
            if isinstance(reason, WorkerClosedError):
                error = WorkerClosedError(f"{call.function_id}: the worker was shut down before the answer came")
            else:
                error = ConnectionLostError(
                    f"{call.function_id}: the connection ended before the answer came ({reason}); whether the "
                    "function ran is unknown"
                )
            error.__cause__ = reason
            self.settle(call, None, error)

    def _take_out(self, link: Optional[Link]) -> list[Union[Call, Answer]]:
        lost = [call for call, on in self._table.values() if link is None or on is link]
        for call in lost:
            self._table.pop(call.invocation_id or "", None)
        return lost

    def settle(self, call: Union[Call, Answer], result: Any, error: Optional[BaseException]) -> None:
        """End a call that is not in the table any more, unless it has ended."""
        if call._settle(result, error) and error is not None:
            self._call_failed(call, error)

    def answered(self, message: messages.Message) -> None:
        """An ``invocationresult`` has come in. On the reader thread."""
        invocation_id = message.get("invocation_id")
        with self._lock:
            entry = self._table.pop(invocation_id, None) if isinstance(invocation_id, str) else None
        if entry is None:
            return  # given up, or never asked for (PROTOCOL E-30)
        call = entry[0]
        error = message.get("error")
        if error is not None:
            self.settle(call, None, invocation_error(error, call.function_id, call.invocation_id))
        else:
            self.settle(call, message.get("result"), None)
