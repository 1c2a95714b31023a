"""Mistakes that type checkers find: every line that ends in ``# wrong``, and no other."""

from __future__ import annotations

import shutil
from typing import Any

from iii_sync import Channel, HttpResponse, InitOptions, StreamRequest, Worker, http, register_worker
from iii_sync.triggers import cron


def workers() -> None:
    """Connecting."""
    register_worker(49134)  # wrong
    register_worker(worker_nam="w")  # wrong
    register_worker(connect_timeout="5")  # wrong
    InitOptions(max_handlers="many")  # wrong


def calls(worker: Worker) -> None:
    """Calls."""
    worker.trigger(1)  # wrong
    worker.trigger("f", {}, 5)  # wrong
    worker.trigger("f", timeout="5")  # wrong
    worker.trigger("f", action="void")  # wrong
    worker.trigger_async("f")  # wrong
    worker.submit("f").result("5")  # wrong
    worker.map("f", 5)  # wrong


def functions(worker: Worker) -> None:
    """Functions and triggers."""

    @worker.function("f", descripton="a typing error")  # wrong
    def one(data: Any) -> None: ...

    @worker.function("f", trigger="cron")  # wrong
    def two(data: Any) -> None: ...

    @worker.function("f")
    def three(data: int) -> int:
        return data

    three("text")  # wrong
    worker.register_function("f", "handler")  # wrong
    worker.register_function("f", print, observe={})  # wrong
    worker.register_trigger(cron(3), "f")  # wrong


def web(worker: Worker) -> None:
    """HTTP functions."""

    @worker.http("POST", "/", functionid="f")  # wrong
    def one(request: StreamRequest) -> None: ...

    @worker.http(1, "/")  # wrong
    def two(request: StreamRequest) -> None: ...

    http("handler")  # wrong
    HttpResponse("200")  # wrong


def channels(worker: Worker, channel: Channel) -> None:
    """Channel ends."""
    channel.writer.write("text")  # wrong
    channel.writer.send_message(b"bytes")  # wrong
    channel.writer.makefile("rb")  # wrong
    channel.reader.makefile("wb")  # wrong
    text: str = channel.reader.read()  # wrong
    shutil.copyfileobj(channel.reader, open("file", "w"))  # wrong
    worker.open("f", "x")  # wrong
    worker.open("f", "wb", encoding="utf-8")  # wrong
    worker.open("f", "wb").write("text")  # wrong
    worker.open("f", "w").write(b"bytes")  # wrong
    worker.create_channel("64")  # wrong
    print(text)
