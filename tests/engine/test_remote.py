"""Functions that the engine calls over HTTP, on both engines."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from iii_sync.engine.frames import RegisterFunction
from iii_sync.engine.remote import RemoteFunctions

from .peers import Worker, worker


class Web:
    """A web server that answers as it is told and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                web.asked.append((self.command, self.path, headers, body))
                status, answer = web.answers[self.path]
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.answers: dict[str, tuple[int, bytes]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server of this test alone."""
    web = Web()
    web.thread.start()
    yield web
    web.server.shutdown()
    web.server.server_close()
    web.thread.join()


@pytest.fixture
def owner(engine_url: str) -> Iterator[Worker]:
    """The worker that registers the functions."""
    with worker(engine_url) as owner:
        yield owner


def register(owner: Worker, invocation: Any) -> str:
    """Register a function that is called over HTTP."""
    function_id = f"remote-{uuid.uuid4().hex[:10]}"
    owner.send(type="registerfunction", id=function_id, invocation=invocation)
    owner.sync()
    return function_id


def test_request(owner: Worker, web: Web) -> None:
    """The payload is the body; headers say what is called."""
    web.answers["/f?a=1"] = (200, b'{"score":1}')
    function_id = register(owner, {"url": f"{web.url}/f?a=1", "method": "PUT", "headers": {"x-own": "1"}})
    assert owner.ask(function_id, {"a": [1]}) == {"score": 1}
    ((method, _, headers, body),) = web.asked
    assert method == "PUT"
    assert json.loads(body) == {"a": [1], "_caller_worker_id": owner.id}
    assert (headers["content-type"], headers["x-own"]) == ("application/json", "1")
    assert headers["x-iii-function-path"] == function_id
    assert uuid.UUID(headers["x-iii-invocation-id"])
    assert int(headers["x-iii-timestamp"]) > 0


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (200, b"", None),
        (201, b"[1]", [1]),
        (200, b"123456789012345678901234567890", 123456789012345678901234567890.0),
        (200, b"nonsense", "invalid_response"),
        (200, b"NaN", "invalid_response"),
        (200, b"[1e999]", "invalid_response"),
        (200, b'"\\ud800"', "invalid_response"),
        (200, b"[" * 200 + b"]" * 200, "invalid_response"),
        (200, "[1]".encode("utf-16"), "invalid_response"),
        (302, b"nonsense", None),
        (404, b"nonsense", "http_error"),
        (500, b'{"error":{"code":"own","message":"m"}}', "own"),
    ],
)
def test_answers(owner: Worker, web: Web, status: int, answer: bytes, expected: Any) -> None:
    """What becomes of a status and a body."""
    web.answers["/f"] = (status, answer)
    result = owner.ask(register(owner, {"url": f"{web.url}/f"}), {})
    if isinstance(expected, str):
        assert result["code"] == expected
        if expected == "http_error":
            assert result["message"] == "HTTP 404 Not Found"
    else:
        assert result == expected


def test_nobody_answers(owner: Worker) -> None:
    """A failure of the transport is one of the call."""
    assert owner.ask(register(owner, {"url": "http://127.0.0.1:9/f"}), {})["code"] == "http_request_failed"


def test_secrets(local_engine_url: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bearer, API key and HMAC; the secrets come from the environment of the engine."""
    monkeypatch.setenv("REMOTE_SECRET", "s3cret")
    web.answers["/f"] = (200, b"{}")
    with worker(local_engine_url) as owner:
        for auth in (
            {"type": "bearer", "token_key": "REMOTE_SECRET"},
            {"type": "api_key", "header": "x-key", "value_key": "REMOTE_SECRET"},
            {"type": "hmac", "secret_key": "REMOTE_SECRET"},
        ):
            assert owner.ask(register(owner, {"url": f"{web.url}/f", "auth": auth}), {}) == {}
    bearer, key, signed = (headers for _, _, headers, _ in web.asked)
    assert bearer["authorization"] == "Bearer s3cret"
    assert key["x-key"] == "s3cret"
    assert signed["x-iii-signature"].startswith("sha256=")


@pytest.mark.parametrize(
    "invocation",
    [
        {},
        {"url": "ftp://x/y"},
        {"url": "http://"},
        {"url": "http://x", "method": "FETCH"},
        {"url": "http://x", "timeout_ms": "1"},
        {"url": "http://x", "headers": [1]},
        {"url": "http://x", "headers": {"a": 1}},
        {"url": "http://x", "auth": {"type": "magic"}},
        {"url": "http://x", "auth": {"type": "bearer", "token_key": "NO_SUCH_VARIABLE_HERE"}},
        {"url": "http://x", "auth": {"type": "api_key", "value_key": "PATH"}},
    ],
)
def test_wrong_configuration(invocation: Any) -> None:
    """It is refused when the function is registered."""
    with pytest.raises(ValueError, match=r"url|method|timeout_ms|headers|auth"):
        RemoteFunctions().prepare(RegisterFunction("f", invocation=invocation))
