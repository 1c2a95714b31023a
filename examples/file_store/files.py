"""Stores files that are streamed into it and streams them out again: the process behind both web applications.

Run it beside an engine, and leave it running:

    python -m iii_sync engine
    python examples/file_store/files.py

``FILES_STORE`` names the directory of the files (default: ``stored``), ``FILES_LIMIT`` the size in bytes that one of
them may have (default: 10 GiB). What a function refuses, it refuses with the name of an HTTP status, and a web
application answers with that status.
"""

import contextlib
import hashlib
import json
import mimetypes
import os
import secrets
from pathlib import Path
from typing import Any

from iii_sync import InvocationError, register_worker

STORE = Path(os.environ.get("FILES_STORE", "stored"))
LIMIT = int(os.environ.get("FILES_LIMIT", str(10 * 1024**3)))
CHUNK = 256 * 1024


def store(data: dict[str, Any]) -> dict[str, Any]:
    """Take a file in while it arrives. A stream that was cut raises here, and nothing of it is stored."""
    name = clean(data["name"])
    number = secrets.token_hex(8)
    part = STORE / f"{number}.part"
    digest, size = hashlib.sha256(), 0
    try:
        with data["reader"] as reader, part.open("wb", buffering=0) as out:
            for chunk in reader:
                size += len(chunk)
                if size > LIMIT:
                    raise InvocationError("REQUEST_ENTITY_TOO_LARGE", f"a file may have {LIMIT:,} bytes at most")
                digest.update(chunk)
                out.write(chunk)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        about = {"id": number, "name": name, "type": kind, "size": size, "sha256": digest.hexdigest()}
        (STORE / f"{number}.json").write_text(json.dumps(about), encoding="utf-8")
        part.rename(STORE / number)
    except BaseException:
        for path in (part, STORE / f"{number}.json"):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        raise
    return about


def about(data: dict[str, Any]) -> Any:
    """Say what is known about a file."""
    return json.loads(path_of(data["id"], ".json").read_text(encoding="utf-8"))


def load(data: dict[str, Any]) -> None:
    """Stream a file out. A reader that leaves early makes the write raise, which ends this."""
    with path_of(data["id"]).open("rb") as source, data["writer"] as out:
        while chunk := source.read(CHUNK):
            out.write(chunk)


def clean(name: str) -> str:
    """The last part of a name that somebody else chose, without what could do harm where it is shown or saved."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in last if c.isprintable())[-150:].strip(" .") or "unnamed"


def path_of(number: str, suffix: str = "") -> Path:
    """The path of a stored file. Names are never part of a path, and a number is checked."""
    path = STORE / (number + suffix)
    if not (len(number) == 16 and set(number) <= set("0123456789abcdef") and path.exists()):
        raise InvocationError("NOT_FOUND", "there is no such file")
    return path


if __name__ == "__main__":
    STORE.mkdir(parents=True, exist_ok=True)
    with register_worker() as worker:
        worker.register_function("files::store", store)
        worker.register_function("files::about", about)
        worker.register_function("files::load", load)
        print(f"storing files in {STORE.resolve()}", flush=True)
        worker.wait()
