"""The peer that uses iii_sync; ``official.py`` and ``official.mjs`` are the same with the official SDKs.

Run with the URL of an engine, a prefix for its functions' ids, and the namespace that a second worker lives in. Reads
commands from standard input, one JSON object a line, and answers each with a line; ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

from iii_sync import ChannelReader, ChannelWriter, InvocationError, Worker, register_worker
from iii_sync.errors import IIISyncError

from . import streams

#: How long a stream may stand still, and how long a note may take to come.
WAIT = 20.0

_notes: queue.SimpleQueue[Any] = queue.SimpleQueue()


def write(writer: ChannelWriter, script: streams.Script, seed: int) -> dict[str, Any]:
    """Send the script and end the stream."""
    made = streams.Summary()
    writer.timeout = WAIT
    with writer:
        send(writer, script, seed, made)
    return made.done()


def send(writer: ChannelWriter, script: streams.Script, seed: int, made: streams.Summary) -> None:
    """Send the script."""
    for item in streams.items(script, seed):
        if isinstance(item, str):
            writer.send_message(item)
        else:
            writer.write(item)
        made.add(item)


def read(reader: ChannelReader) -> dict[str, Any]:
    """Read to the end."""
    made = streams.Summary()
    reader.timeout = WAIT
    for item in reader.events():
        made.add(item)
    return made.done(reader.complete)


def relay(data: dict[str, Any]) -> int:
    """Copy a stream."""
    with data["writer"] as writer:
        count = 0
        for chunk in data["reader"]:
            writer.write(chunk)
            count += len(chunk)
    return count


def fail(data: dict[str, Any]) -> None:
    """Fail with the given message, and code if there is one."""
    if "code" in data:
        raise InvocationError(data["code"], data["message"])
    raise ValueError(data["message"])


def meta(data: Any, metadata: Any = None) -> Any:
    """What came beside the payload."""
    return metadata


class Peer:
    """The commands."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def send(self, function_id: str, script: streams.Script, seed: int) -> dict[str, Any]:
        """Make a channel, have the function read it, write."""
        channel = self._worker.create_channel()
        call = self._worker.submit(function_id, {"deep": [{"reader": channel.reader_ref}]})
        return {"wrote": write(channel.writer, script, seed), "read": call.result(WAIT)}

    def receive(self, function_id: str, script: streams.Script, seed: int) -> dict[str, Any]:
        """Make a channel, have the function write it, read."""
        channel = self._worker.create_channel()
        payload = {"deep": [{"writer": channel.writer_ref}], "script": script, "seed": seed}
        call = self._worker.submit(function_id, payload)
        return {"read": read(channel.reader), "wrote": call.result(WAIT)}

    def call(self, request: dict[str, Any], void: bool = False) -> Any:
        """Call a function."""
        return self._worker.trigger({**request, "action": {"type": "void"}} if void else request)

    def die(self, ref: dict[str, Any], script: streams.Script, seed: int) -> None:
        """Write, and end the process in the middle of the stream."""
        send(self._worker.open_ref(ref), script, seed, streams.Summary())  # type: ignore[arg-type]
        os._exit(1)

    def run(self, setup: str, code: str, result: str) -> Any:
        """Run a piece of a program, with a worker of its own; the value of ``result`` is its outcome."""
        with register_worker() as worker:
            names: dict[str, Any] = {"worker": worker}
            exec(setup, names)
            exec(code, names)
            return eval(result, names)


def failure(exc: BaseException) -> dict[str, Any]:
    """An error as JSON."""
    return {
        "type": type(exc).__name__,
        "code": getattr(exc, "code", None),
        "message": getattr(exc, "message", str(exc)),
    }


def commands() -> Iterator[dict[str, Any]]:
    """The commands that come in."""
    for line in sys.stdin:
        yield json.loads(line)


def main(url: str, prefix: str, namespace: str) -> None:
    """Serve until standard input ends."""
    with register_worker(url) as worker, register_worker(url, namespace=namespace) as elsewhere:
        functions: dict[str, Callable[..., Any]] = {
            "read": lambda data: read(data["deep"][0]["reader"]),
            "write": lambda data: write(data["deep"][0]["writer"], data["script"], data["seed"]),
            "relay": relay,
            "echo": lambda data: data["value"],
            "nothing": lambda data: None,
            "fail": fail,
            "slow": lambda data: time.sleep(data["seconds"]),
            "meta": meta,
            "note": _notes.put,
            "noted": lambda data: _notes.get(timeout=WAIT),
            "where": lambda data: "default",
            # What came as a live end goes on as a reference.
            "pass_on": lambda data: worker.trigger(data["to"], data["payload"]),
        }
        for name, handler in functions.items():
            worker.register_function(f"{prefix}::{name}", handler)
        elsewhere.register_function(f"{prefix}::where", lambda data: namespace)
        print(json.dumps({"ready": True}), flush=True)
        peer = Peer(worker)
        for command in commands():
            try:
                answer = {"result": getattr(peer, command.pop("do"))(**command)}
            except (IIISyncError, AssertionError, OSError, TypeError, NameError) as exc:
                answer = {"error": failure(exc)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
