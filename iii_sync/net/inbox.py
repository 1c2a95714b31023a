"""The bounded queue between the reader thread and the consumer of one stream.

One item of the queue is what one read of the socket brought: many frames, one wake-up. The bound is in bytes;
a full inbox stops the reading of its own socket, and so the sender, and nothing else.

Locks: ``_lock`` guards the byte count and the decision to pause or to resume, nothing more. End and error are
kept beside the queue, since they would not fit into a full one; an empty item only wakes the consumer.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from ..wire import frames
from ..wire.marks import StreamEnd
from .connection import Connection
from .waiting import Condition, Deadline
from .windows import LARGEST, Windows

__all__ = ["Batch", "Inbox", "Item"]

#: Bytes that may wait for the consumer of one stream, before its socket is left alone.
BUDGET = 4 * 1024 * 1024

#: Items that may wait; an item costs memory even when it holds few bytes.
MAX_ITEMS = 1024

#: The width of the queue. Larger than MAX_ITEMS: one read may bring several items (a window of frames of two bytes, in
#: each those that the parser gives at once), and then there are the wake-ups.
_WIDTH = MAX_ITEMS + LARGEST // (2 * frames.MAX_PIECES) + 8

#: What a piece costs besides its bytes, in bytes of memory: an object or two, and their places in lists.
_PIECE = 300

#: A stream's first window, in bytes; it doubles with each read that fills it.
SMALLEST_WINDOW = 64 * 1024

#: The longest text message; it is kept whole in memory.
MAX_TEXT = 64 * 1024 * 1024

#: Data, or a text message.
Item = Union[frames.Buffer, str]


class Batch:
    """What one read brought.

    Attributes:
        items: Data as views of the window or as bytes of its own, never empty, and text messages as ``str``, in order.
        length: The bytes of data in them.
        size: The memory it stands for, in bytes.
        left: How many items are still to be read; for the consumer to count.
    """

    __slots__ = ("items", "length", "size", "left", "_window", "_windows")

    def __init__(
        self,
        items: Sequence[Item],
        length: int,
        size: int,
        window: Optional[bytearray] = None,
        windows: Optional[Windows] = None,
    ) -> None:
        self.items: Sequence[Item] = items
        self.length: int = length
        self.size: int = size
        self.left: int = len(items)
        self._window = window
        self._windows = windows

    def release(self) -> None:
        """Give the window back for reuse. Nobody may look at the views any more."""
        if self._window is not None and self._windows is not None:
            self._windows.give_back(self._window)
        self._window = None


if TYPE_CHECKING:
    _Base = queue.Queue[Optional[Batch]]
else:
    _Base = queue.Queue


class _Queue(_Base):
    """A ``queue.Queue`` that takes one call for what takes five there; nobody waits for room in it.

    A consumer that is interrupted does not leave its lock taken, for the reader thread would hang: see
    :mod:`iii_sync.net.waiting`.
    """

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self._changed = changed = Condition()
        inherited: Any = changed  # it does what these are used for
        self.mutex = self.not_empty = self.not_full = self.all_tasks_done = inherited

    def put_nowait(self, item: Optional[Batch]) -> None:
        with self._changed:
            if len(self.queue) >= self.maxsize:
                raise queue.Full
            self.queue.append(item)
            self._changed.notify_all()

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Optional[Batch]:
        deadline: Optional[Deadline] = None
        while True:
            # Inside the loop: from Python 3.13 on, ``with`` does not cover the jump back of a loop that it holds.
            with self._changed:
                if self.queue:
                    batch: Optional[Batch] = self.queue.popleft()
                    return batch
                if deadline is None:
                    deadline = Deadline(timeout if block else 0)
                if deadline.expired:
                    raise queue.Empty
                self._changed.wait(deadline.remaining())


class Inbox:
    """Receives one stream and holds it for its consumer.

    The :class:`~iii_sync.net.connection.Receiver` methods are the reader thread's, the others the consumer's.

    Attributes:
        stream: What is known of the stream's completeness; to be looked at when it is over.
        over: Whether nothing more will come; what is queued can still be got.
        error: Why the connection broke, if it did.
        close: What the engine's Close said, if there was one.
        connection: What brings the stream, once it is connected.
    """

    def __init__(self) -> None:
        self.connection: Optional[Connection] = None
        self._queue: queue.Queue[Optional[Batch]] = queue.Queue(_WIDTH)
        if hasattr(self._queue, "mutex"):  # gevent's has none, and wakes its own kind of threads
            self._queue = _Queue(_WIDTH)
        self._lock = threading.Lock()
        self._waiting = 0  # bytes in the queue; under _lock
        self._paused = False  # under _lock
        self._put = 0  # batches that were queued; under _lock
        self._window_size = SMALLEST_WINDOW
        self._window: Optional[bytearray] = None
        self._windows = Windows()  # until the connection's
        self._texts = frames.TextAssembler(MAX_TEXT)
        self.stream: StreamEnd = StreamEnd()
        self.over: bool = False
        self.error: Optional[BaseException] = None
        self.close: Optional[frames.CloseReason] = None

    def attached(self, connection: Connection) -> None:
        """Take note of the connection, to resume it and to share its windows."""
        self.connection = connection
        self._windows = connection.windows
        self._windows.join(self)

    # --- the reader thread -----------------------------------------------------------------------------

    def buffer(self) -> bytearray:
        """Return the window for the next read."""
        if self._window is None:
            size = self._window_size
            self._window = (self._windows.take() if size == LARGEST else None) or bytearray(size)
        return self._window

    def received_binary(self, payloads: list[memoryview], messages: int, size: int, more: bool) -> bool:
        """Queue what was read; ``False`` when the consumer is behind."""
        self.stream.data(messages, messages < len(payloads))
        return self._enqueue(payloads, sum(map(len, payloads)), 0, size, more)

    def received(self, pieces: list[frames.Piece], size: int, more: bool) -> bool:
        """Queue what was read; ``False`` when the consumer is behind."""
        items: list[Item] = []
        length = texts = 0
        violation: Optional[frames.FrameError] = None
        for index, (opcode, payload, end) in enumerate(pieces):
            if opcode == frames.BINARY:
                if payload:
                    items.append(payload)
                    length += len(payload)
            else:
                try:
                    text = self._texts.add(payload, end)
                    if self._texts.oversize:
                        raise frames.FrameError(1009, f"a text message above {MAX_TEXT} bytes")
                except frames.FrameError as exc:
                    violation = exc
                    pieces = pieces[: index + 1]  # what came before it still counts
                    break
                if text is not None:
                    items.append(text)
                    texts += sys.getsizeof(text)  # of short ones far more than their characters
        self.stream.pieces(pieces)
        go_on = not items or self._enqueue(items, length, texts, size, more)
        if violation is not None:
            raise violation
        return go_on

    def _enqueue(self, items: Sequence[Item], length: int, texts: int, size: int, more: bool) -> bool:
        """Queue what a read of ``size`` bytes brought: ``length`` bytes of data, texts of so many bytes of memory."""
        window = self._window
        assert window is not None
        # A few bytes are copied: they must not keep a whole window busy. So is what more of the same read is to follow:
        # the window is still needed.
        if more:
            items = _joined(items)
        if more or length < len(window) // 4:
            items = [bytes(item) if isinstance(item, memoryview) else item for item in items]
            batch = Batch(items, length, length + texts + _PIECE * len(items))
        else:
            self._window = None
            batch = Batch(items, length, len(window) + texts + _PIECE * len(items), window, self._windows)
        if size == len(window) < LARGEST and not more:
            self._window, self._window_size = None, 2 * size
        with self._lock:
            self._queue.put_nowait(batch)
            self._put += 1
            self._waiting += batch.size
            if self._waiting >= BUDGET or len(self._queue.queue) >= MAX_ITEMS:
                self._paused = True
                return False
        return True

    def ended(self, error: Optional[BaseException], close: Optional[frames.CloseReason]) -> None:
        """Note the end; what is queued stays readable."""
        self.error, self.close = error, close
        self._window = None  # large, and what refers to it may live until the next collection
        self._windows.leave(self)
        self.over = True
        self.wake()

    # --- the consumer ----------------------------------------------------------------------------------

    def get(self, timeout: Optional[float]) -> Optional[Batch]:
        """Return the next batch.

        Blocks until there is one, at most ``timeout`` seconds.

        Returns:
            The batch, or ``None`` when the consumer was woken or the stream is over: look at :attr:`over`.

        Raises:
            TimeoutError: Nothing came.
        """
        while True:
            try:
                # Once over, nothing is added any more: what is in the queue is all there is.
                batch = self._queue.get_nowait() if self.over else self._queue.get(timeout=timeout)
            except queue.Empty:
                if not self.over:
                    raise TimeoutError from None
                if self._queue.empty():
                    return None
                continue
            if batch is None:
                if self.over:
                    continue
                return None
            with self._lock:
                self._waiting -= batch.size
                resume = self._paused and self._waiting <= BUDGET // 2 and len(self._queue.queue) <= MAX_ITEMS // 2
                if resume:
                    self._paused = False
            if resume and self.connection is not None:
                self.connection.resume()
            return batch

    def missing(self, kept: int) -> bool:
        """Whether a batch has left the queue and is not among the ``kept`` ones that the consumer has counted."""
        with self._lock:  # nobody adds a batch meanwhile
            # One operation, so that no lock of the queue is needed: gevent's has none.
            queued = self._queue.queue.copy()
            return self._put > kept + sum(batch is not None for batch in queued)

    def wake(self) -> None:
        """Make a blocked :meth:`get` return. Any thread; not in a finalizer."""
        # On a queue that is not empty nobody is blocked.
        if self._queue.empty():
            self._queue.put_nowait(None)


def _joined(items: Sequence[Item]) -> list[Item]:
    """Join neighbouring data: thousands of tiny messages would cost far more memory than their bytes."""
    joined: list[Item] = []
    run: list[frames.Buffer] = []
    for item in items:
        if isinstance(item, str):
            if run:
                joined.append(b"".join(run))
                run = []
            joined.append(item)
        else:
            run.append(item)
    if run:
        joined.append(b"".join(run))
    return joined
