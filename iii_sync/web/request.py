"""The request that an HTTP function gets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import parse_qs, unquote

from ..channels import ChannelReader
from ..errors import ConfigurationError, HttpError
from .headers import Headers

if TYPE_CHECKING:
    from .forms import FormPart

__all__ = ["StreamRequest"]

#: What ``text``, ``json`` and ``form`` read at most, unless more is asked for.
_LIMIT = 16 * 1024 * 1024


class StreamRequest:
    """One HTTP request, made from the payload of an HTTP trigger (PROTOCOL 7.3).

    Args:
        data: The payload as a handler gets it: ``request_body`` is a live reader already.
        metadata: The metadata that the trigger was registered with.

    Attributes:
        method: ``"GET"``, ``"POST"``, …
        route: The path as it was registered: ``/files/:name``.
        path: The path of this request, percent signs and all: ``/files/a%20b``. Without the query.
        path_params: The parameters in the path, decoded: ``{"name": "a b"}``. A value may hold any character, slashes
            and ``..`` too: never use one as a file name unseen.
        query_params: The parameters of the query, decoded. Of a repeated one the engine keeps the last.
        headers: The header fields, under names in any case. Of a repeated one the engine keeps the last, and a value
            with anything but ASCII arrives empty.
        body: The parsed JSON, when the content type says ``application/json``; ``None`` otherwise, and when it cannot
            be parsed.
        request_body: The body as a file. It can be empty, and raises ``ChannelTruncatedError`` when the upload
            was cut. (A chunked upload, which has no ``content-length``, tells that on the local engine only.)
        metadata: The metadata of the trigger.

    Raises:
        ConfigurationError: ``data`` is not the payload of an HTTP trigger.
    """

    def __init__(self, data: Any, metadata: Any = None) -> None:
        reader = data.get("request_body") if isinstance(data, Mapping) else None
        if not isinstance(reader, ChannelReader):
            raise ConfigurationError(
                "the payload is not that of an HTTP trigger (it has no request_body): call this function by HTTP"
            )
        self.method: str = _text(data.get("method"))
        self.route: str = _text(data.get("path"))
        raw = _texts(data.get("path_params"))
        self.path: str = "/".join(
            raw.get(segment[1:], segment) if segment[:1] == ":" else segment for segment in self.route.split("/")
        )
        self.path_params: dict[str, str] = {name: unquote(value) for name, value in raw.items()}
        self.query_params: dict[str, str] = _texts(data.get("query_params"))
        self.headers: Headers = Headers(_texts(data.get("headers")))
        self.body: Any = data.get("body")
        self.request_body = reader
        self.metadata = metadata
        reader.allow_empty = True
        reader._expected = self.content_length

    @property
    def content_length(self) -> Optional[int]:
        """The number of bytes that the client announced, or ``None``.

        Blocks: Never.
        Threads: Any.
        """
        value = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers or not (value.isascii() and value.isdecimal()):
            return None
        return int(value)

    def text(self, *, limit: int = _LIMIT) -> str:
        """Return the body as text, in the character set that its content type names, else UTF-8.

        Args:
            limit: Bytes that are read at most.

        Raises:
            HttpError: 413 for a body above ``limit``, 400 for one that is no text, 415 for an unknown character set.
            ChannelTruncatedError: The upload was cut.
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Until the body is there, like :meth:`.ChannelReader.read`; once.
        Threads: One at a time.
        """
        charset = self._charset()
        try:
            return self._read(limit).decode(charset)
        except UnicodeError:
            raise HttpError(400, f"the body is not {charset} text") from None
        except LookupError:
            raise HttpError(415, f"the character set {charset!r} is not known") from None

    def json(self, *, limit: int = _LIMIT) -> Any:
        """Return the body as JSON, whatever its content type says.

        Args:
            limit: Bytes that are read at most.

        Raises:
            HttpError: 400 for what is no JSON; or as :meth:`text`.
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Until the body is there, like :meth:`.ChannelReader.read`; once.
        Threads: One at a time.
        """
        if self.body is not None:
            return self.body
        try:
            return json.loads(self.text(limit=limit))
        except (ValueError, RecursionError):
            raise HttpError(400, "the body is not JSON") from None

    def form(self, *, limit: int = _LIMIT) -> dict[str, list[str]]:
        """Return the fields of an ``application/x-www-form-urlencoded`` body, each with all its values.

        For ``multipart/form-data`` there is :meth:`parts`.

        Args:
            limit: Bytes that are read at most.

        Raises:
            HttpError: 415 for another content type; or as :meth:`text`.
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Until the body is there, like :meth:`.ChannelReader.read`; once.
        Threads: One at a time.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise HttpError(415, "the body must be application/x-www-form-urlencoded")
        return parse_qs(self.text(limit=limit), keep_blank_values=True)

    def parts(self, *, limit: int = 1000) -> Iterator[FormPart]:
        """Iterate over the fields and files of a ``multipart/form-data`` body, as they arrive.

        Each is a binary file with ``name``, ``filename``, ``content_type`` and ``text()``; it is to be read before the
        next is asked for. Nothing is kept, so files of any size are fine. Needs the extra ``forms``.

        Args:
            limit: How many parts the form may have.

        Raises:
            HttpError: 415 for another content type, 400 for what is no form, 413 for more than ``limit`` parts.
            ChannelTruncatedError: The upload was cut.
            ConfigurationError: python-multipart is not installed.
            IIISyncError: In a step, as :meth:`.ChannelReader.read`.

        Blocks: Never; each step, and reading a part, like :meth:`.ChannelReader.read`.
        Threads: One at a time.
        """
        from .forms import parts_of  # not everybody has what it needs

        return parts_of(self.request_body, self.headers.get("content-type", ""), limit)

    def __repr__(self) -> str:
        return f"<iii_sync.StreamRequest {self.method} {self.route}>"

    def _charset(self) -> str:
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip('"')
        return "utf-8"

    def _read(self, limit: int) -> bytes:
        data = self.request_body.read(limit + 1)
        if len(data) > limit:
            raise HttpError(413, f"the body is larger than {limit:,} bytes")
        return data

    def _may_have_upload(self) -> bool:
        """Whether there may be a body. (Only HTTP/2 has one without a word about it.)"""
        length = self.content_length
        if length is None:
            return self.method not in ("GET", "HEAD") or "transfer-encoding" in self.headers
        return length > 0

    def _over(self) -> None:
        """The handler has returned: leave what is left of the body."""
        # An end that was never used is nobody's (or somebody else's, who was given it).
        if not self.request_body._is_idle():
            self.request_body.close()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {name: text for name, text in value.items() if isinstance(name, str) and isinstance(text, str)}
