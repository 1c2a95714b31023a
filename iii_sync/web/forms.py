"""The parts of a ``multipart/form-data`` body, read as they arrive. Needs python-multipart (``iii_sync[forms]``)."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import unquote

from ..channels import ChannelReader
from ..errors import ChannelTruncatedError, ConfigurationError, HttpError, fresh
from .headers import Headers

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FormPart", "parts_of"]

#: Bytes of the body that are parsed at a time: what a form takes of memory, whatever its size.
_PIECE = 64 * 1024

#: How some clients spell a name that is not in ASCII (RFC 8187); only old versions of the parser of options read it.
_EXTENDED = re.compile(r""";\s*filename\*\s*=\s*([\w-]+)'[^']*'([^\s;"]+)""", re.IGNORECASE)

#: Bytes that the header fields of one part may have.
_MOST_HEADERS = 16 * 1024


class FormPart(io.BufferedReader):
    """One field or file of a form: its content as a binary file, and what is said about it.

    It can be read until the next part is asked for, which passes over the rest and closes it. A read that failed (a
    timeout, a cut upload) has lost its place: every later one fails likewise.

    Attributes:
        filename: What the client calls the file, without a path; ``None`` for a field. It may be any text: never use
            it as a file name unseen.
        content_type: As the client says; ``text/plain`` for a field that says nothing.
        headers: All header fields of the part.
    """

    def __init__(self, content: _Content, headers: dict[str, str]) -> None:
        super().__init__(content, _PIECE)
        self.filename: Optional[str]
        self._field, self.filename = _names(headers.get("content-disposition", ""))
        self.content_type: str = headers.get("content-type", "text/plain")
        self.headers: Headers = Headers(headers)

    @property
    def name(self) -> str:
        """The name of the form's field."""
        return self._field

    def text(self, *, limit: int = 1024 * 1024) -> str:
        """Return the rest as text.

        Args:
            limit: Bytes that are read at most.

        Raises:
            HttpError: 413 for more than ``limit``, 400 for what is not UTF-8.
            ChannelTruncatedError: The upload was cut.
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Until it is there, like :meth:`.ChannelReader.read`.
        Threads: One at a time.
        """
        data = self.read(limit + 1)
        if len(data) > limit:
            raise HttpError(413, f"the field {self.name!r} is larger than {limit:,} bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise HttpError(400, f"the field {self.name!r} is not UTF-8 text") from None

    def __repr__(self) -> str:
        return f"<iii_sync.FormPart {self.name!r}>"


def parts_of(body: ChannelReader, content_type: str, limit: int) -> Iterator[FormPart]:
    """Return the parts of a body; see ``StreamRequest.parts``."""
    return _Form(body, content_type, limit)


class _Form:
    """Takes a body from the parser, piece by piece, as it is asked for."""

    def __init__(self, body: ChannelReader, content_type: str, limit: int) -> None:
        try:
            from python_multipart.exceptions import MultipartParseError
            from python_multipart.multipart import MultipartParser
        except ImportError as exc:
            raise ConfigurationError(
                f"forms in parts need python-multipart ({exc}): pip install 'iii_sync[forms]'"
            ) from None
        kind, options = _options(content_type)
        boundary = options.get("boundary", "")
        if kind != "multipart/form-data":
            raise HttpError(415, "the body must be multipart/form-data")
        if not 1 <= len(boundary) <= 200:
            raise HttpError(400, "the content type has no boundary that could be one")
        self._body = body
        self._limit = limit
        self._bad: type[Exception] = MultipartParseError
        self._parser = MultipartParser(
            boundary.encode("utf-8"),
            {
                "on_part_begin": self._began,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ended,
                "on_headers_finished": lambda: self._events.append(self._headers),
                "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
                "on_part_end": lambda: self._events.append(None),
                "on_end": self._ended,
            },
        )
        #: In order: the header fields of a part, pieces of its content, and ``None`` for its end.
        self._events: deque[Any] = deque()
        self._headers: dict[str, str] = {}
        self._size = 0  # of the header fields of this part
        self._count = 0
        self._field, self._value = b"", b""
        self._part: Optional[tuple[FormPart, _Content]] = None
        self._over = False
        self._failure: Optional[BaseException] = None

    # No generator: after an error that would say that the form is over.
    def __iter__(self) -> _Form:
        return self

    def __next__(self) -> FormPart:
        if self._part is not None:
            part, content = self._part
            content.skip()
            part.close()
            self._part = None
        headers = self.next_event()
        if headers is None:
            raise StopIteration
        content = _Content(self)
        try:
            part = FormPart(content, headers)
        except HttpError as exc:
            self._failure = exc  # what comes next is its content
            raise
        self._part = (part, content)
        return part

    def next_event(self) -> Any:
        """Return the next event; ``None`` at the end of a part, and of the form."""
        if self._failure is not None:
            raise fresh(self._failure)
        try:
            self._parse_on()
        except BaseException as exc:
            self._failure = exc
            raise
        return self._events.popleft() if self._events else None

    def _parse_on(self) -> None:
        while not self._events and not self._over:
            self._parse()

    def _parse(self) -> None:
        piece = self._body.read1(_PIECE)
        if not piece:
            raise ChannelTruncatedError("the form was cut: it ends before its last boundary")
        try:
            self._parser.write(piece)
        except self._bad as exc:
            raise HttpError(400, f"the body is no multipart/form-data: {exc}") from None
        if self._over:
            while self._body.read1(_PIECE):
                pass  # behind the last boundary there is nothing of meaning; but a cut is noticed at the end only

    def _began(self) -> None:
        self._headers, self._size, self._count = {}, 0, self._count + 1
        if self._count > self._limit:
            raise HttpError(413, f"the form has more than {self._limit:,} parts")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check_headers(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_headers(end - start)

    def _check_headers(self, size: int) -> None:
        self._size += size
        if self._size > _MOST_HEADERS:
            raise HttpError(400, f"a part of the form has more than {_MOST_HEADERS:,} bytes of header fields")

    def _header_ended(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._field, self._value = b"", b""

    def _ended(self) -> None:
        self._over = True


class _Content(io.RawIOBase):
    """The content of one part, as it arrives."""

    def __init__(self, form: _Form) -> None:
        self._form = form
        self._rest = memoryview(b"")
        self._over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        target = memoryview(buffer).cast("B")
        while not self._rest and not self._over:
            self._next()
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def skip(self) -> None:
        """Pass over what is left."""
        while not self._over:
            self._next()

    def _next(self) -> None:
        piece = self._form.next_event()
        self._over = piece is None
        self._rest = memoryview(piece or b"")


def _options(value: str) -> tuple[str, dict[str, str]]:
    """Return the value of a header field, in lower case, and its parameters."""
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(value.encode("utf-8"))
    decoded = {name.decode("latin-1").lower(): option.decode("utf-8", "replace") for name, option in options.items()}
    return kind.decode("latin-1").lower(), decoded


def _names(disposition: str) -> tuple[str, Optional[str]]:
    """Return the name of the field, and that of the file.

    Raises:
        HttpError: There is none.
    """
    _, options = _options(disposition)
    if "name" not in options:
        raise HttpError(400, "a part of the form has no name")
    filename = options.get("filename")
    extended = _EXTENDED.search(disposition)
    if extended is not None:
        encoding = "latin-1" if extended[1].lower() == "iso-8859-1" else "utf-8"
        filename = unquote(extended[2], encoding, "replace")
    if filename is not None:
        # Some clients send the whole path, of either kind.
        filename = filename.replace("\\", "/").rpartition("/")[2]
    return options["name"], filename
