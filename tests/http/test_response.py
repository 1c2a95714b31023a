"""Responses that an HTTP function writes."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import socket
import time
from typing import Any, Callable

import pytest

from iii_sync import HttpError, HttpResponse, StreamRequest, StreamResponse, errors, http

from ..support.threads import in_thread
from .site import CUT, WAIT, Noted, Site, raised


def test_status_headers_and_bytes(site: Site) -> None:
    """Kept until the first byte, then as they were last set; the bytes as they come."""
    go = Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.status(404)
        response.status(206)
        response.headers({"X-One": "0", "x-two": 2})
        response.headers([("x-one", "1")])
        assert not response.started
        assert response.write(memoryview(b"abc")) == 3
        assert response.started and response.status_code == 206
        go.get()
        assert response.write(b"") == 0
        response.write(bytearray(b"def"))
        assert response.tell() == 6

    site.serve(handler)
    with contextlib.closing(site.connection()) as connection:
        connection.request("GET", site.base)
        response = connection.getresponse()
        assert response.read(3) == b"abc"
        go(None)
        assert response.read() == b"def"
    assert response.status == 206
    assert (response.headers.get_all("x-one"), response.headers["x-two"]) == (["1"], "2")
    assert response.headers["transfer-encoding"] == "chunked"


def test_it_is_a_file(site: Site) -> None:
    """For everything that writes to files, closed or not, buffered or not."""

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        assert response.writable() and not response.readable() and not response.seekable()
        assert response.stream is response.writer is response
        shutil.copyfileobj(io.BytesIO(b"copied "), response)
        with contextlib.suppress(TypeError):
            response.write("text")  # type: ignore[arg-type]
        with pytest.raises(errors.UsageError, match="send_event"):
            response.send_message("text")
        print("printed", file=response.makefile("w"))
        response.makefile("wb").write(b"buffered")

    site.serve(handler)
    answer = site.request()
    assert (answer.status, answer.body) == (200, b"copied printed\nbuffered")


def test_what_is_buffered_is_sent_by_close(site: Site) -> None:
    """Closing the response below a file loses nothing."""

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        text = response.makefile("w")
        text.write("héllo")
        response.close()
        assert response.closed and text.closed
        response.close()

    site.serve(handler)
    assert site.request().body.decode() == "héllo"


@pytest.mark.parametrize("close", [True, False])
def test_a_response_without_a_body(site: Site, close: bool) -> None:
    """Status and headers alone, with close() or when the handler returns."""

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.status(202)
        response.headers({"x-a": "b"})
        if close:
            response.close()

    site.serve(handler)
    answer = site.request()
    assert (answer.status, answer.headers["x-a"], answer.body) == (202, "b", b"")
    assert answer.headers["content-length"] == "0"


def test_nothing_is_sent_before_the_first_byte(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """An error until then is a 500, whatever was set; afterwards it cuts the response."""
    caplog.set_level(logging.CRITICAL)

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.status(201)
        response.headers({"content-length": 10})
        file = response.makefile("w")
        file.write("four")
        if request.query_params:
            file.flush()
        raise OSError("the disk's secret")

    site.serve(handler)
    answer = site.request()
    assert (answer.status, answer.json["error"]["code"]) == (500, "invocation_failed")
    assert b"secret" not in answer.body
    with pytest.raises(CUT):
        site.request("?flush=1")


def test_leaving_with_on_an_exception(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Is as if the response had never been begun: 500, also when the handler goes on as if nothing had been."""
    caplog.set_level(logging.CRITICAL)

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        with contextlib.suppress(ZeroDivisionError), response:
            raise ZeroDivisionError

    site.serve(handler)
    assert site.request().status == 500


def test_head_and_body_are_checked(site: Site) -> None:
    """What the engine would drop, or send to the client's confusion, is refused where it is said."""
    seen: list[Any] = []

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        def refused(error: Any, function: Any, *values: Any) -> None:
            seen.append((isinstance(raised(lambda: function(*values)), error), values))

        for status in (99, 101, 600, "200", None, True, 200.0):
            refused(ValueError, response.status, status)
        for name in ("", "a b", "a:b", "a\nb", "ä", 3):
            refused(ValueError, response.headers, {name: "v"})
        for value in ("a\r\nx-b: c", "\0", "\ud800"):
            refused(ValueError, response.headers, {"x-a": value})
        for wrong in (None, b"b", 1.5, True, ["v"]):
            refused(TypeError, response.headers, {"x-a": wrong})
        refused(ValueError, response.headers, {"Transfer-Encoding": "chunked"})
        refused(ValueError, response.headers, {"content-length": "-1"})
        refused(ValueError, response.headers, [("set-cookie", "a=1"), ("Set-Cookie", "b=2")])
        refused(TypeError, response.headers, "x-a")
        refused(TypeError, response.headers, [("x-a",)])
        response.status(204)
        refused(ValueError, response.write, b"body")
        response.status(200)
        response.headers({"content-length": 3})
        refused(ValueError, response.write, b"four")
        assert not response.started
        response.write(b"abc")
        refused(ValueError, response.write, b"d")
        refused(errors.UsageError, response.status, 404)
        refused(errors.UsageError, response.headers, {"x-a": "b"})
        refused(errors.UsageError, response.send_json, {})
        response.close()
        refused(ValueError, response.write, b"x")
        refused(ValueError, response.status, 200)

    site.serve(handler)
    answer = site.request()
    assert (answer.status, answer.body) == (200, b"abc")
    assert "x-a" not in answer.headers
    assert len(seen) > 25
    assert [values for good, values in seen if not good] == []


def test_less_than_the_announced_length(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Is cut for the client, too, and an error in the handler."""
    caplog.set_level(logging.CRITICAL)
    told = Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.headers({"content-length": 10})
        response.write(b"four")
        told(raised(response.close))

    site.serve(handler)
    with pytest.raises(CUT):
        site.request()
    assert isinstance(told.get(), ValueError)
    assert "4 of the 10 bytes" in str(told.get())


def test_head_requests_have_no_body(site: Site) -> None:
    """The head is that of the GET; the bytes are counted and not sent."""

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.headers({"content-length": 600_000, "x-a": "b"})
        response.write(b"x" * 600_000)

    site.serve(handler, "", ["GET", "HEAD"])
    for method, size in (("GET", 600_000), ("HEAD", 0)):
        answer = site.request("", method)
        assert (answer.status, len(answer.body)) == (200, size)
        assert (answer.headers["content-length"], answer.headers["x-a"]) == ("600000", "b")


def test_send_json(site: Site) -> None:
    """A whole response, with its length."""

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.status(201)
        assert isinstance(raised(lambda: response.send_json({"a": {1}})), errors.InvalidPayloadError)
        response.send_json({"a": "é"})
        assert response.closed

    site.serve(handler)
    answer = site.request()
    assert (answer.status, answer.json, answer.headers["content-type"]) == (201, {"a": "é"}, "application/json")
    assert answer.headers["content-length"] == str(len(answer.body))


def test_start_sends_the_head_alone(site: Site) -> None:
    """For a body that takes its time: the engine would answer 504."""
    go = Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.headers({"x-a": "b"})
        response.start()
        response.start()
        go.get()
        response.write(b"late")

    site.serve(handler)
    with contextlib.closing(site.connection()) as connection:
        connection.request("GET", site.base)
        response = connection.getresponse()
        assert response.headers["x-a"] == "b"
        go(None)
        assert response.read() == b"late"


def test_server_sent_events(site: Site) -> None:
    """Each arrives when it is sent."""
    go = Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.send_event("a\nb\r\nc", event="x", id="1", retry=1.5)
        go.get()
        response.send_event({"n": 1})
        response.send_comment("still there")
        response.send_event("")
        for bad in ("a\nb", "a\rb", "a\0"):
            assert isinstance(raised(lambda bad=bad: response.send_event("", id=bad)), ValueError)  # type: ignore[misc]

    site.serve(handler)
    with contextlib.closing(site.connection()) as connection:
        connection.request("GET", site.base)
        response = connection.getresponse()
        first = b"event: x\nid: 1\nretry: 1500\ndata: a\ndata: b\ndata: c\n\n"
        assert response.read(len(first)) == first
        go(None)
        assert response.read() == b'data: {"n":1}\n\n: still there\n\ndata: \n\n'
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"


WRITES: dict[str, Callable[[StreamResponse], object]] = {
    "write": lambda response: response.write(b"x" * 65536),
    "send_event": lambda response: response.send_event({"n": 1}),
    "send_comment": lambda response: response.send_comment("still there"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_client_that_leaves_breaks_the_write(site: Site, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """As a pipe does; and it is no failure of the function's, so there is no warning."""
    told = Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        def endlessly() -> None:
            end = time.monotonic() + WAIT
            while time.monotonic() < end:
                WRITES[name](response)

        error = raised(endlessly)
        told(error)
        assert error is not None
        raise error

    site.serve(handler)
    client = site.dial("GET BASE HTTP/1.1\nHost: x\n\n")
    assert client.recv(10)
    client.close()
    assert isinstance(told.get(), BrokenPipeError)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("begin", ["start", "write"])
def test_a_client_that_leaves_before_the_head(site: Site, begin: str) -> None:
    """What begins the response says so, or one of the next writes."""
    begun, gone, told = Noted(), Noted(), Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        begun(None)
        gone.get()

        def endlessly() -> None:
            if begin == "start":
                response.start()
            end = time.monotonic() + WAIT
            while time.monotonic() < end:
                response.write(b"x" * 65536)

        told(raised(endlessly))

    site.serve(handler)
    client = site.dial("GET BASE HTTP/1.1\nHost: x\n\n")
    begun.get()
    client.close()
    gone(None)
    assert isinstance(told.get(), BrokenPipeError)


def test_errors_answer(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A deliberate one with its status; any other with a 500 that says nothing, while the log says everything."""

    def handler(request: StreamRequest) -> Any:
        if request.path_params["kind"] == "known":
            raise HttpError(409, "try again", code="BUSY", headers={"retry-after": "5", "Content-Type": "text/x"})
        if request.path_params["kind"] == "surrogate":
            raise HttpError(404, "no \ud800")
        if request.path_params["kind"] == "exception":
            raise HttpError(404, KeyError("n"))  # type: ignore[arg-type]
        if request.path_params["kind"] == "line end":
            raise HttpError(401, headers={"www-authenticate": "Basic\r\nsecret: 1"})
        if request.path_params["kind"] == "changed":
            error = HttpError(401)
            error.headers["www-authenticate"] = "Basic\r\nsecret: 1"
            raise error
        if request.path_params["kind"] == "length":
            raise HttpError(401, headers={"content-length": "99"})
        if request.path_params["kind"] == "unsendable":
            return {"a": object()}
        if request.path_params["kind"] == "camel":
            return {"statusCode": 404, "body": {}}
        raise KeyError("secret")

    site.serve(handler, "/:kind")
    known = site.request("/known")
    assert (known.status, known.headers["retry-after"]) == (409, "5")
    assert known.json == {"error": {"code": "BUSY", "message": "try again"}}
    assert known.headers.get_all("content-type") == ["text/x"]
    for kind, text in (("surrogate", "no \\ud800"), ("exception", "'n'")):
        answer = site.request(f"/{kind}")
        assert (answer.status, answer.json["error"]) == (404, {"code": "NOT_FOUND", "message": text})
    assert caplog.records == []
    for kind, cause in (
        ("unknown", "secret"),
        ("unsendable", "is not JSON"),
        ("camel", "name it 'status_code'"),
        ("line%20end", "'www-authenticate' is not a line of text"),
        ("changed", "'www-authenticate' is not a line of text"),
        ("length", "leave the header out"),
    ):
        answer = site.request(f"/{kind}")
        assert (answer.status, answer.json["error"]["code"]) == (500, "invocation_failed")
        assert answer.json["error"]["message"] == "Internal Server Error"
        assert b"Traceback" not in answer.body and b"secret" not in answer.body
        assert cause in caplog.text
        caplog.clear()


def test_plain_returns(site: Site) -> None:
    """Each value as what it is; iii's own form as it is."""
    values: dict[str, tuple[Any, int, str, bytes]] = {
        "none": (None, 204, "text/plain; charset=utf-8", b""),
        "object": ({"a": "é"}, 200, "application/json", '{"a":"é"}'.encode()),
        "empty": ({}, 200, "application/json", b"{}"),
        "list": ([1, None], 200, "application/json", b"[1,null]"),
        "false": (False, 200, "application/json", b"false"),
        "number": (1.5, 200, "application/json", b"1.5"),
        "text": ("é", 200, "text/plain; charset=utf-8", "é".encode()),
        "bytes": (b"abc", 200, "application/octet-stream", b"abc"),
        "binary": (bytearray(b"\xff\0"), 200, "application/octet-stream", b"\xff\0"),
        "iii": ({"status_code": 404, "body": {"a": 1}}, 404, "application/json", b'{"a":1}'),
        "iii text": ({"body": "t"}, 200, "application/json", b'"t"'),
        "iii raw": ({"body": "t", "headers": {"Content-Type": "text/x"}}, 200, "text/x", b"t"),
        "iii lines": ({"body": "t", "headers": ["content-type: text/y"]}, 200, "text/y", b"t"),
        "iii nothing": ({"status_code": 204}, 204, "", b""),
        "iii bytes": ({"status_code": 201, "body": b"\xff"}, 201, "application/octet-stream", b"\xff"),
        "made": (HttpResponse(201, {"a": 1}), 201, "application/json", b'{"a":1}'),
        "made text": (HttpResponse(200, "t", {"content-type": "text/html"}), 200, "text/html", b"t"),
        "made nothing": (HttpResponse(302, headers={"location": "/"}), 302, "text/plain; charset=utf-8", b""),
        "not modified": (HttpResponse(304), 304, "", b""),
        "large": ("é" * 300_000, 200, "text/plain; charset=utf-8", "é".encode() * 300_000),
        "large json": (["x" * 20_000_000], 200, "application/json", b'["' + b"x" * 20_000_000 + b'"]'),
    }
    site.serve(lambda request: values[request.query_params["key"]][0])
    for key, (_, status, kind, body) in values.items():
        answer = site.request(f"?key={key.replace(' ', '+')}")
        assert (answer.status, answer.body == body) == (status, True), key
        if kind:
            assert answer.headers["content-type"] == kind, key
        if status == 200:
            assert answer.headers["content-length"] == str(len(body)), key
        if status in (204, 304):
            assert "content-length" not in answer.headers, key


@pytest.mark.parametrize(
    ("body", "length"),
    [("Grüße", 5), ("Grüße", 9), ("Grüße", 7), (b"\xff" * 3, 4), (b"\xff" * 300_000, 300_001), (None, 5), (["é"], 5)],
)
def test_the_length_of_what_is_returned(site: Site, caplog: pytest.LogCaptureFixture, body: Any, length: int) -> None:
    """In bytes; a wrong one is an error before anything is sent, for the client would wait, or misread what follows."""
    site.serve(lambda request: HttpResponse(200, body, {"Content-Length": length}), "", ["GET", "HEAD"])
    answer = site.request()
    if length == 7:
        assert (answer.status, answer.headers.get_all("content-length"), len(answer.body)) == (200, ["7"], 7)
    else:
        assert answer.status == 500 and "leave the header out" in caplog.text
    head = site.request("", "HEAD")
    assert (head.status, head.headers.get_all("content-length")) == (200, [str(length)])


def test_several_cookies(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A returned response can have a header several times, unless it has to be streamed."""
    bodies = {"text": "t", "json": {"a": 1}, "none": None, "binary": b"\xff", "large": "t" * 300_000}
    cookies = [("set-cookie", "a=1"), ("set-cookie", "b=2")]
    site.serve(lambda request: HttpResponse(200, bodies[request.query_params["body"]], cookies))
    for body in ("text", "json", "none"):
        assert site.request(f"?body={body}").headers.get_all("set-cookie") == ["a=1", "b=2"]
    for body in ("binary", "large"):
        caplog.clear()
        assert site.request(f"?body={body}").status == 500
        assert "text of at most 256 KiB: others are streamed, too" in caplog.text


def test_what_was_set_on_the_response_counts_for_what_is_returned(site: Site) -> None:
    """Unless that says something else."""

    def handler(request: StreamRequest, response: StreamResponse) -> Any:
        response.status(201)
        response.headers({"X-A": "1", "X-B": "1"})
        return HttpResponse(202, "t", {"x-b": "2"}) if request.query_params else {"a": 1}

    site.serve(handler)
    plain, made = site.request(), site.request("?made=1")
    assert (plain.status, plain.json, plain.headers["x-b"]) == (201, {"a": 1}, "1")
    assert (made.status, made.headers["x-a"], made.headers.get_all("x-b")) == (202, "1", ["2"])


def test_streams_that_are_returned(site: Site, tmp_path: Any) -> None:
    """Generators, files of all kinds, and the body itself; closed afterwards, with their length where it is known."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)
    opened: list[Any] = []

    def keep(value: Any) -> Any:
        opened.append(value)
        return value

    def texts() -> Any:
        yield "é"
        yield b"-"
        yield "b"

    def seeked() -> Any:
        file = path.open("rb")
        file.seek(10)
        return file

    makers: dict[str, Any] = {
        "generator": (texts, "é-b".encode(), None),
        "nothing": (lambda: iter(()), b"", "0"),
        "file": (lambda: path.open("rb"), b"0123456789" * 100_000, "1000000"),
        "seeked": (seeked, b"0123456789" * 99_999, "999990"),
        "text": (lambda: path.open(), b"0123456789" * 100_000, None),
        "memory": (lambda: io.BytesIO(b"abc"), b"abc", "3"),
        "null": (lambda: open("/dev/null", "rb"), b"", "0"),
    }
    site.serve(lambda request: keep(makers[request.query_params["key"]][0]()), "", ["GET", "HEAD"])
    for key, (_, body, length) in makers.items():
        answer = site.request(f"?key={key}")
        assert (answer.status, answer.body == body, answer.headers["content-length"]) == (200, True, length), key
    assert site.request("?key=file", "HEAD").headers["content-length"] == "1000000"
    end = time.monotonic() + WAIT  # a client may have all of it before the handler is over
    while [file for file in opened if hasattr(file, "closed") and not file.closed]:
        assert time.monotonic() < end
        time.sleep(0.01)
    site.serve(lambda request: request.request_body, "/echo", "POST")
    assert site.request("/echo", "POST", b"x" * 500_000).body == b"x" * 500_000


def test_a_generator_that_fails(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Before it has yielded anything: 500; later the response is cut, and the generator is closed."""
    caplog.set_level(logging.CRITICAL)
    closed: list[str] = []

    def handler(request: StreamRequest) -> Any:
        try:
            if request.query_params:
                yield "a"
                yield 3
            raise ValueError
        finally:
            closed.append("early" if not request.query_params else "late")

    site.serve(lambda request: iter([None, b"data"]), "/none")
    assert site.request("/none").status == 500
    site.serve(handler)
    assert site.request().status == 500
    with contextlib.suppress(*CUT):  # a cut chunked response looks whole on the real engine
        assert site.request("?late=1").body == b"a"
    end = time.monotonic() + WAIT
    while len(closed) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert closed == ["early", "late"]


def test_what_is_returned_beside_a_written_response(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be sent, and the log says so; the response itself is nothing else."""
    site.serve(lambda request, response: {"n": response.write(b"abc")})
    assert site.request().body == b"abc"
    assert "is ignored" in caplog.text
    caplog.clear()

    def handler(request: StreamRequest, response: StreamResponse) -> Any:
        response.write(b"abc")
        return response

    site.serve(handler, "/same")
    assert site.request("/same").body == b"abc"
    assert caplog.records == []


def test_many_concurrent_requests(site: Site) -> None:
    """Streamed and plain, each with its own body."""

    def handler(request: StreamRequest, response: StreamResponse) -> Any:
        data = request.request_body.read()
        if len(data) % 2:
            return data
        response.write(data[:1])
        response.write(data[1:])
        return None

    site.serve(handler, "", "POST")

    def client(number: int) -> bool:
        with contextlib.closing(site.connection()) as connection:
            for round in range(5):
                body = bytes([number]) * (1000 + 17 * number + round)
                connection.request("POST", site.base, body)
                if connection.getresponse().read() != body:
                    return False
        return True

    outcomes = [in_thread(lambda number=number: client(number), 60) for number in range(30)]  # type: ignore[misc]
    assert all(outcome() for outcome in outcomes)


def test_the_documented_form(site: Site, unique: Any) -> None:
    """register_function and register_trigger with http(handler), as in iii's documentation."""
    name = unique("docs")

    def handler(req: StreamRequest, res: StreamResponse) -> None:
        res.status(200)
        res.headers({"content-type": "text/plain"})
        res.stream.write(req.method.encode())
        res.writer.write(b"!")
        res.close()

    site.worker.register_function(name, http(handler))
    site.worker.register_trigger(
        {"type": "http", "function_id": name, "config": {"api_path": site.base, "http_method": "GET"}}
    )
    answer = site.request()
    assert (answer.body, answer.headers["content-type"]) == (b"GET!", "text/plain")


def test_shutdown_while_responses_are_written(engine_url: str, engine_http_url: str) -> None:
    """Ends within its time and wakes the handlers."""
    from iii_sync import register_worker

    begun, told = Noted(), Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.write(b"x")
        begun(None)

        def endlessly() -> None:
            while True:
                response.write(b"x" * 65536)

        told(raised(endlessly))

    with register_worker(engine_url) as worker:
        site = Site(worker, engine_http_url)
        site.serve(handler)
        client = site.dial("GET BASE HTTP/1.1\nHost: x\n\n")
        begun.get()
        start = time.monotonic()
        worker.shutdown(2)
        assert time.monotonic() - start < WAIT / 2
        assert isinstance(told.get(), errors.ChannelError)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()


@pytest.mark.slow
def test_a_response_that_comes_too_late(site: Site) -> None:
    """The engine answers 504 after 30 seconds; the write that would begin the response raises, or one of the next."""
    answered, told = Noted(), Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        answered.get(60)

        def endlessly() -> None:
            end = time.monotonic() + WAIT
            while time.monotonic() < end:
                response.write(b"x" * 65536)

        told(raised(endlessly))

    site.serve(handler)
    with contextlib.closing(site.connection()) as connection:
        connection.timeout = 60
        connection.request("GET", site.base)
        assert connection.getresponse().status == 504
    answered(None)
    assert isinstance(told.get(), BrokenPipeError)


def test_threads_that_write_at_once(site: Site) -> None:
    """The head goes first, whoever begins; the bytes of one call stay together."""

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        response.headers({"x-a": "b"})

        def write(letter: bytes) -> None:
            for _ in range(50):
                response.write(letter * 1000)

        for outcome in [in_thread(lambda letter=letter: write(letter)) for letter in (b"a", b"b", b"c", b"d")]:  # type: ignore[misc]
            outcome()

    site.serve(handler)
    answer = site.request()
    assert answer.headers["x-a"] == "b"
    pieces = [answer.body[start : start + 1000] for start in range(0, len(answer.body), 1000)]
    assert len(pieces) == 200
    assert all(len(set(piece)) == 1 for piece in pieces)


def test_another_thread_aborts(site: Site) -> None:
    """A response that another thread aborts before it has begun is a 500; later the write that goes on raises."""
    told = Noted()

    def handler(request: StreamRequest, response: StreamResponse) -> None:
        if request.query_params:
            response.headers({"content-length": 10})
            response.write(b"x")
        in_thread(response.abort)()
        told(raised(lambda: response.write(b"x")))

    site.serve(handler)
    assert site.request().status == 500
    assert isinstance(told.get(), ValueError)
    with pytest.raises(CUT):
        site.request("?late=1")
