"""The response of an HTTP function, written as it comes."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from typing import TYPE_CHECKING, Any, Optional

from ..channels import ChannelWriter
from ..channels.end import OWN_TIMEOUT, as_bytes, let_go
from ..channels.files import ChannelFileWriter, writes_to
from ..errors import (
    ChannelBrokenError,
    ChannelError,
    ChannelNotFoundError,
    EngineConnectionError,
    UsageError,
)
from ..fields import HeaderArguments, checked_headers
from ..wire import frames, messages
from .headers import checked_status
from .request import StreamRequest

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BODILESS", "StreamResponse", "encoded_json"]

#: Statuses of responses that have no body.
BODILESS = (204, 304)

_LINE_END = re.compile("\r\n|\r|\n")


class StreamResponse(ChannelWriter):
    """The response to one HTTP request: a raw binary file behind a status and headers.

    Nothing is sent, and no connection made, before the first byte or :meth:`close`; :meth:`status` and
    :meth:`headers` are kept until then, and an exception before then is a 500. Afterwards they can no longer be
    changed, and an exception cuts the response. A client can only notice that when it knows the length, so set
    ``content-length`` whenever you do.

    The status and headers must be on their way within the engine's time limit (30 seconds unless configured), else the
    client gets a 504; :meth:`start` sends them ahead of the body. The body may take as long as it likes. When the
    client has gone, :meth:`write` raises ``ChannelBrokenError``, a ``BrokenPipeError``.

    The response ends when the handler returns; :meth:`close` ends it earlier. The body of a response to ``HEAD`` is
    counted and not sent.

    Args:
        writer: The writer that came as ``response`` in the payload, unused.
        request: The request.
    """

    def __init__(self, writer: ChannelWriter, request: StreamRequest) -> None:
        # No marks: what reads is the engine, which would only forward them.
        super().__init__(
            writer._owner, writer._ref, timeout=writer.timeout, close_timeout=writer.close_timeout, marks=False
        )
        self._request = request
        self._status: Optional[int] = None
        self._fields: dict[str, tuple[str, str]] = {}  # by the name in lower case
        self._made: list[ChannelFileWriter] = []
        self._discarded = 0  # bytes of the body of a response to HEAD
        self._head_lock = threading.RLock()  # held while the head is sent
        self._started = False

    # --- the head --------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether status and headers are sent, and can no longer be changed."""
        return self._started

    @property
    def status_code(self) -> int:
        """The status that is, or will be, sent; 200 unless set."""
        return 200 if self._status is None else self._status

    def status(self, status_code: int) -> None:
        """Set the status.

        Args:
            status_code: From 200 to 599.

        Raises:
            ValueError: Not from 200 to 599; or closed.
            UsageError: It has been sent already.

        Blocks: While another thread sends the head, like :meth:`.ChannelWriter.write`; else never.
        Threads: Any.
        """
        checked = checked_status(status_code)
        with self._head_lock:
            self._check_head()
            self._status = checked

    def headers(self, headers: HeaderArguments) -> None:
        """Add header fields; one with a name that is there already replaces it.

        A streamed response can have each field once; for several ``set-cookie`` return an ``HttpResponse`` whose body
        is JSON or text of at most 256 KiB.

        Args:
            headers: A dictionary, or pairs.

        Raises:
            TypeError: Neither fields nor pairs, or a value that is neither text nor an integer.
            ValueError: A name or value that cannot be sent, or a name twice; or closed.
            UsageError: They have been sent already.

        Blocks: Like :meth:`status`.
        Threads: Any.
        """
        fields = checked_headers(headers)
        added = {name.lower(): (name, value) for name, value in fields}
        if len(added) < len(fields):
            raise ValueError(
                "a streamed response can have each header once; for several return an HttpResponse whose body is JSON "
                "or text of at most 256 KiB: others are streamed, too"
            )
        with self._head_lock:
            self._check_head()
            self._fields.update(added)

    def start(self) -> None:
        """Send status and headers now, ahead of the body. Does nothing when they are sent.

        Raises:
            ChannelBrokenError: The client has gone, or the engine has answered in our place (504).
            IIISyncError: As :meth:`.ChannelWriter.write`.

        Blocks: Like :meth:`.ChannelWriter.write`.
        Threads: Any.
        """
        if not self._bodiless():
            self._start(OWN_TIMEOUT, frames.encode_frame(frames.BINARY))

    # --- the body --------------------------------------------------------------------------------------

    @property
    def stream(self) -> StreamResponse:
        """The response itself: where iii's documentation writes to ``response.stream``."""
        return self

    @property
    def writer(self) -> StreamResponse:
        """The response itself: where iii's documentation writes to ``response.writer``."""
        return self

    def write(self, data: Buffer, /, *, timeout: Optional[float] = OWN_TIMEOUT) -> int:
        """Send ``data``, behind status and headers if it is the first.

        Args:
            data: What to write.
            timeout: For this call, in the place of :attr:`timeout`.

        Returns:
            The number of bytes, not of items.

        Raises:
            ChannelBrokenError: The client has gone, or the engine has answered in our place (504).
            ValueError: More than ``content-length``, or a status that has no body; nothing was sent. Or closed.
            TypeError: Text, or not a buffer.
            IIISyncError: As :meth:`.ChannelWriter.write`.

        Blocks: Like :meth:`.ChannelWriter.write`.
        Threads: Any number; the bytes of one call stay together.
        """
        if isinstance(data, str):
            raise TypeError("a bytes-like object is required, not 'str'; use makefile('w') for text")
        view = as_bytes(data)
        size = view.nbytes
        let_go(view)
        self._check_open()
        if not size:
            return super().write(data, timeout=timeout)
        if self.status_code in BODILESS:
            raise ValueError(f"a response with status {self.status_code} has no body")
        promised = self._promised()
        if promised is not None and self._sent + self._discarded + size > promised:
            raise ValueError(f"more than the {promised:,} bytes of content-length")
        if self._request.method == "HEAD":
            self._discarded += size
            return size
        self._start(timeout)
        return super().write(data, timeout=timeout)

    def send_message(self, text: str, *, timeout: Optional[float] = OWN_TIMEOUT) -> None:
        """Refuse: HTTP has no messages; use :meth:`write` or :meth:`send_event`.

        Args:
            text: Nothing is done with it.
            timeout: Nor with this.

        Raises:
            UsageError: Always.

        Blocks: Never.
        Threads: Any.
        """
        raise UsageError("an HTTP response has no text messages; use write(), makefile('w') or send_event()")

    def send_json(self, value: Any) -> None:
        """Send ``value`` as the whole response and close it.

        Args:
            value: Anything that JSON can hold.

        Raises:
            InvalidPayloadError: Something in it is not JSON; nothing was sent.
            UsageError: The response has begun already.
            IIISyncError: As :meth:`write` and :meth:`close`.

        Blocks: Like :meth:`write` and :meth:`close`.
        Threads: One at a time.
        """
        data = encoded_json(value)
        with self._head_lock:
            self._check_head()
            self._default("content-type", "application/json")
            self._default("content-length", str(len(data)))
        self.write(data)
        self.close()

    def send_event(
        self,
        data: Any,
        *,
        event: Optional[str] = None,
        id: Optional[str] = None,  # noqa: A002 - the name it has in the format
        retry: Optional[float] = None,
    ) -> None:
        """Send one server-sent event at once; the first also makes the response a ``text/event-stream``.

        Args:
            data: Text, of any number of lines; anything else is sent as JSON.
            event: The event's type; clients take it for ``message`` without.
            id: What a client that reconnects sends as ``last-event-id``.
            retry: Seconds after which a client that lost the connection reconnects.

        Raises:
            ValueError: An ``event`` or ``id`` of more than one line.
            InvalidPayloadError: ``data`` is neither text nor JSON.
            IIISyncError: As :meth:`write`.

        Blocks: Like :meth:`write`.
        Threads: Any number; one event stays together.
        """
        lines = []
        for name, value in (("event", event), ("id", id)):
            if value is not None:
                if _LINE_END.search(value) or "\0" in value:
                    raise ValueError(f"{name}={value!r} must be a single line")
                lines.append(f"{name}: {value}\n")
        if retry is not None:
            lines.append(f"retry: {round(retry * 1000)}\n")
        text = data if isinstance(data, str) else encoded_json(data).decode()
        lines += [f"data: {line}\n" for line in _LINE_END.split(text)]
        self._send_lines(lines)

    def send_comment(self, text: str = "") -> None:
        """Send a line that clients of server-sent events ignore.

        It keeps a quiet connection alive, and tells in time that the client has gone.

        Args:
            text: The line, or several.

        Raises:
            IIISyncError: As :meth:`write`.

        Blocks: Like :meth:`write`.
        Threads: Any number; one comment stays together.
        """
        self._send_lines([f": {line}\n" for line in _LINE_END.split(text)])

    def close(self) -> None:
        """End the response; one without a body is sent now.

        What files of :meth:`makefile` have collected is sent before.

        Raises:
            ValueError: Less than ``content-length`` was written: the response is cut.
            IIISyncError: As :meth:`.ChannelWriter.write` and :meth:`.ChannelWriter.close`.

        Blocks: Like :meth:`.ChannelWriter.write` and :meth:`.ChannelWriter.close`.
        Threads: Any, at any time; a write in another thread is cut, and the response with it.
        """
        if self._closed or self._in_other_process():
            super().close()
            return
        try:
            if not self._others_write():  # else the stream is cut anyway, and flushing would wait for that writer
                self._flush_files()
            if not self._started and self._request.method != "HEAD" and self.status_code not in BODILESS:
                self._default("content-length", "0")
            promised = self._promised()
            if promised is not None and not self._bodiless() and self._sent != promised:
                raise ValueError(f"the response ended after {self._sent:,} of the {promised:,} bytes of content-length")
            self._start(OWN_TIMEOUT)
        except BaseException:
            self.abort()
            raise
        finally:
            self._made.clear()
        try:
            super().close()
        except ChannelBrokenError:
            if promised is None or self._bodiless():
                raise
            # A client may leave when it has the announced bytes, without waiting for the end.

    # --- inside ----------------------------------------------------------------------------------------

    def _check_head(self) -> None:
        self._check_open()
        if self._started:
            raise UsageError("status and headers were sent with the first byte and cannot be changed any more")

    def _default(self, name: str, value: str) -> None:
        self._fields.setdefault(name, (name, value))

    def _promised(self) -> Optional[int]:
        field = self._fields.get("content-length")
        return None if field is None else int(field[1])

    def _bodiless(self) -> bool:
        return self._request.method == "HEAD" or self.status_code in BODILESS

    def _touched(self) -> bool:
        """Whether anything was set, written or ended."""
        return bool(self._status or self._fields or self._started or self._discarded or self._closed or self._made)

    def _send_lines(self, lines: list[str]) -> None:
        if not self._started:
            with self._head_lock:
                self._default("content-type", "text/event-stream")
                self._default("cache-control", "no-cache")
        self.write("".join([*lines, "\n"]).encode("utf-8", "replace"))

    def _start(self, timeout: Optional[float], first: bytes = b"") -> None:
        """Send the head, unless that is done, and with it ``first``."""
        if self._started:
            return
        with self._head_lock:
            if self._started:
                return
            self._keep_upload()
            head = [_control({"type": "set_status", "status_code": self.status_code})]
            if self._fields:
                head.append(_control({"type": "set_headers", "headers": dict(self._fields.values())}))
            try:
                self._send_frames(b"".join([*head, first]), timeout)
            except ChannelNotFoundError as exc:
                raise ChannelBrokenError(
                    "the client has gone, or the engine has answered in our place: the response was not begun in time"
                ) from exc
            self._started = True

    def _keep_upload(self) -> None:
        """Connect a body that is still to be read: the engine forgets it when the response begins (E-36)."""
        reader = self._request.request_body
        if not reader._is_idle() or reader._handed_out:
            return
        if not self._request._may_have_upload():
            reader._over = True
            return
        # The read that misses it says so.
        with contextlib.suppress(ChannelError, EngineConnectionError, TimeoutError):
            reader._connected(reader._inbox)

    def _flush_files(self) -> None:
        for file in self._made:
            if writes_to(file, self):
                file.flush()

    def _file_made(self, file: ChannelFileWriter) -> None:
        self._made.append(file)


def encoded_json(value: Any) -> bytes:
    """Return a value as JSON.

    Raises:
        InvalidPayloadError: Something in it is not JSON.
    """
    checked = messages.check(value, "response")
    return json.dumps(checked, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _control(message: messages.Message) -> bytes:
    return frames.encode_frame(frames.TEXT, json.dumps(message, ensure_ascii=False).encode("utf-8"))
