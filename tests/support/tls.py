"""A relay that speaks TLS in front of an engine, which speaks none; and what a TLS server can do to its clients."""

from __future__ import annotations

import contextlib
import ctypes
import re
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable, Optional

WAIT = 30.0

#: Bytes that wait for one side before the other one is left alone.
_BUFFER = 256 * 1024


class Relayed:
    """One connection through the relay; everything happens on its own thread.

    Attributes:
        socket: The client's side, once the handshake is made.
        server_name: What the client asked for (SNI), or ``None``.
        certificate: The client's, as ``getpeercert()`` has it.
        version: ``TLSv1.3``, for instance.
        head: The client's request, up to its blank line, as far as it has come.
    """

    def __init__(self, relay: TlsRelay, plain: socket.socket) -> None:
        self._relay = relay
        self._plain = plain
        self.socket: Optional[ssl.SSLSocket] = None
        self._actions: deque[Callable[[ssl.SSLSocket], object]] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self.server_name: Optional[str] = None
        self.certificate: Any = None
        self.version: Optional[str] = None
        self.head = bytearray()
        self.thread = threading.Thread(target=self._run, name="tls-relay", daemon=True)
        self.thread.start()

    def do(self, action: Callable[[ssl.SSLSocket], object]) -> None:
        """Have ``action(tls socket)`` run on the connection's thread."""
        self._actions.append(action)
        self._wake_out.send(b"x")

    def _run(self) -> None:
        try:
            self._plain.settimeout(WAIT)
            self._relay._greeting.current = self
            self.socket = tls = self._relay.context.wrap_socket(
                self._plain, server_side=True, suppress_ragged_eofs=True
            )
            self.version, self.certificate = tls.version(), tls.getpeercert()
            with socket.create_connection(self._relay.target, WAIT) as behind:
                tls.setblocking(False)
                behind.setblocking(False)
                self._pump(tls, behind)
        except OSError as exc:
            self._relay.failures.append(exc)
        finally:
            self._wake_in.close()
            self._wake_out.close()
            (self.socket or self._plain).close()

    def _pump(self, tls: ssl.SSLSocket, behind: socket.socket) -> None:
        waiting: dict[socket.socket, bytearray] = {tls: bytearray(), behind: bytearray()}
        other = {tls: behind, behind: tls}
        ended: set[socket.socket] = set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_in, selectors.EVENT_READ)
            for sock in other:
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for sock, out in waiting.items():
                    events = selectors.EVENT_WRITE if out else 0
                    if sock not in ended and len(waiting[other[sock]]) < _BUFFER:
                        events |= selectors.EVENT_READ
                    if events:
                        selector.modify(sock, events) if sock in selector.get_map() else selector.register(sock, events)
                    elif sock in selector.get_map():
                        selector.unregister(sock)
                more = tls.pending() and len(waiting[behind]) < _BUFFER
                found = {key.fileobj for key, _ in selector.select(0 if more else WAIT)}
                if self._wake_in in found:
                    self._wake_in.recv(100)
                while self._actions:
                    self._actions.popleft()(tls)
                for sock in (tls, behind):
                    if sock not in ended and len(waiting[other[sock]]) < _BUFFER:
                        data = self._received(sock)
                        if data == b"":
                            ended.add(sock)
                        if data and sock is tls and not self.head.endswith(b"\r\n\r\n"):
                            self.head += data[: data.find(b"\r\n\r\n") + 4 or None]
                        waiting[other[sock]] += data or b""
                    self._send(sock, waiting[sock])
                if any(not waiting[other[sock]] for sock in ended):
                    return

    def _received(self, sock: socket.socket) -> Optional[bytes]:
        try:
            return sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _send(self, sock: socket.socket, data: bytearray) -> None:
        if data:
            try:
                del data[: sock.send(data)]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass

    def header(self, name: str) -> Optional[str]:
        """A header of the client's request."""
        found = re.search(rf"^{name}: (.*?)\r$".encode(), bytes(self.head), re.MULTILINE | re.IGNORECASE)
        return found[1].decode() if found else None

    @property
    def target(self) -> str:
        """What the client asked for: path and query."""
        return bytes(self.head).split(b" ")[1].decode()


class TlsRelay:
    """Terminates TLS and passes everything on to ``target``.

    Attributes:
        connections: All so far, in their order.
        failures: What ended connections, handshakes among them.
    """

    def __init__(self, target: tuple[str, int], context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        self.target = target
        self.context = context
        self.connections: list[Relayed] = []
        self.failures: list[OSError] = []
        self._greeting = threading.local()
        context.sni_callback = self._asked
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="tls-relay-accept", daemon=True)
        self._thread.start()

    def _asked(self, sock: object, name: Optional[str], context: object) -> None:
        # Runs in the handshake, on the connection's thread.
        self._greeting.current.server_name = name

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(Relayed(self, plain))

    def close(self) -> None:
        """Drop everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.do(cut)
        for connection in self.connections:
            connection.thread.join(WAIT)
            assert not connection.thread.is_alive()


@contextlib.contextmanager
def tls_relay(url: str, context: ssl.SSLContext, host: str = "127.0.0.1") -> Iterator[TlsRelay]:
    """Run a relay in front of the engine at ``url`` for the length of a block."""
    relay = TlsRelay(("127.0.0.1", int(url.rpartition(":")[2])), context, host)
    try:
        yield relay
    finally:
        relay.close()


# --- what a relay can be told to do ----------------------------------------------------------------------


def cut(tls: ssl.SSLSocket) -> None:
    """End TCP without a word of TLS: what somebody on the way can do."""
    socket.socket.shutdown(tls, socket.SHUT_RDWR)


def stall(seconds: float) -> Callable[[ssl.SSLSocket], None]:
    """Neither read nor write for a time."""
    return lambda tls: time.sleep(seconds)


def libssl() -> Optional[Any]:
    """The OpenSSL that ``ssl`` uses, or ``None`` where it cannot be reached."""
    try:
        with open("/proc/self/maps") as maps:
            found = re.search(r"/\S*/libssl[.-]\S*", maps.read())
    except OSError:
        return None
    return ctypes.CDLL(found[0]) if found else None


def _pointer(tls: ssl.SSLSocket) -> ctypes.c_void_p:
    # Behind the head of the object: the socket, then the SSL structure.
    address = id(tls._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)  # type: ignore[attr-defined]
    return ctypes.c_void_p.from_address(address)


def update_keys(tls: ssl.SSLSocket, ask: bool) -> bool:
    """Change the keys of a TLS 1.3 connection, and perhaps ask the client to do the same; ``False``: not now."""
    library = libssl()
    assert library is not None
    done: int = library.SSL_key_update(_pointer(tls), int(ask))
    library.ERR_clear_error()  # a record that is half sent has to be sent first
    return done == 1


def renegotiate(tls: ssl.SSLSocket) -> None:
    """Ask the client of a TLS 1.2 connection for another handshake."""
    library = libssl()
    assert library is not None
    assert library.SSL_renegotiate(_pointer(tls)) == 1
    library.SSL_do_handshake(_pointer(tls))
