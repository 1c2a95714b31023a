"""HTTP responses from what a handler returns and what it writes. Pure."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Optional

from .frames import Failure
from .jsontext import JSON, JsonObject, encode

_JSON = "application/json"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"[0-9]{1,18}")
_NOT_IN_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
# These belong to the connection, which is the server's.
_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade"})


@dataclass
class Head:
    """Status and headers, and what of them was valid."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, value: JSON) -> None:
        """Add a header, unless it cannot be sent."""
        if isinstance(value, str) and _NAME.fullmatch(name) and not _NOT_IN_VALUE.search(value):
            lower = name.lower()
            if lower == "content-length":
                if not _LENGTH.fullmatch(value):
                    return
                self.remove(lower)  # there is one, the last
            if lower not in _CONNECTION:
                self.headers.append((name, value))

    def remove(self, name: str) -> None:
        """Remove a header, named in lower case."""
        self.headers = [header for header in self.headers if header[0].lower() != name]

    def get(self, name: str) -> Optional[str]:
        """Return the last value of a header."""
        return next((value for key, value in reversed(self.headers) if key.lower() == name), None)

    def apply(self, text: bytes) -> None:
        """Take a control message of a stream; what is none, or not valid, is ignored."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        headers = message.get("headers")
        if message.get("type") == "set_status":
            self.status = _status(message.get("status_code"), 599) or self.status
        elif message.get("type") == "set_headers" and isinstance(headers, dict):
            for name, value in headers.items():
                self.remove(name.lower())
                self.add(name, value)


def plain(value: JSON) -> tuple[Head, bytes]:
    """Return the response for what a handler (or a middleware that responds) returned."""
    fields: JsonObject = value if isinstance(value, dict) else {}
    head = Head()
    head.status = _status(fields.get("status_code"), 999) or head.status
    headers = fields.get("headers")
    if isinstance(headers, dict):
        for name, text in headers.items():
            head.add(name, text)
    elif isinstance(headers, list):
        for line in headers:
            name, colon, text = line.partition(":") if isinstance(line, str) else ("", "", "")
            if colon:
                head.add(name.strip(), text.strip())
    body = fields.get("body", {})
    if head.get("content-type") is None:
        head.add("content-type", _JSON)
    elif isinstance(body, str):
        return head, body.encode("utf-8", "replace")
    elif body is None:
        return head, b""
    return head, encode(body)


def failure(error: Failure) -> tuple[Head, bytes]:
    """Return the 500 for a function that failed."""
    body: JsonObject = {"code": error.code, "message": error.message, "error_id": uuid.uuid4().hex[:12]}
    return envelope(500, {"error": body})


def refusal(status: int, code: str, message: str, **more: JSON) -> tuple[Head, bytes]:
    """Return a response of the engine's own."""
    return envelope(status, {"error": {"code": code, "message": message}, **more})


def envelope(status: int, body: JsonObject) -> tuple[Head, bytes]:
    """Return a JSON response."""
    return Head(status, [("content-type", _JSON)]), encode(body)


def _status(value: JSON, high: int) -> Optional[int]:
    """Return a status that may end a request, ``None`` for what is none."""
    return value if isinstance(value, int) and 200 <= value <= high else None
