"""Functions called in every direction: values, errors, void calls, metadata, namespaces, references passed on."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

import iii_sync

from . import streams
from .conftest import NAMESPACE, PeerOf
from .peers import NAMES, OFFICIAL, Failed

# Making the environments takes its time.
pytestmark = pytest.mark.timeout(600)

PAIRS = [(caller, callee) for caller in NAMES for callee in NAMES]

#: What every language can hold.
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**53 - 1,
    -(2**53) + 1,
    0.5,
    -1.25e-7,
    1.7976931348623157e308,
    5e-324,
    "",
    "Grüße, 世界, \U0001f600",
    '\x00\x1f\x7f\u2028\u2029\ufeff\uffff"\\/',
    "x" * 500_000,
    [],
    {},
    {"": {"ä": [None, {"b": [[]]}]}, "null": None, "constructor": "c"},
    [[[[[[[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]]]]]]],
    list(range(10_000)),
]

#: What JavaScript cannot: it has no integers but those of its floats.
LARGE = [2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1]


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_values_come_back(peer_of: PeerOf, caller: str, callee: str) -> None:
    """In a payload and as a result."""
    peer_of(callee)
    for value in VALUES:
        request = {"function_id": f"interop::{callee}::echo", "payload": {"value": value}}
        came = peer_of(caller).do("call", request=request)
        # As text: to Python 1, 1.0 and True are the same.
        assert json.dumps(came, sort_keys=True) == json.dumps(value, sort_keys=True)


@pytest.mark.parametrize(("caller", "callee"), [pair for pair in PAIRS if "node" not in pair])
def test_large_integers_come_back(peer_of: PeerOf, caller: str, callee: str) -> None:
    """All 64 bits of them."""
    peer_of(callee)
    for value in LARGE:
        came = peer_of(caller).do(
            "call", request={"function_id": f"interop::{callee}::echo", "payload": {"value": value}}
        )
        assert (type(came), came) == (int, value)


def test_node_rounds_large_integers(peer_of: PeerOf) -> None:
    """Its JSON knows floats only: send large ids to it as strings."""
    peer_of("node")
    request = {"function_id": "interop::node::echo", "payload": {"value": 2**53 + 1}}
    assert peer_of("ours").do("call", request=request) == 2**53


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_no_result_is_none(peer_of: PeerOf, caller: str, callee: str) -> None:
    """``None``, and ``undefined``."""
    peer_of(callee)
    assert peer_of(caller).do("call", request={"function_id": f"interop::{callee}::nothing", "payload": {}}) is None


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_errors_arrive_as_errors(peer_of: PeerOf, caller: str, callee: str) -> None:
    """With iii's code for a handler that failed, and the handler's message."""
    peer_of(callee)
    message = 'nicht möglich: 世界 \U0001f600 "quoted"\nsecond line'
    request = {"function_id": f"interop::{callee}::fail", "payload": {"message": message}}
    with pytest.raises(Failed) as failed:
        peer_of(caller).do("call", request=request)
    expected = f"ValueError: {message}" if callee == "ours" else message  # ours says which kind of error it was
    assert (failed.value.code, failed.value.message) == ("invocation_failed", expected)
    assert failed.value.type == ("HandlerFailedError" if caller == "ours" else "InvocationError")


@pytest.mark.parametrize("caller", NAMES)
def test_a_code_of_ones_own_arrives(peer_of: PeerOf, caller: str) -> None:
    """Only ours can send one."""
    peer_of("ours")
    payload = {"code": "out_of_stock", "message": "no ü left"}
    with pytest.raises(Failed) as failed:
        peer_of(caller).do("call", request={"function_id": "interop::ours::fail", "payload": payload})
    assert (failed.value.type, failed.value.code, failed.value.message) == (
        "InvocationError",
        "out_of_stock",
        "no ü left",
    )


@pytest.mark.parametrize("caller", NAMES)
def test_an_unknown_function_is_not_found(peer_of: PeerOf, caller: str) -> None:
    """The same code in every language."""
    with pytest.raises(Failed) as failed:
        peer_of(caller).do("call", request={"function_id": "interop::nobody::nothing", "payload": {}})
    assert failed.value.code == "function_not_found"
    assert "interop::nobody::nothing" in failed.value.message


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_a_timeout_is_a_timeout(peer_of: PeerOf, caller: str, callee: str) -> None:
    """The caller's own, whoever is slow."""
    peer_of(callee)
    request = {"function_id": f"interop::{callee}::slow", "payload": {"seconds": 0.5}, "timeout_ms": 50}
    with pytest.raises(Failed) as failed:
        peer_of(caller).do("call", request=request)
    assert failed.value.code == "TIMEOUT"


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_void_calls_arrive(peer_of: PeerOf, caller: str, callee: str) -> None:
    """And return nothing."""
    token = uuid.uuid4().hex
    peer_of(callee)
    request = {"function_id": f"interop::{callee}::note", "payload": {"token": token}}
    assert peer_of(caller).do("call", request=request, void=True) is None
    came = peer_of("ours").do("call", request={"function_id": f"interop::{callee}::noted", "payload": {}})
    # The engine says in objects who has called.
    assert came["token"] == token


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_metadata_arrives(peer_of: PeerOf, caller: str, callee: str) -> None:
    """Beside the payload."""
    peer_of(callee)
    metadata = {"tenant": "ä", "nested": [{"n": 1}], "none": None}
    request = {"function_id": f"interop::{callee}::meta", "payload": {}, "metadata": metadata}
    assert peer_of(caller).do("call", request=request) == metadata


# The Node SDK of this version has no namespaces: it calls, and lives in, "default".
@pytest.mark.parametrize("callee", ["ours", "python"])
@pytest.mark.parametrize("caller", ["ours", "python"])
def test_namespaces(peer_of: PeerOf, caller: str, callee: str) -> None:
    """The same id twice; the caller says which."""
    peer_of(callee)
    function_id = f"interop::{callee}::where"
    for namespace in ("default", NAMESPACE):
        request = {"function_id": function_id, "payload": {}, "namespace": namespace}
        assert peer_of(caller).do("call", request=request) == namespace
    assert peer_of(caller).do("call", request={"function_id": function_id, "payload": {}}) == "default"


@pytest.mark.parametrize("callee", OFFICIAL)
def test_a_worker_in_a_namespace_reaches_the_default_one(engine_url: str, peer_of: PeerOf, callee: str) -> None:
    """By its name; without it the function is not there."""
    peer_of(callee)
    if callee == "python":
        function_id, result = "interop::python::nothing", None
    else:
        function_id, result = "interop::node::where", "default"
    with iii_sync.register_worker(engine_url, namespace=f"interop-{uuid.uuid4().hex}") as worker:
        assert worker.trigger(function_id, {}, namespace="default") == result
        with pytest.raises(iii_sync.InvocationError, match="not found"):
            worker.trigger(function_id, {})


@pytest.mark.parametrize("last", NAMES)
@pytest.mark.parametrize("middle", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_references_are_passed_on(peer_of: PeerOf, first: str, middle: str, last: str) -> None:
    """The stream of the first goes to the last, though the middle one was called."""
    for name in (first, middle, last):
        peer_of(name)
    script, seed = streams.script(200_000, True), len(first + middle + last)
    refs = peer_of("ours").do("call", request={"function_id": "engine::channels::create", "payload": {}})
    payload = {"deep": [{"reader": refs["reader"]}]}
    to = {"to": f"interop::{last}::read"}
    # The official SDKs make ends of references in payloads, and cannot send ends; in metadata references stay.
    how: dict[str, Any] = (
        {"payload": {**to, "payload": payload}} if middle == "ours" else {"payload": to, "metadata": payload}
    )
    writing = {"deep": [{"writer": refs["writer"]}], "script": script, "seed": seed}
    # The driver is a worker of its own: nobody of the three may be busy with waiting.
    with iii_sync.register_worker(peer_of("ours").url) as driver:
        reading = driver.submit(f"interop::{middle}::pass_on", **how)
        wrote = driver.trigger(f"interop::{first}::write", writing)
        read = reading.result(30)
    expected = streams.summary(script, seed)
    assert wrote == expected
    assert read == {**expected, "complete": True if first == last == "ours" else None}
