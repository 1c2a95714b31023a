"""The celery example with forked processes; its broker and its results are in a directory, and need no server."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

from ..support.celery import make_folders, running_celery
from ..support.process import ROOT, WAIT
from .conftest import EXAMPLES, Files

pytest.importorskip("celery")

CONFIG = """
broker_url = "filesystem://"
broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.05
}
result_backend = "file://results"
broker_connection_retry_on_startup = True
worker_prefetch_multiplier = 1
worker_max_tasks_per_child = 3
"""

SEND = """
import json, sys
from celery_tasks import store
sent = [store.delay(path) for path in sys.argv[1:]]
print(json.dumps([result.get(timeout=60) for result in sent]))
"""


def test_tasks_stream_files_into_the_function(files: Callable[[str], Files], tmp_path: Path) -> None:
    """Two forked processes that are replaced after three tasks; a warm stop without a traceback."""
    url = files("local").url
    make_folders(tmp_path)
    (tmp_path / "celeryconfig.py").write_text(CONFIG.replace("file://results", f"file://{tmp_path}/results"))
    paths = [tmp_path / f"file-{number}" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(os.urandom(number * 300_001))
    environment = dict(
        os.environ,
        III_URL=url,
        CELERY_CONFIG_MODULE="celeryconfig",
        PYTHONPATH=os.pathsep.join([str(ROOT), str(EXAMPLES), str(tmp_path)]),
        HOME=str(tmp_path / "home"),
    )
    with running_celery("celery_tasks", tmp_path, environment) as celery:
        answer = subprocess.run(
            [sys.executable, "-c", SEND, *map(str, paths)],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=3 * WAIT,
        )
        assert answer.returncode == 0, (answer.stderr.decode(), celery.said())
        for path, about in zip(paths, json.loads(answer.stdout)):
            body = path.read_bytes()
            assert about["name"] == path.name
            assert (about["size"], about["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        celery.stop()
    said = celery.said()
    assert "Traceback" not in said and "ERROR" not in said, said
