"""Consumers of streams, through a plain WebSocket: what they are sent, and who hears of them."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import websocket

from iii_sync import Worker, errors
from iii_sync.engine import LocalEngine
from iii_sync.engine.consumers import Consumer, Consumers
from iii_sync.engine.router import Router
from iii_sync.engine.streams import Streams

from .clients import Client

WAIT = 20.0

Unique = Callable[[str], str]
Setting = Callable[..., Any]


class Follower:
    """A consumer."""

    def __init__(self, url: str, stream: str, **options: Any) -> None:
        self.stream = stream
        self.socket = websocket.create_connection(url, timeout=WAIT, **options)

    def send(self, kind: str, subscription: str, group: str = "g", **item: str) -> None:
        """Join or leave."""
        data = {"subscriptionId": subscription, "streamName": self.stream, "groupId": group, **item}
        self.socket.send(json.dumps({"type": kind, "data": data}))

    def next(self) -> tuple[Any, Any]:
        """Of what, and what was told next."""
        message = json.loads(self.socket.recv())
        assert set(message) == {"type", "timestamp", "streamName", "groupId", "id", "event"}
        assert (message["type"], message["streamName"]) == ("stream", self.stream)
        assert message["timestamp"] > 1_600_000_000_000
        return (message["groupId"], message["id"]), message["event"]

    def close(self) -> None:
        """Hang up."""
        self.socket.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def follower(engine_stream_url: str, unique: Unique) -> Iterator[Follower]:
    """Somebody who follows a stream."""
    with contextlib.closing(Follower(engine_stream_url, unique("stream"))) as follower:
        yield follower


@pytest.fixture
def store(worker: Worker, follower: Follower) -> Callable[[str, str, Any], None]:
    """Stores an item of the stream."""

    def store(group: str, item: str, data: Any) -> None:
        worker.streams.set(follower.stream, group, item, data)

    return store


def test_what_is_there_comes_first(engine_kind: str, follower: Follower, store: Setting) -> None:
    """A ``sync`` after every join: of a group all values, of an item its value or null."""

    def told() -> tuple[Any, Any]:
        # The real engine tells of changes by a task of its own, which may come to those before the join behind it.
        of, event = follower.next()
        while engine_kind == "real" and event["type"] == "create":
            of, event = follower.next()
        return of, event

    store("g", "a", {"n": 1})
    store("g", "b", {"n": 2})
    follower.send("join", "1")
    of, event = told()
    assert (of, event["type"]) == (("g", None), "sync")
    assert sorted(event["data"], key=str) == [{"n": 1}, {"n": 2}]
    follower.send("join", "2", id="a")
    assert told() == (("g", "a"), {"type": "sync", "data": {"n": 1}})
    follower.send("join", "3", id="never")
    assert told() == (("g", "never"), {"type": "sync", "data": None})
    follower.send("join", "4", "empty")
    assert told() == (("empty", None), {"type": "sync", "data": []})


def test_what_changes(follower: Follower, store: Setting, worker: Worker) -> None:
    """In the group or of the item that is followed, once for each subscription."""
    follower.send("join", "group")
    follower.send("join", "item", id="a")
    follower.next(), follower.next()
    store("other", "a", 0)
    store("g", "a", 1)
    assert [follower.next(), follower.next()] == [(("g", "a"), {"type": "create", "data": 1})] * 2
    store("g", "b", 2)
    store("g", "b", 3)
    assert follower.next() == (("g", "b"), {"type": "create", "data": 2})
    assert follower.next() == (("g", "b"), {"type": "update", "data": 3})
    place = {"stream_name": follower.stream, "group_id": "g"}
    worker.trigger("stream::send", {**place, "type": "ev", "data": [1]})
    assert follower.next() == (("g", None), {"type": "event", "event": {"type": "ev", "data": [1]}})
    worker.trigger("stream::send", {**place, "id": "b", "type": "ev", "data": [2]})
    assert follower.next() == (("g", "b"), {"type": "event", "event": {"type": "ev", "data": [2]}})
    worker.trigger("stream::delete", {**place, "item_id": "b"})
    assert follower.next() == (("g", "b"), {"type": "delete", "data": 3})
    worker.trigger("stream::update", {**place, "item_id": "a", "ops": [{"type": "set", "path": "", "value": 4}]})
    assert [follower.next(), follower.next()] == [(("g", "a"), {"type": "update", "data": 4})] * 2
    follower.send("leave", "item", id="a")
    follower.send("join", "after", "leave")
    follower.next()
    store("g", "a", 5)
    assert follower.next() == (("g", "a"), {"type": "update", "data": 5})
    follower.send("join", "group", "moved")  # the same subscription: it moves
    assert follower.next() == (("moved", None), {"type": "sync", "data": []})
    store("g", "a", 6)
    store("moved", "x", 7)
    assert follower.next() == (("moved", "x"), {"type": "create", "data": 7})


@pytest.fixture
def hears(worker: Worker, unique: Unique) -> Iterator[Callable[..., queue.Queue[Any]]]:
    """Makes triggers that call a function; what it is called with about this stream arrives in the queue."""
    made: list[str] = []

    def hear(kind: str, handle: Callable[[Any], Any] = lambda _: None, **config: Any) -> queue.Queue[Any]:
        heard: queue.Queue[Any] = queue.Queue()

        def handler(data: Any) -> Any:
            if data["stream_name"] != unique("stream"):
                return None  # of another test, on the same engine
            heard.put(data)
            return handle(data)

        ref = worker.register_function(unique(f"on-{kind}-{len(made)}"), handler)
        call = {"trigger_type": kind, "function_id": ref.id, "config": config}
        made.append(worker.trigger("engine::register_trigger", call)["id"])
        return heard

    yield hear
    for trigger in made:
        worker.trigger("engine::unregister_trigger", {"id": trigger})


def test_who_hears_of_it(follower: Follower, hears: Callable[..., queue.Queue[Any]], store: Setting) -> None:
    """``stream:join`` is asked before, ``stream:leave`` told after; also of a consumer that just vanishes."""
    answers = {"closed": {"unauthorized": True}, "open": {"unauthorized": False}, "fails": None}

    def decide(data: Any) -> Any:
        if data["group_id"] == "fails":
            raise errors.InvocationError("no", "nobody knows")
        return answers.get(data["group_id"])

    joined, left = hears("stream:join", decide), hears("stream:leave")
    # Its configuration does not narrow it down.
    also = hears("stream:join", stream_name="another one")
    follower.send("join", "1", "open", id="a")
    seen = {"subscription_id": "1", "stream_name": follower.stream, "group_id": "open", "id": "a", "context": None}
    assert joined.get(timeout=WAIT) == also.get(timeout=WAIT) == seen
    assert follower.next()[1]["type"] == "sync"
    follower.send("join", "2", "closed")
    assert follower.next() == (("closed", None), {"type": "unauthorized"})
    assert also.get(timeout=WAIT)["group_id"] == "closed"
    follower.send("join", "3", "fails")
    assert follower.next()[1]["type"] == "sync"
    store("closed", "x", 1)
    store("open", "a", 2)
    assert follower.next() == (("open", "a"), {"type": "create", "data": 2})
    assert left.empty()
    follower.send("leave", "1", "open", id="a")
    assert left.get(timeout=WAIT) == seen
    follower.send("leave", "never joined", "elsewhere")
    assert left.get(timeout=WAIT)["subscription_id"] == "never joined"
    follower.close()
    assert left.get(timeout=WAIT)["subscription_id"] == "3"


@pytest.mark.parametrize("engine_kind", ["local"], indirect=True)
def test_one_that_leaves_while_it_is_asked_about(
    follower: Follower, hears: Callable[..., queue.Queue[Any]], store: Setting
) -> None:
    """Does not wait for the answer, as it does on the real engine; it follows nothing any more."""
    go = threading.Event()

    def decide(data: Any) -> None:
        if data["group_id"] == "slow":
            go.wait(WAIT)

    joined, left = hears("stream:join", decide), hears("stream:leave")
    follower.send("join", "1", "open")
    assert follower.next()[1]["type"] == "sync"
    for number in range(3):
        follower.send("join", f"slow-{number}", "slow")
    assert [joined.get(timeout=WAIT)["group_id"] for _ in range(2)] == ["open", "slow"]
    follower.socket.ping(b"you")
    assert follower.socket.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"you")
    follower.socket.send(b"", websocket.ABNF.OPCODE_CLOSE)
    opcode, _ = follower.socket.recv_data(control_frame=True)
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    assert left.get(timeout=WAIT)["subscription_id"] == "1"
    assert not go.is_set()
    go.set()
    store("open", "a", 1)
    assert joined.empty() and left.empty()


def test_what_is_sent_meanwhile(follower: Follower, hears: Callable[..., queue.Queue[Any]]) -> None:
    """Waits in its order, more of it than is kept too."""
    go = threading.Event()
    joined = hears("stream:join", lambda data: go.wait(WAIT) and None)
    follower.send("join", "first", "first")
    joined.get(timeout=WAIT)
    groups = [f"{number:03}" * 100 for number in range(300)]
    for group in groups:
        follower.send("join", "next", group)
    go.set()
    assert follower.next()[0] == ("first", None)
    assert [follower.next()[0][0] for _ in groups] == groups


def test_nonsense_is_ignored(follower: Follower) -> None:
    """And the next message is understood."""
    for text in ("{", "", "[]", "1", '{"type":"join"}', '{"type":"x","data":{}}', '{"type":"join","data":{"a":1}}'):
        follower.socket.send(text)
    follower.socket.send_binary(b"\x00")
    follower.send("what", "1")
    follower.send("join", "1")
    assert follower.next()[1] == {"type": "sync", "data": []}


def test_manners(engine_stream_url: str, unique: Unique) -> None:
    """A ping is answered, and another path is not there."""
    with contextlib.closing(Follower(engine_stream_url, unique("stream"))) as follower:
        follower.socket.ping(b"you")
        opcode, data = follower.socket.recv_data(control_frame=True)
        assert (opcode, data) == (websocket.ABNF.OPCODE_PONG, b"you")
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        websocket.create_connection(f"{engine_stream_url}/other", timeout=WAIT)


@pytest.mark.parametrize("in_process", [True, False])
def test_pages_of_others_stay_out(in_process: bool) -> None:
    """Those of this machine may follow a stream, whatever their port; the real engine lets any page in."""
    with LocalEngine(stream_port=0, in_process=in_process) as engine:
        for origin in ("http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]"):
            Follower(engine.stream_url, "s", origin=origin).close()
        for header, status in (
            ({"origin": "http://evil.example"}, "403"),
            ({"origin": "null"}, "403"),
            ({"host": "evil.example"}, "421"),
        ):
            with pytest.raises(websocket.WebSocketBadStatusException, match=status):
                Follower(engine.stream_url, "s", **header)
    with LocalEngine() as engine, pytest.raises(RuntimeError, match="stream_port=0"):
        engine.stream_url  # noqa: B018


def test_many_handlers_that_are_not_there() -> None:
    """All are asked, one after the other and not one within the other."""
    router = Router()
    consumers = Consumers(router, Streams(router))
    client = Client(router, resolved=False)
    router.pin(client.worker)
    for number in range(2000):
        client.send(type="registertrigger", id=f"t{number}", trigger_type="stream:join", function_id="none", config={})
    told: list[Any] = []
    done: list[None] = []
    message = {"type": "join", "data": {"subscriptionId": "1", "streamName": "s", "groupId": "g"}}
    Consumer(consumers, told.append).receive(json.dumps(message), lambda: done.append(None))
    assert [item["event"]["type"] for item in told] == ["sync"]
    assert len(done) == 1
