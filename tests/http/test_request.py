"""What an HTTP function gets to see of a request."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from iii_sync import HttpError, StreamRequest, errors

from .site import Noted, Site, raised


def test_path_parameters_and_query_are_decoded(site: Site) -> None:
    """The engine hands the path over as it was sent, and its pattern in the place of the path (E-35)."""
    seen = Noted()
    site.serve(seen, "/users/:id/posts/:post", metadata={"m": 1})
    site.request("/users/a%20b%2F%C3%A9/posts/7?q=1&q=c+d%21&e&u=%C3%A9")
    request = seen.get()
    assert request.method == "GET"
    assert request.route == f"{site.base}/users/:id/posts/:post"
    assert request.path == f"{site.base}/users/a%20b%2F%C3%A9/posts/7"
    assert request.path_params == {"id": "a b/é", "post": "7"}
    assert request.query_params == {"q": "c d!", "e": "", "u": "é"}
    assert request.metadata == {"m": 1}
    assert (request.body, request.content_length) == (None, None)


def test_headers_of_any_case(site: Site) -> None:
    """A mapping that does not look at case, and does not show values."""
    seen = Noted()
    site.serve(seen)
    site.request(X_Up="Yes", Authorization="Bearer secret", X_Large="l" * 20_000)
    headers = seen.get().headers
    assert headers["x-up"] == headers["X-UP"] == "Yes"
    assert "X-Up" in headers and "x-down" not in headers and 3 not in headers
    assert headers.get("X-Large") == "l" * 20_000
    assert "secret" not in repr(headers)
    assert len(headers) == len(list(headers)) >= 3


@pytest.mark.parametrize("kind", ["application/json", "application/JSON", "text/plain", ""])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_json_of_any_content_type(site: Site, kind: str, method: str) -> None:
    """The engine parses only what is named exactly so; the bytes are there all the same."""
    site.serve(lambda request: {"json": request.json(), "bytes": request.request_body.read().decode()}, "", method)
    sent = '{"a": [1, "é"]}'
    answer = site.request("", method, sent.encode(), Content_Type=kind)
    assert answer.json["json"] == {"a": [1, "é"]}
    assert answer.json["bytes"] == (sent if kind == "application/json" else "")


@pytest.mark.parametrize("body", [b"", b"{bad", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_what_is_no_json_is_a_400(site: Site, body: bytes, kind: str) -> None:
    """It names what is wrong."""
    site.serve(lambda request: request.json(), "", "POST")
    answer = site.request("", "POST", body, Content_Type=kind)
    assert (answer.status, answer.json["error"]["code"]) == (400, "BAD_REQUEST")


def test_texts_forms_and_their_errors(site: Site) -> None:
    """In the character set that is named; no more than the limit."""
    site.serve(lambda request: request.text(limit=10), "/text", "POST")
    site.serve(lambda request: request.form(), "/form", "POST")

    def text(body: bytes, kind: str = "text/plain") -> Any:
        answer = site.request("/text", "POST", body, Content_Type=kind)
        return answer.body.decode() if answer.status == 200 else answer.status

    assert text("é".encode()) == "é"
    assert text(b"\xe9", 'text/plain; charset="latin-1"') == "é"
    assert text(b"\xe9") == 400
    assert text(b"a", "text/plain; charset=undefined") == 400
    assert text(b"a", "text/plain; charset=klingon") == 415
    assert text(b"x" * 10) == "x" * 10
    assert text(b"x" * 11) == 413
    form = "application/x-www-form-urlencoded"
    assert site.request("/form", "POST", "a=1&a=2&b=%C3%A9&c=", Content_Type=form).json == {
        "a": ["1", "2"],
        "b": ["é"],
        "c": [""],
    }
    assert site.request("/form", "POST", "a=1", Content_Type="multipart/form-data; boundary=x").status == 415


def test_bodies_of_all_kinds_are_files(site: Site) -> None:
    """With a length, in chunks, empty, and none at all; before the first byte of the response and after it."""

    def echo(request: StreamRequest, response: Any) -> None:
        if request.query_params:
            response.write(b">")
        for chunk in request.request_body:
            response.write(chunk)

    site.serve(echo, "", ["GET", "POST"])
    large = bytes(range(256)) * 4096
    for path, first in (("", b""), ("?late=1", b">")):
        assert site.request(path, "POST", large).body == first + large
        chunks: Iterator[bytes] = iter([b"one", b"two", large])
        assert site.request(path, "POST", chunks).body == first + b"onetwo" + large
        assert site.request(path, "POST", b"").body == first
        assert site.request(path, "POST", b"{}", Content_Type="application/json").body == first + b"{}"
        assert site.request(path).body == first


def test_an_expected_100_continue_comes(site: Site) -> None:
    """Clients like curl wait for it before they send a body."""
    site.serve(lambda request: request.text(), "", "POST")
    head = "POST BASE HTTP/1.1\nHost: x\nContent-Length: 4\nExpect: 100-continue\nConnection: close\n\n"
    with contextlib.closing(site.dial(head)) as client, client.makefile("rb") as file:
        assert b"100" in file.readline()
        assert file.readline() == b"\r\n"
        client.sendall(b"body")
        assert file.read().endswith(b"body")


def test_a_cut_upload_raises(site: Site) -> None:
    """The engine ends it as if it were whole (E-35); the announced length tells. What came is there."""
    begun, told = Noted(), Noted()

    def upload(request: StreamRequest) -> None:
        body = request.request_body
        begun(body.read(4))
        told((raised(body.read), body.complete))

    site.serve(upload, "", "POST")
    with contextlib.closing(site.dial("POST BASE HTTP/1.1\nHost: x\nContent-Length: 10\n\n", b"four")):
        assert begun.get() == b"four"
    error, complete = told.get()
    assert isinstance(error, errors.ChannelTruncatedError)
    assert complete is False


def test_a_whole_upload_is_vouched_for(site: Site) -> None:
    """By its length."""
    site.serve(lambda request: [len(request.request_body.read()), request.request_body.complete], "", "POST")
    assert site.request("", "POST", b"x" * 100_000).json == [100_000, True]


def test_a_cut_chunked_upload_raises_on_the_local_engine(site: Site, engine_kind: str) -> None:
    """Nothing tells on the real one."""
    begun, told = Noted(), Noted()

    def upload(request: StreamRequest) -> None:
        begun(request.request_body.read(4))
        told(raised(request.request_body.read))

    site.serve(upload, "", "POST")
    head = "POST BASE HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n"
    with contextlib.closing(site.dial(head, b"4\r\nfour\r\n")):
        assert begun.get() == b"four"
    error = told.get()
    assert isinstance(error, errors.ChannelTruncatedError) if engine_kind == "local" else error is None


def test_an_upload_that_nobody_reads(site: Site) -> None:
    """Does not keep the response back, nor the next request on the connection."""
    site.serve(lambda request: "seen", "", "POST")
    site.serve(lambda request: request.request_body.read(1).decode(), "/one", "POST")
    for path, body in (("", b"x" * 1000), ("/one", b"x" * 200_000)):
        answer = site.request(path, "POST", body)
        assert answer.body == (b"seen" if not path else b"x")


def test_a_body_that_is_passed_on(site: Site, unique: Any) -> None:
    """Another function can read it in our place."""
    name = unique("count")
    site.worker.register_function(name, lambda data: len(data["reader"].read_all()))
    site.serve(lambda request: site.worker.trigger(name, {"reader": request.request_body}), "", "POST")
    assert site.request("", "POST", b"x" * 3000).json == 3000


def test_many_requests_on_one_connection(site: Site) -> None:
    """Kept alive between plain and streamed responses, with bodies and without."""

    def handler(request: StreamRequest, response: Any) -> Any:
        if request.method == "POST":
            response.write(request.request_body.read())
            return None
        return request.query_params

    site.serve(handler, "", ["GET", "POST"])
    with contextlib.closing(site.connection()) as connection:
        connection.connect()
        sock = connection.sock
        for number in range(20):
            connection.request("GET", f"{site.base}?n={number}")
            assert json.loads(connection.getresponse().read()) == {"n": str(number)}
            connection.request("POST", site.base, str(number).encode())
            assert connection.getresponse().read() == str(number).encode()
        assert connection.sock is sock


def test_a_payload_that_is_no_request(site: Site, unique: Any) -> None:
    """Who calls the function in another way than by HTTP is told so."""
    with pytest.raises(errors.ConfigurationError, match="not that of an HTTP trigger"):
        StreamRequest({"path": "/"})
    made = site.serve(lambda request: 1)
    for payload in (None, {}, {"request_body": 1}):
        with pytest.raises(errors.HandlerFailedError, match="call this function by HTTP"):
            site.worker.trigger(made.functions[0].id, payload)


def test_an_http_error_is_picklable_and_checked() -> None:
    """As all our errors are."""
    import pickle

    error = pickle.loads(pickle.dumps(HttpError(404, "no such file", headers={"x-a": "b"})))
    assert (error.status, error.message, error.code, error.headers) == (404, "no such file", "NOT_FOUND", {"x-a": "b"})
    assert str(error) == "404 no such file"
    assert HttpError(499).code == "HTTP_499"
    for status in (200, 600, "404", True):
        with pytest.raises(ValueError, match="400 to 599"):
            HttpError(status)  # type: ignore[arg-type]
