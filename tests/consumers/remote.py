"""The peer process as tests see it: something that sends a file, and something that receives one."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from iii_sync import Call, ChannelReader, ChannelWriter, Worker

WAIT = 30.0

_PEER = Path(__file__).with_name("peer.py")
_ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def running_peer(url: str) -> Iterator[None]:
    """Run ``peer.py`` on the engine; it must end well, and without a word."""
    environment = dict(os.environ, PYTHONPATH=str(_ROOT), PYTHONWARNINGS="error")
    with subprocess.Popen(
        [sys.executable, str(_PEER), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            line = process.stdout.readline()
            assert line == "ready\n", f"the peer process has not started: {process.communicate(timeout=WAIT)[1]}"
            yield
            errors = process.communicate(timeout=WAIT)[1]
        finally:
            process.kill()
        assert (process.returncode, errors) == (0, "")


@dataclasses.dataclass
class Sending:
    """A file on its way to us."""

    reader: ChannelReader
    call: Call
    size: int
    to_end: bool


@dataclasses.dataclass
class Receiving:
    """A stream from us to a file of the peer's."""

    writer: ChannelWriter
    path: Path
    call: Call

    def outcome(self) -> dict[str, Any]:
        """What the peer saw: ``size``, ``sha256``, ``complete``, ``error``."""
        result: dict[str, Any] = self.call.result(WAIT)
        return result

    def whole(self, at_least: int = 0) -> Path:
        """Check that all of it has arrived, and return the file."""
        outcome = self.outcome()
        assert outcome["error"] is None and outcome["complete"] is True
        assert outcome["size"] == self.path.stat().st_size >= at_least
        assert outcome["sha256"] == sha256(self.path)
        return self.path

    def cut(self) -> None:
        """Check that the peer knows that the stream was cut."""
        outcome = self.outcome()
        assert (outcome["error"], outcome["complete"]) == ("ChannelTruncatedError", False)


class Remote:
    """Streams from and to the peer process, through channels of ``worker``."""

    def __init__(self, worker: Worker, directory: Path) -> None:
        self._worker = worker
        self._directory = directory
        self._sendings: list[Sending] = []
        self._receivings: list[Receiving] = []

    def send(self, path: Path, *, cut: Optional[int] = None, to_end: bool = True, seed: int = 1) -> ChannelReader:
        """Have the peer send a file, and return the end to read it from.

        Args:
            path: The file.
            cut: How many bytes to send before the stream is aborted; default: all, and end it well.
            to_end: Whether the test reads up to the end; :meth:`finish` checks that it has.
            seed: For the sizes of the pieces and the pauses.
        """
        channel = self._worker.create_channel()
        channel.reader.timeout = WAIT
        payload = {"writer": channel.writer_ref, "path": str(path), "cut": cut, "seed": seed}
        call = self._worker.submit("consumers::send", payload)
        size = path.stat().st_size
        self._sendings.append(Sending(channel.reader, call, size if cut is None else cut, to_end and cut is None))
        return channel.reader

    def receive(self, name: str = "received") -> Receiving:
        """Have the peer receive a stream into a file of that name."""
        channel = self._worker.create_channel()
        channel.writer.timeout = WAIT
        path = self._directory / name
        call = self._worker.submit("consumers::receive", {"reader": channel.reader_ref, "path": str(path)})
        receiving = Receiving(channel.writer, path, call)
        self._receivings.append(receiving)
        return receiving

    def finish(self) -> None:
        """Check how the streams of the test have ended."""
        for sending in self._sendings:
            if not sending.reader.closed and sending.reader.tell() == 0 and sending.reader.complete is None:
                # Only an end that was used can tell the writer that it has left.
                sending.reader.read1(1)
            sending.reader.close()
        for receiving in self._receivings:
            receiving.writer.abort()
            receiving.call.result(WAIT)
        for sending in self._sendings:
            outcome = sending.call.result(WAIT)
            if sending.to_end:
                assert sending.reader.complete is True, "the stream was not read to its end"
                assert outcome == {"outcome": "whole", "sent": sending.size}


def sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
