"""JSON that no engine should send: the worker ignores it or says what is wrong, and lives."""

from __future__ import annotations

import itertools
import json
import logging
import time
import uuid
from typing import Any

import pytest

import iii_sync
from iii_sync import errors

from ..support.rawserver import server_frame
from ..support.threads import in_thread
from .engine import WAIT, Victim, ref, victim
from .memory import MiB, bounded

ID = "00000000-0000-4000-8000-000000000001"

#: One value of every kind that JSON has, and some that are merely too much.
WRONG: list[Any] = [
    None,
    True,
    0,
    -1.5,
    10**30,
    "",
    "\r\nX: y",
    "x" * 100_000,
    [],
    [[[]]],
    {},
    {"": {"": None}},
    {"code": 1, "message": [], "stacktrace": {}},
]

#: Every known kind of message, sound; each of its fields is replaced and left out in turn.
KNOWN: dict[str, dict[str, Any]] = {
    "invokefunction": {
        "invocation_id": ID,
        "function_id": "any::function",
        "data": 1,
        "metadata": {},
        "namespace": "default",
        "action": None,
        "traceparent": "00-1-2-01",
        "baggage": "a=b",
    },
    "invocationresult": {
        "invocation_id": ID,
        "function_id": "any::function",
        "result": 1,
        "error": {"code": "x", "message": "y", "stacktrace": "z"},
    },
    "workerregistered": {"worker_id": "w-2", "reattach_token": "token"},
    "ping": {},
    "pong": {},
    "reattach": {"previous_worker_id": "w", "reattach_token": "t"},
    "registerfunction": {"id": "f", "description": "d", "metadata": {}, "request_format": {}},
    "unregisterfunction": {"id": "f"},
    "registertrigger": {"id": "t", "trigger_type": "x", "function_id": "f", "config": {}},
    "unregistertrigger": {"id": "t", "trigger_type": "x"},
    "registertriggertype": {"id": "t", "description": "d"},
    "unregistertriggertype": {"id": "t"},
    "triggerregistrationresult": {"id": "t", "trigger_type": "x", "function_id": "f", "error": {"code": "x"}},
    "registerservice": {"id": "s", "name": "n"},
    # With a text for a function id: without one it is about the worker, and the end of its connection.
    "registrationrejected": {"function_id": "f", "code": "c", "namespace": "n", "owner_worker_id": "o"},
}


def variants(kind: str) -> list[dict[str, Any]]:
    """The message with each field left out, and with each wrong value in its place."""
    sound = {"type": kind, **KNOWN[kind]}
    found = [sound]
    for key in KNOWN[kind]:
        if (kind, key) == ("registrationrejected", "function_id"):
            wrong = [value for value in WRONG if value is not None]
        else:
            wrong = WRONG
            found.append({name: value for name, value in sound.items() if name != key})
        found += [{**sound, key: value} for value in wrong]
    return found


@pytest.mark.parametrize("kind", list(KNOWN))
def test_fields_missing_and_of_wrong_types(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The connection lives, the reader thread has nothing to complain about."""
    with victim() as worker, caplog.at_level(logging.ERROR, "iii_sync.io"):
        for message in variants(kind):
            worker.peer.send_json(message)
        worker.check_calls()
        worker.check_bystander()
        assert worker.engine.accepted == 1
        assert not [record for record in caplog.records if record.name == "iii_sync.io"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "[]",
        '"text"',
        "1",
        "{",
        "{}",
        '{"type":null}',
        '{"type":5}',
        '{"type":["ping"]}',
        '{"type":"unheard of"}',
        '{"type":"' + "x" * 100_000 + '"}',
        '{"type":"pong","type":"unheard of"}',
        "[" * 100_000,
        '{"type":"invocationresult","invocation_id":"ID","result":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"type":"invocationresult","invocation_id":"ID","error":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
        '{"type":"invocationresult","invocation_id":"ID","result":' + "9" * 100_000 + "}",
        '{"type":"invocationresult","invocation_id":"\\ud800","result":1}',
        '{"type":"invokefunction","invocation_id":"\\ud800","function_id":"\\udfff","data":1}',
        '{"type":"invokefunction","invocation_id":"' + ID + '","function_id":"\\udfff","data":1}',
        "\x00\x01\x02",
        "\ufeff{}",
    ],
    ids=lambda text: repr(text)[:40],
)
def test_json_that_is_no_message(text: str) -> None:
    """It is ignored; nothing is sent back, and calls go on. So does the one it pretended to answer."""
    with victim() as worker:
        call = worker.worker.submit("any::function", 1)
        worker.peer.send_frame(1, text.replace('"ID"', json.dumps(call.invocation_id)).encode())
        worker.peer.send_frame(2, text.encode())
        worker.check_calls()
        worker.check_bystander()
        worker.answer(call.invocation_id, "at last")
        assert call.result(WAIT) == "at last"
        assert worker.engine.accepted == 1


@pytest.mark.parametrize("depth", range(880, 1000, 3))
def test_json_as_deep_as_the_interpreter_takes(depth: int) -> None:
    """Around the depth where the parser gives up an error is either ignored or fails its call, always whole."""
    with victim() as worker:
        call = worker.worker.submit("any::function", 1)
        deep = "[" * depth + "]" * depth
        for key in ("error", "result"):
            text = f'{{"type":"invocationresult","invocation_id":"{call.invocation_id}","{key}":{deep}}}'
            worker.peer.send_frame(1, text.encode())
        for kind in ("registrationrejected", "workerregistered"):
            text = f'{{"type":"{kind}","function_id":"f","worker_id":{deep},"namespace":{deep},"code":{deep}}}'
            worker.peer.send_frame(1, text.encode())
        worker.check_calls()
        worker.answer(call.invocation_id, "fine")
        try:
            call.result(WAIT)
        except errors.InvocationError as exc:
            assert len(str(exc)) < 1000


@pytest.mark.parametrize(
    "error", [value for value in WRONG if value is not None] + [{"code": "c" * 10**6}], ids=lambda v: repr(v)[:12]
)
def test_errors_of_any_kind(error: Any) -> None:
    """Whatever stands for an error makes the call fail with an error of the package."""
    with victim() as worker:
        call = worker.worker.submit("any::function", 1)
        worker.peer.send_json({"type": "invocationresult", "invocation_id": call.invocation_id, "error": error})
        with pytest.raises(errors.InvocationError):
            call.result(WAIT)


def test_numbers_beyond_all_bounds() -> None:
    """What JSON can write and no computer hold is a float, or no message at all; the call can still be answered."""
    with victim() as worker:
        for number in ("1e999", "-1e999", "NaN", "9" * 4000, "1e-999", "0." + "3" * 100_000):
            call = worker.worker.submit("any::function", 1)
            text = f'{{"type":"invocationresult","invocation_id":"{call.invocation_id}","result":{number}}}'
            worker.peer.send_frame(1, text.encode())
            assert isinstance(call.result(WAIT), (int, float))


def test_answers_that_nobody_waits_for() -> None:
    """Duplicates, answers for others and answers after the timeout change nothing."""
    with victim() as worker:
        late = worker.worker.submit("any::function", 1, timeout=0.05)
        with pytest.raises(errors.CallTimeout):
            late.result(WAIT)
        first = worker.worker.submit("any::function", 1)
        other = worker.worker.submit("any::function", 2)
        for invocation_id in (late.invocation_id, str(uuid.uuid4()), str(first.invocation_id).upper(), "", "x" * MiB):
            worker.answer(invocation_id, "wrong")
        for result in ("right", "again", "and again"):
            worker.answer(first.invocation_id, result)
        worker.peer.send_json(
            {"type": "invocationresult", "invocation_id": first.invocation_id, "error": {"code": "x", "message": "y"}}
        )
        worker.check_calls()
        assert first.result(WAIT) == "right"
        assert not other.done()
        worker.answer(other.invocation_id, "its own")
        assert other.result(WAIT) == "its own"


def test_refusals_do_not_pile_up() -> None:
    """Refusals of functions that this worker never registered are not kept."""
    with victim() as worker, bounded(32 * MiB):
        for batch in range(30):
            frames = [
                server_frame(1, b'{"type":"registrationrejected","function_id":"f%d","code":"%s"}' % (n, b"c" * 1000))
                for n in range(batch * 2000, batch * 2000 + 2000)
            ]
            worker.peer.sock.sendall(b"".join(frames))
        worker.check_calls()


@pytest.mark.parametrize("message", [{"type": "error"}, {"type": "registrationrejected"}], ids=["error", "rejected"])
@pytest.mark.parametrize("value", [[], {"a": "x" * MiB}, "x" * MiB, "\x1b[2J\r\n", 1], ids=lambda v: repr(v)[:12])
def test_refusals_in_odd_words(message: dict[str, Any], value: Any) -> None:
    """A worker that is sent away says so on one line of bounded length."""
    keys = ("code", "error", "namespace", "owner_worker_id", "worker_name")
    with victim() as worker:
        call = worker.worker.submit("any::function", 1)
        worker.peer.send_json({**message, **dict.fromkeys(keys, value)})
        with pytest.raises(errors.ConnectionLostError) as caught:
            call.result(WAIT)
        assert len(str(caught.value)) < 3000 and str(caught.value).isprintable()
        worker.check_bystander()


class TestHello:
    """The first word of an engine."""

    @pytest.mark.parametrize(
        "hello",
        [
            {},
            {"worker_id": None},
            {"worker_id": 5, "reattach_token": "t"},
            {"worker_id": ["w"], "reattach_token": "t"},
            {"worker_id": "w", "reattach_token": 5},
            {"worker_id": "w", "reattach_token": {}},
        ],
    )
    def test_of_wrong_types(self, hello: dict[str, Any]) -> None:
        """It is refused at once, and not taken for the silence of a slow engine."""
        from ..support.rawserver import RawPeer, raw_server

        def serve(peer: RawPeer) -> None:
            peer.handshake()
            peer.send_json({"type": "workerregistered", **hello})
            peer.sock.recv(1000)

        with raw_server(serve) as server, pytest.raises(errors.EngineConnectionError, match="hello"):
            iii_sync.register_worker(server.url, connect_timeout=WAIT)

    def test_twice(self) -> None:
        """The first one counts."""
        with victim() as worker:
            before = worker.worker.worker_id
            worker.peer.send_json({"type": "workerregistered", "worker_id": "other", "reattach_token": "t"})
            worker.check_calls()
            assert worker.worker.worker_id == before


CHANNEL_ANSWERS: list[Any] = [
    *WRONG,
    {"writer": None, "reader": None},
    {"writer": ref("c", "write")},
    {"writer": ref("c", "write"), "reader": ref("c", "write")},
    {"writer": ref("c", "read"), "reader": ref("c", "write")},
    {"writer": ref("c", "write"), "reader": ref("d", "read")},
    {"writer": {**ref("c", "write"), "access_key": 5}, "reader": ref("c")},
    {"writer": [ref("c", "write")], "reader": [ref("c")]},
]


@pytest.mark.parametrize("answer", CHANNEL_ANSWERS, ids=lambda value: repr(value)[:30])
def test_channels_that_are_none(answer: Any) -> None:
    """An answer to ``engine::channels::create`` that is no channel is an error of the package."""
    with victim() as worker:
        made = in_thread(worker.worker.create_channel)
        message = worker.peer.recv_json()
        worker.answer(message["invocation_id"], answer)
        with pytest.raises(errors.ChannelError) as caught:
            made()
        assert len(str(caught.value)) < 500


HOSTILE_IDS = [
    "",
    ".",
    "..",
    "../../etc",
    "a/b",
    "a\r\nX-Evil: 1\r\n",
    "x" * 100_000,
    "a?key=b&dir=write#",
    "\x00",
    "é",
]


def called(worker: Victim, function_id: str, data: Any) -> dict[str, Any]:
    """Call a function of the worker as the engine does, and return its answer."""
    invocation_id = str(uuid.uuid4())
    worker.peer.send_json(
        {"type": "invokefunction", "invocation_id": invocation_id, "function_id": function_id, "data": data}
    )
    while True:
        answer = worker.peer.recv_json()
        if answer.get("invocation_id") == invocation_id:
            return answer


def registered(worker: Victim, function_id: str, handler: Any) -> None:
    """Register a function, with the engine's confirmation."""
    done = in_thread(lambda: worker.worker.register_function(function_id, handler))
    worker.peer.answer_next({})
    done()


class TestInvocations:
    """Calls of the worker's functions."""

    @pytest.mark.parametrize(
        "function_id", ["", "x" * 1_000_000, "a\r\nb", "\x00", "__class__"], ids=lambda v: repr(v)[:12]
    )
    def test_of_functions_that_are_not_there(self, function_id: str) -> None:
        """They are refused by name."""
        with victim() as worker:
            assert called(worker, function_id, None)["error"]["code"] == "function_not_found"

    def test_of_a_function_that_is_called_over_http(self) -> None:
        """Is refused: it is elsewhere."""
        with victim() as worker:
            config = iii_sync.HttpInvocationConfig("https://host/")
            done = in_thread(lambda: worker.worker.register_function("score", config))
            for _ in range(2):  # the engine has heard it, and has it
                worker.peer.answer_next({})
            done()
            error = called(worker, "score", 1)["error"]
            assert error["code"] == "function_not_invokable" and "score" in error["message"]

    @pytest.mark.parametrize(
        ("hostile", "field"),
        list(itertools.product(HOSTILE_IDS, ["channel_id", "access_key"])),
        ids=lambda v: repr(v)[:20],
    )
    def test_with_hostile_references(self, hostile: str, field: str) -> None:
        """The request for such an end stays one request for a channel, or is never made; the handler gets an error."""
        with victim() as worker:
            registered(worker, "read::it", lambda data: data["reader"].read().decode())
            invocation_id = str(uuid.uuid4())
            data = {"reader": {**ref("ok"), field: hostile}}
            if field == "access_key" and len(hostile) < 1000:
                # A key goes where it belongs, however odd: the engine serves it here.
                closing = in_thread(lambda: worker.engine.channel("ok").send_frame(8, b"\x03\xe9"))
            else:
                closing = None
            worker.peer.send_json(
                {"type": "invokefunction", "invocation_id": invocation_id, "function_id": "read::it", "data": data}
            )
            if field == "channel_id" and hostile in ("../../etc", "a/b", "a?key=b&dir=write#", "é"):
                from urllib.parse import quote

                worker.engine.channel(quote(hostile, safe="")).send_frame(8, b"\x03\xe9")
            answer = worker.peer.recv_json()
            assert answer["invocation_id"] == invocation_id
            assert answer["error"]["code"] == "invocation_failed"
            assert len(answer["error"]["message"]) < 1000
            if closing is not None:
                closing()
            worker.check_bystander()

    def test_with_references_without_end(self) -> None:
        """A payload of 200,000 references is refused before its ends fill the memory."""
        with victim() as worker:
            registered(worker, "read::it", lambda data: 1)
            with bounded(400 * MiB):
                answer = called(worker, "read::it", [ref(str(number)) for number in range(100_000)])
            assert "references" in answer["error"]["message"]
            assert called(worker, "read::it", [ref(str(number)) for number in range(100)])["result"] == 1

    def test_with_payloads_as_deep_as_can_be(self) -> None:
        """A payload too deep to be walked through is the handler's error, or was no message."""
        with victim() as worker:
            registered(worker, "count", lambda data: 1)
            for depth in range(900, 1000, 5):
                deep = "[" * depth + "]" * depth
                text = (
                    f'{{"type":"invokefunction","invocation_id":"{uuid.uuid4()}","function_id":"count","data":{deep}}}'
                )
                worker.peer.send_frame(1, text.encode())
            assert called(worker, "count", 1)["result"] == 1

    def test_more_than_the_worker_takes(self) -> None:
        """Calls beyond ``max_handlers`` are refused, without a thread or a payload kept for them."""
        with victim(max_handlers=5) as worker:
            registered(worker, "count", lambda data: 1)
            call = b'{"type":"invokefunction","invocation_id":"' + ID.encode() + b'","function_id":"count","data":"%s"}'
            with bounded(64 * MiB):
                sent = in_thread(lambda: worker.peer.sock.sendall(server_frame(1, call % (b"x" * 1000)) * 20_000))
                codes = [worker.peer.recv_json().get("error", {}).get("code") for _ in range(20_000)]
                sent()
            assert set(codes) <= {None, "overloaded"}
            # Some of these were sent twice, so some calls may still be to come.
            end = time.monotonic() + WAIT
            while called(worker, "count", 1).get("result") != 1:
                assert time.monotonic() < end


@pytest.mark.parametrize("kind", ["invokefunction", "invocationresult", "unknown"])
def test_70_mib_in_one_message(kind: str) -> None:
    """It is drained, not kept; who waits for it is told; everybody else's calls go on."""
    with victim() as worker:
        other = worker.worker.submit("other::function", 1)
        invocation_id = str(uuid.uuid4())
        call = None
        if kind == "invocationresult":
            call = worker.worker.submit("any::function", 1)
            invocation_id = str(call.invocation_id)
        head = f'{{"type":"{kind}","invocation_id":"{invocation_id}","function_id":"big","data":"'.encode()
        size = 70 * MiB
        # 17 MiB are kept before it is known to be too large, and the growing buffer may move: twice that at the worst.
        with bounded(40 * MiB) as growth:
            worker.peer.sock.sendall(b"\x81\x7f" + (len(head) + size + 2).to_bytes(8, "big"))
            worker.peer.sock.sendall(head)
            for _ in range(70):
                worker.peer.sock.sendall(b"y" * MiB)
                worker.check_bystander()
            worker.peer.sock.sendall(b'"}')
            if call is not None:
                with pytest.raises(errors.PayloadTooLargeError, match="channel"):
                    call.result(WAIT)
            worker.answer(other.invocation_id, "fine")
            assert other.result(WAIT) == "fine"
        print(f"peak growth {growth() / MiB:.1f} MiB")
        if kind == "invokefunction":
            answer = worker.peer.recv_json()
            while answer.get("invocation_id") != invocation_id:
                answer = worker.peer.recv_json()
            assert answer["error"]["code"] == "payload_too_large"
        assert worker.engine.accepted == 1
