"""Schedules in which a stream, or an end of one, has gone wrong once."""

from __future__ import annotations

import functools
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from iii_sync import ChannelReader, ChannelWriter, InitOptions, Worker, errors, register_worker
from iii_sync.channels import ends as ends_module
from iii_sync.net import connection as connection_module
from iii_sync.net.connect import Address, connect
from iii_sync.net.connection import Connection
from iii_sync.net.inbox import Inbox
from iii_sync.net.loop import Loop
from iii_sync.net.waiting import wait_for_socket

from ..support.interrupts import Interrupter
from ..support.process import run
from ..support.rawserver import RawPeer, raw_server
from ..support.threads import in_thread, switching_every
from ..support.waiting import wait_until
from .test_streams import WAIT, Unique


def reader_elsewhere(peer: Worker, channel: Any) -> ChannelReader:
    reader = peer.open_ref(channel.reader_ref, timeout=WAIT)
    assert isinstance(reader, ChannelReader)
    return reader


def test_an_abort_during_the_first_write_is_never_taken_for_the_end(
    worker: Worker, peer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before the opening mark has left and is carried out behind the data: a second mark would end them."""
    channel = worker.create_channel()
    gate = threading.Event()
    original = Connection.push

    def waits() -> None:
        gate.wait(WAIT)

    def push(self: Connection, *args: Any) -> bool:
        if self is channel.writer._connection:
            worker._loop.call_soon(waits)
            channel.writer.abort()
        return original(self, *args)

    monkeypatch.setattr(Connection, "push", push)
    try:
        channel.writer.write(b"half")
    finally:
        gate.set()
    with reader_elsewhere(peer, channel) as reader:
        with pytest.raises(errors.ChannelTruncatedError):
            list(reader)
        assert reader.complete is False


def test_ctrl_c_behind_the_first_write_is_never_taken_for_the_end(
    worker: Worker, peer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data has left, and the interrupt comes before the writer has noted that."""
    channel = worker.create_channel()
    original = Connection.push

    def push(self: Connection, *args: Any) -> bool:
        done = original(self, *args)
        if self is channel.writer._connection:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Connection, "push", push)
    with pytest.raises(KeyboardInterrupt):
        with channel.writer as f:
            f.write(b"half")
    with reader_elsewhere(peer, channel) as reader:
        with pytest.raises(errors.ChannelTruncatedError):
            list(reader)
        assert reader.complete is False


class SlowConnect:
    """Lets connections of channel ends wait until :attr:`go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.asked = threading.Event(), threading.Semaphore(0)
        self._connect = connect
        monkeypatch.setattr(ends_module, "connect", self)

    def __call__(self, *args: Any) -> Any:
        self.asked.release()
        assert self.go_on.wait(WAIT)
        return self._connect(*args)


def test_two_ends_of_one_reference_that_connect_at_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is refused here; the engine would give it an empty stream."""
    channel = worker.create_channel()
    slow = SlowConnect(monkeypatch)
    other = worker.open_ref(channel.reader_ref)
    assert isinstance(other, ChannelReader)
    first = in_thread(channel.reader.read)
    assert slow.asked.acquire(timeout=WAIT)
    with pytest.raises(errors.ChannelUsedError):
        other.read()
    slow.go_on.set()
    channel.writer.write(b"once")
    channel.writer.close()
    assert first() == b"once"


def test_an_end_that_could_not_be_connected_may_be_tried_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a connection counts as the one of its life."""
    channel = worker.create_channel()

    def refuse(*args: Any) -> Any:
        raise errors.ConnectFailedError("test")

    with monkeypatch.context() as patch:
        patch.setattr(ends_module, "connect", refuse)
        with pytest.raises(errors.ConnectFailedError):
            channel.writer.write(b"x")
    with channel.writer as f:
        f.write(b"x")
    assert channel.reader.read() == b"x"


def test_an_abort_while_the_writer_connects_shows_the_cut(
    worker: Worker, peer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over that one connection, which is not forgotten afterwards."""
    channel = worker.create_channel()
    slow = SlowConnect(monkeypatch)
    write = in_thread(lambda: channel.writer.write(b"x"))
    assert slow.asked.acquire(timeout=WAIT)
    channel.writer.abort()
    slow.go_on.set()
    with pytest.raises(errors.ChannelAbortedError):
        write()
    with reader_elsewhere(peer, channel) as reader, pytest.raises(errors.ChannelTruncatedError):
        reader.read()
    worker._pool.drain(WAIT)
    assert not worker._ends._open


def interrupt_once(worker: Worker, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Ctrl-C as the worker makes the connection of an end: before that, right behind it, or behind all that follows."""
    owner: Any = ends_module.Ends if where == "behind all" else ends_module
    name = "connect_end" if where == "behind all" else "Connection"
    original, left = getattr(owner, name), [1]

    def interrupted(*args: Any) -> Any:
        if not left or (worker._ends not in args and worker._loop not in args):
            return original(*args)
        left.clear()
        if where != "before":
            original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize("where", ["before", "behind", "behind all"])
def test_ctrl_c_as_a_writer_is_connected_cuts_its_stream(
    worker: Worker, peer: Worker, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The engine takes it for connected: without a word the reader would wait for ever."""
    channel = worker.create_channel()
    interrupt_once(worker, monkeypatch, where)
    with reader_elsewhere(peer, channel) as reader:
        reader.timeout = 5
        read = in_thread(reader.read)
        with pytest.raises(KeyboardInterrupt) as caught:
            with channel.writer as f:
                f.write(b"x")
        with pytest.raises(errors.ChannelError) as seen:
            read()
        assert not isinstance(seen.value, TimeoutError)
    del caught  # it was alive until now, and everything with it
    with pytest.raises(ValueError, match="closed file"):
        channel.writer.write(b"x")
    wait_until(lambda: len(worker._loop._watched) == 1, "the end of the connection")
    assert not worker._ends._open


@pytest.mark.parametrize("where", ["before", "behind", "behind all"])
def test_ctrl_c_as_a_reader_is_connected_lets_the_writer_know(
    worker: Worker, peer: Worker, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Else it would wait for ever; and reading on raises, and does not wait either."""
    channel = worker.create_channel()
    writer = peer.open_ref(channel.writer_ref, timeout=5)
    assert isinstance(writer, ChannelWriter)
    writer.write(b"x")
    interrupt_once(worker, monkeypatch, where)
    with pytest.raises(KeyboardInterrupt) as caught:
        channel.reader.read(1)
    with pytest.raises(errors.ChannelError) as seen:
        channel.reader.read(timeout=5)
    assert not isinstance(seen.value, TimeoutError)
    channel.reader.close()
    with pytest.raises(errors.ChannelBrokenError):
        while True:
            writer.write(bytes(100_000))
    writer.abort()
    del caught
    wait_until(lambda: len(worker._loop._watched) == 1, "the end of the connection")
    assert not worker._ends._open


def test_threads_that_use_an_end_for_the_first_time_wait_together_for_its_connection() -> None:
    """Each of them ``connect_timeout`` seconds, and not one after the other."""

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        if "/ws/channels/" not in peer.path:
            peer.introduce()
            peer.recv_json()
        else:
            peer.sock.recv(100)  # never answers

    with raw_server(serve) as server, register_worker(server.url, connect_timeout=1.5) as worker:
        end: Any = worker.open_ref({"channel_id": "c", "access_key": "k", "direction": "write"})
        took: list[float] = []

        def write() -> None:
            began = time.monotonic()
            with pytest.raises(errors.ConnectTimeout, match=r"1\.5 s$"):
                end.write(b"x")
            took.append(time.monotonic() - began)

        for outcome in [in_thread(write) for _ in range(6)]:
            outcome()
        assert min(took) >= 1.5 and max(took) < 6, took


def test_a_signal_handler_that_uses_an_end_amid_its_connecting_is_refused(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has interrupted cannot go on before the handler has returned."""
    channel = worker.create_channel()
    refused: list[BaseException] = []

    def handler(*args: Any) -> Any:
        with pytest.raises(errors.ConcurrencyError, match="signal handler") as caught:
            channel.writer.write(b"from the handler")
        refused.append(caught.value)
        return connect(*args)

    monkeypatch.setattr(ends_module, "connect", handler)
    channel.writer.write(b"x")
    monkeypatch.undo()
    channel.writer.close()
    assert refused and channel.reader.read() == b"x"


def test_ctrl_c_in_the_moment_that_a_full_socket_is_given_breaks_nothing(
    worker: Worker, peer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the call is in frames by then: it counts, and the stream goes on."""
    channel = worker.create_channel()
    writer, piece = channel.writer, random.Random(1).randbytes(600_000)
    interrupted: list[int] = []

    def interrupt(*args: Any, **options: Any) -> bool:
        if interrupted or not options["write"]:
            return wait_for_socket(*args, **options)
        interrupted.append(writer.tell())
        raise KeyboardInterrupt

    monkeypatch.setattr(connection_module, "wait_for_socket", interrupt)
    written = 0
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):  # nobody reads
            written += writer.write(piece)
    assert interrupted == [written + len(piece)]  # that call counts
    with reader_elsewhere(peer, channel) as reader:
        read = in_thread(reader.read)
        with writer:
            assert writer.tell() == written + len(piece)
            writer.write(b"the end")
        assert read() == piece * (written // len(piece) + 1) + b"the end" and reader.complete is True


@pytest.mark.skipif(sys.version_info < (3, 10), reason="3.9 looks for signals where no lock is safe")
def test_a_close_behind_a_write_that_ctrl_c_has_ended_does_not_blame_another_thread(worker: Worker) -> None:
    """Whichever step of the write was interrupted: its own thread is not inside any more."""
    interrupter, at = Interrupter(), 0
    while True:
        channel = worker.create_channel()
        channel.writer.write(b"x")
        interrupted = interrupter.interrupt(at, functools.partial(channel.writer.write, b"y"))
        try:
            channel.writer.close()
        except errors.ChannelError as exc:
            assert "another thread" not in str(exc), interrupter.where
        channel.reader.close()
        if not interrupted:
            break
        at += 3
    assert at > 60


def test_an_early_abort_is_shown_even_by_a_worker_that_is_shut_down_next(engine_url: str, peer: Worker) -> None:
    """A script that fails inside both with blocks."""
    with pytest.raises(KeyError):
        with register_worker(engine_url) as worker:
            channel = worker.create_channel()
            reader = reader_elsewhere(peer, channel)
            with channel.writer:
                raise KeyError("early")
    with reader, pytest.raises(errors.ChannelTruncatedError):  # pyright: ignore[reportGeneralTypeIssues]
        reader.read()


@pytest.mark.parametrize("direction", ["read", "write"])
def test_an_end_that_connects_during_shutdown_does_not_stay_behind(direction: str) -> None:
    """Its connection comes when the reader thread has ended: nobody would ever wake it."""
    asked, go_on = threading.Event(), threading.Event()

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        if "/ws/channels/" not in peer.path:
            peer.introduce()
            peer.recv_json()
        else:
            asked.set()
            assert go_on.wait(WAIT)
            peer.handshake()
            peer.sock.recv(100)

    with raw_server(serve) as server:
        worker = register_worker(server.url)
        end: Any = worker.open_ref({"channel_id": "c", "access_key": "k", "direction": direction})
        use = in_thread(end.read if direction == "read" else lambda: end.write(b"x"))
        assert asked.wait(WAIT)
        worker.shutdown()
        go_on.set()
        with pytest.raises((errors.WorkerClosedError, errors.ChannelAbortedError)):
            use()
        assert not worker._loop._watched


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.read(),
        lambda reader: reader.read(100),
        lambda reader: reader.readline(),
        lambda reader: reader.read(3) + reader.read(3),
        lambda reader: b"".join(reader),
    ],
    ids=["to the end", "more than there is", "last line", "exactly, and on", "chunks"],
)
def test_a_message_behind_the_last_byte_is_delivered(worker: Worker, read: Callable[[ChannelReader], bytes]) -> None:
    """Whoever has read to the end has heard all messages."""
    channel = worker.create_channel()
    heard: list[str] = []
    channel.reader.on_message(heard.append)
    with channel.writer as f:
        f.write(b"abc")
        f.send_message("done")
        f.send_message("really")
    assert read(channel.reader) == b"abc"
    assert heard == ["done", "really"]


def test_a_callback_that_fails_behind_the_last_byte_loses_no_bytes(worker: Worker) -> None:
    """They stay for the next call."""
    channel = worker.create_channel()

    def fail(text: str) -> None:
        raise KeyError(text)

    channel.reader.on_message(fail)
    with channel.writer as f:
        f.write(b"abc")
        f.send_message("done")
    with pytest.raises(KeyError):
        channel.reader.read()
    assert channel.reader.read() == b"abc" and channel.reader.tell() == 3


@pytest.mark.parametrize("bad", ["payload", "metadata"])
def test_a_payload_that_was_refused_has_handed_nothing_out(worker: Worker, unique: Unique, bad: str) -> None:
    """The end is still ours: closing it ends the stream."""
    channel = worker.create_channel()
    payload: dict[str, Any] = {"writer": channel.writer_ref}
    metadata: Any = None
    if bad == "payload":
        payload["wrong"] = float("nan")
    else:
        metadata = float("nan")
    with pytest.raises(errors.InvalidPayloadError):
        worker.trigger(unique("f"), payload, metadata=metadata)
    channel.writer.close()
    channel.reader.timeout = WAIT
    assert channel.reader.read() == b"" and channel.reader.complete is True


class _AnEnd:
    """Stands for an end; only its identity counts."""

    def _fail(self, error: BaseException) -> None:
        pass


def test_a_shutdown_while_ends_come_and_go() -> None:
    """The table of open ends is not looked through while another thread changes it."""
    loop = Loop("test-loop")
    everybody: Any = ends_module.Ends(Address("ws://127.0.0.1:1"), InitOptions(), loop, lambda function: None)
    try:
        for _ in range(5):
            some = [_AnEnd() for _ in range(3000)]
            for end in some:
                everybody._open[id(end)] = end

            def leave(some: list[_AnEnd] = some) -> None:
                for end in some:
                    everybody.end_is_over(end)

            with switching_every(1e-6):
                left = in_thread(leave)
                everybody.fail_all(errors.ChannelAbortedError("test"))
                left()
    finally:
        loop.stop(5)


def test_a_read_interrupted_between_taking_and_keeping_never_looks_whole(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C with a batch in hand: what was in it is lost, and the stream says so instead of ending well."""
    channel = worker.create_channel()
    channel.reader.timeout = WAIT
    channel.writer.write(b"one ")
    real_get = Inbox.get
    interrupt = [True]

    def get(self: Inbox, timeout: Any) -> Any:
        batch = real_get(self, timeout)
        if interrupt:
            interrupt.clear()
            raise KeyboardInterrupt
        return batch

    monkeypatch.setattr(Inbox, "get", get)
    with pytest.raises(KeyboardInterrupt):
        channel.reader.read(3)
    with pytest.raises(errors.ChannelTruncatedError, match="interrupted"):
        channel.reader.read()
    assert channel.reader.complete is False
    channel.writer.abort()


def test_a_read_interrupted_while_it_waits_loses_nothing(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C with nothing in hand: the next read goes on."""
    channel = worker.create_channel()
    channel.reader.timeout = WAIT
    real_get = Inbox.get
    interrupt = [True]

    def get(self: Inbox, timeout: Any) -> Any:
        if interrupt:
            interrupt.clear()
            raise KeyboardInterrupt
        return real_get(self, timeout)

    monkeypatch.setattr(Inbox, "get", get)
    with pytest.raises(KeyboardInterrupt):
        channel.reader.read(3)
    with channel.writer as f:
        f.write(b"whole")
    assert channel.reader.read() == b"whole" and channel.reader.complete is True


@pytest.mark.parametrize("broken", [False, True])
def test_a_file_that_is_collected_amid_a_call_of_its_own_writer_waits_for_no_lock(
    engine_url: str, broken: bool
) -> None:
    """The collector runs its finalizer on whatever thread, which may hold what the finalizer takes."""
    run(
        """
import faulthandler, logging, sys, warnings
from iii_sync import errors, register_worker
logging.getLogger('iii_sync').setLevel(logging.CRITICAL)
warnings.simplefilter('ignore', ResourceWarning)
faulthandler.dump_traceback_later(15, exit=True)
with register_worker(sys.argv[1]) as w:
    c = w.create_channel()
    c.writer.write(b'a')
    f = c.writer.makefile('wb')
    f.write(b'it holds this still')
    if sys.argv[2:]: c.writer._fail(errors.ChannelAbortedError('an earlier write was cut'))
    with c.writer._state_lock:
        del f
    try: c.writer.write(b'b')
    except errors.ChannelAbortedError: c.writer.abort()
    else: raise AssertionError('a stream with a hole')
    try: c.reader.read(timeout=10)
    except errors.ChannelTruncatedError: c.reader.close()
""",
        engine_url,
        *(["broken"] if broken else []),
    )


def test_an_infinite_timeout_is_no_limit(worker: Worker) -> None:
    """float("inf") means what it says."""
    channel = worker.create_channel()
    channel.reader.timeout = channel.writer.timeout = float("inf")
    with channel.writer as f:
        f.write(b"x", timeout=1e300)
    assert channel.reader.read() == b"x"
