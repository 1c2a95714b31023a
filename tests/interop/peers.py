"""The peers as tests see them: processes that do as they are told, one for each SDK."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from ..support.process import ROOT
from .environments import HERE, node_sdk, python_sdk

#: How long a command may take.
WAIT = 60.0

NAMES = ["ours", "python", "node"]

OFFICIAL = ["python", "node"]


class Failed(Exception):
    """A command failed in the peer: ``type``, ``code`` and ``message`` of its error."""

    def __init__(self, type: str, code: Optional[str], message: str) -> None:
        super().__init__(f"{type}, {code}: {message}")
        self.type, self.code, self.message = type, code, message


class Peer:
    """A running peer. Used by one thread.

    Attributes:
        url: The engine's.
        may_lose_answers: Whether its engine may lose an answer that is quick and sent once, as those of the official
            SDKs are (PROTOCOL E-14).
    """

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.url = url
        self.may_lose_answers = False
        self._process = process
        self._log = log
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self._next()

    def do(self, command: str, **arguments: Any) -> Any:
        """Have it do something, and return the result.

        Raises:
            Failed: It did not work.
        """
        answer = self._told(command, arguments)
        late = answer.get("error", {}).get("code") == "TIMEOUT" and "timeout_ms" not in arguments.get("request", {})
        if late and self.may_lose_answers:
            answer = self._told(command, arguments)
        if "error" in answer:
            raise Failed(**answer["error"])
        return answer["result"]

    def _told(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._write(command, arguments)
        return self._next()

    def is_alive(self) -> bool:
        """Whether it can be told anything more."""
        return self._process.poll() is None

    def die(self, **arguments: Any) -> None:
        """Have it die in the middle of a stream."""
        self._write("die", arguments)
        assert self._process.wait(WAIT) == 1, self._said()

    def _write(self, command: str, arguments: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        print(json.dumps({"do": command, **arguments}), file=self._process.stdin, flush=True)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=WAIT)
        except queue.Empty:
            self._process.kill()
            raise AssertionError(f"the peer has not answered within {WAIT:g} s; it said:\n{self._said()}") from None
        if not line:
            raise AssertionError(f"the peer has ended; it said:\n{self._said()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _said(self) -> str:
        return self._log.read_text("utf-8", "replace")[-4000:]


@contextlib.contextmanager
def running_peer(name: str, url: str, prefix: str, namespace: str) -> Iterator[Peer]:
    """Run a peer on the engine; its functions are ``prefix::…``, and a second worker of it is in the namespace.

    Raises:
        NoEnvironment: Its SDK cannot be run here.
    """
    with tempfile.TemporaryDirectory(prefix="iii-interop-") as temporary:
        directory = Path(temporary)
        environment = dict(
            os.environ, III_URL=url, OTEL_ENABLED="false", HOME=temporary, PYTHONPATH=str(ROOT), PYTHONUTF8="1"
        )
        if name == "node":
            node, modules = node_sdk()
            # Node looks for packages beside the program.
            shutil.copy(HERE / "official.mjs", directory)
            (directory / "node_modules").symlink_to(modules)
            command = [node, "official.mjs"]
        elif name == "python":
            command = [python_sdk(), "-m", f"{__package__}.official"]
        else:
            environment["PYTHONWARNINGS"] = "error"
            command = [sys.executable, "-m", f"{__package__}.ours"]
        log = directory / "log"
        with open(log, "wb") as said:
            process = subprocess.Popen(
                [*command, url, prefix, namespace],
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                encoding="utf-8",
            )
        with process:
            try:
                yield Peer(process, url, log)
                assert process.stdin is not None
                if process.poll() is None:
                    process.stdin.close()
                    process.wait(WAIT)
            finally:
                process.kill()
