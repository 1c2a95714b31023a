"""One control connection, from its socket to its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Optional, Protocol

from ..calls import Pending
from ..errors import EngineConnectionError
from ..net.connection import Connection
from ..net.loop import Loop
from ..wire import frames, messages
from .repeated import RepeatedAnswers

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["INBOUND_EXTRA", "Link", "encoded_frames"]

#: Above this a message goes out in fragments: the engine takes frames of 16 MiB at most (PROTOCOL 1.3).
_FRAGMENT_ABOVE = 16 * 1024 * 1024 - 64 * 1024

#: What an inbound message may have beyond ``max_payload``: the engine adds keys on the way (PROTOCOL 13).
INBOUND_EXTRA = 1024 * 1024

#: Seconds between pings, and seconds without anything after a ping that make a link count as dead. Not silence as
#: such: a process that was stopped for a minute has heard nothing, and its link is well.
_PING_EVERY = 15.0
_DEAD_AFTER = 20.0


class LinkOwner(Protocol):
    """What a link tells its session. Called on the reader thread; must not block."""

    options: InitOptions
    loop: Loop

    def received(self, link: Link, message: messages.Message) -> None:
        """A message has come in."""

    def received_oversize(self, link: Link, start: str, size: int) -> None:
        """A message of ``size`` bytes has come in that was not kept; ``start`` is its beginning."""

    def link_ended(self, link: Link, error: Optional[BaseException]) -> None:
        """Nothing more will come in."""


class Link:
    """One control connection; the receiver of its frames."""

    def __init__(self, session: LinkOwner) -> None:
        self._session = session
        self._buffer = bytearray(64 * 1024)
        self._texts = frames.TextAssembler(session.options.max_payload + INBOUND_EXTRA)
        self.connection: Optional[Connection] = None
        self.answers: Optional[RepeatedAnswers] = None
        self.hello: Pending = Pending()
        self.worker_id: Optional[str] = None
        self.token: Optional[str] = None
        self.since: float = time.monotonic()
        self.pinged: float = 0.0  # when the oldest ping was sent that nothing has followed; reader thread only
        self._behind = 0  # how many bytes go before that ping, and it; reader thread only
        self._taken = 0  # how many the engine's machine had when the last ping was sent; reader thread only
        self.rejections: dict[str, messages.Message] = {}  # function id -> refusal

    def attached(self, connection: Connection) -> None:
        self.connection = connection
        self.answers = RepeatedAnswers(self._session.loop, connection)

    def buffer(self) -> bytearray:
        return self._buffer

    def received_binary(self, payloads: list[memoryview], messages: int, size: int, more: bool) -> bool:
        return True  # the engine sends text only (PROTOCOL 1.5)

    def received(self, pieces: list[frames.Piece], size: int, more: bool) -> bool:
        for opcode, payload, end in pieces:
            if opcode != frames.TEXT:
                continue
            text = self._texts.add(payload, end)
            if text is None:
                continue
            if self._texts.oversize:
                self._session.received_oversize(self, text, self._texts.oversize)
            else:
                message = messages.decode(text)
                if message is not None:
                    self._session.received(self, message)
        return True

    def ended(self, error: Optional[BaseException], close: Optional[frames.CloseReason]) -> None:
        self._session.link_ended(self, error)

    def send_soon(self, message: messages.Message) -> None:
        """Send from the reader thread, which must not wait."""
        assert self.connection is not None
        self.connection.send_soon(frames.encode_frame(frames.TEXT, messages.encode(message)))

    def answer_soon(self, message: messages.Message) -> None:
        """Answer an invocation from the reader thread, which must not wait."""
        assert self.connection is not None and self.answers is not None
        frame = frames.encode_frame(frames.TEXT, messages.encode(message))
        self.connection.send_soon(frame)
        self.answers.sent(frame)

    def keep_alive(self, is_current: Callable[[], bool], address: object) -> None:
        """Ping from time to time, as long as the link is the current one; break it when nothing answers."""
        self._session.loop.call_later(_PING_EVERY, lambda: self._ping(is_current, address))

    def _ping(self, is_current: Callable[[], bool], address: object) -> None:
        connection = self.connection
        if not is_current() or connection is None or connection.error is not None:
            return
        now = time.monotonic()
        answered, taken = connection.last_received >= self.pinged, connection.taken()
        # A ping waits behind what is being sent: while the engine takes that, however slowly, it is well.
        if answered or self._taken < min(taken, self._behind):
            self.pinged = now
        elif now - self.pinged > _DEAD_AFTER:
            silent = now - connection.last_received
            connection.on_broken(
                EngineConnectionError(f"{address} answers no ping, and has been silent for {silent:.0f} s")
            )
            return
        self._taken = taken
        connection.send_soon(frames.encode_frame(frames.PING))
        if answered:
            self._behind = connection.queued()
        self.keep_alive(is_current, address)


def encoded_frames(data: bytes) -> bytes:
    """Return a message as the frames it travels in."""
    return frames.encode_message(frames.TEXT, data, _FRAGMENT_ABOVE)
