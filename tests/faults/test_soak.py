"""A short soak, and single faults in the places where streams have their seams."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from iii_sync import errors, register_worker
from iii_sync.wire import frames
from iii_sync.wire.marks import OPENING

from ..support.engines import engine_program
from ..support.threads import in_thread
from .judge import Outcome, failures_of
from .plan import BENIGN, MIB, Plan
from .proxy import FaultProxy, Place, Shot
from .soak import Soak
from .station import Station
from .streams import Verdict

WAIT = 30.0


@pytest.fixture
def station(engine_url: str) -> Iterator[Station]:
    """Two processes and a proxy before the engine that the whole suite uses."""
    port = urlsplit(engine_url).port
    assert port is not None
    station = Station(port, 0)
    try:
        yield station
    finally:
        station.close()
    assert not station.failures


def plan(fault: str, place: tuple[str, int], **changes: Any) -> Plan:
    """One transfer: we write half a MiB to a function that reads."""
    fields: dict[str, Any] = {"mode": "write", "size": MIB // 2, "chunk": 10_000, "writes": "raw", "reads": "read"}
    fields.update(socket="write", phase="middle", seconds=0.5)
    fields.update(changes)
    return dataclasses.replace(Plan.draw(0, fields.pop("number", 0)), fault=fault, place=place, **fields)


def run(station: Station, plan: Plan) -> Outcome:
    """Run it and see that it ended as it may, after the fault."""
    outcome = station.run(plan)
    assert not outcome.failures, outcome
    assert outcome.fired, outcome
    return outcome


@pytest.mark.timeout(300)
def test_a_soak(engine_kind: str) -> None:
    """Hundreds of random transfers under random faults; ``python -m tests.faults.soak`` runs thousands."""
    seed = random.SystemRandom().randrange(1 << 32)
    with Soak(engine_kind, seed, jobs=12, lanes=2) as soak:
        soak.look_for_leaks()
        soak.run((Plan.draw(seed, number) for number in range(250)), seconds=150)  # as a busy machine may need
        soak.look_for_leaks()
    planned, fired, hit = soak.in_flight()
    said = f"repeat with: python -m tests.faults.soak --engine {engine_kind} --seed {seed} [--only NUMBER]"
    assert not soak.failures, "\n".join([said, *soak.failures])
    assert len(soak.outcomes) >= 150, f"only {len(soak.outcomes)} transfers; {said}"
    # The command asks for 80 % of thousands; of so few, chance takes several per cent.
    assert hit >= 0.7 * planned, f"{planned}, {fired}, {hit}; {said}"
    assert all(outcome.kind == "complete" for outcome in soak.outcomes if outcome.plan.fault in BENIGN), said


# --- the seams of a stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_cut_before_the_end_mark(station: Station, fault: str) -> None:
    """Every byte has arrived, and only the mark is missing: that is a cut stream."""
    outcome = run(station, plan(fault, ("end-mark", 0)))
    assert outcome.kind == "error"
    assert outcome.writer is not None and not outcome.writer.complete
    # RST may overtake bytes that the engine has not read yet.
    assert outcome.reader is not None and (outcome.reader.size == MIB // 2 or fault == "reset")


def test_cut_between_the_end_mark_and_the_close(station: Station) -> None:
    """The reader has everything and knows it; the writer cannot know, and says so."""
    outcome = run(station, plan("cut", ("close", 0)))
    assert outcome.kind == "delivered"
    assert outcome.writer is not None and outcome.writer.error


@pytest.mark.parametrize("end", ["write", "read"])
def test_cut_inside_a_header(station: Station, end: str) -> None:
    """At either end, the stream is cut, and all whole messages before are good."""
    outcome = run(station, plan("cut", ("header", 100_000), socket=end))
    assert outcome.reader is not None and outcome.reader.error == "ChannelTruncatedError"
    assert 0 < outcome.reader.size < MIB // 2


def test_cut_inside_the_opening_mark(station: Station) -> None:
    """At every byte of it: never an empty stream."""
    for number in range(OPENING * 6 + 1):
        outcome = run(station, plan("cut", ("data", number), number=number))
        assert outcome.reader is not None and not outcome.reader.complete, number


def test_a_half_open_writer(station: Station) -> None:
    """The reader's patience ends it, and its function's error reaches the writer."""
    outcome = run(station, plan("half-open", ("data", 100_000)))
    assert outcome.reader is not None and outcome.reader.error == "ReadTimeout"
    assert outcome.call == "HandlerFailedError"


def test_a_stopped_reader(station: Station) -> None:
    """SIGSTOP for two seconds costs two seconds."""
    outcome = run(station, plan("stop-peer", ("data", 100_000), size=12 * MIB, chunk=100_000, seconds=2.0))
    assert outcome.kind == "complete"
    assert outcome.seconds >= 1.9


def test_a_restarted_proxy(station: Station) -> None:
    """Everything is dropped, nobody can connect for a while, and then all is well again."""
    outcome = run(station, plan("restart-proxy", ("data", 100_000), seconds=1.5))
    assert outcome.kind == "error"
    assert run(station, plan("stall", ("data", 100_000), number=1)).kind == "complete"


def test_a_killed_reader(station: Station) -> None:
    """SIGKILL of the other process, and a new one in its place."""
    # More than an engine keeps for a reader (64 messages of 1 MiB): else the writer may be done before the kill hits.
    outcome = run(station, plan("kill-peer", ("data", 100_000), size=96 * MIB, chunk=100_000))
    assert outcome.reader is None and outcome.writer is not None and outcome.writer.error
    assert run(station, plan("stall", ("data", 100_000), number=1)).kind == "complete"


def test_a_killed_engine_wakes_a_writer_that_nobody_reads(engine_kind: str) -> None:
    """Blocked by back-pressure for good, until the engine dies."""
    engine = engine_program(engine_kind)
    try:
        engine.start()
        with register_worker(engine.url) as worker:
            channel = worker.create_channel()
            blocked = threading.Event()

            def write() -> None:
                while True:
                    try:
                        channel.writer.write(bytes(100_000), timeout=0.5)
                    except errors.WriteTimeout:
                        break
                blocked.set()
                # Half of something may have left; then the stream is broken already.
                channel.writer.write(bytes(50 * MIB))

            writing = in_thread(write, WAIT)
            assert blocked.wait(WAIT)
            time.sleep(0.1)
            engine.kill()
            with pytest.raises(errors.ChannelError):
                writing()
            channel.writer.abort()
    finally:
        engine.stop()


# --- the harness itself --------------------------------------------------------------------------------------


def test_the_proxy_cuts_to_the_byte() -> None:
    """What is before the place arrives, all of it, and nothing behind it."""
    head = b"GET /ws/channels/abc?key=k&dir=write HTTP/1.1\r\nHost: x\r\n\r\n"
    body = b"".join(
        [
            frames.encode_frame(frames.BINARY) * OPENING,
            frames.encode_frame(frames.BINARY, b"x" * 300),
            frames.encode_frame(frames.BINARY),
            frames.close_frame(1000),
        ]
    )
    mark = len(body) - 14
    places = [(Place("request", 17), 17), (Place("data", 37), len(head) + 37), (Place("data", 0), len(head))]
    places += [(Place("header", 0), len(head) + 1), (Place("header", 7), len(head) + 13)]
    places += [(Place("end-mark"), len(head) + mark), (Place("close"), len(head) + mark + 6)]
    places += [(Place("in-close"), len(head) + mark + 7), (Place("after-close"), len(head) + len(body))]
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(WAIT)
        proxy = FaultProxy(upstream.getsockname()[1])
        try:
            for (place, expected), step in [(each, step) for each in places for step in (1, 7, 100_000)]:
                shot = Shot("cut", place)
                proxy.aim("abc", "write", shot)
                with socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT) as client:
                    client.sendall(head)
                    server, _ = upstream.accept()
                    with server:
                        server.settimeout(WAIT)
                        for start in range(0, len(body), step):
                            with contextlib.suppress(OSError):
                                client.sendall(body[start : start + step])
                        received = b""
                        while data := server.recv(1000):
                            received += data
                assert received == (head + body)[:expected], (place, step)
                assert shot.fired
                assert shot.in_flight is (place.kind not in ("request", "after-close")), place
                proxy.forget("abc")
        finally:
            proxy.close()


def test_the_judge_finds_what_must_not_be() -> None:
    """One doctored outcome for each rule; the true one passes."""
    what = plan("cut", ("data", 10), size=1000)
    size, digest = what.size, what.content.digest(what.size)
    half = what.content.digest(500)
    whole = Verdict(True, "", size, digest, True)
    result = {"size": size}

    def judged(
        what: Plan, reader: Verdict, *, call: str = "HandlerFailedError", written: bool = False, seconds: float = 1.0
    ) -> str:
        shot = Shot("cut", Place("data", 10), fired=True)
        writer = Verdict(True, "", size) if written else Verdict(False, "ChannelBrokenError", size)
        outcome = Outcome(what, shot, writer, reader, call, result if call == "ok" else None, seconds)
        return "; ".join(failures_of(outcome))

    harmless = dataclasses.replace(what, fault="stall")
    torn = Verdict(False, "ChannelTruncatedError", 500, half, False)
    assert not judged(what, torn) and not judged(what, whole) and not judged(harmless, whole, call="ok", written=True)
    assert "SHORT" in judged(what, Verdict(True, "", 500, half, True))
    assert "WRONG" in judged(what, Verdict(False, "ChannelTruncatedError", 500, digest, False))
    assert "complete is None" in judged(what, Verdict(True, "", size, digest, None))
    assert "NOT COMPLETE" in judged(harmless, torn)
    assert "NOT COMPLETE" in judged(harmless, whole)
    assert "undisturbed reader" in judged(what, torn, written=True)
    assert not judged(dataclasses.replace(what, socket="read"), torn, written=True)
    assert "function failed" in judged(what, torn, call="ok")
    assert "LATE" in judged(what, torn, seconds=17) and not judged(what, torn, seconds=15)
    assert "LATE" in judged(harmless, whole, call="ok", written=True, seconds=17)
    assert not judged(what, torn, call="CallTimeout", seconds=35) and judged(what, torn, call="CallTimeout", seconds=37)
    assert "builtins.KeyError" in judged(what, Verdict(False, "builtins.KeyError", 500, half))


def test_the_harness_sees_leaks(capsys: pytest.CaptureFixture[str]) -> None:
    """An end that stays open in the driving process."""
    with Soak("local", 0, jobs=1, lanes=0) as soak:
        soak.look_for_leaks()
        soak.look_for_leaks(patience=WAIT)
        assert not soak.failures
        soak.run([plan("none", ("data", 0))])
        channel = soak.stations[0]._create_channel()
        channel.writer.write(b"x")
        soak.look_for_leaks(patience=0.5)
        channel.writer.abort()
    assert any("ends" in failure for failure in soak.failures), soak.failures
    assert any("descriptors" in failure for failure in soak.failures), soak.failures
    assert "LEAK" in capsys.readouterr().out


def test_without_marks_the_harness_sees_truncation(engine_url: str, engine_kind: str) -> None:
    """The real engine ends a cut stream like a whole one: only the marks, and the harness, can tell."""
    port = urlsplit(engine_url).port
    assert port is not None
    station = Station(port, 0, marks=False)
    try:
        outcome = station.run(plan("cut", ("data", 300_000)))
    finally:
        station.close()
    short = [failure for failure in outcome.failures if "SILENTLY SHORT" in failure]
    assert bool(short) is (engine_kind == "real"), outcome
