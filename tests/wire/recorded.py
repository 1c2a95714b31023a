"""Bytes that the real engine sent (0.23.0-rc.4, Linux), as they came from its sockets, and what they mean.

Recorded with a bare socket that shares no code with the client. Only long runs of one letter are written by
construction. Ids and tokens are from an engine that no longer runs.
"""

from __future__ import annotations

from typing import Any

A = "ea882e92-982d-4130-b9a7-efb6b772b08c"
B = "ccf699b7-6b66-4021-b2b8-0154fcaf046d"

HELLO = (
    b'\x81~\x00\x86{"type":"workerregistered","worker_id":"ea882e92-982d-4130-b9a7-efb6b772b08c",'
    b'"reattach_token":"b0f0bcc5-50cd-41be-9ff6-c8f000300209"}'
)
REGISTERED = (
    b'\x81~\x00\x96{"type":"invocationresult","invocation_id":"00000000-0000-4000-8000-000000000001",'
    b'"function_id":"engine::workers::register","result":{"success":true}}'
)
#: The answer to a JSON ping.
JSON_PONG = b'\x81\x0f{"type":"pong"}'
#: The answer to a WebSocket ping on the control socket: two pongs for one ping.
TWO_PONGS = b"\x8a\x02hi\x8a\x02hi"
#: A second worker registered a function id that worker A has.
FUNCTION_REJECTED = (
    b'\x81~\x00\xad{"type":"registrationrejected","code":"FUNCTION_NAMESPACE_CONFLICT","namespace":"default",'
    b'"function_id":"rec::echo","owner_worker_id":"ea882e92-982d-4130-b9a7-efb6b772b08c"}'
)
#: A third worker took the name of worker A: the rejection, then a Close without a status.
NAME_REJECTED = (
    b'\x81~\x00\xaa{"type":"registrationrejected","code":"WORKER_NAMESPACE_CONFLICT","namespace":"default",'
    b'"worker_name":"recorder","owner_worker_id":"ea882e92-982d-4130-b9a7-efb6b772b08c"}'
)
CLOSE = b"\x88\x00"
#: Called by worker B with text beyond ASCII, 2**64 - 1 and an integer of 30 digits.
INVOCATION = (
    b'\x81~\x01!{"type":"invokefunction","invocation_id":"00000000-0000-4000-8000-000000000003",'
    b'"function_id":"rec::echo","data":{"_caller_worker_id":"ccf699b7-6b66-4021-b2b8-0154fcaf046d",'
    b'"n":[1,2.5,null,true,18446744073709551615,1.2345678901234568e+29],'
    b'"text":"gr\xc3\xbc\xc3\x9fe \xf0\x9f\x98\x80"},"metadata":{"tenant":"t1"}}'
)
#: A void call has an id too.
INVOCATION_VOID = (
    b'\x81v{"type":"invokefunction","invocation_id":"89a27099-a227-4e79-b8de-bd87848879b1",'
    b'"function_id":"rec::echo","data":null}'
)
#: The largest length with a single byte, almost: a payload of 115 bytes.
INVOCATION_NUMBER = (
    b'\x81s{"type":"invokefunction","invocation_id":"00000000-0000-4000-8000-000000000005",'
    b'"function_id":"rec::echo","data":5}'
)
#: A payload of 70,210 bytes: the length takes eight bytes.
INVOCATION_BIG = (
    b"\x81\x7f\x00\x00\x00\x00\x00\x01\x12B"
    b'{"type":"invokefunction","invocation_id":"00000000-0000-4000-8000-000000000010",'
    b'"function_id":"rec::echo","data":{"_caller_worker_id":"ccf699b7-6b66-4021-b2b8-0154fcaf046d","blob":"'
    + b"x" * 70000
    + b'","zz":1},"metadata":{"m":1}}'
)
RESULT = (
    b'\x81~\x00\x89{"type":"invocationresult","invocation_id":"00000000-0000-4000-8000-000000000003",'
    b'"function_id":"rec::echo","result":{"a":"x\\"\\n","z":1}}'
)
#: A callee answered ``"result":null``.
RESULT_NULL = (
    b'\x81l{"type":"invocationresult","invocation_id":"00000000-0000-4000-8000-000000000005","function_id":"rec::echo"}'
)
RESULT_LONG = (
    b'\x81~\x01\xa4{"type":"invocationresult","invocation_id":"00000000-0000-4000-8000-000000000010",'
    b'"function_id":"rec::echo","result":"' + b"y" * 300 + b'"}'
)
RESULT_ERROR = (
    b'\x81~\x00\xbb{"type":"invocationresult","invocation_id":"00000000-0000-4000-8000-000000000006",'
    b'"function_id":"rec::echo",'
    b'"error":{"code":"invocation_failed","message":"boom","stacktrace":"at line 1"}}'
)
NOT_FOUND = (
    b'\x81~\x00\xcf{"type":"invocationresult","invocation_id":"00000000-0000-4000-8000-000000000007",'
    b'"function_id":"no::such","error":{"code":"function_not_found",'
    b'"message":"Function no::such not found in namespace default."}}'
)
CHANNEL_CREATED = (
    b'\x81~\x01\x93{"type":"invocationresult","invocation_id":"00000000-0000-4000-8000-000000000009",'
    b'"function_id":"engine::channels::create","result":{'
    b'"reader":{"access_key":"8e5d04df-b5f1-4d7b-a496-991baea33e79",'
    b'"channel_id":"49b68060-f1cc-405f-bc0b-2dfc63abf745","direction":"read"},'
    b'"writer":{"access_key":"8e5d04df-b5f1-4d7b-a496-991baea33e79",'
    b'"channel_id":"49b68060-f1cc-405f-bc0b-2dfc63abf745","direction":"write"}}}'
)

_ECHO = {"type": "invocationresult", "function_id": "rec::echo"}
_CALL = {"type": "invokefunction", "function_id": "rec::echo"}
_REF = {
    "access_key": "8e5d04df-b5f1-4d7b-a496-991baea33e79",
    "channel_id": "49b68060-f1cc-405f-bc0b-2dfc63abf745",
}


def _id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


#: Frames of the control socket, each one whole message, and what they mean.
MESSAGES: list[tuple[bytes, dict[str, Any]]] = [
    (
        HELLO,
        {
            "type": "workerregistered",
            "worker_id": A,
            "reattach_token": "b0f0bcc5-50cd-41be-9ff6-c8f000300209",
        },
    ),
    (
        REGISTERED,
        {
            "type": "invocationresult",
            "invocation_id": _id(1),
            "function_id": "engine::workers::register",
            "result": {"success": True},
        },
    ),
    (JSON_PONG, {"type": "pong"}),
    (
        FUNCTION_REJECTED,
        {
            "type": "registrationrejected",
            "code": "FUNCTION_NAMESPACE_CONFLICT",
            "namespace": "default",
            "function_id": "rec::echo",
            "owner_worker_id": A,
        },
    ),
    (
        NAME_REJECTED,
        {
            "type": "registrationrejected",
            "code": "WORKER_NAMESPACE_CONFLICT",
            "namespace": "default",
            "worker_name": "recorder",
            "owner_worker_id": A,
        },
    ),
    (
        INVOCATION,
        {
            **_CALL,
            "invocation_id": _id(3),
            "data": {
                "_caller_worker_id": B,
                "n": [1, 2.5, None, True, 2**64 - 1, 1.2345678901234568e29],
                "text": "grüße 😀",
            },
            "metadata": {"tenant": "t1"},
        },
    ),
    (INVOCATION_VOID, {**_CALL, "invocation_id": "89a27099-a227-4e79-b8de-bd87848879b1", "data": None}),
    (INVOCATION_NUMBER, {**_CALL, "invocation_id": _id(5), "data": 5}),
    (
        INVOCATION_BIG,
        {
            **_CALL,
            "invocation_id": _id(10),
            "data": {"_caller_worker_id": B, "blob": "x" * 70000, "zz": 1},
            "metadata": {"m": 1},
        },
    ),
    (RESULT, {**_ECHO, "invocation_id": _id(3), "result": {"z": 1, "a": 'x"\n'}}),
    (RESULT_NULL, {**_ECHO, "invocation_id": _id(5)}),
    (RESULT_LONG, {**_ECHO, "invocation_id": _id(10), "result": "y" * 300}),
    (
        RESULT_ERROR,
        {
            **_ECHO,
            "invocation_id": _id(6),
            "error": {"code": "invocation_failed", "message": "boom", "stacktrace": "at line 1"},
        },
    ),
    (
        NOT_FOUND,
        {
            "type": "invocationresult",
            "invocation_id": _id(7),
            "function_id": "no::such",
            "error": {
                "code": "function_not_found",
                "message": "Function no::such not found in namespace default.",
            },
        },
    ),
    (
        CHANNEL_CREATED,
        {
            "type": "invocationresult",
            "invocation_id": _id(9),
            "function_id": "engine::channels::create",
            "result": {
                "reader": {**_REF, "direction": "read"},
                "writer": {**_REF, "direction": "write"},
            },
        },
    ),
]

#: What a channel's read end sent, frame by frame: bytes, opcode and payload. The last message but one was
#: written in two fragments with a ping between them; the engine joins them.
CHANNEL_READER: list[tuple[bytes, int, bytes]] = [
    (b"\x81\x0cgr\xc3\xbc\xc3\x9fe \xf0\x9f\x98\x80", 1, "grüße 😀".encode()),
    (b"\x82\x04\x00\x01\x02\xff", 2, b"\x00\x01\x02\xff"),
    (b"\x82\x00", 2, b""),
    (b"\x81\x00", 1, b""),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x18\x00" + b"x" * 71680, 2, b"x" * 71680),
    (b"\x82~\x00~" + b"y" * 126, 2, b"y" * 126),
    (b"\x81}" + b"z" * 125, 1, b"z" * 125),
    (b"\x82\x08fragment", 2, b"fragment"),
    (b"\x88\x00", 8, b""),
]

#: What a channel's write end sent: the pong to a ping ``mid``, then the echo of Close 1000 ``done``.
CHANNEL_WRITER: list[tuple[bytes, int, bytes]] = [
    (b"\x8a\x03mid", 10, b"mid"),
    (b"\x88\x06\x03\xe8done", 8, b"\x03\xe8done"),
]

#: What a second reader of the same channel gets, and the echo of a Close without a status.
SECOND_READER = b"\x88\x00"
EMPTY_CLOSE_ECHO = b"\x88\x00"


def server_frame(opcode: int, payload: bytes = b"", end: bool = True) -> bytes:
    """A frame as a server sends it. Not recorded: for streams that the real engine would not send."""
    size = len(payload)
    if size < 126:
        head = bytes([size])
    elif size < 65536:
        head = b"\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x7f" + size.to_bytes(8, "big")
    return bytes([opcode | (0x80 if end else 0)]) + head + payload
