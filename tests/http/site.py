"""HTTP requests to the functions of one worker."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import uuid
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from iii_sync import Worker

from ..support.http import Answer

#: How long anything may take.
WAIT = 30.0

#: What a client gets of a response that was cut, where it can tell.
CUT = (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError)


class Site:
    """A place of its own on the HTTP port of an engine, served by one worker."""

    def __init__(self, worker: Worker, http_url: str) -> None:
        self.worker = worker
        address = urlsplit(http_url)
        self.host, self.port = address.hostname or "", address.port or 0
        self.base = f"/t{uuid.uuid4().hex[:10]}"

    def serve(self, handler: Callable[..., Any], path: str = "", method: Any = "GET", **options: Any) -> Any:
        """Answer requests below the site's own path."""
        return self.worker.register_http(method, self.base + path, handler, **options)

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection to the engine."""
        return http.client.HTTPConnection(self.host, self.port, timeout=WAIT)

    def request(self, path: str = "", method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Send a request and return its response."""
        with contextlib.closing(self.connection()) as connection:
            connection.request(
                method, self.base + path, body, {name.replace("_", "-"): value for name, value in headers.items()}
            )
            return Answer(connection.getresponse())

    def dial(self, head: str, body: bytes = b"") -> socket.socket:
        """Send the head of a request, BASE standing for the path, and return the connection."""
        connection = socket.create_connection((self.host, self.port), WAIT)
        connection.sendall(head.replace("BASE", self.base).replace("\n", "\r\n").encode() + body)
        return connection


class Noted:
    """The first thing that a handler tells the test, with an event."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._value: Any = None

    def __call__(self, value: Any) -> None:
        self._value = value
        self._event.set()

    def get(self, wait: float = WAIT) -> Any:
        """Wait for it."""
        assert self._event.wait(wait), "the handler has not said anything"
        return self._value


def raised(function: Callable[[], Any]) -> Optional[BaseException]:
    """Return what a function raises."""
    try:
        function()
    except BaseException as exc:
        return exc
    return None
