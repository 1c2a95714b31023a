"""What a worker tells the engine about itself, before anything else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import _version

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["announcement"]


def announcement(options: InitOptions, worker_name: str) -> dict[str, Any]:
    """Return what a worker tells of itself: the argument of ``engine::workers::register``."""
    from ..options import MAX_PAYLOAD  # with the first connection

    data: dict[str, Any] = {
        "runtime": "python",
        "version": _version.__version__,
        "name": worker_name,
        "os": _system(),
        "pid": os.getpid(),
        "telemetry": {
            "language": (os.environ.get("LANG") or "").partition(".")[0] or None,
            "framework": "iii-sync",
        },
    }
    optional = {
        "description": options.worker_description,
        "namespace": options.namespace,
        "isolation": (os.environ.get("III_ISOLATION") or "").strip(),
        # What is larger than this worker takes is answered, not fatal; but one that never asked for more than
        # the usual size is spared the traffic, and its callers hear it from the engine (DELTA 0.25, 4).
        "features": ["large-messages.v1"] if options.max_payload > MAX_PAYLOAD else None,
    }
    data.update({key: value for key, value in optional.items() if value})
    return data


def _system() -> str:
    if hasattr(os, "uname"):
        found = os.uname()
        return f"{found.sysname} {found.release} ({found.machine})"
    import platform  # only where it must be: it is large, and knows what os.uname() does not have on Windows

    return f"{platform.system()} {platform.release()} ({platform.machine()})"
