"""celery: a task that streams a file into a function of another process.

celery forks its processes, and a worker does not survive that: each process makes its own when it first needs one. Run
these, each in a terminal of its own, with a broker and a result backend of yours in ``celeryconfig.py``:

    python -m iii_sync engine
    python examples/file_store/files.py
    cd examples && CELERY_CONFIG_MODULE=celeryconfig celery -A celery_tasks worker

And then, in Python:

    from celery_tasks import store
    store.delay("/var/log/syslog").get(timeout=60)
"""

import os
import shutil
import threading
from typing import Any, Optional

from celery import Celery
from celery.signals import worker_process_shutdown

from iii_sync import Worker, register_worker

app = Celery("celery_tasks")
app.config_from_envvar("CELERY_CONFIG_MODULE", silent=True)

_lock = threading.Lock()
_worker: Optional[Worker] = None


def worker() -> Worker:
    """The worker of this process: made when it is first needed, and so after the fork."""
    global _worker
    with _lock:
        if _worker is None or _worker.get_connection_state() == "failed":
            _worker = register_worker()
        return _worker


@app.task
def store(path: str) -> Any:
    """Stream a file into the function that stores files, and return what it says about it."""
    name = os.path.basename(path)
    with open(path, "rb") as source, worker().open("files::store", "wb", {"name": name}, timeout=600) as file:
        shutil.copyfileobj(source, file, 256 * 1024)
    return file.result


@worker_process_shutdown.connect
def leave(**_: Any) -> None:
    """Say goodbye: celery's processes end without the usual end of a Python process."""
    if _worker is not None:
        _worker.shutdown()
