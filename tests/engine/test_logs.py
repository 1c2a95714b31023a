"""The log of an engine, as functions list it, on both engines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from iii_sync import Worker, errors, register_worker

WAIT = 20.0

Unique = Callable[[str], str]


@pytest.fixture
def worker(logging_engine_url: str) -> Iterator[Worker]:
    """A worker on an engine that keeps logs."""
    with register_worker(logging_engine_url) as worker:
        yield worker


def lines(worker: Worker, **query: Any) -> dict[str, Any]:
    """What the engine lists."""
    found: dict[str, Any] = worker.trigger("engine::logs::list", query)
    return found


def write(worker: Worker, level: str, message: str, **keys: Any) -> None:
    """Write a line and wait until it is there."""
    worker.trigger(f"engine::log::{level}", {"message": message, **keys})


def test_lines_are_listed(worker: Worker, unique: Unique) -> None:
    """By trace, span, severity and time, the latest first, a page at a time."""
    trace, other = unique("trace"), unique("other")
    before = int(time.time() * 1000) - 1000
    for number, level in enumerate(("debug", "info", "warn", "error")):
        write(worker, level, f"line {number}", trace_id=trace, span_id=f"s{number}", data={"n": number})
    write(worker, "error", "another", trace_id=other)
    deadline = time.monotonic() + WAIT
    while (found := lines(worker, trace_id=trace))["total"] < 4 and time.monotonic() < deadline:
        time.sleep(0.02)  # the real engine keeps them a moment later

    def bodies(**query: Any) -> list[str]:
        return [line["body"] for line in lines(worker, trace_id=trace, **query)["logs"]]

    assert bodies() == ["line 3", "line 2", "line 1", "line 0"]
    assert found["total"] == 4 and found["timestamp"] > before
    line = found["logs"][0]
    assert (line["severity_number"], line["severity_text"]) == (17, "ERROR")
    assert (line["attributes"], line["span_id"], line["trace_id"]) == ({"n": 3}, "s3", trace)
    assert bodies(severity_min=13) == ["line 3", "line 2"]
    assert bodies(severity_text="warn") == bodies(span_id="s2") == ["line 2"]
    assert bodies(start_time=before) == bodies(end_time=before + 3_600_000) == bodies()
    assert bodies(end_time=before) == bodies(start_time=before + 3_600_000) == []
    assert bodies(offset=1, limit=2) == ["line 2", "line 1"]
    page = lines(worker, trace_id=trace, offset=1, limit=2)
    assert page["total"] == 4
    assert {key: value for key, value in page["query"].items() if value is not None} == {
        "trace_id": trace,
        "offset": 1,
        "limit": 2,
    }
    assert worker.trigger("engine::logs::clear", {}) == {"success": True}
    assert bodies() == []


def test_nonsense(worker: Worker) -> None:
    """Is refused."""
    queries: list[dict[str, Any]] = [{"limit": "x"}, {"severity_min": []}, {"trace_id": 1}]
    for query in queries:
        with pytest.raises(errors.InvocationError) as caught:
            lines(worker, **query)
        assert caught.value.code == "deserialization_error"
