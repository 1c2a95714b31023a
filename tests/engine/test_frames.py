"""Frames of a worker: what decodes, what is ignored, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iii_sync.engine.frames import (
    Failure,
    Ignored,
    Invoke,
    Ping,
    Reattach,
    RegisterTrigger,
    RegisterTriggerType,
    Result,
    TriggerResult,
    UnregisterTrigger,
    UnregisterTriggerType,
    canonical_uuid,
    parse,
)

UUID = "0b9e6a52-0a3f-4f0e-9a2e-7f4d6f0f6c11"


def frame(**keys: Any) -> str:
    """Return the text of a frame."""
    return json.dumps(keys)


def test_invocation_with_everything() -> None:
    """Every key of an invocation arrives."""
    text = frame(
        data={"a": 1},
        type="invokefunction",
        function_id="f",
        invocation_id=UUID,
        namespace="n",
        metadata=[1],
        traceparent="t",
        baggage="b",
        action={"type": "enqueue", "queue": "q"},
        unknown=1,
    )
    assert parse(text) == Invoke("f", {"a": 1}, UUID, "n", False, "q", [1], "t", "b")


def test_optional_keys_may_be_null_or_absent() -> None:
    """Null and absent are the same for optional keys."""
    text = frame(type="invokefunction", function_id="f", data=None, invocation_id=None, action=None)
    assert parse(text) == Invoke("f", None)
    assert parse(frame(type="invokefunction", function_id="f", data=None)) == Invoke("f", None)
    assert parse(frame(type="reattach", previous_worker_id="w")) == Reattach("w", None)


def test_error_of_a_result() -> None:
    """A result may carry an error, and a null one is none."""
    text = frame(type="invocationresult", invocation_id=UUID, function_id="f", error={"code": "c", "message": "m"})
    assert parse(text) == Result(UUID, None, Failure("c", "m"))
    text = frame(type="invocationresult", invocation_id=UUID, function_id="f", result=1, error=None)
    assert parse(text) == Result(UUID, 1)


@pytest.mark.parametrize("message", ["", "  \n", b"", b"OTLP{}", b"MTRC\xff", b"LOGS"])
def test_blank_text_and_telemetry_are_ignored(message: str | bytes) -> None:
    """Neither is a frame, and neither is an error."""
    assert parse(message) is None


def test_binary_text_is_text() -> None:
    """A binary message without a telemetry prefix is decoded like text."""
    assert parse(b'{"type":"ping"}') == Ping()


def test_frames_without_effect_are_known() -> None:
    """They decode, so that they are not taken for mistakes."""
    assert parse(frame(type="registerservice", id="x")) == Ignored("registerservice")


def test_frames_of_triggers() -> None:
    """Everything that is needed is read, and nothing else."""
    assert parse(frame(type="unregistertrigger", id="x", trigger_type="t")) == UnregisterTrigger("x")
    assert parse(frame(type="unregistertriggertype", id="x")) == UnregisterTriggerType("x")
    kind = frame(type="registertriggertype", id="x", description="d", call_request_format={}, namespace="n")
    assert parse(kind) == RegisterTriggerType("x", "d", None, {}, "n")
    trigger = frame(type="registertrigger", id="x", trigger_type="t", function_id="f", config=None, metadata=1)
    assert parse(trigger) == RegisterTrigger("x", "t", "f", None, 1)
    error = {"code": "c", "message": "m"}
    result = frame(type="triggerregistrationresult", id="x", trigger_type="t", function_id="f", error=error)
    assert parse(result) == TriggerResult("x", Failure("c", "m"))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        "not json",
        "{}",
        frame(type=1),
        frame(type="nonsense"),
        frame(type="invokefunction", function_id="f"),
        frame(type="registertriggertype", id="x"),
        frame(type="registertrigger", id="x", trigger_type="t", function_id="f"),
        frame(type="registerfunction", id="x", invocation=1),
        frame(type="invokefunction", data={}),
        frame(type="invokefunction", function_id="f", data=1, invocation_id="nope"),
        frame(type="invokefunction", function_id="f", data=1, namespace=3),
        frame(type="invokefunction", function_id="f", data=1, action="void"),
        frame(type="invokefunction", function_id="f", data=1, action={"type": "later"}),
        frame(type="invokefunction", function_id="f", data=1, action={"type": "enqueue"}),
        frame(type="invocationresult", invocation_id=UUID),
        frame(type="invocationresult", function_id="f", invocation_id=UUID, error="x"),
        frame(type="invocationresult", function_id="f", invocation_id=UUID, error={"code": "c"}),
        frame(type="registerfunction"),
        frame(type="registertrigger", id="t", trigger_type="x", function_id="f"),
        frame(type="registertriggertype", id="t"),
    ],
)
def test_malformed_frames_are_refused(text: str) -> None:
    """What does not decode raises ValueError."""
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize(
    "spelling",
    [UUID, UUID.upper(), UUID.replace("-", ""), "{" + UUID + "}", "urn:uuid:" + UUID],
)
def test_uuid_spellings(spelling: str) -> None:
    """Every spelling becomes the lower-case hyphenated one."""
    assert canonical_uuid(spelling) == UUID


@pytest.mark.parametrize("text", ["", "x", UUID[:-1], UUID + "0", "-".join(UUID.replace("-", "")), "{" + UUID])
def test_not_a_uuid(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError):
        canonical_uuid(text)
