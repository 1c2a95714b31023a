"""An engine in a test's own hands: polite until the test says otherwise, on any of its sockets."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

import iii_sync

from ..support.rawserver import RawPeer, raw_server

WAIT = 20.0

#: What a shutdown may take, however the peer behaves; generous, for machines are busy.
AT_ONCE = 4.0


def ref(name: str, direction: str = "read") -> dict[str, str]:
    """The reference of a channel end that the hostile engine serves."""
    return {"channel_id": name, "access_key": "key", "direction": direction}


class HostileEngine:
    """Accepts control and channel sockets; the test drives what comes after the introduction.

    Attributes:
        url: Its address.
        accepted: How many control connections were introduced.
    """

    def __init__(self) -> None:
        self.url = ""
        self.accepted = 0
        self._controls: queue.Queue[RawPeer] = queue.Queue()
        self._channels: dict[str, queue.Queue[RawPeer]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()

    def serve(self, peer: RawPeer) -> None:
        """One connection. On a thread of its own."""
        peer.read_request()
        if peer.path.startswith("/ws/channels/"):
            self.serve_channel(peer, peer.path.split("/")[3].partition("?")[0])
        else:
            peer.introduce()
            self.accepted += 1
            self._controls.put(peer)
        self._over.wait()

    def serve_channel(self, peer: RawPeer, channel_id: str) -> None:
        """The socket of a channel end, right behind its request."""
        peer.handshake()
        self._ends(channel_id).put(peer)

    def _ends(self, channel_id: str) -> queue.Queue[RawPeer]:
        with self._lock:
            return self._channels.setdefault(channel_id, queue.Queue())

    def control(self) -> RawPeer:
        """The next control connection that was introduced."""
        return self._controls.get(timeout=WAIT)

    def channel(self, channel_id: str) -> RawPeer:
        """The next connection of a channel end."""
        return self._ends(channel_id).get(timeout=WAIT)

    def close(self) -> None:
        """Let the serving threads end."""
        self._over.set()


@contextlib.contextmanager
def hostile_engine() -> Iterator[HostileEngine]:
    """Run one for the length of a block."""
    engine = HostileEngine()
    with raw_server(engine.serve) as server:
        engine.url = server.url
        try:
            yield engine
        finally:
            engine.close()


class Victim:
    """A worker on a hostile engine, and a channel through the same reader thread whose life is the measure."""

    def __init__(self, engine: HostileEngine, **options: Any) -> None:
        self.engine = engine
        self.worker = iii_sync.register_worker(engine.url, **options)
        self.peer = engine.control()
        self._reader = self.worker.open_ref(ref("bystander"), timeout=WAIT)
        assert isinstance(self._reader, iii_sync.ChannelReader)
        connected = threading.Thread(target=self._reader.read1, daemon=True)
        connected.start()
        self._bystander = engine.channel("bystander")
        self._bystander.send_frame(2, b"hello")
        connected.join(WAIT)

    def check_bystander(self, patience: float = WAIT) -> None:
        """Another socket of the same reader thread still brings its bytes, within ``patience`` seconds."""
        assert isinstance(self._reader, iii_sync.ChannelReader)
        token = f"{time.monotonic()}".encode()
        self._bystander.send_frame(2, token)
        assert self._reader.read(len(token), timeout=patience) == token

    def check_calls(self) -> None:
        """A call on the control connection is answered."""
        call = self.worker.submit("any::function", 1)
        self.answer(call.invocation_id, "fine")
        assert call.result(WAIT) == "fine"

    def answer(self, invocation_id: Optional[str], result: Any) -> None:
        """Answer a call as an engine does."""
        self.peer.send_json({"type": "invocationresult", "invocation_id": invocation_id, "result": result})

    def check_reconnects(self) -> None:
        """After the loss of its control connection the worker makes another one, on which calls go on."""
        self.peer = self.engine.control()
        self.check_calls()

    def shutdown(self) -> None:
        """Shut down, which must not take long."""
        started = time.monotonic()
        self.worker.shutdown()
        assert time.monotonic() - started < AT_ONCE


@contextlib.contextmanager
def victim(engine: Optional[HostileEngine] = None, **options: Any) -> Iterator[Victim]:
    """A worker on a hostile engine; its shutdown is timed."""
    with contextlib.ExitStack() as stack:
        found = Victim(engine or stack.enter_context(hostile_engine()), **options)
        try:
            yield found
        finally:
            found.shutdown()


def pour(peer: RawPeer, data: bytes, times: int) -> Callable[[], int]:
    """Send ``data`` many times on a thread, until the victim hangs up; the returned call says how often it went."""
    sent = [0]

    def run() -> None:
        with contextlib.suppress(OSError):
            for _ in range(times):
                peer.sock.sendall(data)
                sent[0] += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join() -> int:
        thread.join(WAIT)
        return sent[0]

    return join
