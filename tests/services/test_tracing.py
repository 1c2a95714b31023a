"""Traces: the context that travels, and the spans of calls and handlers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from iii_sync import TriggerAction, Worker, errors, register_worker
from iii_sync.request import prepare
from iii_sync.tracing import current_ids, incoming, outgoing

from ..support.exceptions import Untellable

WAIT = 20.0

Unique = Callable[[str], str]

HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "tenant=a"}

_exporter = InMemorySpanExporter()


@pytest.fixture(scope="session")
def _provider() -> None:
    """The process's provider of spans; there can be only one."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(provider)


class Spans:
    """The spans that have ended."""

    def named(self, name: str) -> ReadableSpan:
        """The span of this name; it may still have to end."""
        end = time.monotonic() + WAIT
        while True:
            found = [span for span in _exporter.get_finished_spans() if span.name == name]
            if found or time.monotonic() > end:
                (span,) = found
                return span
            time.sleep(0.01)

    def names(self) -> list[str]:
        """Their names."""
        return [span.name for span in _exporter.get_finished_spans()]


@pytest.fixture
def spans(_provider: None) -> Iterator[Spans]:
    """Watch the spans of a test."""
    _exporter.clear()
    yield Spans()
    _exporter.clear()


def parent_id(span: ReadableSpan) -> int:
    """The id of a span's parent."""
    assert span.parent is not None
    number: int = span.parent.span_id
    return number


def own_id(span: ReadableSpan) -> int:
    """The id of a span."""
    assert span.context is not None
    number: int = span.context.span_id
    return number


def test_a_call_is_two_spans_of_one_trace(worker: Worker, peer: Worker, spans: Spans, unique: Unique) -> None:
    """The program's, the call's below it, the handler's below that; and what the handler calls in turn."""
    inner, outer = unique("inner"), unique("outer")
    seen: dict[str, Any] = {}

    def handle(data: Any) -> Any:
        seen["baggage"] = baggage.get_baggage("tenant")
        seen["ids"] = current_ids()
        return peer.trigger(inner, data)

    peer.register_function(inner, lambda data: data)
    peer.register_function(outer, handle)
    token = context.attach(baggage.set_baggage("tenant", "a b"))
    try:
        with trace.get_tracer("program").start_as_current_span("program") as program:
            assert worker.trigger(outer, 1) == 1
    finally:
        context.detach(token)
    call, run = spans.named(f"call {outer}"), spans.named(f"execute {outer}")
    call_in, run_in = spans.named(f"call {inner}"), spans.named(f"execute {inner}")
    assert parent_id(call) == program.get_span_context().span_id
    assert [parent_id(span) for span in (run, call_in, run_in)] == [own_id(span) for span in (call, run, call_in)]
    assert len({span.context.trace_id for span in (call, run, call_in, run_in) if span.context}) == 1
    assert (call.kind, run.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert call.attributes is not None
    assert run.attributes is not None
    assert call.attributes["iii.function.id"] == run.attributes["iii.function.id"] == outer
    assert call.attributes["iii.invocation.id"] == run.attributes["iii.invocation.id"]
    assert (call.attributes["iii.worker.id"], run.attributes["iii.worker.id"]) == (worker.worker_id, peer.worker_id)
    assert [span.status.status_code for span in (call, run)] == [StatusCode.UNSET] * 2
    assert call.context is not None
    assert not call.events
    assert not run.events
    assert seen == {"baggage": "a b", "ids": (f"{call.context.trace_id:032x}", f"{own_id(run):016x}")}


@pytest.mark.parametrize(("error", "recorded"), [(ValueError("no"), ["exception"]), (Untellable(), [])])
def test_errors_are_told(
    worker: Worker, peer: Worker, spans: Spans, unique: Unique, error: Exception, recorded: list[str]
) -> None:
    """On both sides, by trigger and submit, and calls that cannot be sent as well."""
    name, missing = unique("fails"), unique("missing")

    def handle(_: Any) -> None:
        raise error

    peer.register_function(name, handle)
    with pytest.raises(errors.HandlerFailedError, match=f"{type(error).__name__}"):
        worker.trigger(name)
    call, run = spans.named(f"call {name}"), spans.named(f"execute {name}")
    assert (call.status.status_code, run.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert call.attributes is not None
    assert run.attributes is not None
    assert (call.attributes["error.type"], run.attributes["error.type"]) == ("invocation_failed", type(error).__name__)
    assert [event.name for event in run.events] == recorded
    with pytest.raises(errors.FunctionNotFoundError):
        worker.submit(missing).result(WAIT)
    assert spans.named(f"call {missing}").status.description == "function_not_found"
    worker.shutdown()
    with pytest.raises(errors.WorkerClosedError):
        worker.submit(unique("late"))
    assert not [name for name in spans.names() if "late" in name]


def test_submitted_and_void_calls(worker: Worker, peer: Worker, spans: Spans, unique: Unique) -> None:
    """Their spans end with them; a cancelled one says so."""
    name, slow = unique("f"), unique("slow")
    peer.register_function(name, lambda data: data)
    release = threading.Event()
    peer.register_function(slow, lambda _: release.wait(WAIT))
    assert worker.submit(name, 1).result(WAIT) == 1
    assert spans.named(f"call {name}").status.status_code is StatusCode.UNSET
    _exporter.clear()
    worker.trigger(name, action=TriggerAction.Void())
    assert own_id(spans.named(f"call {name}")) == parent_id(spans.named(f"execute {name}"))
    call = worker.submit(slow)
    assert f"call {slow}" not in spans.names()
    assert call.cancel()
    release.set()
    assert spans.named(f"call {slow}").status.description == "CancelledError"


def test_the_engines_own_functions_have_no_spans(worker: Worker, spans: Spans) -> None:
    """But state and the like have."""
    worker.create_channel()
    worker.engine.workers()
    worker.state.get("a", "b")
    assert spans.names() == ["call state::get"]


def test_payloads_are_recorded_only_when_asked_for(
    engine_url: str, worker: Worker, spans: Spans, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without secrets, and not without end; the environment can forbid it."""
    payload = {
        "n": 1,
        "password": "hunter2",
        "list": [{"access_token": "t0ken", "x": "y"}],
        "headers": ["Authorization: Bearer hidden", "set-cookie: a=hidden", "accept: all"],
        "text": "one: 1\nX-Api-Key: hidden\ntwo: 2",
        "url": "postgres://me:hidden@host/path?a=b@c https://host/@me",
        **dict.fromkeys(("accessKey", "private-key", "pwd", "passwd", "Cookie", "session_id", "tokens"), "hidden"),
    }

    def events() -> list[tuple[str, Any, Any]]:
        function = unique("f")
        _exporter.clear()
        worker.trigger(function, payload)
        return [
            (event.name, event.attributes["iii.payload.json"], event.attributes["iii.payload.truncated"])
            for event in spans.named(f"execute {function}").events
            if event.attributes is not None
        ]

    with register_worker(engine_url) as plain:
        plain.register_function(unique("f"), lambda data: "x" * 10_000)
        assert events() == []
    with register_worker(engine_url, trace_payloads=True) as recording:
        recording.register_function(unique("f"), lambda data: "x" * 10_000)
        (name, given, cut), (other, returned, cut_too) = events()
        assert (name, other, cut, cut_too) == ("iii.invocation.input", "iii.invocation.output", False, True)
        assert len(returned) == 8192
        told = json.loads(given)
        assert (told["n"], told["password"], told["list"]) == (
            1,
            "[REDACTED]",
            [{"access_token": "[REDACTED]", "x": "y"}],
        )
        assert told["headers"] == ["Authorization: [REDACTED]", "set-cookie: [REDACTED]", "accept: all"]
        assert told["text"] == "one: 1\nX-Api-Key: [REDACTED]\ntwo: 2"
        assert told["url"] == "postgres://[REDACTED]@host/path?a=b@c https://host/@me"
        assert "hidden" not in given
    monkeypatch.setenv("III_DISABLE_TRACE_PAYLOADS", "1")
    with register_worker(engine_url, trace_payloads=True) as forbidden:
        forbidden.register_function(unique("f"), lambda data: data)
        assert events() == []


def test_without_spans_the_headers_are_handed_on(engine_url: str, spans: Spans, unique: Unique) -> None:
    """A call of a handler belongs to the trace of its caller all the same."""
    seen: dict[str, Any] = {}
    with register_worker(engine_url, tracing=False) as middle, register_worker(engine_url, tracing=False) as last:
        inner, outer = unique("inner"), unique("outer")
        last._functions._tracer.handling = spy(seen, last._functions._tracer.handling)  # type: ignore[method-assign, assignment]
        last.register_function(inner, lambda data: data)
        middle.register_function(outer, lambda data: middle.trigger(inner, data))
        prepared = prepare(last._ends, None, outer, 1, WAIT, None, None, None)
        prepared.message.update(HEADERS)
        assert last._caller._call(prepared) == 1
        assert seen["traceparent"] == HEADERS["traceparent"]
        assert "tenant=a" in seen["baggage"].split(",")
        assert middle.trigger(inner, 1) == 1
        assert "traceparent" not in seen
    assert spans.names() == []


def spy(seen: dict[str, Any], handling: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Note the last message that a worker was called with."""

    def note(message: Any) -> Any:
        seen.clear()
        seen.update(message)
        return handling(message)

    return note


def test_outgoing_and_incoming(spans: Spans) -> None:
    """What is inside the block goes out; nothing outside."""
    assert outgoing() == {}
    assert current_ids() is None
    with incoming({**HEADERS, "data": 1}):
        assert outgoing() == HEADERS
        assert current_ids() == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        with incoming({"traceparent": "nonsense", "baggage": 7}):
            assert outgoing() == {}
        assert outgoing() == HEADERS
    assert outgoing() == {}


SCRIPT = """
import sys
from iii_sync import register_worker
with register_worker({url!r}) as worker:
    worker.register_function({name!r}, lambda data: worker.trigger({name!r} + "-inner"))
    worker.register_function({name!r} + "-inner", lambda data: data)
    worker.trigger({name!r})
    assert not [module for module in sys.modules if module.startswith("opentelemetry")]
    from iii_sync.tracing import incoming, outgoing
    with incoming({headers!r}):
        assert outgoing() == {headers!r}
    assert outgoing() == {{}}
sys.modules["opentelemetry"] = None
try:
    register_worker({url!r}, tracing=True)
except ValueError as exc:
    print(exc)
"""


def test_opentelemetry_is_not_imported_unasked(engine_url: str, unique: Unique) -> None:
    """Calls work without it; who asks for it and does not have it is told what to install."""
    script = SCRIPT.format(url=engine_url, name=unique("f"), headers=HEADERS)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT * 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install 'iii_sync[otel]'" in done.stdout


def test_the_environment_switches_it_off(
    engine_url: str, spans: Spans, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``OTEL_ENABLED=false``; an option that is given wins."""
    monkeypatch.setenv("OTEL_ENABLED", "False")
    for tracing, expected in ((None, 0), (True, 2)):
        name = unique(f"f{expected}")
        with register_worker(engine_url, tracing=tracing) as worker:
            worker.register_function(name, lambda data: data)
            worker.trigger(name)
        assert len(spans.names()) == expected
