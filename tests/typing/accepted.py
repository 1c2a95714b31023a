"""Everyday programs, which type checkers accept. They are checked, never run."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any, BinaryIO, Callable, Optional, Protocol

from typing_extensions import TypedDict, assert_type

from iii_sync import (
    Channel,
    ChannelReader,
    ChannelWriter,
    HttpResponse,
    InitOptions,
    ReconnectionConfig,
    StreamChannelRef,
    StreamRequest,
    StreamResponse,
    TriggerAction,
    Worker,
    http,
    register_worker,
)
from iii_sync.triggers import TriggerConfig, TriggerType, cron, state, subscribe


class S3(Protocol):
    """The part of boto3 that takes files."""

    def upload_fileobj(self, Fileobj: IO[Any], Bucket: str, Key: str) -> None: ...

    def download_fileobj(self, Bucket: str, Key: str, Fileobj: IO[Any]) -> None: ...


class ReadBuffer(Protocol):
    """What pandas reads from."""

    @property
    def mode(self) -> str: ...

    def read(self, n: int = ..., /) -> bytes: ...

    def readline(self) -> bytes: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def seekable(self) -> bool: ...

    def tell(self) -> int: ...


def workers() -> None:
    """All ways to connect."""
    with register_worker() as worker:
        assert_type(worker, Worker)
    register_worker("ws://127.0.0.1:49134", InitOptions(worker_name="w"))
    register_worker(worker_name="w", namespace="n", connect_timeout=5, keep_trying=True)
    register_worker(reconnection_config=ReconnectionConfig(max_retries=3), headers={"x": "y"}, channel_timeout=None)


def calls(worker: Worker) -> None:
    """Calls, in both forms."""
    worker.trigger("files::process", {"a": 1}, timeout=5)
    worker.trigger({"function_id": "files::process", "payload": {"a": 1}, "timeout_ms": 100})
    worker.trigger("files::process", None, action=TriggerAction.Enqueue(queue="default"), namespace="n", metadata=[1])
    call = worker.submit("files::process", timeout=None)
    call.add_done_callback(lambda done: print(done.result()))
    print(call.result(timeout=60), call.exception(), call.invocation_id)
    for result in worker.map("square", range(1000), max_in_flight=4):
        print(result)


class Order(TypedDict):
    """A payload."""

    id: int


def functions(worker: Worker) -> None:
    """Functions, and the decorators leave their types alone."""

    @worker.function("orders::add", description="adds", trigger=cron("0 0 3 * * *"))
    def add(order: Order) -> int:
        return order["id"]

    assert_type(add({"id": 1}), int)

    @worker.function("orders::see", metadata={"a": 1}, trigger=[state(scope="s"), subscribe("t")])
    def see(data: Any, metadata: Any) -> None:
        data["reader"].read()

    worker.register_function("lambda", lambda data: data, request_format={"type": "object"}).unregister()
    worker.unregister_function(see)
    worker.register_trigger(cron("0 0 3 * * *"), "orders::add").unregister()
    worker.register_trigger({"type": "cron", "function_id": "orders::add", "config": {}})


class Webhooks:
    """A trigger handler."""

    def register_trigger(self, config: TriggerConfig[Order]) -> None:
        print(config.config["id"])

    def unregister_trigger(self, config: TriggerConfig[Order]) -> None: ...


def trigger_types(worker: Worker) -> None:
    """Ours, and iii's dictionary; the handler says of what type configs are."""
    kind = worker.register_trigger_type("webhook", "incoming hooks", Webhooks(), trigger_request_format=Order)
    assert_type(kind, TriggerType[Order])
    kind.register_trigger("orders::add", {"id": 1})
    assert_type(worker.register_trigger_type({"id": "webhook", "description": "d"}, Webhooks()), TriggerType[Order])


def web(worker: Worker) -> None:
    """HTTP functions."""

    @worker.http("POST", "/upload/:id", description="uploads", middleware=["auth"])
    def upload(request: StreamRequest) -> HttpResponse:
        with open("upload", "wb") as file:
            shutil.copyfileobj(request.request_body, file)
        return HttpResponse(201, {"id": request.path_params["id"]}, {"x-a": "b"})

    @worker.http(["GET", "HEAD"], "/download", function_id="download", condition=None)
    def download(request: StreamRequest, response: StreamResponse) -> None:
        response.headers({"content-type": "text/csv"})
        with gzip.open(response, "wb") as compressed:
            compressed.write(b"a,b\n")
        with zipfile.ZipFile(response, "w") as archive:
            archive.writestr("name", b"content")

    worker.register_function("page", http(upload))
    worker.register_http("GET", "/lambda", lambda request: {"ok": True})


def writing(channel: Channel) -> None:
    """Everything that writes files writes to a channel."""
    writer = channel.writer
    assert_type(writer, ChannelWriter)
    with writer as entered, open("report.csv", "rb") as source:
        assert_type(entered, ChannelWriter)
        shutil.copyfileobj(source, writer)
        shutil.copyfileobj(io.BytesIO(), entered)
    with lzma.open(writer, "wb") as compressed:
        compressed.write(b"x")
    with gzip.open(writer, "wb") as zipped, io.TextIOWrapper(zipped) as lines:
        csv.writer(lines).writerow([1, 2])
    with io.TextIOWrapper(writer, "utf-8", newline="") as text:
        csv.writer(text).writerow([1, 2])
    with zipfile.ZipFile(writer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("report.csv")
    with tarfile.open(fileobj=writer, mode="w|gz") as tar:
        tar.add("report.csv")
    with io.BufferedWriter(writer) as buffered:
        buffered.write(memoryview(b"x"))
    with writer.makefile("w", encoding="utf-8") as text_file:
        json.dump({"a": 1}, text_file)
        csv.DictWriter(text_file, ["a"]).writeheader()
    with writer.makefile() as binary:
        binary.write(bytearray(3))
    count: int = writer.write(b"bytes", timeout=3)
    writer.send_message(f"{count}")
    file: IO[bytes] = writer
    other: BinaryIO = writer
    raw: io.RawIOBase = writer
    print(file, other, raw)
    print_to(writer.makefile("w"))


def print_to(file: IO[str]) -> None:
    """Text files are text files."""
    print("text", file=file)


def reading(channel: Channel, s3: S3, parse: Callable[[ReadBuffer], object]) -> None:
    """Everything that reads files reads from a channel."""
    reader = channel.reader
    assert_type(reader, ChannelReader)
    with open("copy", "wb") as target:
        shutil.copyfileobj(reader, target)
    for chunk in reader:
        assert_type(chunk, bytes)
    content: bytes = reader.read()
    some: bytes = reader.read1(10) + reader.readline() + reader.peek() + content
    assert_type(reader.readinto(bytearray(10)), int)
    for row in csv.reader(line.decode() for line in reader.iter_lines()):
        print(row, some)
    for row in csv.reader(reader.makefile("r", newline="")):
        print(row)
    for event in reader.events():
        print(event.upper())
    with tarfile.open(fileobj=reader, mode="r|*") as archive:
        archive.extractall("there")
    with zipfile.ZipFile(reader.spool()) as zipped:
        zipped.extractall("there")
    with lzma.open(reader) as compressed, gzip.open(reader, "rt") as text:
        print(compressed.read(), text.read())
    print(json.load(reader), json.load(reader.makefile("r")), io.TextIOWrapper(reader).readline())
    with contextlib.closing(io.BufferedReader(reader)) as buffered:
        print(buffered.peek())
    parse(reader)
    s3.upload_fileobj(reader, "bucket", "key")
    s3.download_fileobj("bucket", "key", channel.writer)
    position: int = reader.tell()
    complete: Optional[bool] = reader.complete
    print(position, complete)


def opened(worker: Worker) -> None:
    """Functions as files."""
    with worker.open("files::process", "wb", {"filename": "report.csv"}) as out, open("report.csv", "rb") as source:
        shutil.copyfileobj(source, out)
    print(out.result)
    with worker.open("files::process", "w", encoding="utf-8") as lines:
        lines.write("line\n")
    with worker.open("files::generate", "rb", timeout=60) as binary:
        assert_type(binary.read(), bytes)
    with worker.open("files::generate") as text:
        assert_type(text.read(), str)
    assert_type(worker.create_channel(64, marks=False).reader_ref, StreamChannelRef)


def services(worker: Worker) -> None:
    """The helpers."""
    worker.state.set("scope", "key", {"a": 1})
    worker.publish("topic", [1, 2])
    worker.log("line", {"a": 1}, level="warn")
    print(worker.engine.functions(prefix="a")[0]["function_id"], worker.get_address())
    worker.add_connection_state_listener(lambda state: print(state.upper()))()
