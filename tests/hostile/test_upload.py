"""A JSON upload to an HTTP function, larger than any message may be: engines send it on whole (PROTOCOL E-34)."""

from __future__ import annotations

import contextlib
import http.client
import threading

import iii_sync
from iii_sync import triggers

from ..support.engines import killable_engine
from ..support.threads import in_thread
from .memory import MiB, bounded

WAIT = 60.0


def post(port: int, path: str, body: bytes) -> int:
    """Send a JSON body and return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_70_mib_of_json_over_http(engine_kind: str) -> None:
    """The uploader is told, the connection lives, and so does everybody else's call."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(killable_engine(engine_kind))  # one of its own: what it keeps goes with it
        worker = stack.enter_context(iii_sync.register_worker(engine.url))
        release = threading.Event()
        worker.register_function("upload::json", lambda data: {"status_code": 200, "body": {"ok": True}})
        worker.register_function("wait::long", lambda data: release.wait(WAIT))
        worker.register_trigger(triggers.http("/upload", "POST"), "upload::json")
        assert post(engine.http_port, "/upload", b"{}") == 200
        states: list[str] = []
        worker.add_connection_state_listener(states.append)
        waiting = worker.submit("wait::long", None)
        body = b'{"blob":"' + b"x" * (70 * MiB) + b'"}'
        with bounded(160 * MiB) as growth:  # http.client has a copy or two of its own
            status = in_thread(lambda: post(engine.http_port, "/upload", body), WAIT)
            worker.register_function("echo::it", lambda data: data)
            for number in range(20):
                assert worker.trigger("echo::it", number) == number
            assert status() >= 400
        print(f"status {status()}, the client's process grew by {growth() / MiB:.1f} MiB")
        assert worker.trigger("echo::it", "still here") == "still here"
        assert post(engine.http_port, "/upload", b"{}") == 200
        release.set()
        assert waiting.result(WAIT) is True
        assert states == []
