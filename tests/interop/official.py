"""The peer that uses the official Python SDK; see ``ours.py``."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import os
import sys
import uuid
from typing import Any

from . import streams

#: How long a note may take to come.
WAIT = 20.0

# By name: it is not installed where types are checked.
iii = importlib.import_module("iii")
helpers = importlib.import_module("iii.helpers")
channels = importlib.import_module("iii.channels")
types = importlib.import_module("iii.iii_types")


async def write(writer: Any, script: streams.Script, seed: int) -> dict[str, Any]:
    """Send the script and end the stream."""
    made = streams.Summary()
    await send(writer, script, seed, made)
    await writer.close_async()
    return made.done()


async def send(writer: Any, script: streams.Script, seed: int, made: streams.Summary) -> None:
    """Send the script."""
    for item in streams.items(script, seed):
        await (writer.send_message_async(item) if isinstance(item, str) else writer.write(item))
        made.add(item)


async def read(reader: Any) -> dict[str, Any]:
    """Read to the end."""
    made = streams.Summary()
    reader.on_message(made.add)
    async for chunk in reader:
        made.add(chunk)
    return made.done()


async def relay(data: dict[str, Any]) -> int:
    """Copy a stream, message by message."""
    count = 0
    async for chunk in data["reader"]:
        await data["writer"].write(chunk)
        count += len(chunk)
    await data["writer"].close_async()
    return count


async def fail(data: dict[str, Any]) -> None:
    """Fail with the given message."""
    raise ValueError(data["message"])


class Peer:
    """The commands."""

    def __init__(self, url: str, worker: Any) -> None:
        self._url = url
        self._worker = worker

    async def send(self, function_id: str, script: streams.Script, seed: int) -> dict[str, Any]:
        """Make a channel, have the function read it, write."""
        channel = await helpers.create_channel_async(self._worker)
        payload = {"deep": [{"reader": channel.reader_ref.model_dump()}]}
        call = asyncio.create_task(self.call({"function_id": function_id, "payload": payload}))
        return {"wrote": await write(channel.writer, script, seed), "read": await call}

    async def receive(self, function_id: str, script: streams.Script, seed: int) -> dict[str, Any]:
        """Make a channel, have the function write it, read."""
        channel = await helpers.create_channel_async(self._worker)
        payload = {"deep": [{"writer": channel.writer_ref.model_dump()}], "script": script, "seed": seed}
        call = asyncio.create_task(self.call({"function_id": function_id, "payload": payload}))
        return {"read": await read(channel.reader), "wrote": await call}

    async def call(self, request: dict[str, Any], void: bool = False) -> Any:
        """Call a function; through the engine, also when it is one of this process."""
        action = {"action": iii.TriggerAction.Void()} if void else {}
        return await self._worker.trigger_async({"dispatch": "remote", **request, **action})

    async def die(self, ref: dict[str, Any], script: streams.Script, seed: int) -> None:
        """Write, and end the process in the middle of the stream."""
        writer = channels.ChannelWriter(self._url, types.StreamChannelRef(**ref))
        await send(writer, script, seed, streams.Summary())
        os._exit(1)

    async def run(self, setup: str, code: str, result: str) -> Any:
        """Run a piece of a program, with a worker of its own; the value of ``result`` is its outcome."""
        # The default name is that of the process, which has a worker of that name already.
        name = uuid.uuid4().hex
        worker = await asyncio.to_thread(iii.register_worker, None, iii.InitOptions(worker_name=name))
        names: dict[str, Any] = {"worker": worker}
        try:
            await _until_registered(worker, name)
            await _run(setup, names)
            await _run(code, names)
            await _run(f"_result = {result}", names)
            return names["_result"]
        finally:
            # Shutting it down twice hangs.
            if names["worker"].get_connection_state() != "disconnected":
                await asyncio.to_thread(names["worker"].shutdown)


async def _until_registered(worker: Any, name: str) -> None:
    """The SDK counts as connected before it has said its name, and until then engines hold what it registers back."""
    while True:
        found = await worker.trigger_async({"function_id": "engine::workers::list", "payload": {}})
        if any(each.get("name") == name for each in found["workers"]):
            return
        await asyncio.sleep(0.01)


async def _run(code: str, names: dict[str, Any]) -> None:
    compiled = compile(code, "<snippet>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    found = eval(compiled, names)
    if inspect.iscoroutine(found):
        await found


async def main(url: str, prefix: str, namespace: str) -> None:
    """Serve until standard input ends."""
    notes: asyncio.Queue[Any] = asyncio.Queue()
    worker = await asyncio.to_thread(iii.register_worker, url)
    elsewhere = await asyncio.to_thread(iii.register_worker, url, iii.InitOptions(namespace=namespace))

    async def pass_on(data: dict[str, Any], metadata: Any = None) -> Any:
        # References in payloads are ends by now, and ends cannot be sent; those in metadata still are references.
        return await worker.trigger_async({"function_id": data["to"], "payload": metadata})

    async def meta(data: Any, metadata: Any = None) -> Any:
        return metadata

    async def read_it(data: dict[str, Any]) -> Any:
        return await read(data["deep"][0]["reader"])

    async def write_it(data: dict[str, Any]) -> Any:
        return await write(data["deep"][0]["writer"], data["script"], data["seed"])

    async def echo(data: dict[str, Any]) -> Any:
        return data["value"]

    async def nothing(data: Any) -> None:
        pass

    async def slow(data: dict[str, Any]) -> None:
        await asyncio.sleep(data["seconds"])

    async def note(data: Any) -> None:
        await notes.put(data)

    async def noted(data: Any) -> Any:
        return await asyncio.wait_for(notes.get(), WAIT)

    async def where(data: Any) -> str:
        return "default"

    async def where_else(data: Any) -> str:
        return namespace

    functions = {
        "read": read_it,
        "write": write_it,
        "relay": relay,
        "echo": echo,
        "nothing": nothing,
        "fail": fail,
        "slow": slow,
        "meta": meta,
        "note": note,
        "noted": noted,
        "where": where,
        "pass_on": pass_on,
    }
    for name, handler in functions.items():
        worker.register_function(f"{prefix}::{name}", handler)
    elsewhere.register_function(f"{prefix}::where", where_else)
    # Nothing tells when the engine has taken registrations, but it takes messages in their order.
    for each, expected in ((worker, "default"), (elsewhere, namespace)):
        request = {"function_id": f"{prefix}::where", "payload": {}, "dispatch": "remote"}
        for again in range(50):
            try:
                assert await each.trigger_async(request) == expected
                break
            except iii.InvocationError as exc:
                # Seen: a registration of the second worker's that the engine took only later.
                if exc.code != "function_not_found" or again == 49:
                    raise
                await asyncio.sleep(0.1)
    print(json.dumps({"ready": True}), flush=True)
    peer = Peer(url, worker)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        try:
            answer = {"result": await getattr(peer, command.pop("do"))(**command)}
        except Exception as exc:
            message = getattr(exc, "message", str(exc))
            answer = {"error": {"type": type(exc).__name__, "code": getattr(exc, "code", None), "message": message}}
        print(json.dumps(answer), flush=True)
    for each in (worker, elsewhere):
        await asyncio.to_thread(each.shutdown)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
