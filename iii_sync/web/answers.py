"""What an HTTP function returns, turned into a response."""

from __future__ import annotations

import io
import itertools
import logging
import os
import stat
from collections.abc import Iterator
from typing import Any, Optional, Union

from ..channels import ChannelReader
from ..errors import HttpError, UsageError
from ..fields import HeaderArguments, checked_headers
from ..wire import messages
from .headers import checked_status
from .response import BODILESS, StreamResponse, encoded_json

__all__ = ["HttpResponse", "error_result", "finish"]

_log = logging.getLogger("iii_sync.worker")

#: Up to this many bytes a text travels in the function's result, which saves the response a connection of its own.
_IN_RESULT = 256 * 1024

#: Bytes that are read from a file at a time.
_PIECE = 256 * 1024

#: Characters of an error's text that are sent.
_LONGEST = 100_000

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"


class HttpResponse:
    """A response to return from an HTTP function.

    Args:
        status_code: From 200 to 599.
        body: ``None`` for none; text; bytes; a file, or an iterator of bytes or texts, which is streamed and
            closed; anything else is sent as JSON.
        headers: A dict, or pairs for a field that comes several times (``set-cookie``), which only a response can have
            whose body is none, JSON, or text of at most 256 KiB: others are streamed. A ``content-type`` that fits
            the body is added, and its length where it is known; one that does not agree with the body is a 500.

    Raises:
        ValueError: A status or header that cannot be sent, or a body where the status allows none (204, 304).
    """

    def __init__(self, status_code: int = 200, body: Any = None, headers: HeaderArguments = ()) -> None:
        self.status_code: int = checked_status(status_code)
        if body is not None and status_code in BODILESS:
            raise ValueError(f"a response with status {status_code} has no body")
        self.body = body
        self.headers: list[tuple[str, str]] = checked_headers(headers)

    def __repr__(self) -> str:
        return f"<iii_sync.HttpResponse {self.status_code} {type(self.body).__name__}>"


def finish(response: StreamResponse, returned: Any) -> Any:
    """Complete a response with what the handler returned.

    Returns:
        The result of the invocation: the response itself, or ``None`` when it has been streamed.

    Raises:
        UsageError: The handler left the response, without a byte and without an error.
        Exception: What reading the body, or writing the response, raises.
    """
    if returned is response:
        returned = None
    if response._touched() and (returned is None or response.started or response.closed or response._made):
        if returned is not None:
            _log.warning("%r: the %s that was returned is ignored", response._request, type(returned).__name__)
            _close(returned)
        if response.closed and not response.started:
            raise UsageError("the response was aborted before its first byte")
        response.close()
        return None
    if returned is None:
        returned = HttpResponse(204)
    return _send(response, returned if isinstance(returned, HttpResponse) else _as_response(response, returned))


def error_result(error: HttpError) -> Any:
    """Return the result that stands for an error response."""
    told = {
        name: messages.sendable(text, _LONGEST) for name, text in (("code", error.code), ("message", error.message))
    }
    data = encoded_json({"error": told})
    fields = _without_length(checked_headers(error.headers), len(data))
    if not _is_typed(fields):
        fields.append(("content-type", _JSON))
    return {"status_code": error.status, "headers": _lines(fields), "body": data.decode()}


def _as_response(response: StreamResponse, returned: Any) -> HttpResponse:
    """Return the response that a plain value stands for."""
    if not isinstance(returned, dict):
        return HttpResponse(response.status_code, returned)
    keys = set(returned)
    if "statusCode" in keys and keys <= {"statusCode", "body", "headers"}:
        raise UsageError("'statusCode' means nothing to the engine, which would answer 200: name it 'status_code'")
    if "status_code" not in keys and not (keys and keys <= {"body", "headers"}):
        return HttpResponse(response.status_code, returned)
    # iii's own form (PROTOCOL 7.5), where text and null are JSON unless a content type says something else.
    status = returned.get("status_code", response.status_code)
    made = HttpResponse(status, None, returned.get("headers") or ())
    if made.status_code in BODILESS:
        return made
    made.body = returned.get("body", {})
    if not _is_typed(made.headers) and (made.body is None or isinstance(made.body, str)):
        made.body = encoded_json(made.body)
        made.headers.append(("content-type", _JSON))
    return made


def _send(response: StreamResponse, answer: HttpResponse) -> Any:
    body = answer.body
    try:
        data, length, kind = _content(body)
        if body is None and answer.status_code != 304:
            kind = _TEXT  # of nothing; else the engine adds a length for a JSON null, in a 204 too
        fields = _merged(response, answer.headers, kind)
        # Where no body is sent, the length is that of another response.
        if isinstance(data, bytes) and response._request.method != "HEAD" and answer.status_code != 304:
            fields = _without_length(fields, len(data))
        if (
            isinstance(data, bytes) and len(data) <= _IN_RESULT and _is_typed(fields)
        ):  # else the engine would call it JSON
            text = _as_text(data)
            if text is not None:
                return {"status_code": answer.status_code, "headers": _lines(fields), "body": text}
        response.status(answer.status_code)
        response.headers(fields)
        if length is not None and body is not None:
            response._default("content-length", str(length))
        for piece in (data,) if isinstance(data, bytes) else data:
            response.write(piece.encode("utf-8") if isinstance(piece, str) else piece)
        response.close()
        return None
    finally:
        _close(body)


def _content(body: Any) -> tuple[Union[bytes, Iterator[Any]], Optional[int], Optional[str]]:
    """Return the bytes of a body, or an iterator of them; how many they are; and their content type."""
    if body is None:
        return b"", 0, None
    if isinstance(body, str):
        data = body.encode("utf-8")
        return data, len(data), _TEXT
    if isinstance(body, (bytes, bytearray, memoryview)):
        data = bytes(body)
        return data, len(data), _BYTES
    if isinstance(body, ChannelReader):
        return iter(body), None, _BYTES  # chunks as they arrive
    if callable(getattr(body, "read", None)):
        length = _length(body)
        return _pieces(body, length), length, _TEXT if isinstance(body, io.TextIOBase) else _BYTES
    if isinstance(body, Iterator):
        # So that what fails before the first piece is a 500.
        started = list(itertools.islice(body, 1))
        kind = _TEXT if started and isinstance(started[0], str) else _BYTES
        return itertools.chain(started, body), None, kind
    data = encoded_json(body)
    return data, len(data), _JSON


def _pieces(file: Any, length: Optional[int]) -> Iterator[Any]:
    """Read a file, as far as its length was announced: it may be growing."""
    left = length
    while left is None or left > 0:
        piece = file.read(_PIECE if left is None else min(_PIECE, left))
        if not piece:
            return
        yield piece
        if left is not None:
            left -= len(piece)


def _length(file: Any) -> Optional[int]:
    """Return how many bytes there are left in a file, if it knows."""
    if isinstance(file, io.BytesIO):
        return max(0, len(file.getbuffer()) - file.tell())
    # Not everything with a descriptor: a GzipFile has the one of the compressed file.
    if isinstance(file, io.FileIO) or (isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO)):
        status = os.fstat(file.fileno())
        # Files of /proc say that they are empty.
        if stat.S_ISREG(status.st_mode) and status.st_size:
            return max(0, status.st_size - file.tell())
    return None


def _merged(response: StreamResponse, fields: list[tuple[str, str]], kind: Optional[str]) -> list[tuple[str, str]]:
    """Return the header fields: those of the answer win over those that were set on the response."""
    names = {name.lower() for name, _ in fields}
    merged = [field for name, field in response._fields.items() if name not in names]
    merged += fields
    if kind is not None and not _is_typed(merged):
        merged.append(("content-type", kind))
    return merged


def _is_typed(fields: list[tuple[str, str]]) -> bool:
    return any(name.lower() == "content-type" for name, _ in fields)


def _without_length(fields: list[tuple[str, str]], size: int) -> list[tuple[str, str]]:
    """Leave the length of a body to the engine, which takes any that it is given.

    Raises:
        ValueError: A wrong one: a client would wait for the rest, or take what is left for its next response.
    """
    for name, value in fields:
        if name.lower() == "content-length" and int(value) != size:
            raise ValueError(f"header {name!r} says {value}, but the body has {size:,} bytes; leave the header out")
    return [field for field in fields if field[0].lower() != "content-length"]


def _as_text(data: bytes) -> Optional[str]:
    """Return bytes as the text that the engine sends as just these bytes, if there is one."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _lines(fields: list[tuple[str, str]]) -> list[str]:
    # As lines, of which there can be several with one name.
    return [f"{name}: {value}" for name, value in fields]


def _close(body: Any) -> None:
    """Close a file or generator; nobody else can, behind a return."""
    close = getattr(body, "close", None)
    if callable(close) and (isinstance(body, Iterator) or callable(getattr(body, "read", None))):
        close()
