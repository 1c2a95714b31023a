"""Django: uploads stream into a function of another process while they arrive, downloads stream back out of one.

Run these, each in a terminal of its own, and open http://127.0.0.1:8000/:

    python -m iii_sync engine
    python examples/file_store/files.py
    cd examples/django_upload && gunicorn --worker-class gthread --threads 8 --timeout 120 django_app:application

``python django_app.py runserver`` does for trying it out, too. Other kinds of gunicorn workers work as well; one of the
kind "sync" serves one upload at a time, and gunicorn ends it when that takes longer than ``--timeout``.
``FILES_TIMEOUT`` is how many seconds an upload or a download may take in total (default: an hour).

A whole Django project in one file; in yours, only ``worker``, the views and the middleware are new.
"""

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Callable, Optional

import django
from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.utils.http import content_disposition_header
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_http_methods, require_safe

from iii_sync import ChannelReader, IIISyncError, InvocationError, Worker, errors, register_worker

PAGE = Path(__file__).resolve().parent.parent / "file_store" / "upload.html"
TIMEOUT = float(os.environ.get("FILES_TIMEOUT", "3600"))
CHUNK = 64 * 1024
LEFT_OVER = 64 * 1024 * 1024

log = logging.getLogger(__name__)

_lock = threading.Lock()
_worker: Optional[Worker] = None


def worker() -> Worker:
    """The worker of this process: made when it is first needed, and so after the fork; shared by all threads."""
    global _worker
    with _lock:
        if _worker is None or _worker.get_connection_state() == "failed":
            _worker = register_worker(invocation_timeout=10, connect_timeout=5, channel_timeout=60)
        return _worker


@require_safe
@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    """The page with the form."""
    return HttpResponse(PAGE.read_bytes())


@require_http_methods(["PUT"])
def upload(request: HttpRequest) -> JsonResponse:
    """Stream the body of the request into the function, and answer with what that returns.

    An exception between the two, such as the one for an upload that was cut, aborts the stream: the function learns
    that it is not whole.
    """
    if "CONTENT_LENGTH" not in request.META:
        return JsonResponse({"error": "Django reads bodies of a known length only."}, status=411)
    with worker().open("files::store", "wb", {"name": request.GET.get("name", "")}, timeout=TIMEOUT) as file:
        for chunk in body(request):
            file.write(chunk)
    return JsonResponse(file.result, status=201)


@require_safe
def download(request: HttpRequest, number: str) -> HttpResponseBase:
    """Stream a file from the function to the client; a client that leaves makes the function stop."""
    about = worker().trigger("files::about", {"id": number})
    response: Any
    if request.method == "HEAD":
        response = HttpResponse()
    else:
        response = StreamingHttpResponse(begun("files::load", {"id": number}))  # closed with it
    response["Content-Type"] = about["type"]
    response["Content-Length"] = about["size"]
    response["Content-Disposition"] = content_disposition_header(True, about["name"])
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


def body(request: HttpRequest) -> Iterator[bytes]:
    """The body of the request as it arrives; 400 when it ends too early, of which Django itself says nothing."""
    left = int(request.META["CONTENT_LENGTH"] or 0)
    while left:
        try:
            chunk = request.read(min(CHUNK, left))
        except OSError:
            chunk = b""
        if not chunk:
            raise BadRequest("the upload was cut")
        left -= len(chunk)
        yield chunk


class Statuses:
    """Middleware that turns errors into answers with the status that says what went wrong."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> Optional[HttpResponse]:
        """Answer, but not with details that are nobody's business."""
        if isinstance(error, BadRequest):
            return JsonResponse({"error": str(error)}, status=400)
        if not isinstance(error, IIISyncError):
            return None
        log.warning("%s %s: %s", request.method, request.path, error)
        discard(request)
        status = status_of(error)
        own = isinstance(error, InvocationError) and error.code == status.name
        text = (
            error.message if own and isinstance(error, InvocationError) else f"{status.phrase}: please try again later."
        )
        response = JsonResponse({"error": text}, status=status)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            response["Retry-After"] = "5"
        return response


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


def discard(request: HttpRequest) -> None:
    """Read some of what is still arriving: browsers show an answer only when the upload has got through."""
    left = LEFT_OVER
    try:
        while left > 0 and (chunk := request.read(CHUNK)):
            left -= len(chunk)
    except OSError:
        pass  # it was cut; there is nobody to answer


urlpatterns = [path("", page), path("files", upload), path("files/<str:number>", download)]

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(),
    ALLOWED_HOSTS=os.environ.get("ALLOWED_HOSTS", "127.0.0.1,localhost").split(","),
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        f"{__name__}.Statuses",
    ],
    USE_TZ=True,
)
django.setup(set_prefix=False)
application = WSGIHandler()

if __name__ == "__main__":
    import sys

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
