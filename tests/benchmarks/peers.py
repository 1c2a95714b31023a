"""What the measured processes talk to: engines, a peer that is no bottleneck, and a Rust client to compare with."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from ..support.engines import real_engine_program, running_engine
from .processes import Program

__all__ = ["Peer", "PeerReport", "Peers", "TLS"]

HERE = Path(__file__).parent


class PeerReport(NamedTuple):
    """What the fast peer says about one connection, or about all of them together."""

    payload: int
    messages: int
    first: float
    last: float
    crc: int


class Peer(Program):
    """The fast peer: takes, or gives once told to, the bytes of WebSocket or plain connections.

    Args:
        command: The program.
        mode: ``sink``, ``source``, ``rawsink`` or ``rawsource``.
        frame: Bytes of a frame that it sends.
        seconds: For how long it sends.
        connections: How many it serves before it ends.
        check: Whether it computes a CRC-32.
    """

    def __init__(
        self, command: list[str], mode: str, frame: int, seconds: float, connections: int = 1, check: bool = False
    ) -> None:
        super().__init__([*command, mode, str(frame), str(seconds), str(connections), str(int(check))])
        self._connections = connections
        self.port = int(self.line())

    def await_ready(self) -> None:
        """Return when all connections are made."""
        for _ in range(self._connections):
            line = self.line()
            if line != "ready":
                raise RuntimeError(f"the peer said {line!r}")

    def report(self) -> PeerReport:
        """Return what all connections together have seen, once they have ended."""
        reports = []
        for _ in range(self._connections):
            word, *values = self.line().split()
            if word != "end":
                raise RuntimeError(f"the peer said {word!r}")
            payload, messages, first, last, crc = values[:5]
            reports.append(PeerReport(int(payload), int(messages), float(first), float(last), int(crc)))
        return PeerReport(
            sum(report.payload for report in reports),
            sum(report.messages for report in reports),
            min(report.first for report in reports),
            max(report.last for report in reports),
            reports[0].crc,
        )


class TLS(NamedTuple):
    """A certificate for 127.0.0.1, in files."""

    authority: Path
    certificate: Path


class Peers:
    """Everything that is started or built once for a run; use in ``with``.

    Attributes:
        notes: What had to be left out, and why.
    """

    def __init__(self, engine: str) -> None:
        self.notes: list[str] = []
        self.engine_kind = engine
        self._stack = contextlib.ExitStack()
        self._engine_url = ""
        self._fast: list[str] = []
        self._tls: Optional[TLS] = None
        self._rust: Optional[Path] = None

    def __enter__(self) -> Peers:
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="iii-bench-")))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def engine_url(self) -> str:
        """The engine's address; starts it when first asked for."""
        if not self._engine_url:
            self._engine_url = self._stack.enter_context(running_engine(self.engine_kind)).url
        return self._engine_url

    @property
    def fast(self) -> list[str]:
        """The command of the fast peer: in C, compiled on demand; in Python where there is no compiler."""
        if not self._fast:
            program = self._directory / "fast_peer"
            compiler = shutil.which("cc")
            if compiler is None:
                self._fast = self.in_python(None)
                self.notes.append("no C compiler: the fast peer runs in Python")
            else:
                source = str(HERE / "fast_peer.c")
                subprocess.run([compiler, "-O2", "-pthread", "-o", str(program), source], check=True)
                self._fast = [str(program)]
        return self._fast

    def in_python(self, certificate: Optional[Path]) -> list[str]:
        """Return the command of the peer in Python, which knows TLS."""
        command = [sys.executable, "-m", "tests.benchmarks.python_peer"]
        return [*command, "--certificate", str(certificate)] if certificate else command

    @property
    def tls(self) -> TLS:
        """A certificate, and the authority that the clients are to trust."""
        if self._tls is None:
            import trustme

            authority = trustme.CA()
            self._tls = TLS(self._directory / "authority.pem", self._directory / "certificate.pem")
            authority.cert_pem.write_to_path(str(self._tls.authority))
            authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(self._tls.certificate))
        return self._tls

    def build_rust(self) -> None:
        """Build the client on the official Rust SDK, with what the machine has; takes minutes the first time."""
        cargo = shutil.which("cargo") or str(Path.home() / ".cargo/bin/cargo")
        target = Path.home() / ".cache" / "iii_sync-benchmarks"
        command = [cargo, "build", "--quiet", "--release", "--manifest-path", str(HERE / "rust/Cargo.toml")]
        subprocess.run([*command, "--target-dir", str(target)], check=True)
        self._rust = target / "release" / "iii-sync-benchmarks"

    @property
    def rust(self) -> Optional[list[str]]:
        """The command of the Rust client, if it was built."""
        return [str(self._rust)] if self._rust else None


def available_engines() -> Iterator[str]:
    """Which engines can run here, the real one first."""
    if real_engine_program() is not None:
        yield "real"
    yield "local"
