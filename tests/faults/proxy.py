"""A TCP proxy between workers and an engine that breaks connections on purpose, to the byte.

One selector thread per proxy. A connection has two *legs*, up (worker to engine) and down. The proxy reads the
request line to know whether it carries control messages or one end of a channel; a :class:`Shot` that waits for
that end is put on it. It strikes at a place in the stream (:class:`Place`): everything before the place is
delivered, nothing behind it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import re
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Callable, Optional, Union

from iii_sync.wire.marks import OPENING

from ..support.engines import free_ports

__all__ = ["FaultProxy", "Place", "Shot"]

UP, DOWN = "up", "down"
CLIENT, SERVER = "client", "server"

_BINARY, _CLOSE = 2, 8

#: What one leg holds at most of what its receiver has not taken; small, so that back-pressure passes through.
_LIMIT = 64 * 1024

_REQUEST = re.compile(rb"GET ([^ ?]*)(?:\?([^ ]*))? HTTP/1\.1\r\n")

Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Place:
    """A place on the leg that carries the data of a channel end (or, of a control socket, what is sent).

    Attributes:
        kind: ``request`` or ``answer``: byte ``offset`` of the head of the handshake. ``data``: byte ``offset`` behind
            it. ``header``: inside the header of the first frame that begins at ``offset`` or behind.
            ``end-mark``: before the empty binary message that ends a marked stream. ``close``: before the Close.
            ``in-close``: one byte into it. ``after-close``: when the Close was delivered.
        offset: Bytes.
    """

    kind: str
    offset: int = 0


@dataclasses.dataclass
class Shot:
    """One fault, and what became of it.

    Attributes:
        kind: ``delay``, ``trickle``, ``stall`` (these go on), ``half-open``, ``reset``, ``cut`` (FIN), ``black-hole``,
            or ``action``.
        place: Where it strikes.
        legs: Which legs it stops or slows: ``up``, ``down``, both, or that of the data alone.
        sides: Towards whom it resets or sends FIN: ``client``, ``server`` or both; the other side is left hanging.
        seconds: How long a stall lasts, or a delay in total.
        action: Called by the proxy's thread when the shot is fired; must not wait.
        fired: Whether it was.
        in_flight: Whether it was fired behind the first and before the last byte of the stream.
    """

    kind: str
    place: Place
    legs: tuple[str, ...] = (UP, DOWN)
    sides: tuple[str, ...] = (CLIENT, SERVER)
    seconds: float = 0.0
    action: Optional[Callable[[], None]] = None
    fired: bool = False
    in_flight: bool = False


class _Walk:
    """Follows the frames of one leg, without looking at their payloads."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._payload = 0
        self._opcode = 0
        self.seen = 0  # bytes so far
        self.data = 0  # payload bytes of data frames, as far as their headers were seen
        self.empty = 0  # empty binary messages
        self.closed = False  # the whole Close was seen

    def steps(self, data: memoryview) -> Iterator[tuple[int, int, int]]:
        """Go through ``data``; gives for each header that ends in it: its place in ``data``, opcode, payload size.

        The place is negative when the header began in earlier bytes.
        """
        position = 0
        while position < len(data):
            if self._payload:
                step = min(self._payload, len(data) - position)
                self._payload -= step
                position += step
                self.seen += step
                self._note_end()
                continue
            self._header.append(data[position])
            position += 1
            self.seen += 1
            length = self._length()
            if length:
                opcode, size = self._header[0] & 15, self._size()
                begin = position - length
                self._header.clear()
                self._opcode, self._payload = opcode, size
                yield begin, opcode, size
                self.data += size if opcode <= _BINARY else 0
                self.empty += opcode == _BINARY and not size
                self._note_end()

    def _note_end(self) -> None:
        if self._opcode == _CLOSE and not self._payload and not self._header:
            self.closed = True

    def _length(self) -> int:
        """The length of the header if it is whole, else 0."""
        header = self._header
        if len(header) < 2:
            return 0
        length = 2 + {126: 2, 127: 8}.get(header[1] & 127, 0) + (4 if header[1] & 128 else 0)
        return length if len(header) >= length else 0

    def _size(self) -> int:
        size = self._header[1] & 127
        if size == 126:
            return int(struct.unpack_from("!H", self._header, 2)[0])
        if size == 127:
            return int(struct.unpack_from("!Q", self._header, 2)[0])
        return size


class _Leg:
    """One direction of one connection."""

    def __init__(self, pipe: _Pipe, name: str) -> None:
        self.pipe = pipe
        self.name = name
        self.out = bytearray()  # to be delivered
        self.rest = bytearray()  # behind the place where the shot strikes
        self.head: Optional[bytearray] = bytearray()  # of the handshake, until it is whole
        self.shot: Optional[Shot] = None
        self.walk: Optional[_Walk] = None
        self.struck = False  # the shot is to be fired when ``out`` has left
        self.ended = False  # the source has sent FIN
        self.passed_end = False  # and it was passed on
        self.dead = False  # nothing is forwarded any more
        self.drain = False  # what still comes is thrown away
        self.held_until = 0.0
        self.trickle = 0  # bytes to be sent a few at a time
        self.pause = 0.0  # seconds between deliveries
        self.slow_until = 0.0

    @property
    def source(self) -> Optional[socket.socket]:
        return self.pipe.client if self.name == UP else self.pipe.server

    @property
    def target(self) -> Optional[socket.socket]:
        return self.pipe.server if self.name == UP else self.pipe.client

    def wants_data(self) -> bool:
        if self.ended or self.source is None:
            return False
        return self.drain or not (self.dead or self.struck or len(self.out) + len(self.rest) >= _LIMIT)

    def may_send(self, now: float) -> bool:
        return bool(self.out) and not self.dead and now >= self.held_until and self.target is not None

    # --- where the shot strikes ------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Take bytes from the source."""
        if self.shot is None or self.struck:
            (self.rest if self.struck else self.out).extend(data)
            return
        if self.head is not None:
            data = self._take_head(data)
        if data and not self.struck:
            self._take_frames(data)

    def _take_head(self, data: bytes) -> bytes:
        assert self.shot is not None and self.head is not None
        before = len(self.head)
        self.head += data
        place = self.shot.place
        end = self.head.find(b"\r\n\r\n")
        body = len(self.head) if end < 0 else end + 4
        if place.kind == ("request" if self.name == UP else "answer") and len(self.head) > place.offset:
            self._strike(data, max(0, place.offset - before))
            return b""
        self.out += data[: body - before]
        if end >= 0:
            self.head = None
        return data[body - before :]

    def _take_frames(self, data: bytes) -> None:
        assert self.shot is not None
        if self.walk is None:
            self.walk = _Walk()
        walk, place = self.walk, self.shot.place
        start = walk.seen
        # An unfinished header is held back in ``rest``: whether the shot strikes before it is not known yet.
        held = bytes(self.rest)
        self.rest.clear()
        whole = held + data
        for begin, opcode, size in walk.steps(memoryview(data)):
            at: Optional[int] = None
            if place.kind == "data" and place.offset <= start + begin:
                at = place.offset - start
            elif place.kind == "header" and opcode <= _BINARY and start + begin >= place.offset:
                at = begin + 1
            elif place.kind == "end-mark" and opcode == _BINARY and not size and (walk.data or walk.empty == OPENING):
                at = begin
            elif place.kind == "close" and opcode == _CLOSE:
                at = begin
            elif place.kind == "in-close" and opcode == _CLOSE:
                at = begin + 1
            if at is not None:
                self._strike(whole, at + len(held))
                return
        if place.kind == "data" and walk.seen > place.offset:
            self._strike(whole, place.offset - start + len(held))
            return
        if place.kind == "after-close" and walk.closed:
            self._strike(whole, len(whole))
            return
        unfinished = len(walk._header)
        self.out += whole[: len(whole) - unfinished]
        self.rest += whole[len(whole) - unfinished :]

    def _strike(self, data: bytes, at: int) -> None:
        self.out += data[:at]
        self.rest += data[at:]
        self.struck = True

    def in_flight(self) -> bool:
        """Whether the stream has begun and its end was not delivered."""
        if self.head is not None or self.shot is None:
            return False
        return self.shot.place.kind != "after-close" and bool(self.walk is not None and self.walk.seen)


class _Pipe:
    """One connection, through the proxy."""

    def __init__(self, client: socket.socket) -> None:
        self.client: Optional[socket.socket] = client
        self.server: Optional[socket.socket] = None
        self.role: Union[str, Key, None] = None  # "control", or the channel's id and "read" or "write"
        self.owner = ""  # of a control connection: the name that its worker gave in a header
        self.request = bytearray()
        self.legs = {UP: _Leg(self, UP), DOWN: _Leg(self, DOWN)}

    def sockets(self) -> list[socket.socket]:
        return [sock for sock in (self.client, self.server) if sock is not None]


class FaultProxy:
    """Listens on loopback and forwards to ``upstream``, a port there.

    Methods may be called from any thread; they take effect on the proxy's thread and, where it says so, wait for it.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        (self.port,) = free_ports(1)  # nobody else's while it listens to nobody
        self._listener: Optional[socket.socket] = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._listener.setblocking(False)
        self.url = f"ws://127.0.0.1:{self.port}"
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._calls: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # guards _calls and _shots
        self._shots: dict[Key, Shot] = {}
        self._pipes: set[_Pipe] = set()
        self._swallow = False  # new connections are accepted and never answered
        self._stopping = False
        self.failure: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()

    # --- any thread ------------------------------------------------------------------------------------

    def aim(self, channel_id: str, direction: str, shot: Shot) -> None:
        """Put a shot on the end of a channel that will be connected (``direction``: ``read`` or ``write``)."""
        with self._lock:
            self._shots[channel_id, direction] = shot

    def forget(self, channel_id: str) -> None:
        """Drop what is left of a channel's connections, half-open ones too; waits for it."""

        def forget() -> None:
            for pipe in list(self._pipes):
                if isinstance(pipe.role, tuple) and pipe.role[0] == channel_id:
                    self._drop(pipe)

        self._now(forget)
        with self._lock:
            for direction in ("read", "write"):
                self._shots.pop((channel_id, direction), None)

    def control(self, owner: str, shot: Shot) -> None:
        """Fire at the control connections of the worker whose header ``X-Owner`` is ``owner``, as soon as possible."""

        def fire() -> None:
            for pipe in list(self._pipes):
                if pipe.role == "control" and pipe.owner == owner:
                    self._fire(pipe.legs[UP], shot)
                    self._update(pipe)

        self._soon(fire)

    def mend_control(self, owner: str) -> None:
        """Reset the control connections of a worker that are half-open; waits for it."""

        def mend() -> None:
            for pipe in list(self._pipes):
                if pipe.role == "control" and pipe.owner == owner and any(leg.dead for leg in pipe.legs.values()):
                    self._drop(pipe, reset=True)

        self._now(mend)

    def refuse(self, seconds: float, *, drop: bool = False, reset: bool = False) -> None:
        """Refuse new connections for some time; with ``drop`` end those that there are. Waits until it does."""

        def begin() -> None:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            if drop:
                for pipe in list(self._pipes):
                    self._drop(pipe, reset=reset)
            self._later(seconds, self._listen)

        self._now(begin)

    def restart(self, seconds: float, *, reset: bool = False) -> None:
        """Drop everything, and listen again after some time. Waits until it is dropped."""
        self.refuse(seconds, drop=True, reset=reset)

    def black_hole(self, seconds: float) -> None:
        """Deliver nothing any more, on no connection; after some time the old ones are reset and new ones live."""

        def begin() -> None:
            self._swallow = True
            for pipe in self._pipes:
                for leg in pipe.legs.values():
                    leg.dead = True
                self._update(pipe)
            self._later(seconds, end)

        def end() -> None:
            self._swallow = False
            for pipe in list(self._pipes):
                if any(leg.dead for leg in pipe.legs.values()):
                    self._drop(pipe, reset=True)

        self._now(begin)

    def connections(self) -> int:
        """How many connections of channels there are."""
        found: list[int] = []
        self._now(lambda: found.append(sum(isinstance(pipe.role, tuple) for pipe in self._pipes)))
        return found[0]

    def is_whole(self) -> bool:
        """Whether new connections are accepted and forwarded."""
        return self._listener is not None and not self._swallow

    def close(self) -> None:
        """Drop everything and end; raises what went wrong in the proxy itself."""

        def stop() -> None:
            self._stopping = True

        self._now(stop)
        self._thread.join(10)
        self._waker.close()
        if self.failure is not None:
            raise self.failure

    def _soon(self, call: Callable[[], None]) -> None:
        with self._lock:
            self._calls.append(call)
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def _now(self, call: Callable[[], None]) -> None:
        if threading.current_thread() is self._thread:
            call()
            return
        done = threading.Event()

        def run() -> None:
            try:
                call()
            finally:
                done.set()

        self._soon(run)
        while not done.wait(0.2) and self._thread.is_alive():
            pass

    # --- the proxy's thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
                for key, mask in self._selector.select(wait):
                    if key.data is not None:
                        self._handle(key.data, key.fileobj, mask)
                    elif key.fileobj is self._wake:
                        self._wake.recv(4096)
                    else:
                        self._accept()
                with self._lock:
                    calls, self._calls = self._calls, []
                for call in calls:
                    call()
                while self._timers and self._timers[0][0] <= time.monotonic():
                    heapq.heappop(self._timers)[2]()
        except BaseException as exc:
            self.failure = exc
        finally:
            for pipe in list(self._pipes):
                self._drop(pipe)
            if self._listener is not None:
                self._listener.close()
            self._selector.close()
            self._wake.close()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def _listen(self) -> None:
        if self._listener is None and not self._stopping:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, None)

    def _accept(self) -> None:
        if self._listener is None:
            return  # closed by an earlier event of the same round
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        _prepare(sock)
        pipe = _Pipe(sock)
        self._pipes.add(pipe)
        if self._swallow:
            for leg in pipe.legs.values():
                leg.dead = True
        self._update(pipe)

    def _handle(self, pipe: _Pipe, sock: object, mask: int) -> None:
        if pipe not in self._pipes:
            return
        from_client = sock is pipe.client
        try:
            if mask & selectors.EVENT_READ:
                self._receive(pipe, pipe.legs[UP if from_client else DOWN])
            if mask & selectors.EVENT_WRITE and pipe in self._pipes:
                self._deliver(pipe.legs[DOWN if from_client else UP])
        except OSError:
            # What one side does to its connection happens to the other as well.
            self._drop(pipe, reset=True)
            return
        if pipe in self._pipes:
            self._update(pipe)

    def _receive(self, pipe: _Pipe, leg: _Leg) -> None:
        assert leg.source is not None
        try:
            data = leg.source.recv(_LIMIT)
        except BlockingIOError:
            return
        if not data:
            leg.ended = True
            if pipe.role is None:
                self._drop(pipe)
            elif not leg.drain:
                self._deliver(leg)
            return
        if leg.drain:
            return
        if pipe.role is None:
            pipe.request += data
            if b"\r\n\r\n" in pipe.request:
                self._open(pipe)
            return
        leg.take(data)
        self._deliver(leg)

    def _open(self, pipe: _Pipe) -> None:
        """The request is known: put the shot on, and connect to the engine."""
        request = bytes(pipe.request)
        found = _REQUEST.match(request)
        path = found.group(1).decode() if found else "/"
        if path.startswith("/ws/channels/") and found is not None:
            direction = "read" if b"dir=read" in (found.group(2) or b"") else "write"
            pipe.role = (path.rsplit("/", 1)[1], direction)
        else:
            pipe.role = "control"
            owner = re.search(rb"\r\nX-Owner: ([^\r]*)\r\n", request, re.IGNORECASE)
            pipe.owner = owner.group(1).decode() if owner else ""
        shot = None
        if isinstance(pipe.role, tuple):
            with self._lock:
                shot = self._shots.pop(pipe.role, None)
        if shot is not None:
            data_leg = DOWN if isinstance(pipe.role, tuple) and pipe.role[1] == "read" else UP
            name = {"request": UP, "answer": DOWN}.get(shot.place.kind, data_leg)
            pipe.legs[name].shot = shot
            if shot.kind == "black-hole":
                self._fire(pipe.legs[name], shot)
                return
        try:
            pipe.server = socket.create_connection(("127.0.0.1", self._upstream), timeout=5)
        except OSError:
            self._drop(pipe, reset=True)
            return
        _prepare(pipe.server)
        leg = pipe.legs[UP]
        leg.take(request)
        self._deliver(leg)

    def _deliver(self, leg: _Leg) -> None:
        """Send what may be sent, and fire when everything before the place has left."""
        pipe = leg.pipe
        while leg.may_send(time.monotonic()):
            assert leg.target is not None
            piece = leg.out
            slow = leg.trickle > 0 or time.monotonic() < leg.slow_until
            if leg.trickle > 0:
                piece = leg.out[: 1 + leg.trickle % 7]
            try:
                count = leg.target.send(piece)
            except BlockingIOError:
                break
            del leg.out[:count]
            leg.trickle -= count
            if slow:
                leg.held_until = time.monotonic() + leg.pause
                self._later(leg.pause, lambda: self._again(leg))
                return
        if leg.struck and not leg.out and not leg.dead and time.monotonic() >= leg.held_until:
            shot = leg.shot
            assert shot is not None
            shot.in_flight = leg.in_flight()
            leg.shot, leg.struck = None, False
            leg.out, leg.rest = leg.rest, bytearray()
            self._fire(leg, shot)
            if not leg.dead and pipe in self._pipes:
                self._deliver(leg)
        elif leg.ended and not leg.out and not leg.struck and not leg.dead and not leg.passed_end:
            if leg.rest:  # an unfinished header, and nothing will follow it
                leg.out, leg.rest = leg.rest, bytearray()
                self._deliver(leg)
                return
            leg.passed_end = True
            if leg.target is not None:
                with contextlib.suppress(OSError):
                    leg.target.shutdown(socket.SHUT_WR)
            if all(other.passed_end for other in pipe.legs.values()):
                self._drop(pipe)

    def _again(self, leg: _Leg) -> None:
        if leg.pipe not in self._pipes:
            return
        try:
            self._deliver(leg)
        except OSError:
            self._drop(leg.pipe, reset=True)
            return
        if leg.pipe in self._pipes:
            self._update(leg.pipe)

    def _fire(self, leg: _Leg, shot: Shot) -> None:
        pipe = leg.pipe
        shot.fired = True
        legs = [pipe.legs[name] for name in shot.legs]
        if shot.kind == "action":
            assert shot.action is not None
            shot.action()
        elif shot.kind == "stall":
            for each in legs:
                each.held_until = time.monotonic() + shot.seconds
                self._later(shot.seconds, lambda each=each: self._again(each))  # type: ignore[misc]
        elif shot.kind == "delay":
            for each in legs:
                each.pause, each.slow_until = min(0.02, shot.seconds / 5), time.monotonic() + shot.seconds
        elif shot.kind == "trickle":
            for each in legs:
                each.pause, each.trickle = 0.001, max(1, int(shot.seconds * 1000))
        elif shot.kind in ("half-open", "black-hole"):
            for each in legs:
                each.dead = True
        elif shot.kind == "reset":
            for each in pipe.legs.values():
                each.dead = True
            self._end_sides(pipe, shot.sides, reset=True)
        else:
            assert shot.kind == "cut", shot.kind
            for each in pipe.legs.values():
                each.dead = True
            for name in shot.sides:
                sock = pipe.client if name == CLIENT else pipe.server
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_WR)
                    # A machine that has sent FIN still takes what comes.
                    pipe.legs[UP if name == CLIENT else DOWN].drain = True

    def _end_sides(self, pipe: _Pipe, sides: tuple[str, ...], *, reset: bool) -> None:
        for name in sides:
            sock = pipe.client if name == CLIENT else pipe.server
            if sock is None:
                continue
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            if name == CLIENT:
                pipe.client = None
            else:
                pipe.server = None

    def _drop(self, pipe: _Pipe, *, reset: bool = False) -> None:
        self._pipes.discard(pipe)
        self._end_sides(pipe, (CLIENT, SERVER), reset=reset)

    def _update(self, pipe: _Pipe) -> None:
        """Have the selector look at what the legs wait for."""
        now = time.monotonic()
        up, down = pipe.legs[UP], pipe.legs[DOWN]
        for sock, incoming, outgoing in ((pipe.client, up, down), (pipe.server, down, up)):
            if sock is None:
                continue
            mask = selectors.EVENT_READ if incoming.wants_data() else 0
            mask |= selectors.EVENT_WRITE if outgoing.may_send(now) else 0
            known = self._selector.get_map().get(sock)
            if known is None:
                if mask:
                    self._selector.register(sock, mask, pipe)
            elif not mask:
                self._selector.unregister(sock)
            elif known.events != mask:
                self._selector.modify(sock, mask, pipe)


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
