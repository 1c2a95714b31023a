"""gunicorn: one worker a process, uploads that stream on, recycling and a graceful stop."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iii_sync import Worker

from ..support.gunicorn import Gunicorn
from ..support.threads import in_thread

pytest.importorskip("gunicorn")
pytest.importorskip("gevent")

WAIT = 30.0


class Site(Gunicorn):
    """A gunicorn that serves :mod:`.app`."""

    def __init__(self, url: str, function: str, directory: Path, *arguments: str) -> None:
        variables = {"III_URL": url, "DIGEST_FUNCTION": function}
        super().__init__("tests.servers.app:application", directory, variables, *arguments)

    def upload(self, size: int, seed: int) -> int:
        """Upload random bytes, check the answer, and return the process that gave it."""
        body = random.Random(seed).randbytes(size)
        end = time.monotonic() + WAIT
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
            try:
                connection.request("POST", "/", body)
                answer = connection.getresponse()
                said = answer.read()
                break
            except (ConnectionRefusedError, ConnectionResetError):
                # It is still starting; or the process that had accepted us was about to be recycled.
                assert time.monotonic() < end and self.running(), self.said()
                time.sleep(0.05)
            finally:
                connection.close()
        assert answer.status == 200, (answer.status, said, self.said())
        result: dict[str, Any] = json.loads(said)
        pid: int = result.pop("pid")
        assert result == {"size": size, "sha256": hashlib.sha256(body).hexdigest(), "complete": True}
        return pid


KINDS = {
    "sync": ["--workers", "3"],
    "gthread": ["--workers", "2", "--worker-class", "gthread", "--threads", "4"],
    "gevent": ["--workers", "2", "--worker-class", "gevent"],
}


@pytest.mark.parametrize("preload", [False, True], ids=["lazy", "preload"])
@pytest.mark.parametrize("kind", KINDS)
def test_uploads_are_streamed_and_a_stop_is_quick_and_silent(
    engine_url: str, digest: str, tmp_path: Path, kind: str, preload: bool
) -> None:
    """Sixteen requests at a time, SIGTERM amid one, no traceback."""
    options = ["--preload"] if preload else []
    if preload and kind == "gevent":
        # What is made before patching is not patched, the lock of the application above all: patch before it is loaded.
        config = tmp_path / "gunicorn.conf.py"
        config.write_text("from gevent import monkey\nmonkey.patch_all()\n")
        options += ["--config", str(config)]
    gunicorn = Site(engine_url, digest, tmp_path, *KINDS[kind], *options)
    try:
        gunicorn.upload(0, 0)
        with ThreadPoolExecutor(16) as pool:
            pids = set(pool.map(lambda n: gunicorn.upload(n * 37_777, n), range(32)))
        assert pids
        assert gunicorn.stop() < 8
    finally:
        gunicorn.kill()
    assert not gunicorn.complaints(), gunicorn.said()


@pytest.mark.parametrize("kind", KINDS)
def test_recycled_processes(engine_url: str, digest: str, tmp_path: Path, kind: str) -> None:
    """A process that has served its share is replaced; nothing is lost and nothing is said."""
    gunicorn = Site(engine_url, digest, tmp_path, *KINDS[kind], "--max-requests", "4")
    try:
        pids: set[int] = set()
        end = time.monotonic() + WAIT
        while len(pids) < 3:
            assert time.monotonic() < end, pids
            pids.add(gunicorn.upload(100_000, len(pids)))
        # A process that gunicorn has just forked, and that does not mind signals yet, does not hear that it should
        # stop; gunicorn kills it after its grace of 10 s.
        assert gunicorn.stop() < 18
    finally:
        gunicorn.kill()
    # A file of gunicorn's own, when it had to kill.
    complaints = [line for line in gunicorn.complaints() if "unclosed file <_io.FileIO" not in line]
    assert not complaints, gunicorn.said()


def test_a_stop_lets_a_running_request_finish(engine_url: str, worker: Worker, unique: Any, tmp_path: Path) -> None:
    """SIGTERM while the function works on an upload: the client gets its answer."""
    began, go_on = threading.Event(), threading.Event()

    def slow(data: Any) -> dict[str, Any]:
        body = data["reader"].read()
        began.set()
        assert go_on.wait(WAIT)
        return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "complete": data["reader"].complete}

    function = worker.register_function(unique("slow"), slow).id
    gunicorn = Site(engine_url, function, tmp_path, *KINDS["gthread"])
    try:
        upload = in_thread(lambda: gunicorn.upload(1_000_000, 1))
        assert began.wait(WAIT)
        stop = in_thread(gunicorn.stop)
        time.sleep(0.5)
        go_on.set()
        upload()
        stop()
    finally:
        gunicorn.kill()
    assert not gunicorn.complaints(), gunicorn.said()
