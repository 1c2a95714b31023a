"""An echo client on the package's own stack: what the suite's fuzzing server talks to.

The handshake is :func:`~iii_sync.net.connect.connect`, the socket belongs to a
:class:`~iii_sync.net.connection.Connection` on a :class:`~iii_sync.net.loop.Loop`: pings, Close and violations are
answered there. Only what the package has no use for is made here, of the same parts: a receiver that sends
every message back whole.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, Optional

from iii_sync.errors import EngineConnectionError
from iii_sync.net.connect import Address, Route, connect
from iii_sync.net.connection import Connection
from iii_sync.net.loop import Loop
from iii_sync.wire import frames

#: The longest case waits for a few seconds of the server's own; more than this is a hang.
WAIT = 60.0

_LARGEST = 64 * 1024 * 1024


class Receiver:
    """Puts messages together and calls ``on_message(opcode, message)`` on the reader thread for each."""

    def __init__(self, on_message: Callable[[Connection, int, bytes], None]) -> None:
        self._on_message = on_message
        self._connection: Optional[Connection] = None
        self._buffer = bytearray(64 * 1024)
        self._binary = bytearray()
        self._texts = frames.TextAssembler(_LARGEST)
        self.over = threading.Event()

    def attached(self, connection: Connection) -> None:
        self._connection = connection

    def buffer(self) -> bytearray:
        return self._buffer

    def received_binary(self, payloads: list[memoryview], messages: int, size: int, more: bool) -> bool:
        return self.received(frames.binary_pieces(payloads, messages), size, more)

    def received(self, pieces: list[frames.Piece], size: int, more: bool) -> bool:
        assert self._connection is not None
        for opcode, payload, end in pieces:
            message: Optional[bytes] = None
            if opcode == frames.TEXT:
                text = self._texts.add(payload, end)
                message = None if text is None else text.encode("utf-8")
            else:
                self._binary += payload
                if end:
                    message = bytes(self._binary)
                    self._binary.clear()
            if message is not None:
                self._on_message(self._connection, opcode, message)
        return True

    def ended(self, error: Optional[BaseException], close: Optional[frames.CloseReason]) -> None:
        self.over.set()


class Driver:
    """Talks to a fuzzing server.

    Args:
        url: Where it listens.
        agent: The name it files the results under.
    """

    def __init__(self, url: str, agent: str) -> None:
        self._url = url
        self._agent = agent
        self._loop = Loop("autobahn-driver")

    def close(self) -> None:
        """End the reader thread."""
        assert self._loop.stop(5)

    def case_count(self) -> int:
        """How many cases the server has."""
        return int(self._ask("/getCaseCount"))

    def case_id(self, number: int) -> str:
        """The id of a case, such as ``6.4.1``."""
        return str(self._ask(f"/getCaseInfo?case={number}&agent={self._agent}")["id"])

    def run_case(self, number: int) -> None:
        """Echo until the server has seen enough; at most :data:`WAIT` seconds."""
        self._run(f"/runCase?case={number}&agent={self._agent}", _echo)

    def write_reports(self) -> None:
        """Have the server write its reports."""
        self._run(f"/updateReports?agent={self._agent}", _echo)

    def _ask(self, path: str) -> Any:
        answers: list[bytes] = []
        self._run(path, lambda connection, opcode, message: answers.append(message))
        return json.loads(answers[0])

    def _run(self, path: str, on_message: Callable[[Connection, int, bytes], None]) -> None:
        address = Address(self._url + path)
        # The empty proxy keeps the environment's out.
        sock = connect(address, address.url, Route({}, None, ""), WAIT)
        receiver = Receiver(on_message)
        connection = Connection(sock, self._loop, receiver, path)
        connection.start()
        if not receiver.over.wait(WAIT):
            connection.drop(EngineConnectionError("the case hangs"))
            raise TimeoutError(f"{path} was not over after {WAIT:g} s")


def _echo(connection: Connection, opcode: int, message: bytes) -> None:
    # On the reader thread, so that an echo is under way before what follows its message is refused.
    connection.send_soon(frames.encode_message(opcode, message, frames.MAX_FRAME))
