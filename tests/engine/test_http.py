"""HTTP triggers over real sockets, on both engines where they agree."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any, Optional
from urllib.parse import urlsplit

import pytest
import websocket

from ..support.http import Answer
from ..support.threads import in_thread
from .peers import ANSWERED_AGAIN, TIMEOUT, Worker, connect, end_url, read_to_close, send_close, worker


class Site:
    """An HTTP function of one worker, and requests to it."""

    def __init__(self, url: str, http_url: str, owner: Worker) -> None:
        self.url = url
        self.owner = owner
        self.address = urlsplit(http_url)
        self.base = f"/t{uuid.uuid4().hex[:10]}"
        self.function = f"site-{self.base[1:]}"
        owner.register(self.function)

    def route(self, path: str = "", method: str = "GET", **keys: Any) -> str:
        """Bind the function to a path below the site's own."""
        function = keys.pop("function", self.function)
        metadata = keys.pop("metadata", None)
        config = {"api_path": self.base + path, "http_method": method, **keys}
        return self.owner.trigger("http", function, config, metadata=metadata)

    def request(self, path: str = "", method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Send a request and return its response."""
        assert self.address.hostname is not None
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, self.base + path, body, named)
            return Answer(connection.getresponse())

    def answered(self, outcome: Any, path: str = "", method: str = "GET", **keys: Any) -> Answer:
        """Send a request, answer its invocation, and return the response."""
        response = in_thread(lambda: self.request(path, method, **keys))
        call = self.owner.invoked(self.function)
        self.owner.answer(call, **outcome)
        answer: Answer = response()
        return answer

    def dial(self, head: str) -> socket.socket:
        """Send the head of a request and return the connection."""
        connection = socket.create_connection((self.address.hostname or "", self.address.port or 0), TIMEOUT)
        connection.sendall(head.replace("BASE", self.base).replace("\n", "\r\n").encode())
        return connection


@pytest.fixture
def owner(engine_url: str) -> Iterator[Worker]:
    """The worker behind the site."""
    with worker(engine_url) as owner:
        yield owner


@pytest.fixture
def site(engine_url: str, engine_http_url: str, owner: Worker) -> Site:
    """A site of this test alone."""
    return Site(engine_url, engine_http_url, owner)


class TestRequest:
    """What a function gets."""

    def test_everything(self, site: Site) -> None:
        """Path, parameters, query, headers, metadata, and two channels."""
        site.route("/users/:id/posts/:post", metadata={"m": 1})
        response = in_thread(
            lambda: site.request("/users/a%20b/posts/7?q=1&q=c+d%21&e&bad=%zz", X_Up="Yes", Cookie="a=b")
        )
        call = site.owner.invoked(site.function)
        site.owner.answer(call, result={})
        assert response().status == 200
        data = call["data"]
        pattern = f"{site.base}/users/:id/posts/:post"
        assert call["metadata"] == {"m": 1}
        assert (data["path"], data["method"]) == (pattern, "GET")
        assert data["trigger"] == {"type": "http", "path": pattern, "method": "GET"}
        assert data["path_params"] == {"id": "a%20b", "post": "7"}
        assert data["query_params"] == {"q": "c d!", "e": "", "bad": "%zz"}
        assert (data["headers"]["x-up"], data["headers"]["cookie"]) == ("Yes", "a=b")
        assert data["body"] is None
        assert "_caller_worker_id" not in data
        assert (data["request_body"]["direction"], data["response"]["direction"]) == ("read", "write")

    def test_whole_url(self, site: Site) -> None:
        """A request line may name the host again, as those to a proxy do."""
        site.route("/:id")
        with contextlib.closing(site.dial("GET http://elsewhere.exampleBASE/1?a=b HTTP/1.1\nHost: x\n\n")):
            call = site.owner.invoked(site.function)
        assert (call["data"]["path_params"], call["data"]["query_params"]) == ({"id": "1"}, {"a": "b"})

    @pytest.mark.parametrize(
        ("content_type", "body", "parsed"),
        [
            ("application/json", b'{"a":[1]}', {"a": [1]}),
            ("application/json; charset=utf-8", b"1", 1),
            ("application/json", b"{bad", None),
            ("application/json", b"", None),
            ("application/JSON", b"1", None),
            ("text/plain", b"hello", None),
        ],
    )
    def test_body(self, site: Site, content_type: str, body: bytes, parsed: Any) -> None:
        """JSON is parsed; every body is on the channel."""
        site.route(method="POST")
        response = in_thread(lambda: site.request("", "POST", body, Content_Type=content_type))
        call = site.owner.invoked(site.function)
        with connect(end_url(site.url, call["data"]["request_body"])) as reader:
            messages, _ = read_to_close(reader)
        site.owner.answer(call, result={})
        assert response().status == 200
        assert call["data"]["body"] == parsed
        assert b"".join(bytes(message) for message in messages) == body  # type: ignore[arg-type]

    def test_streamed_upload(self, site: Site) -> None:
        """A chunk is there before the next one is sent."""
        site.route(method="POST")
        head = "POST BASE HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nConnection: close\n\n"
        with contextlib.closing(site.dial(head)) as client:
            call = site.owner.invoked(site.function)
            with connect(end_url(site.url, call["data"]["request_body"])) as reader:
                for text in (b"one", b"two"):
                    client.sendall(b"3\r\n" + text + b"\r\n")
                    assert reader.recv() == text
                client.sendall(b"0\r\n\r\n")
                assert read_to_close(reader)[0] == []
            site.owner.answer(call, result={"body": "done"})
            assert client.makefile("rb").read().endswith(b'"done"')

    def test_cut_upload(self, engine_kind: str, site: Site) -> None:
        """The channel ends; on the local engine it tells that something is missing."""
        site.route(method="POST")
        head = "POST BASE HTTP/1.1\nHost: x\nContent-Length: 10\n\nfour"
        with contextlib.closing(site.dial(head)) as client:
            call = site.owner.invoked(site.function)
            with connect(end_url(site.url, call["data"]["request_body"])) as reader:
                assert reader.recv() == b"four"
                client.close()
                assert read_to_close(reader) == ([], 1011 if engine_kind == "local" else None)


class TestPlain:
    """Responses that a function returns."""

    @pytest.mark.parametrize(
        ("result", "status", "content_type", "body"),
        [
            ({"status_code": 201, "body": {"ok": True}}, 201, "application/json", b'{"ok":true}'),
            ({"body": "text"}, 200, "application/json", b'"text"'),
            ({"body": None}, 200, "application/json", b"null"),
            ({}, 200, "application/json", b"{}"),
            ("text", 200, "application/json", b"{}"),
            ([1], 200, "application/json", b"{}"),
            (False, 200, "application/json", b"{}"),
            ({"headers": {"Content-Type": "text/plain"}, "body": "text"}, 200, "text/plain", b"text"),
            ({"headers": {"content-type": "text/plain"}, "body": None}, 200, "text/plain", b""),
            ({"headers": {"content-type": "text/plain"}, "body": {"a": 1}}, 200, "text/plain", b'{"a":1}'),
            ({"headers": {"content-type": "application/json"}, "body": "text"}, 200, "application/json", b"text"),
            ({"headers": ["Content-Type: text/x", "bad"], "body": "b"}, 200, "text/x", b"b"),
            ({"status_code": "404", "body": 1}, 200, "application/json", b"1"),
            ({"status_code": 99, "body": 1}, 200, "application/json", b"1"),
            ({"status_code": 1000, "body": 1}, 200, "application/json", b"1"),
            ({"statusCode": 404, "body": 1}, 200, "application/json", b"1"),
        ],
    )
    def test_result(self, site: Site, result: Any, status: int, content_type: str, body: bytes) -> None:
        """Status, headers, body, and what is made of everything else."""
        site.route()
        answer = site.answered({"result": result})
        assert (answer.status, answer.headers["content-type"], answer.body) == (status, content_type, body)
        assert answer.headers["content-length"] == str(len(body))

    def test_headers(self, site: Site) -> None:
        """What cannot be sent is left out."""
        site.route()
        sent = {"X-Good": "1", "x bad": "1", "x-bad": "a\nb", "x-number": 1, "x-latin": "\u00e9", "server": "mine"}
        answer = site.answered({"result": {"headers": sent}})
        assert (answer.headers["x-good"], answer.headers.get_all("server")) == ("1", ["mine"])
        assert [name for name in ("x bad", "x-bad", "x-number") if name in answer.headers] == []
        assert "x-latin" in answer.headers

    def test_length(self, site: Site) -> None:
        """It is believed: where there is no body it tells how long that would be, else what is behind it is cut off."""
        result = {"headers": {"content-type": "text/plain", "content-length": "3"}}
        site.route("", "HEAD")
        site.route()
        assert site.answered({"result": {**result, "body": None}}, "", "HEAD").headers["content-length"] == "3"
        assert site.answered({"result": {**result, "body": "hello"}}).body == b"hel"

    def test_no_content(self, site: Site) -> None:
        """A status that has no body gets none."""
        site.route()
        answer = site.answered({"result": {"status_code": 204, "body": {"a": 1}}})
        assert (answer.status, answer.body) == (204, b"")

    def test_failure(self, site: Site) -> None:
        """A failed function is a 500 with its code and message."""
        site.route()
        answer = site.answered({"error": {"code": "bad", "message": "no", "stacktrace": "secret"}})
        assert answer.status == 500
        assert answer.headers["content-type"] == "application/json"
        error = answer.json["error"]
        assert int(error.pop("error_id"), 16) > 0
        assert error == {"code": "bad", "message": "no"}

    def test_function_is_not_there(self, site: Site) -> None:
        """So is one that nobody has registered."""
        site.route(function=f"none-{site.function}")
        answer = site.request()
        assert answer.status == 500
        assert answer.json["error"]["code"] == "function_not_found"

    def test_worker_dies(self, engine_url: str, site: Site) -> None:
        """A request whose worker leaves ends at once."""
        function = f"{site.function}-mortal"
        with worker(engine_url) as mortal:
            mortal.register(function)
            site.route(function=function)
            response = in_thread(site.request)
            mortal.invoked(function)
            time.sleep(ANSWERED_AGAIN)  # else the real engine may not know of the call yet (PROTOCOL E-14)
            mortal.peer.shutdown()  # type: ignore[no-untyped-call]
            assert response().json["error"]["code"] == "invocation_stopped"


class TestStreamed:
    """Responses that a function writes to its channel."""

    def test_status_headers_and_body(self, site: Site) -> None:
        """Control messages count until the first byte; the client gets every byte as it comes."""
        site.route()
        with contextlib.closing(site.dial("GET BASE HTTP/1.1\nHost: x\nConnection: close\n\n")) as client:
            call = site.owner.invoked(site.function)
            with connect(end_url(site.url, call["data"]["response"])) as writer:
                writer.send(json.dumps({"type": "set_status", "status_code": 206}))
                writer.send(json.dumps({"type": "set_status", "status_code": 700}))
                writer.send(json.dumps({"type": "set_headers", "headers": {"X-One": "1", "x-n": 1}}))
                writer.send("junk")
                writer.send_binary(b"abc")
                response = http.client.HTTPResponse(client)
                response.begin()
                assert response.read(3) == b"abc"
                site.owner.answer(call, error={"code": "late", "message": "ignored"})
                writer.send(json.dumps({"type": "set_status", "status_code": 500}))
                writer.send_binary(b"")
                writer.send_binary(b"def")
                send_close(writer)
                assert response.read() == b"def"
        assert response.status == 206
        assert response.headers["x-one"] == "1"
        assert response.headers["transfer-encoding"] == "chunked"
        assert not {"x-n", "content-type", "content-length"} & {name.lower() for name in response.headers}

    def test_without_body(self, site: Site) -> None:
        """A clean end before the first byte is an empty response with the status so far."""
        site.route()
        response = in_thread(site.request)
        call = site.owner.invoked(site.function)
        with connect(end_url(site.url, call["data"]["response"])) as writer:
            writer.send(json.dumps({"type": "set_status", "status_code": 404}))
            send_close(writer)
            answer = response()
        assert (answer.status, answer.body) == (404, b"")

    def test_null_result_leaves_the_stream(self, site: Site) -> None:
        """A function that returns nothing may still be writing."""
        site.route()
        response = in_thread(site.request)
        call = site.owner.invoked(site.function)
        site.owner.answer(call, result=None)
        site.owner.sync()
        with connect(end_url(site.url, call["data"]["response"])) as writer:
            writer.send_binary(b"late")
            send_close(writer)
            assert response().body == b"late"

    def test_result_before_the_first_byte(self, site: Site) -> None:
        """It is the response, whatever was set before."""
        site.route()
        response = in_thread(site.request)
        call = site.owner.invoked(site.function)
        with connect(end_url(site.url, call["data"]["response"])) as writer:
            writer.send(json.dumps({"type": "set_status", "status_code": 404}))
            site.owner.answer(call, result={"body": 1})
            answer = response()
        assert (answer.status, answer.body) == (200, b"1")

    def test_length_that_is_not_kept(self, site: Site) -> None:
        """The client can tell that something is missing."""
        site.route()
        response = in_thread(site.request)
        call = site.owner.invoked(site.function)
        with connect(end_url(site.url, call["data"]["response"])) as writer:
            writer.send(json.dumps({"type": "set_headers", "headers": {"content-length": "10"}}))
            writer.send_binary(b"abc")
            send_close(writer)
            with pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError)):
                response()

    def test_client_leaves(self, site: Site) -> None:
        """The writer's end breaks while it writes."""
        site.route()
        with contextlib.closing(site.dial("GET BASE HTTP/1.1\nHost: x\n\n")) as client:
            call = site.owner.invoked(site.function)
            with connect(end_url(site.url, call["data"]["response"])) as writer:
                writer.send_binary(b"abc")
                assert client.recv(10)
                client.close()
                with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
                    for _ in range(10_000):
                        writer.send_binary(b"x" * 65536)

    def test_ends_not_taken_in_time(self, site: Site) -> None:
        """Once the response has begun no further end can be opened."""
        site.route(method="POST")
        response = in_thread(lambda: site.request("", "POST", b"body"))
        call = site.owner.invoked(site.function)
        with connect(end_url(site.url, call["data"]["response"])) as writer:
            writer.send_binary(b"abc")
            send_close(writer)
            assert response().body == b"abc"
        with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
            websocket.create_connection(end_url(site.url, call["data"]["request_body"]))


class TestRoutes:
    """Which function a request reaches, if any."""

    def test_nowhere(self, site: Site) -> None:
        """No route, another method, another spelling of the path."""
        site.route("/a")
        site.route("/u/:id", "POST")
        missing = site.request("/nowhere")
        assert (missing.status, missing.json) == (404, {"error": {"code": "NOT_FOUND", "message": "Not Found"}})
        for path in ("/a/", "/A", "//a", "/u/"):
            assert site.request(path).status == 404, path
        wrong = site.request("/u/1", "DELETE")
        assert (wrong.status, wrong.body) == (405, b"")
        head = site.request("/a", "HEAD")
        assert (head.status, head.body) == (404, b"")

    @pytest.mark.parametrize(
        ("routes", "found"),
        [
            (["/u/:id", "/u/me"], {"/u/me": {}, "/u/you": {"id": "you"}}),
            (["/:a", "/:b/c", "/:d/:e"], {"/1": {"a": "1"}, "/1/c": {"b": "1"}, "/1/2": {"d": "1", "e": "2"}}),
        ],
    )
    def test_literal_before_parameter(self, site: Site, routes: list[str], found: dict[str, Any]) -> None:
        """The nearest route wins; in each its parameters have the names it gives them."""
        for path in routes:
            site.route(path)
        assert site.owner.take() == []
        for path, params in found.items():
            response = in_thread(partial(site.request, path))
            call = site.owner.invoked(site.function)
            site.owner.answer(call, result={})
            response()
            assert call["data"]["path_params"] == params

    def test_same_route_again(self, engine_url: str, site: Site) -> None:
        """The newer one replaces the older one; when it goes nothing is left."""
        site.route()
        newer = site.route(function=f"none-{site.function}")
        assert site.request().json["error"]["code"] == "function_not_found"
        site.owner.send(type="unregistertrigger", id=newer)
        site.owner.sync()
        assert site.request().status in (404, 405)

    def test_conflict(self, site: Site) -> None:
        """In two paths that are alike a parameter has one name."""
        site.route("/u/:id")
        name = site.route("/u/:name")
        (refusal,) = site.owner.take()
        assert (refusal["id"], refusal["error"]["code"]) == (name, "trigger_registration_failed")
        assert "conflicts with already-registered route" in refusal["error"]["message"]

    def test_no_path(self, site: Site) -> None:
        """A trigger without a path is refused."""
        site.owner.trigger("http", site.function, {})
        (refusal,) = site.owner.take()
        assert refusal["error"]["message"] == "api_path is required for http triggers"

    def test_worker_leaves(self, engine_url: str, site: Site) -> None:
        """Its routes go with it."""
        with worker(engine_url) as visitor:
            visitor.trigger("http", "f", {"api_path": site.base})
            assert site.request().status == 500
        while site.request().status == 500:
            pass  # until the engine has noticed
        assert site.request().status in (404, 405)

    def test_cors(self, site: Site) -> None:
        """Any page may call; the engine answers every preflight itself."""
        site.route()
        preflight = site.request("", "OPTIONS", Origin="http://a.b", Access_Control_Request_Method="GET")
        assert preflight.status == 200
        for name in ("allow-origin", "allow-methods", "allow-headers"):
            assert preflight.headers[f"access-control-{name}"] == "*"
        assert site.answered({"result": {}}).headers["access-control-allow-origin"] == "*"
        assert site.request("/nowhere").headers["access-control-allow-origin"] == "*"


class TestGates:
    """Conditions and middleware."""

    @pytest.mark.parametrize("outcome", [{"result": False}, {"error": {"code": "c", "message": "m"}}])
    def test_condition_says_no(self, site: Site, outcome: dict[str, Any]) -> None:
        """A false is a 422, a failure a 500."""
        condition = f"{site.function}-condition"
        site.owner.register(condition)
        site.route(condition_function_id=condition)
        response = in_thread(site.request)
        question = site.owner.invoked(condition)
        assert question["data"]["method"] == "GET"
        site.owner.answer(question, **outcome)
        answer = response()
        if "error" in outcome:
            assert (answer.status, answer.json["error"]["code"]) == (500, "c")
        else:
            assert answer.status == 422
            assert answer.json["error"]["code"] == "CONDITION_NOT_MET"
            assert answer.json["skipped"] is True

    def test_condition_says_yes(self, site: Site) -> None:
        """Anything else lets the request through."""
        condition = f"{site.function}-condition"
        site.owner.register(condition)
        site.route(condition_function_id=condition)
        response = in_thread(site.request)
        site.owner.answer(site.owner.invoked(condition), result=None)
        site.owner.answer(site.owner.invoked(site.function), result={})
        assert response().status == 200

    def gate(self, site: Site, *outcomes: Any) -> tuple[Optional[dict[str, Any]], Answer]:
        """Send a request through one middleware for each outcome; return the first question."""
        names = [f"{site.function}-gate-{number}" for number, _ in enumerate(outcomes)]
        for name in names:
            site.owner.register(name)
        site.route("/g/:id", middleware_function_ids=names)
        first = None
        response = in_thread(lambda: site.request("/g/1?q=2"))
        for name, outcome in zip(names, outcomes):
            question = site.owner.invoked(name)
            first = first or question["data"]
            site.owner.answer(question, **outcome)
            result = outcome.get("result") or {}
            if "error" in outcome or result.get("action") == "respond":
                return first, response()
        site.owner.answer(site.owner.invoked(site.function), result={"body": "through"})
        return first, response()

    def test_middleware_continues(self, site: Site) -> None:
        """One after the other, each with the request."""
        question, answer = self.gate(site, {"result": {"action": "continue"}}, {"result": None})
        assert answer.json == "through"
        assert question is not None
        request = question.pop("request")
        assert question == {"phase": "preHandler", "context": {}}
        assert (request["method"], request["path_params"], request["query_params"]) == ("GET", {"id": "1"}, {"q": "2"})

    def test_middleware_responds(self, site: Site) -> None:
        """It takes the place of the function."""
        response = {"status_code": 403, "headers": {"x-m": "1"}, "body": {"no": 1}}
        _, answer = self.gate(site, {"result": {"action": "respond", "response": response}})
        assert (answer.status, answer.headers["x-m"], answer.json) == (403, "1", {"no": 1})

    def test_middleware_fails(self, site: Site) -> None:
        """It is a 500 with its code."""
        _, answer = self.gate(site, {"error": {"code": "mc", "message": "mm"}})
        assert (answer.status, answer.json["error"]["code"]) == (500, "mc")
