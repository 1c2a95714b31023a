"""The browser's side of an upload, without a browser."""

from __future__ import annotations

import http.client
import socket
import urllib.parse
from typing import Optional

from ..support.gunicorn import Gunicorn
from ..support.http import Answer
from ..support.process import WAIT

#: What the page sends; Django's check is content when the cookie and the header hold the same secret.
_SECRET = "x" * 32
HEADERS = {
    "Content-Type": "application/octet-stream",
    "X-CSRFToken": _SECRET,
    "Cookie": f"csrftoken={_SECRET}",
}


def ask(site: Gunicorn, method: str, path: str, body: Optional[bytes] = None) -> Answer:
    """Send a request and read the answer to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=2 * WAIT)
    try:
        connection.request(method, path, body, HEADERS if body is not None else {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def upload(site: Gunicorn, name: str, body: bytes) -> Answer:
    """Upload a file as the page does."""
    return ask(site, "PUT", "/files?name=" + urllib.parse.quote(name), body)


class Slow:
    """An upload whose bytes are sent when the test says so; ``None`` for a chunked one."""

    def __init__(self, site: Gunicorn, name: str, size: Optional[int]) -> None:
        self.sock = socket.create_connection(("127.0.0.1", site.port), timeout=WAIT)
        lines = [f"PUT /files?name={name} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += ["Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"]
        lines += [f"{key}: {value}" for key, value in HEADERS.items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())

    def send(self, body: bytes) -> None:
        """Send some of the body."""
        self.sock.sendall(body)

    def answer(self) -> Answer:
        """Read the answer, and let go."""
        response = http.client.HTTPResponse(self.sock)
        try:
            response.begin()
            return Answer(response)
        finally:
            response.close()
            self.sock.close()
