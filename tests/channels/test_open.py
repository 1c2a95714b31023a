"""worker.open: a function opened like a file, in every order of events."""

from __future__ import annotations

import gc
import json
import logging
import queue
import threading
import time
from concurrent.futures import CancelledError
from typing import Any, Callable

import pytest

from iii_sync import Worker, errors
from iii_sync.channels import opened

WAIT = 30.0

Unique = Callable[[str], str]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "iii_sync")


def count(data: Any) -> Any:
    """A function that reads everything."""
    return {"bytes": len(data["reader"].read()), "name": data.get("name")}


def first_five(data: Any) -> str:
    """A function that reads the beginning only."""
    with data["reader"] as reader:
        return str(reader.read(5), "ascii")


def generate(data: Any) -> str:
    """A function that writes."""
    with data["writer"] as f:
        for number in range(data.get("lines", 3)):
            f.write(b"line %d\n" % number)
    return "done"


def test_writing_to_a_function(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The result is there after the block, and only then."""
    function = peer.register_function(unique("count"), count)
    with worker.open(function.id, "wb", {"name": "report.csv"}) as f:
        f.write(b"12345")
        f.write(b"67890")
        with pytest.raises(errors.UsageError, match="after the with"):
            f.result  # noqa: B018
    assert f.result == {"bytes": 10, "name": "report.csv"}
    assert f.closed and f.call.done()
    f.close()


def test_writing_nothing_at_all(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The function gets an empty stream."""
    function = peer.register_function(unique("count"), count)
    with worker.open(function.id, "wb") as f:
        pass
    assert f.result == {"bytes": 0, "name": None}


def test_reading_from_a_function(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Lines, the end, and the result."""
    function = peer.register_function(unique("generate"), generate)
    with worker.open(function.id, "rb") as f:
        assert f.readline() == b"line 0\n"
        assert f.read() == b"line 1\nline 2\n"
    assert f.result == "done"


def test_text_modes(worker: Worker, peer: Worker, unique: Unique) -> None:
    """json.dump into a function, and lines out of another."""
    parse = peer.register_function(unique("parse"), lambda data: json.load(data["reader"].makefile("r")))
    with worker.open(parse.id, "w", encoding="utf-8") as f:
        json.dump({"text": "\u20ac" * 1000}, f)
    assert f.result == {"text": "\u20ac" * 1000}
    lines = peer.register_function(unique("generate"), generate)
    with worker.open(lines.id, "r", {"lines": 5}) as t:
        assert list(t) == [f"line {number}\n" for number in range(5)]
    assert t.result == "done"
    with worker.open(lines.id) as default:
        assert default.read().count("\n") == 3


def test_the_key_of_the_reference(worker: Worker, peer: Worker, unique: Unique) -> None:
    """It can be chosen, and must not be taken."""
    function = peer.register_function(unique("key"), lambda data: len(data["body"].read()))
    with worker.open(function.id, "wb", key="body") as f:
        f.write(b"xyz")
    assert f.result == 3
    with pytest.raises(ValueError, match="'reader' already.*key="):
        worker.open(function.id, "wb", {"reader": 1})
    with pytest.raises(TypeError, match="dict"):
        worker.open(function.id, "wb", [1])
    with pytest.raises(ValueError, match="mode"):
        worker.open(function.id, "a")  # type: ignore[call-overload]


def test_unbuffered_writes_arrive_one_by_one(worker: Worker, peer: Worker, unique: Unique) -> None:
    """buffering=0."""
    arrived: list[bytes] = []
    got = threading.Semaphore(0)

    def collect(data: Any) -> int:
        for chunk in data["reader"]:
            arrived.append(chunk)
            got.release()
        return len(arrived)

    function = peer.register_function(unique("collect"), collect)
    with worker.open(function.id, "wb", buffering=0) as f:
        for number in range(5):
            f.write(b"chunk %d" % number)
            f.flush()
            assert got.acquire(timeout=WAIT)
    assert arrived == [b"chunk %d" % number for number in range(5)]


def test_a_function_that_is_not_there(worker: Worker, unique: Unique) -> None:
    """The error is the call's, in the write, the read, or on leaving."""
    with pytest.raises(errors.FunctionNotFoundError):
        with worker.open(unique("nobody"), "wb") as f:
            while True:
                f.write(bytes(100_000))
    with pytest.raises(errors.FunctionNotFoundError):
        with worker.open(unique("nobody"), "rb") as r:
            r.read()
    with pytest.raises(errors.FunctionNotFoundError):
        with worker.open(unique("nobody"), "wb"):
            pass


def test_a_function_that_fails_first_raises_its_error_in_the_blocked_write(
    worker: Worker, peer: Worker, unique: Unique
) -> None:
    """Not a broken pipe."""

    def refuse(data: Any) -> None:
        data["reader"].read(10)
        raise RuntimeError("bad header")

    function = peer.register_function(unique("refuse"), refuse)
    for _ in range(5):
        with pytest.raises(errors.HandlerFailedError, match="bad header"):
            with worker.open(function.id, "wb") as f:
                while True:
                    f.write(bytes(500_000))


def test_a_function_that_closes_its_end_and_then_fails(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The stream breaks before the error arrives; the error wins."""

    def refuse(data: Any) -> None:
        data["reader"].read(10)
        data["reader"].close()
        time.sleep(0.3)
        raise RuntimeError("too late")

    function = peer.register_function(unique("refuse"), refuse)
    with pytest.raises(errors.HandlerFailedError, match="too late"):
        with worker.open(function.id, "wb") as f:
            while True:
                f.write(bytes(500_000))


def test_a_function_that_fails_in_the_middle_of_writing(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Its error wins over the cut stream; what arrived was handed out."""

    def fail(data: Any) -> None:
        with data["writer"] as f:
            f.write(b"good so far\n")
            raise RuntimeError("disk full")

    function = peer.register_function(unique("fail"), fail)
    with pytest.raises(errors.HandlerFailedError, match="disk full"):
        with worker.open(function.id, "rb") as f:
            for line in f:
                assert line == b"good so far\n"


def test_a_function_that_fails_after_writing_everything(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The error comes at the latest on leaving."""

    def fail(data: Any) -> None:
        with data["writer"] as f:
            f.write(b"all of it")
        raise RuntimeError("afterwards")

    function = peer.register_function(unique("fail"), fail)
    with pytest.raises(errors.HandlerFailedError, match="afterwards"):
        with worker.open(function.id, "rb") as f:
            f.read()


def test_a_function_that_succeeds_without_reading_everything(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Further writes are a broken pipe, and the result is there."""
    function = peer.register_function(unique("first"), first_five)
    f = worker.open(function.id, "wb", buffering=0)
    with pytest.raises(BrokenPipeError):
        while True:
            f.write(b"x" * 100_000)
    assert f.result == "xxxxx"
    f.abort()


def test_leaving_normally_after_the_function_has_returned_early(worker: Worker, peer: Worker, unique: Unique) -> None:
    """All writes went through: no error, and the result."""
    function = peer.register_function(unique("first"), first_five)
    with worker.open(function.id, "wb") as f:
        f.write(b"12345 and more")
        f.flush()
        f.call.result(WAIT)
    assert f.result == "12345"


def test_an_exception_aborts_and_does_not_wait(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The function sees a cut stream; the caller goes on at once."""
    seen: list[BaseException] = []
    ended = threading.Event()

    def read(data: Any) -> None:
        try:
            data["reader"].read()
            data["reader"].read()
        except errors.ChannelTruncatedError as exc:
            seen.append(exc)
        finally:
            ended.set()

    function = peer.register_function(unique("read"), read)
    with pytest.raises(KeyError):
        with worker.open(function.id, "wb") as f:
            f.write(b"half")
            f.flush()
            raise KeyError
    assert ended.wait(WAIT) and len(seen) == 1
    with pytest.raises(CancelledError):
        f.result  # noqa: B018


def test_reading_left_early_cancels_without_waiting_or_raising(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The function's writes fail; nobody waits for it."""
    ended = threading.Event()

    def endless(data: Any) -> None:
        try:
            while True:
                data["writer"].write(bytes(100_000))
        except BrokenPipeError:
            ended.set()
            raise

    function = peer.register_function(unique("endless"), endless)
    with worker.open(function.id, "rb") as f:
        assert f.read(10) == bytes(10)
    assert f.call.cancelled()
    assert ended.wait(WAIT)


def test_a_stream_that_never_comes(
    worker: Worker, peer: Worker, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function returns without writing: after a grace the read says so."""
    monkeypatch.setattr(opened, "_GRACE", 0.3)
    function = peer.register_function(unique("lazy"), lambda data: "nothing to say")
    with worker.open(function.id, "rb") as f:
        with pytest.raises(errors.ChannelNeverWrittenError, match="has returned"):
            f.read()
        assert f.result == "nothing to say"


def test_a_stream_that_goes_on_after_the_result(
    worker: Worker, peer: Worker, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the stream counts, not the result."""
    monkeypatch.setattr(opened, "_GRACE", 0.1)
    threads: list[threading.Thread] = []
    begun = threading.Event()

    def later(data: Any) -> str:
        writer = data["writer"]

        def write() -> None:
            with writer as f:
                for _ in range(10):
                    f.write(b"x")
                    begun.set()
                    time.sleep(0.05)

        threads.append(threading.Thread(target=write))
        threads[-1].start()
        begun.wait(WAIT)
        return "started"

    function = peer.register_function(unique("later"), later)
    with worker.open(function.id, "rb") as f:
        assert f.read() == b"x" * 10
    assert f.result == "started"
    threads[0].join(WAIT)


def test_a_timeout_of_the_whole_call(worker: Worker, peer: Worker, unique: Unique) -> None:
    """It ends the blocked read, and says that the function may still be running."""
    release = threading.Event()
    function = peer.register_function(unique("slow"), lambda data: release.wait(WAIT) and None)
    started = time.monotonic()
    with pytest.raises(errors.CallTimeout):
        with worker.open(function.id, "rb", timeout=0.4) as f:
            f.read()
    assert time.monotonic() - started < 5
    release.set()


def test_a_lost_control_connection_spoils_the_result_and_not_the_stream(
    worker: Worker, peer: Worker, unique: Unique
) -> None:
    """The bytes arrive; the result is unknown."""
    go_on = threading.Event()

    def write(data: Any) -> str:
        with data["writer"] as f:
            f.write(b"before ")
            go_on.wait(WAIT)
            f.write(b"after")
        return "done"

    function = peer.register_function(unique("write"), write)
    with pytest.raises(errors.ConnectionLostError) as caught:
        with worker.open(function.id, "rb") as f:
            assert f.read(7) == b"before "
            link = worker._session._link
            assert link is not None and link.connection is not None
            link.connection.drop(errors.EngineConnectionError("test"))
            with pytest.raises(errors.ConnectionLostError):
                f.call.result(WAIT)
            go_on.set()
            assert f.read() == b"after"
    assert caught.value.may_have_run is True


@pytest.mark.parametrize("mode", ["r", "w"])
@pytest.mark.parametrize("wrong", [{"encoding": "nonsense"}, {"newline": "x"}, {"errors": 1}])
def test_arguments_are_looked_at_before_the_function_is_called(
    worker: Worker, peer: Worker, unique: Unique, mode: str, wrong: dict[str, Any]
) -> None:
    """Else it would wait for a stream that never comes."""
    called: list[Any] = []
    function = peer.register_function(unique("f"), called.append)
    open_function: Any = worker.open
    with pytest.raises((LookupError, ValueError, TypeError)):
        open_function(function.id, mode, **wrong)
    worker.trigger(function.id, "the first call")
    assert called == ["the first call"]


@pytest.mark.parametrize(("mode", "end"), [("rb", "writer"), ("wb", "reader")])
def test_a_function_whose_file_could_not_be_made_does_not_wait_for_its_stream(
    worker: Worker, peer: Worker, unique: Unique, monkeypatch: pytest.MonkeyPatch, mode: str, end: str
) -> None:
    """Ctrl-C right behind its call: nobody holds the other end."""
    ended: queue.Queue[BaseException] = queue.Queue()

    def use(data: Any) -> None:
        try:
            if end == "reader":
                data["reader"].read(timeout=5)
            else:
                while True:
                    data["writer"].write(bytes(100_000), timeout=5)
        except BaseException as exc:
            ended.put(exc)
            raise

    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    function = peer.register_function(unique("use"), use)
    monkeypatch.setattr(opened, "open_reader" if mode == "rb" else "open_writer", interrupted)
    open_function: Any = worker.open
    with pytest.raises(KeyboardInterrupt):
        open_function(function.id, mode)
    error = ended.get(timeout=WAIT)
    assert isinstance(error, (errors.ChannelTruncatedError, errors.ChannelBrokenError)), error


def test_a_forgotten_file_cuts_its_stream(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Collected: a warning, and the function sees the cut."""
    seen = threading.Event()

    def read(data: Any) -> None:
        try:
            data["reader"].read()
            data["reader"].read()
        except errors.ChannelTruncatedError:
            seen.set()

    function = peer.register_function(unique("read"), read)
    f = worker.open(function.id, "wb")
    f.write(b"half")
    f.flush()
    with pytest.warns(ResourceWarning):
        del f
        gc.collect()
    assert seen.wait(WAIT)
