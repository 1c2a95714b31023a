"""Functions that the engine calls over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

import pytest

from iii_sync import (
    HttpAuthApiKey,
    HttpAuthBearer,
    HttpAuthHmac,
    HttpInvocationConfig,
    Worker,
    errors,
)

WAIT = 20.0

#: A variable that every engine of the tests has, whatever it holds there.
VARIABLE = "PATH"

Unique = Callable[[str], str]


class Service:
    """A web service that answers with what it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        service = self
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status, self.answer = 200, b'{"score":1}'

        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.asked.append((self.command, self.path, headers, body))
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(service.answer)))
                self.end_headers()
                self.wfile.write(service.answer)

            do_POST = do_PUT = respond

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    service.thread.start()
    yield service
    service.server.shutdown()
    service.server.server_close()
    service.thread.join()


def test_the_engine_calls_a_function_over_http(worker: Worker, peer: Worker, service: Service, unique: Unique) -> None:
    """The payload is the body, the answer the result, and an error has its code; unregistered it is gone."""
    config = HttpInvocationConfig(f"{service.url}/score?a=1", "PUT", timeout_ms=8000, headers={"X-Own": "1"})
    function = worker.register_function(unique("score"), config, description="scores")
    assert peer.trigger(function.id, {"a": [1]}, timeout=WAIT) == {"score": 1}
    method, path, headers, body = service.asked[0]
    assert (method, path, headers["x-own"]) == ("PUT", "/score?a=1", "1")
    assert json.loads(body)["a"] == [1] and headers["x-iii-function-path"] == function.id
    assert peer.trigger("engine::functions::info", {"function_id": function.id})["description"] == "scores"
    service.status, service.answer = 400, b'{"error":{"code":"no_model","message":"none"}}'
    with pytest.raises(errors.InvocationError, match="none") as caught:
        peer.trigger(function.id, timeout=WAIT)
    assert caught.value.code == "no_model"
    service.status = 200
    worker.unregister_function(function.id)
    end = time.monotonic() + WAIT
    with pytest.raises(errors.FunctionNotFoundError):
        while time.monotonic() < end:  # the engine hears of it on another connection
            peer.trigger(function.id, timeout=WAIT)


def test_the_engine_shows_who_it_is(worker: Worker, service: Service, unique: Unique, secret: str) -> None:
    """With what its own environment holds: a token, a key in a header, a signature."""
    for auth in (HttpAuthBearer(VARIABLE), HttpAuthApiKey("X-Api-Key", VARIABLE), HttpAuthHmac(VARIABLE)):
        function = worker.register_function(unique(type(auth).__name__), HttpInvocationConfig(service.url, auth=auth))
        worker.trigger(function.id, {}, timeout=WAIT)
    bearer, api_key, signed = service.asked
    assert bearer[2]["authorization"] == f"Bearer {secret}"
    assert api_key[2]["x-api-key"] == secret
    text = signed[2]["x-iii-timestamp"].encode() + b":" + base64.b64encode(signed[3])
    digest = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    assert signed[2]["x-iii-signature"] == f"sha256={digest}"


@pytest.fixture
def secret() -> str:
    """What the variable holds for the engines, which inherit this process's environment."""
    import os

    return os.environ[VARIABLE]


def test_what_the_engine_drops_without_a_word_is_an_error_here(
    worker: Worker, service: Service, unique: Unique
) -> None:
    """A variable that it does not have; the id is free afterwards, and no address with a key is shown."""
    name = unique("dropped")
    config = HttpInvocationConfig(f"{service.url}?key=hidden", auth=HttpAuthBearer("NO_SUCH_VARIABLE_ANYWHERE"))
    with pytest.raises(errors.RegistrationRejectedError, match="its log says which") as caught:
        worker.register_function(name, config)
    assert name in str(caught.value) and "hidden" not in str(caught.value)
    worker.register_function(name, lambda data: "here")
    assert worker.trigger(name) == "here"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "ftp://host/"}, "url"),
        ({"url": "https://user:hidden@host/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://host:port/"}, "url"),
        ({"url": None}, "url"),
        ({"url": "https://host/a\nb"}, "url"),
        ({"method": "get"}, "method='get'.*GET"),
        ({"timeout_ms": 0}, "timeout_ms=0"),
        ({"timeout_ms": 1.5}, "timeout_ms=1.5"),
        ({"headers": {"a b": "hidden"}}, "not the name of a header"),
        ({"headers": {"a": "hidden\r\nb: c"}}, "'a'"),
        ({"headers": ["a"]}, "headers"),
        ({"auth": "hidden"}, "auth.*HttpAuthBearer"),
    ],
)
def test_fields_that_cannot_be(given: dict[str, Any], said: str) -> None:
    """Named, with the cure, and without what may be a secret."""
    with pytest.raises(errors.ConfigurationError, match=said) as caught:
        HttpInvocationConfig(**{"url": "https://host/", **given})
    assert "hidden" not in str(caught.value)


def test_a_secret_in_the_place_of_its_variable_is_refused_and_not_shown() -> None:
    """The fields name variables of the engine."""
    for make in (HttpAuthBearer, HttpAuthHmac, lambda key: HttpAuthApiKey("X-Key", key)):
        with pytest.raises(errors.ConfigurationError, match="environment variable") as caught:
            make("sk-hidden.value")
        assert "hidden" not in str(caught.value)


def test_its_repr_shows_no_secret() -> None:
    """Neither values of headers nor the query of the address."""
    config = HttpInvocationConfig(
        "https://host/path?key=hidden", headers={"X-Key": "hidden"}, auth=HttpAuthBearer("TOKEN")
    )
    assert "hidden" not in repr(config) and "https://host/path" in repr(config) and "TOKEN" in repr(config)
