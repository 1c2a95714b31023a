"""A cut stream never looks complete: our writers against a model of what they were told, and streams of others."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, Optional, Union

import pytest
import websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iii_sync import ChannelReader, ChannelWriter, Worker, errors, register_worker
from iii_sync.channels.outgoing import Outgoing

from ..engine import peers
from ..support.rawserver import RawPeer, raw_server, server_frame
from ..support.threads import in_thread

WAIT = 20.0

#: Hypothesis draws the same examples in every run; one worker serves them all.
PROPERTY = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Event = Union[bytes, str]


class End:
    """What a reader has seen: its events, and how they ended."""

    def __init__(self, reader: ChannelReader, at_most: Optional[int] = None) -> None:
        self.events: list[Event] = []
        self.error: Optional[BaseException] = None
        try:
            for event in reader.events():
                self.events.append(event)
                if at_most is not None and len(self.events) >= at_most:
                    break
        except errors.ChannelError as exc:
            self.error = exc
        self.complete = reader.complete

    def __repr__(self) -> str:
        shown = [event if len(event) < 30 else f"{len(event)} of {type(event).__name__}" for event in self.events]
        return f"End({shown}, error={self.error!r}, complete={self.complete})"


def joined(events: list[Event]) -> list[Event]:
    """Merge neighbouring bytes: how they are cut into chunks is not promised."""
    merged: list[Event] = []
    for event in events:
        if isinstance(event, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += event
        elif event or isinstance(event, str):
            merged.append(event)
    return merged


# --- streams of others ---------------------------------------------------------------------------------------

# A stream in letters, one a message:
#   e empty binary   d data   D data in two fragments   t text   n empty text   h half a message of data, never finished


def verdict(stream: str) -> str:
    """Section 4 of the design, word by word: what a reader of ours makes of a stream that ends like this."""
    stream = stream.rstrip("h")  # the engine throws the half away
    if not stream:
        return "nothing"
    binary = stream.lstrip("tn")  # text messages open nothing
    first = len(binary) - len(binary.lstrip("e"))
    if first == 6 and first == len(binary):
        return "whole"  # the opening mark, and the end mark of an empty stream
    if 0 < first < 5 and first == len(binary):
        return "torn"  # a part of the opening mark, and nothing else
    if first != 5:
        return "foreign"  # any other number of empty messages first
    behind = binary[5:]
    return "whole" if behind.endswith("e") else "cut"


def expected_end(stream: str, ending: str, engine_kind: str) -> tuple[Optional[bool], Optional[type[BaseException]]]:
    """What ``complete`` is, and what is raised."""
    found = verdict(stream)
    if found == "whole":
        return True, None
    # Better than the real engine: the local one says by an error status that a writer vanished.
    if found == "cut" or (ending == "drop" and engine_kind == "local"):
        return False, errors.ChannelTruncatedError
    return (False, errors.ChannelNeverWrittenError) if found in ("nothing", "torn") else (None, None)


def send_foreign(peer: websocket.WebSocket, stream: str, ending: str) -> list[Event]:
    """Send a stream, and return the events that a reader should see."""
    sent: list[Event] = []
    binary = websocket.ABNF.OPCODE_BINARY
    for number, letter in enumerate(stream):
        data = b"<%d>" % number
        if letter == "e":
            peer.send_binary(b"")
        elif letter == "d":
            peer.send_binary(data)
        elif letter == "D":
            for part, opcode, fin in ((data[:1], binary, 0), (data[1:], websocket.ABNF.OPCODE_CONT, 1)):
                peer.send_frame(websocket.ABNF.create_frame(part, opcode, fin))
        elif letter == "h":
            peer.send_frame(websocket.ABNF.create_frame(data, binary, 0))
        else:
            peer.send("" if letter == "n" else f"text {number}")
        if letter in "dD":
            sent.append(data)
        elif letter in "tn":
            sent.append("" if letter == "n" else f"text {number}")
    if ending != "drop":
        peers.send_close(peer, {"1000": 1000, "no code": None}[ending])
        peers.read_to_close(peer)
    return sent


def check_foreign(worker: Worker, url: str, kind: str, stream: str, ending: str, reader_first: bool = False) -> None:
    """Send a stream with a raw WebSocket and read it with ours."""
    channel = worker.create_channel()
    reader = channel.reader
    reader.timeout = WAIT
    with contextlib.ExitStack() as stack:
        stack.callback(reader.abort)
        reading = in_thread(lambda: End(reader), 2 * WAIT) if reader_first else (lambda: End(reader))
        with peers.connect(peers.end_url(url, channel.writer_ref.model_dump())) as peer:
            sent = send_foreign(peer, stream, ending)
        end = reading()
        complete, error = expected_end(stream, ending, kind)
        said = f"{stream!r} and {ending}: {end}"
        assert joined(end.events) == joined(sent), said
        assert end.complete is complete, said
        assert type(end.error) is (error or type(None)), said


BEHIND = ["", "d", "t", "n", "de", "dee", "dt", "dte", "ded", "te", "td", "tde", "deeeee", "deeeeede", "D", "De"]


@pytest.mark.parametrize("ending", ["1000", "no code", "drop"])
@pytest.mark.parametrize("before", ["", "t", "tn", "d"])
def test_any_number_of_empty_messages(
    worker: Worker, engine_url: str, engine_kind: str, ending: str, before: str
) -> None:
    """Zero to nine of them, before and behind anything: exactly five open a marked stream."""
    for count, behind in itertools.product(range(10), BEHIND if not before else BEHIND[:8]):
        check_foreign(worker, engine_url, engine_kind, before + "e" * count + behind, ending)


def test_empty_messages_that_are_interrupted(worker: Worker, engine_url: str, engine_kind: str) -> None:
    """A text, or data, between them: they are not the opening mark, whatever their sum."""
    for first, between, second in itertools.product(range(1, 7), "tnd", range(1, 7)):
        check_foreign(worker, engine_url, engine_kind, "e" * first + between + "e" * second + "de", "no code")


@pytest.mark.parametrize("reader_first", [False, True])
def test_any_foreign_stream(worker: Worker, engine_url: str, engine_kind: str, reader_first: bool) -> None:
    """Anything at all, with messages in fragments, and ends in the middle of one."""
    letters = st.lists(st.sampled_from(["e", "d", "D", "t", "n", "eeeee"]), max_size=12).map("".join)

    @settings(PROPERTY, max_examples=80)
    @given(stream=letters, ending=st.sampled_from(["1000", "no code", "drop"]), half=st.booleans())
    def property_of_all(stream: str, ending: str, half: bool) -> None:
        stream += "h" if half and ending == "drop" else ""
        check_foreign(worker, engine_url, engine_kind, stream, ending, reader_first)

    property_of_all()


# --- what our writer puts on the wire ------------------------------------------------------------------------

_items = st.lists(st.one_of(st.binary(max_size=20), st.text(max_size=5)), max_size=10)


def test_the_marks_on_the_wire(worker: Worker, engine_url: str) -> None:
    """Five empty messages directly before the first data, one directly before the Close of a whole stream, no other."""

    @settings(PROPERTY, max_examples=120)
    @given(items=_items, whole=st.booleans(), marks=st.booleans())
    def property_of_all(items: list[Event], whole: bool, marks: bool) -> None:
        channel = worker.create_channel(marks=marks)
        writer = channel.writer
        writer.timeout = writer.close_timeout = WAIT
        expected: list[Event] = []
        mark: list[Event] = [b""] * 5 if marks else []
        opened = not marks
        data = any(isinstance(item, bytes) and item for item in items)
        for item in items:
            if isinstance(item, str):
                writer.send_message(item)
            else:
                assert writer.write(item) == len(item)
                if not item:
                    continue
                expected += [] if opened else mark
                opened = True
            expected.append(item)
        if not whole and not expected and not marks:
            return  # nothing was ever sent, and nothing will be
        if not opened:
            expected += mark
        elif whole and not data:
            expected += [b""] * 5  # without marks an empty stream is marked all the same
        if whole and (marks or not data):
            expected.append(b"")
        if whole:
            writer.close()
        else:
            writer.abort()
        with peers.connect(peers.end_url(engine_url, channel.reader_ref.model_dump())) as peer:
            assert peers.read_to_close(peer)[0] == expected

    property_of_all()


# --- our writers, disturbed ----------------------------------------------------------------------------------

_HEAD = struct.Struct(">BHI")

Record = tuple[int, int, int, bool]  # thread, number, size, text


def encoded(record: Record) -> Event:
    """A message that says which one it is, so that half of it, or a mix of two, cannot be taken for whole."""
    thread, number, size, text = record
    if text:
        return f"{thread} {number} {size} " + chr(ord("a") + thread) * size
    return _HEAD.pack(thread, number, size) + bytes([number % 251]) * size


def parsed(events: list[Event]) -> tuple[list[Record], bytes]:
    """The records that have arrived, and the bytes of one that has not arrived completely."""
    records: list[Record] = []
    rest = b""
    for event in joined(events):
        if isinstance(event, str):
            assert not rest, "a text message inside of a write"
            thread, number, size, _ = event.split(" ", 3)
            records.append((int(thread), int(number), int(size), True))
            assert event == encoded(records[-1])
            continue
        view = memoryview(event)
        while view:
            head = _HEAD.unpack(view[: _HEAD.size]) if len(view) >= _HEAD.size else None
            if head is None or len(view) < _HEAD.size + head[2]:
                rest = bytes(view)
                break
            records.append((*head, False))
            assert bytes(view[: _HEAD.size + head[2]]) == encoded(records[-1]), "two writes were mixed"
            view = view[_HEAD.size + head[2] :]
    return records, rest


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Who writes what, and what comes between.

    Attributes:
        writes: For each thread, the sizes of its writes, negative for texts.
        ending: ``close``, ``abort``, ``drop``: by the last who writes; or with ``another:`` in front, by another
            thread; ``leave``: the reader does.
        after: How many writes must have been accepted before another thread, or the reader, ends it.
        late: Whether the reader begins only when a write has timed out, or all is written.
        marks: Whether the stream is marked.
        apart: Whether the reader belongs to another worker.
        impatient: One of how many writes has a timeout of almost nothing; 0 for none.
        buffer_size: Messages that the engine holds.
    """

    writes: tuple[tuple[int, ...], ...]
    ending: str
    after: int = 0
    late: bool = False
    marks: bool = True
    apart: bool = True
    impatient: int = 0
    buffer_size: int = 64


class Play:
    """One schedule, played."""

    def __init__(self, schedule: Schedule, worker: Worker, peer: Worker) -> None:
        self.schedule = schedule
        channel = worker.create_channel(schedule.buffer_size, marks=schedule.marks)
        self.writer: ChannelWriter = channel.writer
        self.writer.timeout = self.writer.close_timeout = WAIT
        reader = peer.open_ref(channel.reader_ref) if schedule.apart else channel.reader
        assert isinstance(reader, ChannelReader)
        self.reader = reader
        self.reader.timeout = WAIT
        self._lock = threading.Lock()
        self._begin = threading.Event()  # the reader may read
        self._enough = threading.Event()  # the other thread may end it
        self._accepted = 0
        self.accepted: list[list[Record]] = [[] for _ in schedule.writes]
        self.attempted: set[Record] = set()
        self.failures: list[BaseException] = []
        self.closed_well = False
        if not schedule.late:
            self._begin.set()
        if not schedule.after:
            self._enough.set()

    def run(self) -> End:
        """Play it; returns what the reader saw."""
        schedule = self.schedule
        reading = in_thread(self._read, 2 * WAIT)
        another = in_thread(self._end_it, 2 * WAIT) if schedule.ending.startswith("another:") else None
        try:
            threads = range(len(schedule.writes))
            writing = [in_thread(functools.partial(self._write, thread), 2 * WAIT) for thread in threads]
            for written in writing:
                written()
            self._enough.set()
            self._begin.set()
            if another is not None:
                another()
            else:
                self._end_it()
            end = reading()
            assert isinstance(end, End)
            return end
        finally:
            self._enough.set()
            self._begin.set()
            self.writer.abort()
            self.reader.abort()

    def _read(self) -> End:
        assert self._begin.wait(2 * WAIT)
        if self.schedule.ending == "leave":
            end = End(self.reader, self.schedule.after)
            self.reader.close()
            return end
        return End(self.reader)

    def _write(self, thread: int) -> None:
        rng = random.Random(thread)
        for number, size in enumerate(self.schedule.writes[thread]):
            record = (thread, number, abs(size), size < 0)
            with self._lock:
                self.attempted.add(record)
            impatient = self.schedule.impatient and rng.randrange(self.schedule.impatient) == 0
            timeout = 0.01 if impatient or not self._begin.is_set() else WAIT
            if not self._send(record, timeout):
                if self.writer._failure is not None or self.writer.closed:
                    return
                # Nothing of it has left: it may be repeated, or left out.
                if rng.random() < 0.5 and not self._send(record, WAIT):
                    return

    def _send(self, record: Record, timeout: float) -> bool:
        message = encoded(record)
        try:
            if isinstance(message, str):
                self.writer.send_message(message, timeout=timeout)
            else:
                buffer = bytearray(message)
                assert self.writer.write(buffer, timeout=timeout) == len(message)
                buffer[:] = bytes(len(buffer))  # it is ours again
        except (ValueError, errors.ChannelError, errors.WriteTimeout) as exc:
            self.failures.append(exc)
            self._begin.set()
            return False
        with self._lock:
            self.accepted[record[0]].append(record)
            self._accepted += 1
            if self._accepted >= self.schedule.after:
                self._enough.set()
        return True

    def _end_it(self) -> None:
        assert self._enough.wait(2 * WAIT)
        how = self.schedule.ending.replace("another:", "")
        writer = self.writer
        if how == "abort":
            writer.abort()
        elif how == "drop" and writer._connection is not None:
            writer._connection.drop(errors.EngineConnectionError("dropped by the test"))
        self._begin.set()
        if how != "abort":
            try:
                writer.close()
                self.closed_well = True
            except (errors.ChannelError, errors.CloseTimeout) as exc:
                self.failures.append(exc)


def check(schedule: Schedule, worker: Worker, peer: Worker) -> Play:
    """Play a schedule and compare what has arrived with what was accepted."""
    play = Play(schedule, worker, peer)
    end = play.run()
    said = f"{schedule}: {end}, failures {play.failures}"
    records, rest = parsed(end.events)
    assert set(records) <= play.attempted, said
    whole = True
    for thread, accepted in enumerate(play.accepted):
        arrived = [record for record in records if record[0] == thread]
        assert [record[1] for record in arrived] == sorted({record[1] for record in arrived}), said
        # What has arrived is what was accepted, from its beginning; behind it one at most whose write failed.
        known = [record for record in arrived if record in set(accepted)]
        assert known == accepted[: len(known)] == arrived[: len(known)], said
        assert len(arrived) - len(known) <= 1, said
        whole = whole and arrived == accepted
    assert end.complete is not True or (whole and not rest and end.error is None), f"vouched for too little: {said}"
    if schedule.ending == "leave":
        return play
    if play.closed_well:
        assert whole and not rest and end.error is None, said
        # Without marks an empty stream is marked, and nothing else.
        assert end.complete is (True if schedule.marks or all(text for *_, text in records) else None), said
    elif end.complete is True:
        # The end mark had left, with everything before it, and then the confirmation was cut off.
        assert schedule.ending.endswith("drop"), said
    elif schedule.marks and (rest or not all(text for *_, text in records)):
        assert end.complete is False and isinstance(end.error, errors.ChannelTruncatedError), said
    if schedule.marks and schedule.ending.endswith("abort"):
        assert end.complete is False and isinstance(end.error, errors.ChannelTruncatedError), said
    if not schedule.marks and not all(text for *_, text in records):
        assert end.complete is not True, said
    if end.complete is None:
        assert end.error is None, said
    else:
        assert (end.error is None) is end.complete, said
    return play


SIZES = [0, 1, 100, 5_000, 70_000, 300_000, 1_100_000]
_sizes = st.one_of(st.sampled_from(SIZES), st.sampled_from([-1, -100, -5_000]))


def test_one_writer_is_a_model(worker: Worker, peer: Worker) -> None:
    """Bytes and texts of every size from one thread, ended in every way."""

    @settings(PROPERTY, max_examples=70)
    @given(
        writes=st.lists(_sizes, max_size=8).map(tuple),
        ending=st.sampled_from(["close", "close", "abort", "drop"]),
        marks=st.sampled_from([True, True, False]),
        apart=st.booleans(),
    )
    def property_of_all(writes: tuple[int, ...], ending: str, marks: bool, apart: bool) -> None:
        if not marks and ending == "abort" and not writes:
            return  # nothing was ever sent, and nothing will be
        play = check(Schedule((writes,), ending, marks=marks, apart=apart), worker, peer)
        # A drop is carried out by another thread: close() may come first.
        assert play.closed_well is (ending == "close") or ending == "drop"
        assert len(play.accepted[0]) == len(writes)

    property_of_all()


def schedules(seed: int, count: int) -> Iterator[Schedule]:
    """Random schedules of one to three threads; the same ones for the same seed."""
    rng = random.Random(seed)
    endings = ["close", "another:close", "another:abort", "another:drop", "leave"]
    for _ in range(count):
        writes = tuple(
            tuple(
                -rng.choice([0, 1, 100]) if rng.random() < 0.15 else rng.choice(SIZES) for _ in range(rng.randint(1, 8))
            )
            for _ in range(rng.randint(1, 3))
        )
        yield Schedule(
            writes,
            rng.choice(endings),
            after=rng.randint(1, sum(map(len, writes))),
            late=rng.random() < 0.3,
            marks=rng.random() < 0.85,
            apart=rng.random() < 0.5,
            impatient=rng.choice([0, 0, 1, 3]),
            buffer_size=rng.choice([1, 4, 64]),
        )


@pytest.mark.parametrize("seed", range(4))
def test_many_threads_and_every_disturbance(worker: Worker, peer: Worker, seed: int) -> None:
    """Writers, timeouts, a late reader, and an end that comes in between: the end mark never vouches for less."""
    for schedule in schedules(seed, 20):
        check(schedule, worker, peer)


@pytest.mark.parametrize("seed", range(2))
def test_back_pressure(worker: Worker, peer: Worker, seed: int) -> None:
    """Nobody reads until a write has timed out: with half of it on the wire, or before its first byte."""
    rng = random.Random(seed)
    timed_out = 0
    for number in range(6):
        large = tuple(rng.choice([300_000, 1_100_000, 3_000_000]) for _ in range(16))
        small = tuple(rng.choice([-1, 100, 5_000]) for _ in range(30))
        writes = [(large,), (large, small), (large[:8], large[8:], small)][number % 3]
        ending = ["close", "another:close", "another:abort"][number // 2]
        schedule = Schedule(writes, ending, after=20, late=True, buffer_size=1, apart=bool(number % 2))
        play = check(schedule, worker, peer)
        timed_out += any(isinstance(failure, errors.WriteTimeout) for failure in play.failures)
    assert timed_out >= 2, "no write was ever held up"


@pytest.mark.parametrize("seed", range(2))
def test_close_among_writers_that_wait_for_their_turn(worker: Worker, peer: Worker, seed: int) -> None:
    """Three threads crowd into one writer when another closes it: nobody is told that what came too late is whole."""
    rng = random.Random(seed)
    for _ in range(8):
        writes = tuple(tuple(rng.choice([1, 70_000, 1_100_000]) for _ in range(12)) for _ in range(3))
        check(Schedule(writes, "another:close", after=rng.randint(1, 34), buffer_size=4), worker, peer)


@pytest.mark.parametrize("failing", range(3))
def test_a_timeout_between_two_frames(worker: Worker, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """Of a write of three: before the first nothing has left and all may go on, behind it the stream is broken."""
    channel = worker.create_channel()
    channel.reader.timeout = channel.writer.timeout = WAIT
    data = random.Random(failing).randbytes(3 * 1024 * 1024)
    reading = in_thread(lambda: End(channel.reader), 2 * WAIT)
    original, calls = ChannelWriter._make_room, itertools.count()

    # Has no room, so that some is made for every piece.
    full: Any = type("Full", (Outgoing,), {"room": property(lambda self: 0)})

    def make_room(self: ChannelWriter, *arguments: Any) -> None:
        if next(calls) == failing:
            raise TimeoutError("nothing could be sent")
        original(self, *arguments)

    channel.writer._outgoing.__class__ = full
    monkeypatch.setattr(ChannelWriter, "_make_room", make_room)
    with pytest.raises(errors.WriteTimeout):
        channel.writer.write(data)
    if failing:
        with pytest.raises(errors.ChannelAbortedError):
            channel.writer.write(b"more")
        with pytest.raises(errors.ChannelAbortedError):
            channel.writer.close()
        end = reading()
        assert isinstance(end.error, errors.ChannelTruncatedError) and end.complete is False
        assert data.startswith(b"".join(end.events))
    else:
        assert channel.writer.write(data) == len(data)
        channel.writer.close()
        end = reading()
        assert end.error is None and end.complete is True
        assert b"".join(end.events) == data


# --- cut between the engine and the reader -------------------------------------------------------------------

MARKED = [
    *[server_frame(2)] * 5,
    server_frame(2, b"data"),
    server_frame(1, b"text"),
    server_frame(2, b"x" * 200),
    server_frame(2, b"in ", end=False),
    server_frame(9, b"ping"),
    server_frame(0, b"parts"),
    server_frame(2),
    server_frame(8),
]


@pytest.mark.parametrize("reset", [False, True])
def test_cut_at_any_byte_on_the_way_to_the_reader(reset: bool) -> None:
    """An engine, or the network, goes away: only behind the end mark is the stream whole, wherever it is cut."""
    stream = b"".join(MARKED)
    end_mark = len(stream) - len(MARKED[-1])

    def serve(engine: RawPeer) -> None:
        engine.read_request()
        if "/ws/channels/" not in engine.path:
            engine.introduce()
            while True:
                engine.recv_frame()
        engine.handshake()
        cut = int(engine.path.partition("/ws/channels/")[2].partition("?")[0])
        engine.sock.sendall(stream[:cut])
        if reset:
            # Not before all of it has been read: RST overtakes data.
            engine.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                engine.sock.recv(1)
            engine.reset()
        else:
            engine.sock.close()

    with raw_server(serve) as server, register_worker(server.url) as worker:
        for cut in range(len(stream) + 1):
            reader = worker.open_ref({"channel_id": str(cut), "access_key": "key", "direction": "read"}, timeout=WAIT)
            assert isinstance(reader, ChannelReader)
            end = End(reader)
            reader.close()
            said = f"cut at {cut} of {len(stream)}: {end}"
            # Half a Close could have been the beginning of another message.
            if cut in (end_mark, len(stream)):
                assert end.complete is True and end.error is None, said
                assert joined(end.events) == [b"data", "text", b"x" * 200 + b"in parts"], said
            else:
                assert end.complete is False and isinstance(end.error, errors.ChannelTruncatedError), said
