"""Registering HTTP functions, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from iii_sync import Worker, errors, http, register_worker

from .site import WAIT, Site


def test_a_decorated_function_stays_a_function(site: Site) -> None:
    """And answers when the decorator returns, for each of its methods."""

    @site.worker.http(["GET", "post"], site.base, description="says hello")
    def hello(request: Any) -> str:
        """Says hello."""
        return "hello"

    assert hello(None) == "hello"
    assert (site.request().body, site.request("", "POST").body) == (b"hello", b"hello")
    assert site.request("", "PUT").status == 405
    info = site.worker.trigger("engine::functions::info", {"function_id": f"http::GET::{site.base}"})
    assert info["description"] == "says hello"


def test_an_id_of_its_own(site: Site, unique: Any) -> None:
    """One function for all methods then; it can be reached by that id, too."""
    made = site.serve(lambda request: "x", "", ["GET", "POST"], function_id=unique("mine"))
    assert [function.id for function in made.functions] == [unique("mine")]
    assert (site.request().status, site.request("", "POST").status) == (200, 200)
    assert site.base in repr(made)


def test_a_worker_with_a_namespace(engine_url: str, engine_http_url: str, unique: Any) -> None:
    """Answers with a function of its own, and asks its own condition."""
    with register_worker(engine_url, namespace=unique("space")) as worker:
        site = Site(worker, engine_http_url)
        condition = worker.register_function(unique("condition"), lambda data: "no" not in data["query_params"])
        site.serve(lambda request: request.path_params["id"], "/:id", condition=condition)
        assert site.request("/5").body == b"5"
        assert site.request("/5?no=1").status == 422


def test_unregister_takes_routes_and_functions_back(site: Site) -> None:
    """And both are free again."""
    made = site.serve(lambda request: "x", "", ["GET", "POST"])
    made.unregister()
    made.unregister()
    end = time.monotonic() + WAIT
    while site.request().status not in (404, 405):
        assert time.monotonic() < end
    site.serve(lambda request: "y", "", ["GET", "POST"])
    assert site.request("", "POST").body == b"y"


def test_a_condition_and_middleware(site: Site, unique: Any) -> None:
    """By id, or as they were registered."""
    condition = site.worker.register_function(unique("condition"), lambda data: "no" not in data["query_params"])
    middleware = site.worker.register_function(
        unique("middleware"),
        lambda data: (
            {"action": "respond", "response": {"status_code": 401, "body": "who?"}}
            if "who" in data["request"]["query_params"]
            else {"action": "continue"}
        ),
    )
    site.serve(lambda request: "x", condition=condition, middleware=[middleware.id])
    site.serve(lambda request: "x", "/one", middleware=middleware)
    assert site.request().body == b"x"

    def status(path: str) -> int:
        # A 504 is an answer of the middleware that the engine has lost (PROTOCOL E-14).
        found = [site.request(path).status for _ in range(3)]
        return next((status for status in found if status != 504), 504)

    assert status("?no=1") == 422
    assert status("?who=1") == status("/one?who=1") == 401


@pytest.mark.parametrize(
    ("method", "path", "cure"),
    [
        ("GET", "x", "write '/x'"),
        ("GET", "", "give one such as"),
        ("GET", None, "give one such as"),
        ("GET", "/a?b=1", "query is no part"),
        ("GET", "/a b", "cannot be a segment"),
        ("GET", "/{id}", "cannot be a segment"),
        ("GET", "/a:id", "whole one"),
        ("GET", "/:", "whole one"),
        ("GET", "/:id/:id", "id"),
        ("GET", "/é", "write '/%C3%A9'"),
        ("FETCH", "/x", "must be one of GET"),
        ("", "/x", "must be one of GET"),
        (None, "/x", "http_method=None"),
        ([], "/x", "such as 'GET'"),
        (["GET", "get"], "/x", "different ones"),
        (["GET", 3], "/x", "http_method=3"),
    ],
)
def test_routes_that_cannot_be(worker: Worker, method: Any, path: Any, cure: str) -> None:
    """Refused before anything is registered, with the value and the cure."""
    with pytest.raises(errors.ConfigurationError) as caught:
        worker.register_http(method, path, lambda request: None)
    assert cure in str(caught.value)
    with pytest.raises(errors.ConfigurationError) as caught:
        worker.http(method, path)(lambda request: None)
    assert cure in str(caught.value)
    assert worker._registrations.registrations() == []


def test_handlers_that_cannot_be(worker: Worker, site: Site) -> None:
    """Those that take something else, and asynchronous ones."""

    async def asynchronous(request: Any) -> None: ...

    async def generator(request: Any) -> Any:
        yield b""

    class Asynchronous:
        async def __call__(self, request: Any) -> None: ...

    wrong: list[Any] = [lambda: None, lambda a, b, c: None, lambda *, request: None, 3, None, int, dict.__getitem__]
    for handler in wrong[:5]:
        with pytest.raises(errors.ConfigurationError, match=r"def handler\(request, response\)"):
            site.serve(handler)
    for handler in (asynchronous, generator, Asynchronous()):
        with pytest.raises(errors.ConfigurationError, match="plain 'def'"):
            http(handler)
    assert worker._registrations.registrations() == []

    class Methods:
        def one(self, request: Any, optional: Any = None) -> None: ...
        def __call__(self, request: Any) -> None: ...

    for fine in (Methods().one, Methods(), lambda *requests: None):
        http(fine)


def test_who_gets_the_response(site: Site) -> None:
    """The second argument, unless it has a default of its own, as one that binds the variable of a loop."""
    for name in ("a", "b"):
        site.serve(lambda request, name=name: name, f"/{name}")
    assert [site.request(f"/{name}").body for name in ("a", "b")] == [b"a", b"b"]

    def optional(request: Any, response: Any = None, name: str = "c") -> Any:
        return f"{type(response).__name__} {name}"

    for number, handler in enumerate((optional, lambda request, out: type(out).__name__, lambda *two: str(len(two)))):
        site.serve(handler, f"/{number}")
    assert [site.request(f"/{number}").body for number in range(3)] == [b"StreamResponse c", b"StreamResponse", b"2"]


def test_a_route_twice_on_one_worker(site: Site) -> None:
    """The engine would silently replace it; what was registered before stays, and half a registration does not."""
    site.serve(lambda request: "first", "", "POST")
    for options in ({}, {"function_id": f"other-{site.base}"}):
        with pytest.raises(errors.ConfigurationError, match="already"):
            site.serve(lambda request: "second", "", ["GET", "POST"], **options)
    assert site.request("", "POST").body == b"first"
    end = time.monotonic() + WAIT
    while site.request().status != 405:
        assert time.monotonic() < end
    assert len(site.worker._registrations.registrations()) == 2


def test_a_slash_at_the_end_makes_another_route(site: Site) -> None:
    """As it does for the engine."""
    for path in ("/a", "/a/", "/:id", "/:id/"):
        site.serve(lambda request, path=path: path, path)
    assert [site.request(path).body for path in ("/a", "/a/", "/b", "/b/")] == [b"/a", b"/a/", b"/:id", b"/:id/"]


def test_a_route_of_another_worker(site: Site, peer: Worker) -> None:
    """Refused by the engine, which owns up to whose it is."""
    site.serve(lambda request: "first")
    with pytest.raises(errors.RegistrationRejectedError, match=site.base) as caught:
        peer.register_http("GET", site.base, lambda request: "second")
    assert caught.value.owner_worker_id == site.worker.worker_id
    assert site.request().body == b"first"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_routes_that_do_not_go_together(site: Site, peer: Worker, method: str) -> None:
    """A parameter has one name in routes that are alike; with another method the real engine would break for good."""
    site.serve(lambda request: "first", "/u/:id")
    with pytest.raises(errors.TriggerRegistrationError, match="conflicts with.*/u/:id"):
        peer.register_http(method, f"{site.base}/u/:name", lambda request: "second")
    assert peer._registrations.registrations() == []
    with pytest.raises((errors.TriggerRegistrationError, errors.ConfigurationError), match="conflicts|already"):
        site.worker.register_trigger("http", "f", {"api_path": f"{site.base}/u/:x", "http_method": method})
    peer.register_http("POST", f"{site.base}/u/:id", lambda request: "second")
    assert (site.request("/u/1").body, site.request("/u/1", "POST").body) == (b"first", b"second")
