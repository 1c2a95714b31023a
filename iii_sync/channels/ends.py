"""The channel ends of one worker: made, connected once, passed on in payloads, failed with the calls they depend on."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ..calls import Answer, Call, PassedRef
from ..errors import (
    ChannelError,
    ChannelNotFoundError,
    ChannelUsedError,
    ForkedWorkerError,
    FunctionNotFoundError,
    HandshakeRejectedError,
    InvalidPayloadError,
    OverloadedError,
    PermissionDeniedError,
    WorkerClosedError,
    brief,
)
from ..net.connect import Address, Route, connect
from ..net.connection import Connection
from ..net.loop import Loop
from ..net.waiting import Deadline
from ..wire import messages
from .channel import Channel
from .end import End, EndReceiver
from .reader import ChannelReader
from .refs import READ, WRITE, StreamChannelRef, as_ref, extract_channel_refs, is_channel_ref, live
from .writer import ChannelWriter

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["Ends"]

#: How many used ends are remembered, so that using one again is an error here and not an empty stream.
_REMEMBERED = 10_000

#: References that one payload may hold: an end costs far more memory than its reference.
_MOST_REFS = 10_000

#: Characters of an id or a key; an engine's have 36.
_LONGEST_ID = 512

#: Types of values that hold nothing else.
_LEAVES = frozenset({str, int, float, bool, type(None)})

#: What a channel end may be.
AnyEnd = Union[ChannelReader, ChannelWriter]


class Ends:
    """Makes ends, and knows which are whose. Any thread; ``_lock`` guards the tables, for their changes only.

    Args:
        address: Where the engine is.
        options: The worker's.
        loop: The reader thread.
        run_soon: Runs a function on a handler thread.
    """

    def __init__(
        self, address: Address, options: InitOptions, loop: Loop, run_soon: Callable[[Callable[[], None]], None]
    ) -> None:
        self._address = address
        self._options = options
        self._loop = loop
        self._run_soon = run_soon
        self._pid = os.getpid()
        self._lock = threading.RLock()
        # The ends of the channels made here, while somebody holds them.
        self._own: weakref.WeakValueDictionary[tuple[str, str], End] = weakref.WeakValueDictionary()
        # By identity, and not a WeakSet: that one is listed step by step, while others may be collected.
        self._open: weakref.WeakValueDictionary[int, End] = weakref.WeakValueDictionary()
        self._used: dict[tuple[str, str], None] = {}  # in the order of use
        self._closed = False

    # --- making ----------------------------------------------------------------------------------------

    def channel(self, made: Any, marks: Optional[bool]) -> Channel:
        """Return the channel that ``engine::channels::create`` has made.

        Raises:
            ChannelError: The engine's answer is no channel.
        """
        writer, reader = (made.get("writer"), made.get("reader")) if isinstance(made, dict) else (None, None)
        if not is_channel_ref(writer) or not is_channel_ref(reader):
            raise ChannelError(f"the engine answered engine::channels::create with no channel: {brief(made)}")
        writer_ref, reader_ref = as_ref(writer), as_ref(reader)
        if (writer_ref.direction, reader_ref.direction, writer_ref.channel_id) != (WRITE, READ, reader_ref.channel_id):
            raise ChannelError("the engine answered engine::channels::create with ends that do not belong together")
        channel = Channel(self.writer(writer_ref, marks), self.reader(reader_ref), writer_ref, reader_ref)
        with self._lock:
            self._own[channel.channel_id, READ] = channel.reader
            self._own[channel.channel_id, WRITE] = channel.writer
        return channel

    def end(self, ref: StreamChannelRef, marks: Optional[bool] = None) -> AnyEnd:
        """Return the end that ``ref`` names."""
        return self.reader(ref) if ref.direction == READ else self.writer(ref, marks)

    def reader(self, ref: StreamChannelRef) -> ChannelReader:
        """Return a reader, not connected yet."""
        return ChannelReader(self, ref, timeout=self._options.channel_timeout)

    def writer(self, ref: StreamChannelRef, marks: Optional[bool] = None) -> ChannelWriter:
        """Return a writer, not connected yet."""
        return ChannelWriter(
            self,
            ref,
            timeout=self._options.channel_timeout,
            close_timeout=self._options.close_timeout,
            marks=self._options.marks if marks is None else marks,
        )

    # --- for the ends ----------------------------------------------------------------------------------

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function on a handler thread."""
        self._run_soon(function)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function, which must not block, on the reader thread. Finalizers may call this."""
        self._loop.call_soon(function)

    @property
    def connect_timeout(self) -> Optional[float]:
        """Seconds that connecting may take."""
        return self._options.connect_timeout

    def connect_end(self, ref: StreamChannelRef, receiver: EndReceiver, end: End, deadline: Deadline) -> Connection:
        """Connect the end that ``ref`` names; blocks at most until ``deadline``."""
        if os.getpid() != self._pid:
            raise ForkedWorkerError("this worker belongs to the parent process; call register_worker() in the child")
        _check_plausible(ref)
        key = (ref.channel_id, ref.direction)
        with self._lock:
            if self._closed:
                raise WorkerClosedError("the worker was shut down")
            if key in self._used:
                raise ChannelUsedError(
                    f"the {ref.direction} end of channel {ref.channel_id} was connected before; an end can be "
                    "connected once in its life: make a new channel"
                )
            self._used[key] = None  # from now on, so that of two at the same time one is refused
            if len(self._used) > _REMEMBERED:
                del self._used[next(iter(self._used))]
        try:
            return self._connect(ref, receiver, end, deadline)
        except BaseException:
            if receiver.connection is None:
                with self._lock:
                    self._used.pop(key, None)
            raise

    def _connect(self, ref: StreamChannelRef, receiver: EndReceiver, end: End, deadline: Deadline) -> Connection:
        options = self._options
        address = self._address
        route = Route(options.all_headers(), options.ssl_context, options.proxy)
        url = address.channel(ref.channel_id, ref.access_key, ref.direction)
        try:
            sock = connect(address, url, route, deadline, self._loop.attempts)
        except HandshakeRejectedError as exc:
            if exc.status != 404:
                raise
            raise ChannelNotFoundError(
                f"the engine does not know channel {ref.channel_id}: the reference is wrong, or the end was not "
                "connected within five minutes"
            ) from None
        try:
            with self._lock:
                # Whom shutdown() does not find among the open ends nobody would wake any more.
                if not self._closed:
                    self._open[id(end)] = end
                    return Connection(sock, self._loop, receiver, f"channel {ref.channel_id}")
        except BaseException:
            if receiver.connection is None:  # Ctrl-C: the exception may hold it for long
                self.end_is_over(end)
                sock.close()
            raise
        sock.close()
        raise WorkerClosedError("the worker was shut down")

    def is_alone(self, end: End) -> bool:
        """Whether the other end of the channel is here too, unused, and not handed out."""
        other = self._own.get((end.channel_id, WRITE if end.direction == READ else READ))
        return other is not None and other._is_idle() and not other._handed_out

    def end_is_over(self, end: End) -> None:
        """The end is not used any more."""
        with self._lock:
            self._open.pop(id(end), None)

    def open_writers(self) -> list[ChannelWriter]:
        """Return the connected writers whose streams have not ended."""
        ends = self._all_open()
        return [end for end in ends if isinstance(end, ChannelWriter) and not end.closed and end._failure is None]

    def fail_all(self, error: BaseException) -> None:
        """Drop every connected end; none is connected any more."""
        with self._lock:
            self._closed = True
        for end in self._all_open():
            end._fail(error)

    def _all_open(self) -> list[End]:
        with self._lock:
            references = self._open.valuerefs()
        found = [reference() for reference in references]
        return [end for end in found if end is not None]

    # --- payloads and calls ----------------------------------------------------------------------------

    def plain(self, value: Any, what: str) -> tuple[Any, list[PassedRef]]:
        """Return ``value`` as it can travel, and the references in it; those count as handed out."""
        found: list[PassedRef] = []

        def convert(item: Any) -> Any:
            if isinstance(item, StreamChannelRef):
                found.append(PassedRef(item.channel_id, item.direction))
                return item.model_dump()
            if isinstance(item, End):
                plain = item._pass_on()
                found.append(PassedRef(item.channel_id, item.direction))
                return plain
            return NotImplemented

        try:
            plain = messages.check(value, what, convert)
        except BaseException:
            self.take_back(found)
            raise
        if not found and not _may_hold_refs(plain):
            return plain, []
        refs = [PassedRef(ref.channel_id, ref.direction) for _, ref in extract_channel_refs(plain)]
        return plain, refs

    def live(self, data: Any, ends: dict[tuple[str, str], AnyEnd]) -> Any:
        """Return a payload with live ends in the place of references.

        The ends go into ``ends`` too; the same reference twice is the same end.
        """

        def open_end(ref: StreamChannelRef) -> AnyEnd:
            key = (ref.channel_id, ref.direction)
            if key not in ends:
                if len(ends) >= _MOST_REFS:
                    raise InvalidPayloadError(f"the payload holds more than {_MOST_REFS:,} channel references")
                ends[key] = self.end(ref)
            return ends[key]

        return live(data, open_end)

    def take_back(self, refs: list[PassedRef]) -> None:
        """Note that nobody has got these references after all: the ends are ours again."""
        for ref in refs:
            end = self._own.get((ref.channel_id, ref.direction))
            if end is not None:
                end._handed_out = max(0, end._handed_out - 1)

    def other_end(self, ref: PassedRef) -> Optional[End]:
        """Our own end of the channel of which the other one was passed on, if somebody still holds it."""
        return self._own.get((ref.channel_id, WRITE if ref.direction == READ else READ))

    def carried_by(self, call: Call) -> None:
        """Note which of our ends depend on a call: those of the channels whose other end it carries."""
        for ref in call.refs:
            end = self.other_end(ref)
            if end is not None:
                end._partner = call

    def call_failed(self, call: Union[Call, Answer], error: BaseException) -> None:
        """Wake our ends that wait for the other side of what the call carried. On the reader thread."""
        refused = isinstance(error, (FunctionNotFoundError, PermissionDeniedError, OverloadedError))
        if refused:
            self.take_back(call.refs)
        for ref in call.refs:
            passed = self._own.get((ref.channel_id, ref.direction))
            if refused and passed is not None and passed._handed_out:
                continue  # another call has it, too
            end = self.other_end(ref)
            if end is not None:
                end._peer_failed(error)


def _check_plausible(ref: StreamChannelRef) -> None:
    """Refuse what no engine has made: it would end up in URLs and logs."""
    fits = ref.channel_id.isprintable() and len(ref.channel_id) <= _LONGEST_ID and len(ref.access_key) <= _LONGEST_ID
    # Proxies resolve these as steps in a path.
    if not fits or ref.channel_id in ("", ".", ".."):
        raise ChannelNotFoundError(f"{brief(ref.channel_id, 80)!r} is not the id of a channel of an engine")


def _may_hold_refs(plain: Any) -> bool:
    """Whether a plain value has anything that could be a reference in it."""
    if isinstance(plain, dict):
        if "access_key" in plain:
            return True
        plain = plain.values()
    elif not isinstance(plain, (list, tuple)):
        return False
    for item in plain:
        if type(item) not in _LEAVES and _may_hold_refs(item):
            return True
    return False
