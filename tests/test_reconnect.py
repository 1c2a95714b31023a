"""Reconnecting, against an engine that ends its connections in every way there is."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any, Callable

import pytest

import iii_sync.session.link
import iii_sync.session.reconnecting
import iii_sync.session.registering
from iii_sync import ReconnectionConfig, Worker, errors, register_worker

from .support.process import Script
from .support.rawengine import Visit, alive, raw_engine, until_told
from .support.rawserver import RawPeer
from .support.threads import in_thread, is_locked
from .support.waiting import wait_until

WAIT = 20.0

QUICK = ReconnectionConfig(initial_delay=0.01)


def states_of(worker: Worker) -> list[str]:
    """The states the worker tells from now on."""
    heard: list[str] = []
    worker.add_connection_state_listener(heard.append)
    return heard


def lose(worker: Worker) -> None:
    """Have the engine of :func:`until_told` end the connection, and wait until the worker knows."""
    with pytest.raises(errors.ConnectionLostError):
        worker.submit("end").result(WAIT)


# --- ends of a connection --------------------------------------------------------------------------------


def _close(payload: bytes) -> Callable[[RawPeer], None]:
    def end(peer: RawPeer) -> None:
        peer.send_frame(8, payload)
        while peer.sock.recv(4096):
            pass
        peer.sock.close()

    return end


def _eof(peer: RawPeer) -> None:
    peer.sock.shutdown(socket.SHUT_RDWR)
    peer.sock.close()


def _half_a_frame(peer: RawPeer) -> None:
    peer.sock.sendall(b"\x81\x7e\x10")
    _eof(peer)


def _nonsense(peer: RawPeer) -> None:
    peer.sock.sendall(b"\xff\xff\xff\xff")
    while peer.sock.recv(4096):
        pass


ENDS: dict[str, Callable[[RawPeer], None]] = {
    "Close 1000": _close(b"\x03\xe8bye"),
    "Close 1001": _close(b"\x03\xe9"),
    "Close 1011": _close(b"\x03\xf3"),
    "Close without a code": _close(b""),
    "EOF": _eof,
    "EOF in a frame": _half_a_frame,
    "reset": RawPeer.reset,
    "a protocol error": _nonsense,
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_followed_by_a_new_connection(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """Calls under way fail at once as unknown; everything is registered again, behind a reattach; told once."""
    caplog.set_level(logging.INFO, "iii_sync.worker")
    with raw_engine(until_told(ENDS[end]), alive) as engine, register_worker(engine.url) as worker:
        worker.register_function("f", print, description="one line", metadata={"a": [1]}, request_format={"type": "x"})
        worker.register_function("taken-back", print).unregister()
        worker.register_function("g", print)
        heard = states_of(worker)
        hanging = worker.submit("hang")
        worker.submit("end")
        with pytest.raises(errors.ConnectionLostError) as caught:
            hanging.result(WAIT)
        assert caught.value.may_have_run is True
        assert worker.trigger("after", timeout=WAIT) == {"value": "after"}
        wait_until(lambda: len(heard) >= 2, "the states")
        assert heard == ["reconnecting", "connected"]
        assert worker.worker_id == "w-2"
        wait_until(lambda: "again" in caplog.text, "the message of the recovery")
        first, second = engine.visits
        assert second.seen[0] == {"type": "reattach", "previous_worker_id": "w-1", "reattach_token": "token-1"}
        assert second.types()[1] == "invokefunction engine::workers::register"
        offered = [message for message in first.seen if message.get("id") in ("f", "g")]
        assert [message for message in second.seen if message["type"] == "registerfunction"] == offered
        assert second.types()[-1] == "invokefunction after"
    told = [(record.levelname, record.message.partition(",")[0]) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "INFO"], told
    assert told[0][1] == "connection lost" and "connected to" in told[1][1]


def _no_handshake(visit: Visit) -> None:
    visit.peer.read_request()
    visit.peer.sock.close()


def _answer(status: str) -> Callable[[Visit], None]:
    def behave(visit: Visit) -> None:
        visit.peer.read_request()
        visit.peer.sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        visit.peer.sock.close()

    return behave


def _no_hello(visit: Visit) -> None:
    visit.peer.handshake()
    visit.peer.reset()


def _goodbye_for_hello(visit: Visit) -> None:
    visit.peer.handshake()
    visit.peer.send_frame(8, b"\x03\xf4")
    visit.peer.sock.recv(100)
    visit.peer.sock.close()


def _gone_before(part: str) -> Callable[[Visit], None]:
    def behave(visit: Visit) -> None:
        visit.welcome()
        visit.serve(lambda message: part in visit.types()[-1])
        visit.peer.reset()

    return behave


def _unanswered(code: str) -> Callable[[Visit], None]:
    """An engine that listens before all of it is there."""

    def behave(visit: Visit) -> None:
        visit.welcome()
        while True:
            message = visit.peer.recv_json()
            if message.get("invocation_id"):
                visit.peer.send_json(
                    {
                        "type": "invocationresult",
                        "invocation_id": message["invocation_id"],
                        "function_id": message["function_id"],
                        "error": {"code": code, "message": "not yet"},
                    }
                )

    return behave


#: What becomes of the second connection, and which one the third has to evict.
FAILURES: dict[str, tuple[Callable[[Visit], None], str]] = {
    "EOF for a handshake": (_no_handshake, "w-1"),
    "HTTP 500": (_answer("500 Internal Server Error"), "w-1"),
    "HTTP 503": (_answer("503 Service Unavailable"), "w-1"),
    "HTTP 404": (_answer("404 Not Found"), "w-1"),
    "reset for a hello": (_no_hello, "w-1"),
    "Close for a hello": (_goodbye_for_hello, "w-1"),
    "gone before the announcement": (_gone_before("engine::workers::register"), "w-1"),
    "gone in the replay": (_gone_before("registerfunction g"), "w-2"),
    "gone before the confirmation": (_gone_before("engine::workers::info"), "w-2"),
    "not all there yet": (_unanswered("function_not_found"), "w-1"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_try_that_fails_is_followed_by_another(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    """However far it came; the next one evicts whatever connection the engine may still hold for ours."""
    behaviour, evicted = FAILURES[failure]
    caplog.set_level(logging.INFO, "iii_sync.worker")
    with raw_engine(until_told(RawPeer.reset), behaviour, behaviour, alive) as engine:
        with register_worker(engine.url, reconnection_config=QUICK) as worker:
            worker.register_function("f", print)
            worker.register_function("g", print)
            heard = states_of(worker)
            lose(worker)
            assert worker.trigger("after", timeout=WAIT) == {"value": "after"}
            wait_until(lambda: len(heard) >= 2, "the states")
            assert heard == ["reconnecting", "connected"]
            last = engine.visits[3]
            expected = evicted if evicted == "w-1" else "w-3"
            assert last.seen[0]["previous_worker_id"] == expected
            assert last.seen[0]["reattach_token"] == expected.replace("w", "token")
            assert [kind for kind in last.types() if kind.startswith("register")] == [
                "registerfunction f",
                "registerfunction g",
            ]
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_a_connection_that_answers_no_ping_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's machine is gone without a word: nobody else will ever tell."""
    monkeypatch.setattr(iii_sync.session.link, "_PING_EVERY", 0.1)
    monkeypatch.setattr(iii_sync.session.link, "_DEAD_AFTER", 0.25)
    silent = threading.Event()

    def freeze(visit: Visit) -> None:
        visit.welcome()
        visit.serve(lambda message: message.get("function_id") == "end")
        silent.wait(WAIT)

    with raw_engine(freeze, alive) as engine, register_worker(engine.url) as worker:
        hanging = worker.submit("hang")
        worker.submit("end")
        with pytest.raises(errors.ConnectionLostError, match="answers no ping"):
            hanging.result(WAIT)
        assert worker.trigger("after", timeout=WAIT) == {"value": "after"}
        silent.set()


def test_a_silent_connection_that_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when this process was stopped for longer than a dead one is waited for."""
    monkeypatch.setattr(iii_sync.session.link, "_PING_EVERY", 0.1)
    monkeypatch.setattr(iii_sync.session.link, "_DEAD_AFTER", 1.0)
    pings: list[bytes] = []

    def answering(visit: Visit) -> None:
        visit.welcome()
        visit.peer.answer_next({"success": True})
        while True:
            opcode, payload = visit.peer.recv_frame()
            if opcode == 9:
                pings.append(payload)
                visit.peer.send_frame(10, payload)

    with raw_engine(answering) as engine, register_worker(engine.url) as worker:
        heard = states_of(worker)
        wait_until(lambda: len(pings) > 5, "pings")
        worker._loop.call_soon(lambda: time.sleep(1.5))  # as if stopped
        before = len(pings)
        wait_until(lambda: len(pings) > before + 5, "more pings")
        assert heard == [] and len(engine.visits) == 1


# --- how often ------------------------------------------------------------------------------------------


def test_delays_grow_while_connections_do_not_last(caplog: pytest.LogCaptureFixture) -> None:
    """An engine that flaps is not hammered, is told of once, and its listeners hear every change once."""
    caplog.set_level(logging.WARNING, "iii_sync.worker")
    ended: list[float] = []

    def leave(peer: RawPeer) -> None:
        ended.append(time.monotonic())
        _eof(peer)

    flapping = [until_told(leave)] * 8
    config = ReconnectionConfig(initial_delay=0.02, jitter_factor=0.5)
    with raw_engine(*flapping, alive) as engine, register_worker(engine.url, reconnection_config=config) as worker:
        heard = states_of(worker)

        def end(state: str) -> None:
            if state == "connected" and len(engine.visits) <= 8:
                worker.submit("end")

        worker.add_connection_state_listener(end)
        worker.submit("end")
        wait_until(lambda: len(engine.visits) == 9, "the last connection")
        assert worker.trigger("after", timeout=WAIT) == {"value": "after"}
        times = [visit.since for visit in engine.visits]
        # The first try comes at once; 0.02, 0.04, … less a half at most. A busy machine only makes them longer: the end
        # is noted before it can be seen, and a visit when it has come.
        for number, (end_of_one, other) in enumerate(zip(ended[1:], times[2:])):
            assert other - end_of_one >= min(0.01 * 2**number, 0.5), (number, ended, times)
        wait_until(lambda: heard and heard[-1] == "connected", "the last state")
    wait_until(lambda: heard[-1] == "disconnected", "the end")
    assert heard == ["reconnecting", "connected"] * 8 + ["disconnected"]
    assert [record.levelname for record in caplog.records].count("WARNING") == 1, caplog.text


@pytest.mark.parametrize("stable", [True, False])
def test_delays_begin_anew_after_a_stable_connection_only(stable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second try after a connection that did not last waits for its turn, here an hour."""
    monkeypatch.setattr(iii_sync.session.reconnecting, "_EAGER_FOR", 0)
    monkeypatch.setattr(iii_sync.session.reconnecting, "_STABLE_AFTER", -1.0 if stable else 60.0)
    config = ReconnectionConfig(initial_delay=3600, max_delay=3600)
    with raw_engine(until_told(_eof)) as engine, register_worker(engine.url, reconnection_config=config) as worker:
        for number in (2, 3):
            lose(worker)
            if number == 2 or stable:
                assert worker.trigger("x", timeout=WAIT) == {"value": "x"}
            else:
                with pytest.raises(errors.ConnectionLostError, match="not sent"):
                    worker.trigger("x", timeout=0.5)
        assert len(engine.visits) == (3 if stable else 2)


def test_no_delay_is_longer_than_a_second_for_a_minute_and_a_half() -> None:
    """And none is longer than max_delay, nor shorter than the jitter allows."""
    with raw_engine(alive) as engine, register_worker(engine.url) as worker:
        reconnecting = worker._session._reconnecting
        now = time.monotonic()
        for tries in range(1, 60):
            reconnecting._tries = tries
            full = min(0.1 * 2 ** (tries - 1), 1.0)
            assert 0.7 * full <= reconnecting._delay(now) <= full
            assert 0.7 * full <= reconnecting._delay(now - 80) <= full
            full = min(0.1 * 2 ** (tries - 1), 10.0)
            assert 0.7 * full <= reconnecting._delay(now - 91) <= full
        reconnecting._tries = 0
        assert reconnecting._delay(now) == 0


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_after_so_many_tries_the_worker_gives_up(retries: int, caplog: pytest.LogCaptureFixture) -> None:
    """Calls, wait() and the state say so, at once and with the cause."""
    caplog.set_level(logging.CRITICAL, "iii_sync")
    config = ReconnectionConfig(initial_delay=0.01, max_retries=retries)
    with raw_engine(until_told(RawPeer.reset), _answer("503 Unavailable")) as engine:
        with register_worker(engine.url, reconnection_config=config) as worker:
            heard = states_of(worker)
            lose(worker)
            expected = errors.HandshakeRejectedError if retries else errors.EngineConnectionError
            with pytest.raises(expected, match="503" if retries else "reset"):
                worker.wait(WAIT)
            for use in (
                lambda: worker.trigger("x", timeout=WAIT),
                lambda: worker.submit("x"),
                lambda: worker.create_channel(),
                lambda: worker.register_function("f", print),
            ):
                with pytest.raises(expected):
                    use()
            wait_until(lambda: len(heard) == 2, "the states")
            assert heard == ["reconnecting", "failed"]
            assert worker.get_connection_state() == "failed"
            assert len(engine.visits) == 1 + retries


# --- refusals -------------------------------------------------------------------------------------------


def _name_taken(visit: Visit) -> None:
    visit.welcome()
    visit.serve(lambda message: message.get("function_id") == "engine::workers::register")
    visit.peer.send_json(
        {
            "type": "registrationrejected",
            "code": "WORKER_NAMESPACE_CONFLICT",
            "namespace": "default",
            "worker_name": "me",
            "owner_worker_id": "w-0",
        }
    )
    visit.peer.send_frame(8)
    visit.peer.sock.recv(100)
    visit.peer.sock.close()


def _not_authenticated(visit: Visit) -> None:
    visit.peer.handshake()
    visit.peer.send_json({"type": "error", "error": {"code": "AUTH_ERROR", "message": "who are you"}})
    visit.peer.send_frame(8)
    visit.peer.sock.recv(100)
    visit.peer.sock.close()


REFUSALS: dict[str, tuple[Callable[[Visit], None], type[Exception], str]] = {
    "the name is taken": (_name_taken, errors.RegistrationRejectedError, "'me' is taken"),
    "an error instead of a hello": (_not_authenticated, errors.AuthenticationError, "who are you"),
    "HTTP 401": (_answer("401 Unauthorized"), errors.AuthenticationError, "401"),
    "HTTP 403": (_answer("403 Forbidden"), errors.AuthenticationError, "403"),
    "no such engine function": (_unanswered("FORBIDDEN"), errors.PermissionDeniedError, "not yet"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_at_the_first_connection_is_an_error_at_once(refusal: str) -> None:
    """There nothing of ours can be in the way."""
    behaviour, error, text = REFUSALS[refusal]
    with raw_engine(behaviour) as engine:
        with pytest.raises(error, match=text):
            register_worker(engine.url, keep_trying=True)
        assert len(engine.visits) == 1


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_of_a_worker_that_comes_back_may_pass(refusal: str) -> None:
    """The name is still leased to its last connection, or whoever authenticates is not back yet."""
    behaviour = REFUSALS[refusal][0]
    with raw_engine(until_told(_eof), behaviour, behaviour, behaviour, alive) as engine:
        with register_worker(engine.url, reconnection_config=QUICK) as worker:
            lose(worker)
            assert worker.trigger("after", timeout=WAIT) == {"value": "after"}
            assert len(engine.visits) == 5


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_that_does_not_pass_is_final(
    refusal: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no retry loop: calls that wait, and wait() itself, raise it."""
    caplog.set_level(logging.CRITICAL, "iii_sync")
    monkeypatch.setattr(iii_sync.session.reconnecting, "REFUSED_FOR", 1.0)
    behaviour, error, text = REFUSALS[refusal]
    with raw_engine(until_told(_eof), behaviour) as engine:
        with register_worker(engine.url, reconnection_config=QUICK) as worker:
            heard = states_of(worker)
            lose(worker)
            wait_until(lambda: heard, "the loss")
            waiting = in_thread(lambda: worker.trigger("x", timeout=WAIT))
            with pytest.raises(error, match=text):
                worker.wait(WAIT)
            with pytest.raises(error, match=text):
                waiting()
            wait_until(lambda: len(heard) == 2, "the states")
            assert heard == ["reconnecting", "failed"]
            tries = len(engine.visits)
            assert tries > 2
            time.sleep(0.1)
            assert len(engine.visits) == tries


def test_a_function_that_somebody_else_took_meanwhile_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The others are registered; the connection lives."""
    caplog.set_level(logging.ERROR, "iii_sync.worker")

    def taken(visit: Visit) -> None:
        visit.welcome()

        def refuse(message: dict[str, Any]) -> bool:
            if message.get("id") == "f":
                visit.peer.send_json(
                    {
                        "type": "registrationrejected",
                        "code": "FUNCTION_NAMESPACE_CONFLICT",
                        "namespace": "default",
                        "function_id": "f",
                        "owner_worker_id": "w-9",
                    }
                )
            return False

        visit.serve(refuse)

    with raw_engine(until_told(_eof), taken) as engine, register_worker(engine.url) as worker:
        worker.register_function("f", print)
        worker.register_function("g", print)
        lose(worker)
        assert worker.trigger("after", timeout=WAIT) == {"value": "after"}
        wait_until(lambda: caplog.records, "the message")
        assert "'f' is taken" in caplog.text and "w-9" in caplog.text


# --- calls meanwhile ------------------------------------------------------------------------------------


def _deaf(until: threading.Event) -> Callable[[Visit], None]:
    """An engine that reads nothing more after a call of ``end``, and then resets."""

    def behave(visit: Visit) -> None:
        visit.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        visit.welcome()
        visit.serve(lambda message: message.get("function_id") == "end")
        assert until.wait(WAIT)
        visit.peer.reset()

    return behave


def test_a_call_that_had_not_left_did_not_run() -> None:
    """Half a request is none; one that waited for its turn behind it goes out on the next connection, once."""
    leave = threading.Event()
    with raw_engine(_deaf(leave), alive) as engine, register_worker(engine.url) as worker:
        sent = worker.submit("hang", 1)
        worker.submit("end")
        large = in_thread(lambda: worker.trigger("large", "x" * 12_000_000, timeout=WAIT))
        link = worker._session._link
        assert link is not None and link.connection is not None
        turn = link.connection._turn
        wait_until(lambda: is_locked(turn), "the large one to be on its way")
        small = in_thread(lambda: worker.trigger("small", 2, timeout=WAIT))
        time.sleep(0.2)  # it has no other sign than that it waits
        leave.set()
        with pytest.raises(errors.ConnectionLostError, match="not sent") as caught:
            large()
        assert caught.value.may_have_run is False
        assert small() == {"value": "small"}
        with pytest.raises(errors.ConnectionLostError) as caught:
            sent.result(WAIT)
        assert caught.value.may_have_run is True
        assert [kind for kind in engine.visits[1].types() if "small" in kind or "large" in kind] == [
            "invokefunction small"
        ]
    assert not worker._session._pending


def test_a_call_on_a_connection_whose_end_nobody_has_seen_goes_out_on_the_next() -> None:
    """Between the end and the reader thread's word of it."""
    with raw_engine(alive) as engine, register_worker(engine.url) as worker:
        link = worker._session._link
        assert link is not None and link.connection is not None
        connection = link.connection
        go_on = threading.Event()

        def busy() -> None:
            go_on.wait(WAIT)

        worker._loop.call_soon(busy)
        connection._set_error(errors.EngineConnectionError("gone"))
        connection.drop(errors.EngineConnectionError("gone"))
        call = in_thread(lambda: worker.trigger("x", timeout=WAIT))
        time.sleep(0.1)
        go_on.set()
        assert call() == {"value": "x"}
        assert len(engine.visits) == 2 and "invokefunction x" not in engine.visits[0].types()


def _hang_up(visit: Visit) -> None:
    visit.peer.sock.close()


def test_calls_during_an_outage_end_in_time() -> None:
    """Every kind, as not sent."""
    with raw_engine(until_told(_eof), _hang_up) as engine:
        with register_worker(engine.url, connect_timeout=0.5, invocation_timeout=0.5) as worker:
            lose(worker)
            wait_until(lambda: worker.get_connection_state() == "reconnecting", "the loss")
            for use in (
                lambda: worker.trigger("x", timeout=0.3),
                lambda: worker.trigger("x"),
                lambda: worker.submit("x", timeout=0.3),
                lambda: worker.create_channel(),
                lambda: worker.open("x", "wb"),
                lambda: worker.register_function("f", print),
            ):
                started = time.monotonic()
                with pytest.raises(errors.ConnectionLostError, match="not sent") as caught:
                    use()
                assert caught.value.may_have_run is False
                assert 0.2 < time.monotonic() - started < 5
            assert not worker._session._pending and worker._registrations.registrations() == []


@pytest.mark.parametrize(
    "blocked", ["trigger('x')", "submit('x')", "create_channel()", "register_function('f', print)"]
)
def test_ctrl_c_ends_a_call_during_an_outage(blocked: str) -> None:
    """Within half a second, not counting what a busy machine adds; the worker stays usable."""
    with raw_engine(until_told(_eof), _hang_up, _hang_up, _no_handshake, alive) as engine:
        script = Script(
            f"""
import sys
from iii_sync import ReconnectionConfig, register_worker
from tests.support.moments import tell
w = register_worker(sys.argv[1], reconnection_config=ReconnectionConfig(initial_delay=2, max_delay=2))
w.submit('end')
while w.get_connection_state() == 'connected': pass
print('lost')
try:
    w.{blocked}
except KeyboardInterrupt:
    tell('interrupted')
print(w.trigger('after', timeout=20))
w.shutdown()
""",
            engine.url,
        )
        script.until("lost")
        time.sleep(0.5)
        sent = script.interrupt()
        assert script.moment("interrupted").since(sent) <= 0.5
        assert script.line() == "{'value': 'after'}"
        assert script.end() == 0
        lines = script.stderr().splitlines()
        assert len(lines) == 1 and lines[0].startswith("connection lost"), lines


def test_ctrl_c_in_a_message_that_is_half_sent_costs_the_control_connection_only() -> None:
    """It is made anew; a stream under way goes on, to its end."""
    half_sent, interrupted = threading.Event(), threading.Event()
    received: list[bytes] = []
    rest = 0

    def stop_reading(visit: Visit) -> None:
        nonlocal rest
        visit.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        visit.welcome()
        visit.serve(lambda message: message.get("function_id") == "end")
        visit.peer.recv_exactly(1000)
        half_sent.set()
        assert interrupted.wait(WAIT)
        while part := visit.peer.sock.recv(65536):
            rest += len(part)

    def take(visit: Visit) -> None:
        visit.peer.handshake()
        opcode = 0
        while opcode != 8:
            opcode, payload = visit.peer.recv_frame()
            received.append(payload)
        visit.peer.send_frame(8, b"\x03\xe8")

    with raw_engine(stop_reading, take, alive) as engine:
        script = Script(
            """
import sys, time
from iii_sync import register_worker
w = register_worker(sys.argv[1])
heard = []
w.add_connection_state_listener(heard.append)
f = w.open_ref({'channel_id': 'c', 'access_key': 'k', 'direction': 'write'})
f.write(b'before ')
w.submit('end')
try:
    w.trigger('large', 'x' * 12_000_000, timeout=60)
except KeyboardInterrupt:
    print('interrupted')
f.write(b'behind ')
print(w.trigger('after', timeout=20))
f.write(b'and the end')
f.close()
while len(heard) < 2: time.sleep(0.01)
assert heard == ['reconnecting', 'connected'], heard
w.shutdown()
""",
            engine.url,
        )
        assert half_sent.wait(WAIT)
        script.interrupt()
        script.until("interrupted")
        interrupted.set()
        assert script.line() == "{'value': 'after'}"
        assert script.end() == 0, script.stderr()
        assert len(engine.visits) == 3 and engine.visits[1].peer.path.startswith("/ws/channels/")
    assert rest < 12_000_000
    assert b"".join(received[:-1]) == b"before behind and the end"
    assert received[-2:] == [b"", b"\x03\xe8"], "the stream was not marked as whole"


# --- shutdown -------------------------------------------------------------------------------------------


def _never(visit: Visit) -> None:
    visit.peer.read_request()
    visit.peer.sock.recv(1)


def _never_hello(visit: Visit) -> None:
    visit.peer.handshake()
    visit.peer.recv_frame()


def _never_registered(visit: Visit) -> None:
    visit.welcome()
    while True:
        visit.seen.append(visit.peer.recv_json())


@pytest.mark.parametrize("phase", [_hang_up, _never, _never_hello, _never_registered])
def test_shutdown_during_a_reconnect_is_quick_and_silent(
    phase: Callable[[Visit], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reconnecting thread waits for; callers that wait for it wake up."""
    with raw_engine(until_told(_eof), phase) as engine:
        worker = register_worker(engine.url, connect_timeout=15)
        heard = states_of(worker)
        lose(worker)
        wait_until(lambda: len(engine.visits) > 1, "the second try")
        caplog.clear()
        waiting = in_thread(lambda: worker.trigger("x", timeout=WAIT))
        time.sleep(0.1)
        started = time.monotonic()
        worker.shutdown()
        assert time.monotonic() - started < 5
        with pytest.raises(errors.WorkerClosedError):
            waiting()
        wait_until(lambda: heard and heard[-1] == "disconnected", "the end")
        assert heard == ["reconnecting", "disconnected"]
        assert worker.wait(WAIT) is True
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_clean_end_is_no_warning(engine_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither side of a worker that is shut down complains."""
    for _ in range(5):
        with register_worker(engine_url) as worker:
            worker.register_function(f"f-{worker.worker_id}", print)
    assert [record.message for record in caplog.records if record.name.startswith("iii_sync")] == []


def test_the_goodbye_is_said_once() -> None:
    """Also at the moment when a link is still an attempt, and current already."""
    frames: list[int] = []
    over = threading.Event()

    def listen(visit: Visit) -> None:
        visit.welcome()
        visit.peer.answer_next({"success": True})
        try:
            while True:
                frames.append(visit.peer.recv_frame()[0])
        finally:
            over.set()

    with raw_engine(listen) as engine:
        worker = register_worker(engine.url)
        worker._session._attempt = worker._session._link
        worker.shutdown()
        assert over.wait(WAIT)
    assert frames.count(8) == 1


def test_many_registrations_are_compared_quickly() -> None:
    """Under a lock that the reader thread needs, too."""
    items: list[dict[str, Any]] = [{"type": "registerfunction", "id": f"f-{number}"} for number in range(20_000)]
    started = time.monotonic()
    assert iii_sync.session.registering.missing(items, [*items[1:]]) == [items[0]]
    assert time.monotonic() - started < 2
