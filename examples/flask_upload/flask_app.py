"""Flask: uploads stream into a function of another process while they arrive, downloads stream back out of one.

Run these, each in a terminal of its own, and open http://127.0.0.1:8000/:

    python -m iii_sync engine
    python examples/file_store/files.py
    cd examples/flask_upload && gunicorn --worker-class gthread --threads 8 --timeout 120 flask_app:app

``flask --app flask_app run --port 8000`` does for trying it out, too. Other kinds of gunicorn workers work as well; one
of the kind "sync" serves one upload at a time, and gunicorn ends it when that takes longer than ``--timeout``.
``FILES_TIMEOUT`` is how many seconds an upload or a download may take in total (default: an hour).
"""

import os
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

from flask import Flask, Response, abort, request, send_file
from werkzeug.exceptions import HTTPException

from iii_sync import ChannelReader, IIISyncError, InvocationError, Worker, errors, register_worker

PAGE = Path(__file__).resolve().parent.parent / "file_store" / "upload.html"
TIMEOUT = float(os.environ.get("FILES_TIMEOUT", "3600"))
CHUNK = 64 * 1024
LEFT_OVER = 64 * 1024 * 1024

app = Flask(__name__)

_lock = threading.Lock()
_worker: Optional[Worker] = None


def worker() -> Worker:
    """The worker of this process: made when it is first needed, and so after the fork; shared by all threads."""
    global _worker
    with _lock:
        if _worker is None or _worker.get_connection_state() == "failed":
            _worker = register_worker(invocation_timeout=10, connect_timeout=5, channel_timeout=60)
        return _worker


@app.get("/")
def page() -> Response:
    """The page with the form."""
    return send_file(PAGE)


@app.put("/files")
def upload() -> Any:
    """Stream the body of the request into the function, and answer with what that returns.

    An exception between the two, such as the one for an upload that was cut, aborts the stream: the function learns
    that it is not whole.
    """
    with worker().open("files::store", "wb", {"name": request.args.get("name", "")}, timeout=TIMEOUT) as file:
        for chunk in body():
            file.write(chunk)
    return file.result, 201


@app.get("/files/<number>")
def download(number: str) -> Response:
    """Stream a file from the function to the client; a client that leaves makes the function stop."""
    about = worker().trigger("files::about", {"id": number})
    if request.method == "HEAD":
        response = Response()
    else:
        response = Response(begun("files::load", {"id": number}))  # closed with it
    response.content_type = about["type"]
    response.content_length = about["size"]
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(about['name'], safe='')}"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def begun(function_id: str, payload: dict[str, Any]) -> ChannelReader:
    """The stream that a function writes, once its first byte is here: until then an error has a status of its own."""
    channel = worker().create_channel()
    try:
        worker().submit(function_id, {**payload, "writer": channel.writer_ref}, timeout=TIMEOUT)
        channel.reader.peek(1)
    except BaseException:
        channel.reader.abort()
        raise
    return channel.reader


def body() -> Iterator[bytes]:
    """The body of the request as it arrives; 400 when it ends too early, of which Flask under gunicorn says nothing."""
    got = 0
    while True:
        try:
            chunk = request.stream.read(CHUNK)
        except OSError:  # a connection that broke, or a chunked body that was cut
            chunk, got = b"", -1
        if not chunk:
            break
        got += len(chunk)
        yield chunk
    if got < (request.content_length or 0):
        abort(400, "the upload was cut")


@app.errorhandler(IIISyncError)
def failed(error: IIISyncError) -> Any:
    """Answer with the status that says what went wrong, and not with details that are nobody's business."""
    app.logger.warning("%s %s: %s", request.method, request.path, error)
    discard()
    status = status_of(error)
    own = isinstance(error, InvocationError) and error.code == status.name
    text = error.message if own and isinstance(error, InvocationError) else f"{status.phrase}: please try again later."
    return {"error": text}, status, {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}


@app.errorhandler(HTTPException)
def refused(error: HTTPException) -> Any:
    """Flask's own errors, as the page expects them."""
    return {"error": error.description}, error.code


def status_of(error: IIISyncError) -> HTTPStatus:
    """Which status an error is. Functions raise ``InvocationError`` with the name of one."""
    if isinstance(error, (errors.EngineConnectionError, errors.ConnectTimeout)):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, (errors.FunctionNotFoundError, errors.OverloadedError)):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, TimeoutError):
        return HTTPStatus.GATEWAY_TIMEOUT
    named = HTTPStatus.__members__.get(error.code) if isinstance(error, InvocationError) else None
    return named if named is not None and named >= 400 else HTTPStatus.BAD_GATEWAY


def discard() -> None:
    """Read some of what is still arriving: browsers show an answer only when the upload has got through."""
    left = LEFT_OVER
    try:
        while left > 0 and (chunk := request.stream.read(CHUNK)):
            left -= len(chunk)
    except (OSError, HTTPException):
        pass  # it was cut; there is nobody to answer
