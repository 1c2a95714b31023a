"""A plain HTTP server of the standard library, on loopback, with which uploads and downloads are tested."""

from __future__ import annotations

import queue
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Optional

from .remote import WAIT

_BLOCK = 64 * 1024


class Web:
    """PUT and POST store a file, GET sends one; ``live`` has answers that are made when they are asked for.

    Attributes:
        headers: The headers of every stored request, by its path.
        broken: Gets the path of every upload that ended too early.
    """

    def __init__(self, stored: Path, served: Path) -> None:
        self.stored, self.served = stored, served
        self.headers: dict[str, dict[str, str]] = {}
        self.broken: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.live: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        web = self

        class Handler(_Handler):
            @property
            def web(self) -> Web:
                return web

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WAIT)

    def file(self, name: str) -> Path:
        """Where an upload of that name is stored."""
        return self.stored / name


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = WAIT

    @property
    def web(self) -> Web:
        raise NotImplementedError

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if name in self.web.live:
            self.web.live[name](self)
            return
        path = self.web.served / name
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as source:
            shutil.copyfileobj(source, self.wfile)

    def do_PUT(self) -> None:
        name = self.path.lstrip("/")
        self.web.headers[name] = {key.lower(): value for key, value in self.headers.items()}
        with self.web.file(name).open("wb") as target:
            try:
                self._store(target)
            except EOFError:
                self.web.broken.put(name)
                self.close_connection = True
                return
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT

    def _store(self, target: Any) -> None:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            self._copy(target, int(self.headers["Content-Length"]))
            return
        while True:
            line = self.rfile.readline()
            if not line:
                raise EOFError
            size = int(line, 16)
            self._copy(target, size)
            self.rfile.readline()
            if not size:
                return

    def _copy(self, target: Any, size: int) -> None:
        while size:
            block = self.rfile.read(min(size, _BLOCK))
            if not block:
                raise EOFError
            target.write(block)
            size -= len(block)

    def log_message(self, format: str, *args: Any) -> None:
        pass
