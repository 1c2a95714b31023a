"""A celery application with its broker and its results in a directory, which needs no server."""

from __future__ import annotations

import os
from typing import Any, Optional

import celery  # type: ignore[import-untyped,import-not-found,unused-ignore]
from celery.signals import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
    worker_process_shutdown,
)

import iii_sync

FOLDER = os.environ["CELERY_FOLDER"]

app = celery.Celery("tasks")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": f"{FOLDER}/queue",
        "data_folder_out": f"{FOLDER}/queue",
        "control_folder": f"{FOLDER}/control",
        "polling_interval": 0.05,
    },
    result_backend=f"file://{FOLDER}/results",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=int(os.environ.get("TASKS_PER_CHILD", "1000")),
)

_worker: Optional[iii_sync.Worker] = None


@app.task(name="digest")  # type: ignore[untyped-decorator,unused-ignore]
def digest(function_id: str, size: int) -> Any:
    """Stream ``size`` bytes into the function."""
    global _worker
    if _worker is None:
        _worker = iii_sync.register_worker()
    with _worker.open(function_id, "wb", timeout=60) as file:
        for start in range(0, size, 50_000):
            file.write(b"x" * min(50_000, size - start))
    return {"pid": os.getpid(), **file.result}


@worker_process_shutdown.connect  # type: ignore[untyped-decorator,unused-ignore]
def leave(**_: Any) -> None:
    """Celery's processes end without the usual end of a Python process: say goodbye here."""
    if _worker is not None:
        _worker.shutdown()
