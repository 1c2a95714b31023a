"""One contestant, once: processes started, told to go, and what they say turned into figures."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Optional

from .child import Task
from .peers import Peer, Peers
from .processes import Child, Program

__all__ = ["Contestant", "Figures", "Settings", "calls", "end_to_end", "imports", "life", "to_and_from_peer"]

Figures = dict[str, float]


@dataclass(frozen=True)
class Contestant:
    """A client and how it is used.

    Attributes:
        label: What the tables call it.
        client: Module below :mod:`.clients`, or ``rust``.
        mode: The client's.
        mask: The step of our ladder that masks.
        writer_mode: For the writing side of an end to end measurement, where it differs.
        channels: How many at once.
    """

    label: str
    client: str
    mode: str = ""
    mask: str = ""
    writer_mode: Optional[str] = None
    channels: int = 1


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        seconds: Of one measurement.
        rounds: How often each contestant takes its turn.
        check: Verify the payload in the place of measuring.
        profiles: A folder, in which each measured process leaves what ``perf`` has seen of it.
    """

    seconds: float = 1.0
    rounds: int = 5
    check: bool = False
    profiles: str = ""

    def profile(self, process: str) -> str:
        """Return where the profile of a process goes, if one is wanted."""
        return f"{self.profiles}/{process}" if self.profiles else ""


_NOBODY = {"channel_id": "bench", "access_key": "bench"}


def to_and_from_peer(
    peers: Peers,
    contestant: Contestant,
    settings: Settings,
    what: str,
    size: int,
    *,
    tls: bool = False,
    busy: bool = False,
) -> Figures:
    """Write pieces of ``size`` to the fast peer, or read frames of ``size`` from it."""
    raw = contestant.client == "bare"
    mode = ("raw" if raw else "") + ("sink" if what == "write" else "source")
    certificate = peers.tls if tls else None
    command = peers.in_python(certificate.certificate) if certificate else peers.fast
    trust = {"SSL_CERT_FILE": str(certificate.authority)} if certificate else {}
    count = contestant.channels
    with Peer(command, mode, size, settings.seconds, count, settings.check) as peer:
        task = Task(
            client=contestant.client,
            what=what,
            url=f"{'wss' if tls else 'ws'}://127.0.0.1:{peer.port}",
            refs=[{**_NOBODY, "channel_id": f"bench-{n}", "direction": what} for n in range(count)],
            mode=contestant.mode,
            piece=size,
            seconds=settings.seconds,
            mask=contestant.mask,
            busy=busy,
            check=settings.check,
            profile=settings.profile("writer" if what == "write" else "reader"),
        )
        with Child(task, trust) as child:
            return _from_peer(peer, child, what, size, count, settings)


def _from_peer(peer: Peer, child: Child, what: str, size: int, count: int, settings: Settings) -> Figures:
    peer.await_ready()
    child.await_ready()
    if what == "read":
        peer.tell()
    child.tell()
    result = child.result(settings.seconds)
    seen = peer.report()
    if what == "write":
        amount = float(seen.payload - count * size)
        if amount != result["bytes"]:
            raise RuntimeError(f"{result['bytes']:,} bytes were written and {amount:,} arrived")
        taken = seen.last - result["start"]
    else:
        amount = result["bytes"] + result["primed"]
        if amount != seen.payload:
            raise RuntimeError(f"{seen.payload:,} bytes were sent and {amount:,} arrived")
        taken = result["end"] - result["start"]
    if settings.check and count == 1:
        _compare(int(result["crc"]), seen.crc if what == "write" else source_checksum(size, seen.payload))
    return {
        "MB/s": amount / taken / 1e6,
        "messages/s": amount / size / taken,
        "cpu ns/B": result["cpu"] / amount * 1e9,
    }


def _compare(ours: int, theirs: int) -> None:
    if ours != theirs:
        raise RuntimeError(f"the payload is not what was sent: CRC {ours:08x}, {theirs:08x}")


def source_checksum(frame: int, total: int) -> int:
    """Return the CRC-32 of what the fast peer sends."""
    payload = bytes((j * 31 + (j >> 8)) & 0xFF for j in range(frame))
    crc = 0
    for _ in range(total // frame):
        crc = zlib.crc32(payload, crc)
    return crc


def end_to_end(peers: Peers, contestant: Contestant, settings: Settings, size: int) -> Figures:
    """Write pieces of ``size`` in one process and read them in another, through the engine."""
    rust = peers.rust if contestant.client == "rust" else None
    with _channels(peers.engine_url, contestant.channels) as channels, contextlib.ExitStack() as stack:
        common = Task(
            client=contestant.client,
            what="read",
            url=peers.engine_url,
            engine=True,
            mode=contestant.mode,
            piece=size,
            seconds=settings.seconds,
            mask=contestant.mask,
            check=settings.check,
        )
        writing = contestant.mode if contestant.writer_mode is None else contestant.writer_mode
        reading = replace(common, refs=[each[0] for each in channels], profile=settings.profile("reader"))
        sending = replace(
            common,
            what="write",
            mode=writing,
            refs=[each[1] for each in channels],
            profile=settings.profile("writer"),
        )
        reader = stack.enter_context(Child(reading, program=rust))
        writer = stack.enter_context(Child(sending, program=rust))
        reader.await_ready()
        writer.await_ready()
        for child in (reader, writer):
            child.tell()
        wrote, read = writer.result(settings.seconds), reader.result(settings.seconds)
    amount = read["bytes"]
    if contestant.client != "bare":  # its reader counts the frames' headers too
        sent, arrived = wrote["bytes"] + contestant.channels * size, amount + read["primed"]
        if sent != arrived:
            raise RuntimeError(f"{sent:,} bytes were written and {arrived:,} arrived")
        if settings.check and contestant.channels == 1:
            _compare(int(wrote["crc"]), int(read["crc"]))
    taken = read["end"] - wrote["start"]
    return {
        "MB/s": amount / taken / 1e6,
        "messages/s": wrote["messages"] / taken,
        "cpu ns/B": (wrote["cpu"] + read["cpu"]) / amount * 1e9,
        "writer cpu ns/B": wrote["cpu"] / amount * 1e9,
        "reader cpu ns/B": read["cpu"] / amount * 1e9,
    }


@contextlib.contextmanager
def _channels(url: str, count: int) -> Iterator[list[tuple[dict[str, str], dict[str, str]]]]:
    """Make channels; gives their references, readers' first."""
    import iii_sync

    with iii_sync.register_worker(url) as worker:
        made = [worker.create_channel() for _ in range(count)]
        yield [(each.reader_ref.model_dump(), each.writer_ref.model_dump()) for each in made]


def calls(peers: Peers, contestant: Contestant, settings: Settings, callers: int, *, own: bool = False) -> Figures:
    """Call a function that echoes: one in the shortest loop that Python has, or one served by the same client."""
    function = f"bench::echo-{uuid.uuid4().hex[:8]}"
    serving = Task(client=contestant.client if own else "callee", what="serve", url=peers.engine_url, function=function)
    calling = Task(
        client=contestant.client,
        what="call",
        url=peers.engine_url,
        engine=True,
        mode=contestant.mode,
        mask=contestant.mask,
        seconds=settings.seconds,
        callers=callers,
        function=function,
    )
    with Child(serving) as callee:
        callee.await_ready()
        callee.tell()
        with Child(calling, program=peers.rust if contestant.client == "rust" else None) as caller:
            caller.await_ready()
            caller.tell()
            result = caller.result(settings.seconds)
    count = result["calls"]
    return {
        "p50 µs": result["p50"] * 1e6,
        "calls/s": count / (result["end"] - result["start"]),
        "cpu µs/call": result["cpu"] / count * 1e6,
    }


def imports(contestant: Contestant) -> Figures:
    """Import a module in a fresh interpreter."""
    code = f"import time; t = time.perf_counter(); import {contestant.mode}; print(time.perf_counter() - t)"
    with Program([sys.executable, "-c", code]) as program:
        return {"import ms": float(program.line()) * 1e3}


_LIFE = """\
def status():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmRSS"].split()[0]) * 1024, int(lines["Threads"])

{connect}
connected = status()
{call}
print(*connected, flush=True)
{leave}
"""

_LIVES = {
    "ours": {
        "connect": "import iii_sync\nworker = iii_sync.register_worker({url!r})",
        "call": "worker.trigger('engine::functions::list', {})",
        "leave": "worker.shutdown()",
    },
    "sdk": {
        "connect": "import iii\nworker = iii.register_worker({url!r}, iii.InitOptions(otel={{'enabled': False}}))",
        "call": "worker.trigger({'function_id': 'engine::functions::list', 'payload': {}})",
        "leave": "worker.shutdown()",
    },
    "websocket_client": {"connect": "import websocket", "call": "", "leave": ""},
    "nothing": {"connect": "", "call": "", "leave": ""},
}


def life(peers: Peers, contestant: Contestant) -> Figures:
    """Run a small worker from the start of its process to the exit: connect, one call to the engine, shutdown."""
    parts = dict(_LIVES[contestant.client])
    parts["connect"] = parts["connect"].format(url=peers.engine_url)
    with Program([sys.executable, "-c", _LIFE.format(**parts)]) as program:
        rss, threads = program.line().split()
        first = time.monotonic() - program.started
        ended = program.wait() - program.started
    return {"RSS MB": int(rss) / 1e6, "threads": float(threads), "first result ms": first * 1e3, "exit ms": ended * 1e3}
