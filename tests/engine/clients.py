"""Workers of a router without sockets: peers that record, and what makes them convenient."""

from __future__ import annotations

import json
import uuid
from typing import Any, Callable, Optional

from iii_sync.engine.jsontext import JsonObject
from iii_sync.engine.router import Router

Frames = list[dict[str, Any]]


class Peer:
    """A connection that records what the router does to it."""

    def __init__(self) -> None:
        self.frames: Frames = []
        self.closed = self.dropped = False

    def send(self, frame: JsonObject) -> None:
        self.frames.append(json.loads(json.dumps(frame)))

    def close(self) -> None:
        self.closed = True

    def drop(self) -> None:
        self.dropped = True

    def take(self) -> Frames:
        """Return what has come since the last call."""
        frames, self.frames = self.frames, []
        return frames


class Client:
    """One worker of the router under test."""

    def __init__(self, router: Router, *, namespace: Optional[str] = None, resolved: bool = True) -> None:
        self.router = router
        self.peer = Peer()
        self.worker = router.connect(self.peer, "127.0.0.1")
        (self.hello,) = self.peer.take()
        if resolved:
            assert self.announce(namespace=namespace) == {"success": True}

    def send(self, **frame: Any) -> Frames:
        """Send one frame and return what came back."""
        self.router.receive(self.worker, json.dumps(frame))
        return self.peer.take()

    def invoke(self, function_id: str, data: Any = None, **keys: Any) -> Frames:
        """Send an invocation with an id and return what came back."""
        keys.setdefault("invocation_id", str(uuid.uuid4()))
        return self.send(type="invokefunction", function_id=function_id, data=data, **keys)

    def call(self, function_id: str, data: Any = None, **keys: Any) -> Any:
        """Return the result of a builtin, or its error as a tuple of code and message."""
        (answer,) = self.invoke(function_id, data, **keys)
        assert answer["type"] == "invocationresult"
        if "error" in answer:
            return answer["error"]["code"], answer["error"]["message"]
        return answer.get("result")

    def announce(self, **data: Any) -> Any:
        """Call ``engine::workers::register``."""
        return self.call("engine::workers::register", data)

    def register(self, function_id: str, **keys: Any) -> Frames:
        """Register a function."""
        return self.send(type="registerfunction", id=function_id, **keys)

    def answer(self, call: dict[str, Any], **outcome: Any) -> None:
        """Answer a call that was delivered to this worker."""
        frame = {"type": "invocationresult", "function_id": call["function_id"], **outcome}
        self.send(invocation_id=call["invocation_id"], **frame)


class Clock:
    """Time that passes only when told to: the clock and the timers of a router."""

    def __init__(self, now: float = 1700000000.5) -> None:
        self.now = now
        self._timers: dict[int, tuple[float, Callable[[], None]]] = {}
        self._count = 0

    def time(self) -> float:
        return self.now

    def later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        self._count += 1
        number = self._count
        self._timers[number] = (self.now + seconds, function)

        def cancel() -> None:
            self._timers.pop(number, None)

        return cancel

    def advance(self, seconds: float) -> None:
        """Let time pass, and the timers run in their order."""
        end = self.now + seconds
        while self._timers:
            number = min(self._timers, key=lambda key: (self._timers[key][0], key))
            due, function = self._timers[number]
            if due > end:
                break
            del self._timers[number]
            self.now = max(self.now, due)
            function()
        self.now = end

    def __len__(self) -> int:
        return len(self._timers)
