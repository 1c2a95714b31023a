"""A pending invocation."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional, Protocol, Union

from .errors import CallTimeout, ConfigurationError, ForkedWorkerError, fresh
from .net.waiting import Condition, acquire

__all__ = ["Answer", "Call", "PassedRef", "Pending", "in_order"]

#: States of a future that was cancelled: before and after those who wait for it have heard.
_CANCELLED = (concurrent.futures._base.CANCELLED, concurrent.futures._base.CANCELLED_AND_NOTIFIED)


class PassedRef(NamedTuple):
    """A channel end that travelled in the payload of a call."""

    channel_id: str
    direction: str


class Answer:
    """The answer to a call for which one thread waits at once; a future would cost more than all the rest.

    Whoever takes it out of the table of pending calls settles it, so that happens once.

    Attributes:
        function_id: The function that was called.
        invocation_id: The call's id.
        refs: Like those of a :class:`Call`, and always empty: a call that carries channel ends outlives its wait.
        result: What the function returned, once it is there.
        error: The error the call ended with, if it did.
    """

    __slots__ = ("function_id", "invocation_id", "refs", "result", "error", "_there")

    def __init__(self, function_id: str, invocation_id: str) -> None:
        self.function_id: str = function_id
        self.invocation_id: str = invocation_id
        self.refs: list[PassedRef] = []
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self._there = threading.Lock()
        self._there.acquire()

    def wait(self, timeout: Optional[float]) -> bool:
        """Block until the answer is there, at most ``timeout`` seconds; returns whether it is."""
        return acquire(self._there, timeout)

    def _settle(self, result: Any, error: Optional[BaseException]) -> bool:
        self.result, self.error = result, error
        self._there.release()
        return True


class Pending(concurrent.futures.Future[Any]):
    """A future whose lock Ctrl-C cannot leave taken: the reader thread, which settles it, would hang."""

    def __init__(self) -> None:
        super().__init__()
        self._condition: Any = Condition()


class Suspects(Protocol):
    """Why the answer of a call may never come."""

    def watch(self) -> None:
        """A thread begins to wait for the call."""

    def text(self) -> str:
        """Return what to do about it, or nothing."""
        raise NotImplementedError


class Call(Pending):
    """One call on its way: a :class:`concurrent.futures.Future`, made by ``Worker.submit``.

    Works with :func:`concurrent.futures.wait` and ``as_completed``. In a forked
    child ``result``, ``exception`` and ``add_done_callback`` raise ``ForkedWorkerError``, whether it was done or not,
    and ``done``, ``running`` and ``cancelled`` say what was so when it forked; nothing blocks.

    Attributes:
        function_id: The function that was called.
        invocation_id: The call's id.
    """

    def __init__(
        self,
        function_id: str,
        invocation_id: Optional[str],
        *,
        forget: Callable[[Call], None],
        run_callback: Callable[[Callable[[], None]], None],
        refs: list[PassedRef],
    ) -> None:
        super().__init__()
        self._pid = os.getpid()
        self.function_id = function_id
        self.invocation_id = invocation_id
        self.refs = refs
        self._suspicion: Optional[Suspects] = None
        self._forget = forget
        self._run_callback = run_callback

    def result(self, timeout: Optional[float] = None) -> Any:
        """Return what the function returned.

        The call goes on after a timeout, and ``result`` may be asked again.

        Args:
            timeout: Seconds; ``None`` for no limit.

        Raises:
            InvocationError: The function, or the engine in its place, answered with an error.
            CallTimeout: No answer yet; a ``TimeoutError``.
            ConnectionLostError: The connection ended first; ``may_have_run`` says whether it may have run.
            concurrent.futures.CancelledError: The call was cancelled; its text says what may have happened.

        Blocks: Until the answer is there, at most ``timeout`` seconds.
        Threads: Any.
        """
        failure = self.exception(timeout)
        if failure is not None:
            try:
                raise fresh(failure)
            finally:
                del failure  # else the exception holds this frame, and the frame the exception
        return super().result(0)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Return the error the call ended with, or ``None``.

        Args:
            timeout: Seconds; ``None`` for no limit.

        Raises:
            CallTimeout: No answer yet; a ``TimeoutError``.
            concurrent.futures.CancelledError: The call was cancelled.

        Blocks: Like :meth:`result`.
        Threads: Any.
        """
        self._refuse_in_other_process()
        if timeout is not None and not timeout >= 0:
            if timeout != timeout:
                raise ConfigurationError("timeout=nan is no number of seconds; None waits without a limit")
            timeout = 0  # what is left of a time that is over; a lock would take it for no limit
        if self._suspicion is not None and not self.done():
            self._suspicion.watch()
        try:
            return super().exception(timeout)
        except concurrent.futures.CancelledError:
            raise concurrent.futures.CancelledError(
                f"the call of {self.function_id} was cancelled: nobody waits for its answer, and the function may have "
                "run, or may still run"
            ) from None
        except concurrent.futures.TimeoutError:
            if self.done():
                return self.exception(0)
            raise CallTimeout(
                "TIMEOUT",
                f"no answer within {timeout:g} s; the call is still under way{self._hint()}",
                self.function_id,
                self.invocation_id,
            ) from None

    def cancel(self) -> bool:
        """Stop waiting for the answer.

        The function is not told, for the engine has no message for that (PROTOCOL 3.7): it runs to its end, or has yet
        to begin, and its answer is dropped. So what was asked for may have happened or still happen, and :meth:`result`
        says no more than that nobody waited. In a forked child it does nothing.

        Returns:
            ``True``: the call is cancelled, and :meth:`result` raises ``concurrent.futures.CancelledError``, in every
            thread that waits in it too. ``False``: it was done before, and :meth:`result` has its outcome.

        Blocks: Never.
        Threads: Any.
        """
        if self._in_other_process():
            return False
        cancelled = super().cancel()
        if cancelled:
            self._forget(self)
            # wait() and as_completed() hear of a cancelled future by this only; it may be called once.
            with self._condition:
                if self._state == concurrent.futures._base.CANCELLED:
                    self.set_running_or_notify_cancel()
        return cancelled

    def done(self) -> bool:
        """Whether the call has ended, in whatever way.

        Blocks: Never.
        Threads: Any.
        """
        if self._in_other_process():
            return self._state in (*_CANCELLED, concurrent.futures._base.FINISHED)
        return super().done()

    def cancelled(self) -> bool:
        """Whether the call was cancelled.

        Blocks: Never.
        Threads: Any.
        """
        return self._state in _CANCELLED if self._in_other_process() else super().cancelled()

    def running(self) -> bool:
        """Whether the function is known to run: ``False``, for nobody tells.

        Blocks: Never.
        Threads: Any.
        """
        return False

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Have ``fn(call)`` called when the call is done: on a handler thread, or at once if it is done.

        Args:
            fn: Called with the call; what it raises is logged.

        Raises:
            ForkedWorkerError: The call belongs to the parent process.

        Blocks: Never, but for ``fn`` itself when the call is done already.
        Threads: Any.
        """
        self._refuse_in_other_process()
        if self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda _: self._run_callback(lambda: _call(fn, self)))

    def _hint(self) -> str:
        """Return what an error says about why the answer does not come, if that can be suspected."""
        text = self._suspicion.text() if self._suspicion is not None else ""
        return f"; {text}" if text else ""

    def _in_other_process(self) -> bool:
        """Whether this is a forked copy: nobody will settle it, and whoever holds its locks is not in the copy."""
        return self._pid != os.getpid()

    def _refuse_in_other_process(self) -> None:
        if self._in_other_process():
            raise ForkedWorkerError(f"this call of {self.function_id} belongs to the parent process")

    def _settle(self, result: Any, error: Optional[BaseException]) -> bool:
        """End the call, unless it ended before. Any thread; returns whether this was the end."""
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(result)
        except concurrent.futures.InvalidStateError:
            return False
        return True

    def __repr__(self) -> str:
        state = "done" if self.done() else "pending"
        return f"<iii_sync.Call {self.function_id} {state}>"


def _call(function: Callable[[Any], object], call: Call) -> None:
    function(call)


def in_order(
    start: Callable[[Any], Call], payloads: Iterator[Any], max_in_flight: int, return_exceptions: bool
) -> Iterator[Any]:
    """Start a call for each payload, so many at a time, and give their results in order; see ``Worker.map``."""
    under_way: deque[Union[Call, Exception]] = deque()
    try:
        while True:
            for payload in itertools.islice(payloads, max_in_flight - len(under_way)):
                try:
                    under_way.append(start(payload))
                except Exception as exc:
                    under_way.append(exc)  # raised in its turn, after the results of those before it
                    if not return_exceptions:
                        payloads = iter(())
                        break
            if not under_way:
                return
            call = under_way.popleft()
            try:
                if isinstance(call, Exception):
                    raise call
                result = call.result()
            except Exception as exc:
                if not return_exceptions:
                    raise
                result = exc
            yield result
    finally:
        for call in under_way:
            if isinstance(call, Call):
                call.cancel()
