"""Handlers annotated with pydantic models."""

from __future__ import annotations

import datetime
from typing import Any, Callable, Optional

import pytest

from iii_sync import ChannelReader, InvocationError, Worker
from iii_sync.triggers import TriggerType

pydantic = pytest.importorskip("pydantic", minversion="2")


class Line(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    text: str
    weight: float = pydantic.Field(default=1.0, ge=0)


class Document(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    name: str
    when: datetime.date
    lines: list[Line] = []
    camel_case: Optional[int] = pydantic.Field(default=None, alias="camelCase")


class Upload(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    name: str
    reader: ChannelReader


def test_a_model_is_validated_and_returned(worker: Worker, peer: Worker, unique: Callable[[str], str]) -> None:
    """The handler gets the model, and its caller what the model is in JSON."""

    def keep(data: Document) -> Document:
        assert isinstance(data, Document) and isinstance(data.lines[0], Line)
        data.when += datetime.timedelta(days=1)
        return data

    function = peer.register_function(unique("keep"), keep)
    sent = {"name": "a", "when": "2026-01-31", "lines": [{"text": "x"}], "camelCase": 3}
    assert worker.trigger(function.id, sent) == {
        "name": "a",
        "when": "2026-02-01",
        "lines": [{"text": "x", "weight": 1.0}],
        "camelCase": 3,
    }
    # And a caller may send one.
    assert worker.trigger(function.id, Document(**sent))["when"] == "2026-02-01"
    listed = worker.trigger("engine::functions::info", {"function_id": function.id})
    assert listed["request_schema"]["required"] == ["name", "when"]
    lines = listed["request_schema"]["properties"]["lines"]
    assert lines["items"]["$ref"].rpartition("/")[2] in listed["request_schema"]["$defs"]


def test_formats_may_be_models(worker: Worker, unique: Callable[[str], str]) -> None:
    """Of functions and of trigger types; a result's is that of what it is dumped as."""
    function = worker.register_function(unique("f"), lambda data: data, request_format=Line, response_format=Document)
    listed = worker.engine.function(function.id)
    assert listed["request_schema"]["properties"]["weight"]["minimum"] == 0
    assert listed["response_schema"]["required"] == ["name", "when"]
    formats = {"trigger_request_format": Line, "call_request_format": Upload}
    kind: TriggerType[Any] = worker.register_trigger_type(
        {"id": unique("hook"), "description": "d", **formats}, (print, print)
    )
    known = worker.engine.trigger_type(kind.id)
    assert known["configuration_schema"] == listed["request_schema"]
    assert set(known["request_schema"]["properties"]) == {"name", "reader"}


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"when": "2026-01-31"}, r"payload\.name: Field required"),
        ({"name": "a", "when": "tomorrow"}, r"payload\.when: .*date"),
        ({"name": "a", "when": "2026-01-31", "lines": [{"text": "x", "weight": -1}]}, r"payload\.lines\[0\]\.weight: "),
        ([], "payload: "),
        ({}, r"payload\.name: .* \(and 1 more\)"),
    ],
)
def test_what_a_model_refuses_is_told_to_the_caller(
    worker: Worker, peer: Worker, unique: Callable[[str], str], sent: object, said: str
) -> None:
    """With the place, in pydantic's words; the handler does not run."""
    ran = []

    def keep(data: Document) -> None:
        ran.append(data)

    function = peer.register_function(unique("keep"), keep)
    with pytest.raises(InvocationError, match=said) as caught:
        worker.trigger(function.id, sent)
    assert caught.value.code == "invalid_payload" and not ran


def test_a_model_may_hold_a_channel_end(worker: Worker, peer: Worker, unique: Callable[[str], str]) -> None:
    """Without arbitrary_types_allowed; the schema tells of a reference."""

    def take(data: Upload) -> dict[str, object]:
        return {"name": data.name, "bytes": len(data.reader.read())}

    function = peer.register_function(unique("take"), take)
    channel = worker.create_channel()
    call = worker.submit(function.id, {"name": "a", "reader": channel.reader_ref})
    with channel.writer as f:
        f.write(b"12345")
    assert call.result(20) == {"name": "a", "bytes": 5}
    # The caller may use the same model.
    channel = worker.create_channel()
    call = worker.submit(function.id, Upload(name="b", reader=channel.reader))
    with channel.writer as f:
        f.write(b"123")
    assert call.result(20) == {"name": "b", "bytes": 3}
    listed = worker.trigger("engine::functions::info", {"function_id": function.id})
    assert listed["request_schema"]["properties"]["reader"]["properties"]["direction"] == {"const": "read"}
