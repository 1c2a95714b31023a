"""celery with forked processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ..support.celery import make_folders, running_celery
from ..support.process import ROOT

pytest.importorskip("celery")

WAIT = 60.0


def test_tasks_in_forked_processes_stream_into_a_function(
    engine_url: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that are recycled after a few tasks; then a warm shutdown without a traceback."""
    make_folders(tmp_path)
    environment = dict(
        os.environ,
        III_URL=engine_url,
        CELERY_FOLDER=str(tmp_path),
        TASKS_PER_CHILD="5",
        PYTHONPATH=str(ROOT),
        HOME=str(tmp_path / "home"),
    )
    with running_celery("tests.servers.tasks", tmp_path, environment) as celery:
        sizes = [n * 70_001 for n in range(16)]
        results = submit_and_wait(environment, digest, sizes)
        for size, result in zip(sizes, results):
            expected = hashlib.sha256(b"x" * size).hexdigest()
            assert {key: result[key] for key in ("size", "sha256", "complete")} == {
                "size": size,
                "sha256": expected,
                "complete": True,
            }
        assert len({result["pid"] for result in results}) > 2
        celery.stop()
    said = celery.said()
    assert "Traceback" not in said and "ERROR" not in said, said


def submit_and_wait(environment: dict[str, str], function: str, sizes: list[int]) -> list[dict[str, Any]]:
    """Send the tasks from a process of their own, for celery configures the whole process."""
    import json

    source = f"""
import json, sys
from tests.servers.tasks import digest
sent = [digest.delay(sys.argv[1], size) for size in json.loads(sys.argv[2])]
print(json.dumps([result.get(timeout={WAIT}) for result in sent]))
"""
    started = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", source, function, json.dumps(sizes)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT + 10,
    )
    assert answer.returncode == 0, (answer.stderr.decode(), time.monotonic() - started)
    results: list[dict[str, Any]] = json.loads(answer.stdout)
    return results
