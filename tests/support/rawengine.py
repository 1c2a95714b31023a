"""An engine in a test's own hands: what it does with its first connection, its second, and so on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

from .rawserver import RawPeer, RawServer, raw_server

Message = dict[str, Any]


class Visit:
    """One connection, as the engine sees it."""

    def __init__(self, peer: RawPeer, number: int) -> None:
        self.peer = peer
        self.number = number
        self.since = time.monotonic()
        self.seen: list[Message] = []

    def welcome(self) -> None:
        """Handshake and hello, as worker ``w-<number>`` with the token ``token-<number>``."""
        self.peer.handshake()
        self.peer.send_json(
            {
                "type": "workerregistered",
                "worker_id": f"w-{self.number}",
                "reattach_token": f"token-{self.number}",
            }
        )

    def serve(self, on_message: Optional[Callable[[Message], bool]] = None) -> None:
        """Answer every call with ``{"value": <its id>}``; calls of ``hang`` are not answered.

        Args:
            on_message: Called with each message before it is answered; returns whether to end.
        """
        while True:
            message = self.peer.recv_json()
            self.seen.append(message)
            if on_message is not None and on_message(message):
                return
            if message.get("invocation_id") and message["function_id"] != "hang":
                self.peer.answer(message, {"value": message["function_id"]})

    def types(self) -> list[str]:
        """The types of the messages that came, with the function's id where there is one."""
        return [f"{message['type']} {message.get('id') or message.get('function_id') or ''}" for message in self.seen]


class RawEngine:
    """Serves the n-th connection with the n-th behaviour, and all further ones with the last."""

    def __init__(self, *behaviours: Callable[[Visit], None]) -> None:
        self._behaviours = behaviours
        self._lock = threading.Lock()
        self.visits: list[Visit] = []
        self.server: RawServer

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    def serve(self, peer: RawPeer) -> None:
        """Serve one connection."""
        with self._lock:
            visit = Visit(peer, len(self.visits) + 1)
            self.visits.append(visit)
        self._behaviours[min(visit.number, len(self._behaviours)) - 1](visit)


@contextlib.contextmanager
def raw_engine(*behaviours: Callable[[Visit], None]) -> Iterator[RawEngine]:
    """Run a RawEngine for the length of a block."""
    engine = RawEngine(*behaviours)
    with raw_server(engine.serve) as server:
        engine.server = server
        yield engine


def alive(visit: Visit) -> None:
    """An engine that does what it should."""
    visit.welcome()
    visit.serve()


def until_told(ending: Callable[[RawPeer], None]) -> Callable[[Visit], None]:
    """An engine that does what it should until ``end`` is called, and then leaves in this way."""

    def behave(visit: Visit) -> None:
        visit.welcome()
        visit.serve(lambda message: message.get("function_id") == "end")
        ending(visit.peer)

    return behave
