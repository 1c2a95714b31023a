"""The two engines every shared behaviour is tested on: the local one, and the real one where it is installed."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

REAL_ENGINE_VARIABLE = "III_ENGINE"

_CONFIG = """\
workers:
  - name: iii-worker-manager
    config: {{host: 127.0.0.1, port: {ws}}}
  - name: iii-http
    config: {{host: 127.0.0.1, port: {http}, default_timeout: 30000}}
  - name: iii-state
    config: {{adapter: {{name: kv, config: {{store_method: in_memory}}}}}}
  - name: iii-stream
    config: {{host: 127.0.0.1, port: {stream}, adapter: {{name: kv, config: {{store_method: in_memory}}}}}}
  - name: iii-cron
    config: {{adapter: {{name: kv}}}}
  - name: iii-queue
    config: {{adapter: {{name: builtin}}}}
  - name: iii-http-functions
    config: {{security: {{url_allowlist: [localhost, 127.0.0.1], block_private_ips: false, require_https: false}}}}
  - name: iii-pubsub
    config: {{adapter: {{name: local}}}}
  - name: iii-observability
    config: {{enabled: {logs}, exporter: memory, metrics_enabled: false, logs_enabled: {logs}}}
"""

#: Further listeners (PROTOCOL 8): one where a worker must be let in, and may do what it is allowed; and one where
#: another function is called in place of every function.
_GUARDED = """\
  - name: iii-worker-manager
    config:
      host: 127.0.0.1
      port: {guarded}
      rbac:
        auth_function_id: guard::auth
        on_function_registration_function_id: guard::registering
        on_trigger_registration_function_id: guard::binding
        on_trigger_type_registration_function_id: guard::providing
        expose_functions:
          - match("open::*")
          - match("engine::functions::info")
          - match("engine::workers::info")
          - {{metadata: {{public: true, team: match("a*")}}}}
          - {{match: "in-shop", namespace: shop}}
  - name: iii-worker-manager
    config:
      host: 127.0.0.1
      port: {between}
      middleware_function_id: guard::between
"""

#: The same for the local engine, which has one such listener.
LOCAL_GUARD: dict[str, Any] = {
    "auth_function_id": "guard::auth",
    "on_function_registration_function_id": "guard::registering",
    "on_trigger_registration_function_id": "guard::binding",
    "on_trigger_type_registration_function_id": "guard::providing",
    "expose_functions": [
        "open::*",
        "engine::functions::info",
        "engine::workers::info",
        {"metadata": {"public": True, "team": 'match("a*")'}},
        {"match": "in-shop", "namespace": "shop"},
    ],
}


def real_engine_program() -> Optional[str]:
    """The real engine's program: what III_ENGINE names, else ``iii`` on the PATH."""
    return os.environ.get(REAL_ENGINE_VARIABLE) or shutil.which("iii")


def _candidates() -> Iterator[int]:
    """Ports that no other process of the suite is given, over and over.

    They are below those that systems give to connections, and to whoever asks for any port: nobody takes one between
    the moment that it is chosen and the moment that it is used, nor while an engine that was killed is down.
    """
    size = 1000
    first = 20_000 + size * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 12)
    begin = random.SystemRandom().randrange(size)  # another suite may run on this machine
    return itertools.cycle(first + (begin + number) % size for number in range(size))


_unused = _candidates()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor will before they are used."""
    found: list[int] = []
    while len(found) < count:
        port = next(_unused)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            found.append(port)
    return found


class EngineProgram:
    """An engine as a child process, on loopback, in a directory of its own; it can be killed and started again.

    Attributes:
        silent_until: When workers were last refused (on the monotonic clock): since then it listens for them.
    """

    def __init__(self) -> None:
        self.silent_until = 0.0
        self.port, self.http_port, self.stream_port = free_ports(3)
        self.url = f"ws://127.0.0.1:{self.port}"
        self._directory = tempfile.mkdtemp(prefix="iii-engine-")
        self._process: Optional[subprocess.Popen[bytes]] = None

    @property
    def pid(self) -> int:
        """Its process; while it runs."""
        assert self._process is not None
        return self._process.pid

    def _command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def _ports(self) -> list[int]:
        """Where it listens once it has started."""
        return [self.port, self.http_port, self.stream_port]

    def start(self) -> None:
        """Start it (again) and wait until it listens."""
        environment = dict(
            os.environ, III_TELEMETRY_ENABLED="false", OTEL_ENABLED="false", III_DISABLE_UPDATE_CHECK="1"
        )
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        with open(os.path.join(self._directory, "log"), "ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for port in self._ports():
            refused = self._until_listening(port)
            if port == self.port:
                self.silent_until = refused

    def _until_listening(self, port: int) -> float:
        """Wait until somebody listens, and return when the last try began that failed; now, if the first succeeds."""
        assert self._process is not None
        end = time.monotonic() + 30
        refused = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return refused
            except OSError:
                if self._process.poll() is not None or began > end:
                    with open(os.path.join(self._directory, "log"), "rb") as log:
                        raise RuntimeError(f"the engine did not start: {log.read()[-2000:]!r}") from None
                refused = began
                time.sleep(0.01)

    def kill(self) -> None:
        """End it without a goodbye."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        """End it and remove its directory."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


class RealEngine(EngineProgram):
    """The real engine.

    Args:
        program: Its file.
        guarded: Whether it has further listeners: ``guarded_url``, which asks the functions ``guard::auth``,
            ``guard::registering``, ``guard::binding`` and ``guard::providing``, and ``between_url``, which calls
            ``guard::between`` in place of every function. Such an engine also keeps logs.
    """

    def __init__(self, program: str, *, guarded: bool = False) -> None:
        super().__init__()
        self._program = program
        self._guarded = guarded
        self.guarded_port, self.between_port = free_ports(2)
        self.guarded_url = f"ws://127.0.0.1:{self.guarded_port}"
        self.between_url = f"ws://127.0.0.1:{self.between_port}"

    def _command(self) -> list[str]:
        path = os.path.join(self._directory, "config.yaml")
        with open(path, "w") as config:
            text = _CONFIG.format(
                ws=self.port, http=self.http_port, stream=self.stream_port, logs=str(self._guarded).lower()
            )
            guards = _GUARDED.format(guarded=self.guarded_port, between=self.between_port)
            config.write(text + (guards if self._guarded else ""))
        return [self._program, "-c", path, "--no-update-check"]

    def _ports(self) -> list[int]:
        return [*super()._ports(), *([self.guarded_port, self.between_port] if self._guarded else [])]


class LocalEngineProgram(EngineProgram):
    """The local engine, as the command runs it."""

    def _command(self) -> list[str]:
        ports = ["--port", str(self.port), "--http-port", str(self.http_port), "--stream-port", str(self.stream_port)]
        return [sys.executable, "-m", "iii_sync", "engine", *ports]


def engine_program(kind: str, *, logs: bool = False) -> EngineProgram:
    """An engine of the given kind, which keeps logs if asked to, not started yet; stop() removes what it leaves."""
    if kind == "local":
        return LocalEngineProgram()
    program = real_engine_program()
    assert program is not None, f"the real engine is not installed; {REAL_ENGINE_VARIABLE} names its program"
    return RealEngine(program, guarded=logs)


@contextlib.contextmanager
def killable_engine(kind: str, *, logs: bool = False) -> Iterator[EngineProgram]:
    """Run an engine of the given kind that a test may kill and start again."""
    engine = engine_program(kind, logs=logs)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


class EngineAddress(NamedTuple):
    """Where an engine listens."""

    url: str
    http_url: str
    stream_url: str


@contextlib.contextmanager
def running_engine(kind: str) -> Iterator[EngineAddress]:
    """Run an engine of the given kind and tell where it listens."""
    if kind == "local":
        from iii_sync.engine import LocalEngine

        with LocalEngine(http_port=0, stream_port=0) as engine:
            yield EngineAddress(engine.url, engine.http_url, engine.stream_url)
    else:
        with killable_engine(kind) as real:
            yield EngineAddress(real.url, f"http://127.0.0.1:{real.http_port}", f"ws://127.0.0.1:{real.stream_port}")
