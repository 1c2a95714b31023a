"""A WSGI application as one writes it: one worker a process, made at the first request."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from typing import Any, Callable, Optional

import iii_sync

FUNCTION = os.environ.get("DIGEST_FUNCTION", "")

_worker: Optional[iii_sync.Worker] = None
_lock = threading.Lock()


def worker() -> iii_sync.Worker:
    """The worker of this process."""
    global _worker
    with _lock:
        if _worker is None:
            _worker = iii_sync.register_worker()
        return _worker


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream the body of the request into the function, and answer with what that returns."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    with worker().open(FUNCTION, "wb", timeout=60) as file:
        while left:
            chunk = environ["wsgi.input"].read(min(left, 50_000))
            if not chunk:
                raise OSError("the upload was cut")
            file.write(chunk)
            left -= len(chunk)
    answer = json.dumps({"pid": os.getpid(), **file.result}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
