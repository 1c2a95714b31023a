"""Uploads and downloads that do not fit into the memory they may take."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .site import Site

MIB = 1024 * 1024

#: What a transfer may add to the memory of the worker's process.
ALLOWANCE = 24 * MIB

#: The worker: digests uploads, and serves a stream as long as is asked for.
WORKER = """
import hashlib, sys
from iii_sync import register_worker

piece = bytes(range(256)) * 4096

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

with register_worker(sys.argv[1]) as worker:
    before = peak()

    def upload(request):
        digest = hashlib.sha256()
        for chunk in request.request_body:
            digest.update(chunk)
        return {"size": request.request_body.tell(), "digest": digest.hexdigest(), "grown": peak() - before}

    def download(request, response):
        size = int(request.query_params["size"])
        response.headers({"content-length": size})
        while response.tell() < size:
            response.write(piece)

    worker.register_http("POST", sys.argv[2], upload)
    worker.register_http("GET", sys.argv[2], download)
    worker.register_http("GET", sys.argv[2] + "/grown", lambda request: peak() - before)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize(
    "size", [32 * MIB, pytest.param(1024 * MIB, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_memory_stays_constant(site: Site, engine_url: str, size: int) -> None:
    """Whatever the size, in either direction, and every byte is right."""
    piece = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    for _ in range(size // len(piece)):
        digest.update(piece)

    def pieces() -> Iterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    program = subprocess.Popen(
        [sys.executable, "-c", WORKER, engine_url, site.base],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with program, contextlib.closing(site.connection()) as connection:
        try:
            assert program.stdout is not None and program.stdout.readline() == b"ready\n"
            connection.timeout = 600
            connection.request("POST", site.base, pieces(), {"content-length": str(size)})
            answer: Any = connection.getresponse().read()
            assert f'"size":{size},"digest":"{digest.hexdigest()}"'.encode() in answer
            connection.request("GET", f"{site.base}?size={size}")
            response = connection.getresponse()
            back = hashlib.sha256()
            while chunk := response.read(MIB):
                back.update(chunk)
            assert back.hexdigest() == digest.hexdigest()
            connection.request("GET", f"{site.base}/grown")
            assert int(connection.getresponse().read()) < ALLOWANCE
        finally:
            program.communicate(timeout=30)
