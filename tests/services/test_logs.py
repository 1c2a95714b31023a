"""The logging handler: what arrives, what is dropped, and that the logging program never waits."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from iii_sync import Worker, errors, register_worker
from iii_sync.logs import EngineLogHandler
from iii_sync.request import prepare

from ..support.engines import killable_engine
from ..support.exceptions import Untellable
from ..support.process import run
from ..support.rawengine import Visit, raw_engine
from ..support.waiting import wait_until

WAIT = 20.0

Unique = Callable[[str], str]


@contextlib.contextmanager
def logger_with(handler: logging.Handler, name: str) -> Iterator[logging.Logger]:
    """A logger of its own that writes to the handler alone."""
    logger = logging.getLogger(name)
    logger.setLevel(1)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


class Lines:
    """What the engine's log hears of one service."""

    def __init__(self, url: str, service: str) -> None:
        self.service = service
        self.worker = register_worker(url)
        self._seen: queue.Queue[Any] = queue.Queue()
        ref = self.worker.register_function(f"on-log-{service}", self._seen.put)
        self.worker.trigger("engine::register_trigger", {"trigger_type": "log", "function_id": ref.id, "config": {}})

    def next(self) -> Any:
        """The next line of the service."""
        while True:
            event = self._seen.get(timeout=WAIT)
            if event["service_name"] == self.service:
                return event


@pytest.fixture
def lines(logging_engine_url: str, unique: Unique) -> Iterator[Lines]:
    """Somebody who reads the log."""
    lines = Lines(logging_engine_url, unique("service"))
    with lines.worker:
        yield lines


def test_records_arrive(logging_engine_url: str, lines: Lines, unique: Unique, monkeypatch: pytest.MonkeyPatch) -> None:
    """With level, place, extras and traceback; below the level, and of iii_sync itself, nothing."""
    with register_worker(logging_engine_url) as worker:
        handler = EngineLogHandler(worker, level=5, service_name=lines.service)
        name = unique("program")
        with logger_with(handler, name) as logger:
            seen = {}
            logger.log(1, "below")
            for level in (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
                logger.log(level, "line %d", level, extra={"order": 17, "odd": {1, 2}, "\ud800k": "\ud800"})
                event = lines.next()
                seen[event["body"]] = event["severity_text"]
            assert seen == {
                "line 5": "TRACE",
                "line 10": "DEBUG",
                "line 20": "INFO",
                "line 30": "WARN",
                "line 40": "ERROR",
                "line 50": "ERROR",
            }
            attributes = event["attributes"]
            assert attributes["logger"] == name
            assert (attributes["order"], attributes["odd"], attributes["\\ud800k"]) == (17, "{1, 2}", "\\ud800")
            assert attributes["file"] == __file__
            try:
                raise ValueError("the reason")
            except ValueError:
                logger.exception("it failed")
            assert "ValueError: the reason" in lines.next()["body"]
            logging.getLogger("iii_sync.worker").addHandler(handler)
            try:
                logging.getLogger("iii_sync.worker").error("ours")
            finally:
                logging.getLogger("iii_sync.worker").removeHandler(handler)
            logger.info("after ours")
            assert lines.next()["body"] == "after ours"
            assert handler.dropped == 0
            with monkeypatch.context() as quiet:
                quiet.setattr(logging, "raiseExceptions", False)
                logger.info("never told", extra={"odd": Untellable()})
            assert handler.dropped == 1


def test_the_trace_is_named(logging_engine_url: str, lines: Lines, unique: Unique) -> None:
    """A line of a handler belongs to the trace of its caller."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with register_worker(logging_engine_url, tracing=False) as worker:
        with logger_with(EngineLogHandler(worker, service_name=lines.service), unique("program")) as logger:
            worker.register_function(unique("logs"), lambda _: logger.info("inside"))
            prepared = prepare(lines.worker._ends, None, unique("logs"), None, WAIT, None, None, None)
            prepared.message["traceparent"] = f"00-{trace}-{span}-01"
            lines.worker._caller._call(prepared)
            event = lines.next()
            assert event["trace_id"] == trace
            assert event["span_id"] == span


def test_the_last_lines_arrive_too(logging_engine_url: str, lines: Lines, unique: Unique) -> None:
    """What was logged just before the end is sent before it."""
    with register_worker(logging_engine_url) as worker:
        handler = EngineLogHandler(worker, service_name=lines.service)
        logger = logging.getLogger(unique("program"))
        logger.setLevel(1)
        logger.propagate = False
        logger.addHandler(handler)
        for number in range(200):
            logger.info("%d", number)
    logger.info("too late")
    assert sorted(int(lines.next()["body"]) for _ in range(200)) == list(range(200))
    assert handler.dropped == 1
    logger.removeHandler(handler)
    handler.close()


def logged(worker: Worker, service: str) -> list[str]:
    """What the engine's log has of one service."""
    listed = worker.trigger("engine::logs::list", {})["logs"]
    return sorted(line["body"] for line in listed if line["service_name"] == service)


def test_lines_of_an_outage_arrive_after_it(engine_kind: str, unique: Unique) -> None:
    """As many as there is room for; the program does not wait meanwhile."""
    with killable_engine(engine_kind, logs=True) as engine, register_worker(engine.url) as worker:
        service = unique("service")
        handler = EngineLogHandler(worker, capacity=10, service_name=service)
        states: queue.Queue[str] = queue.Queue()
        worker.add_connection_state_listener(states.put)
        with logger_with(handler, unique("program")) as logger:
            engine.kill()
            assert states.get(timeout=WAIT) == "reconnecting"
            started = time.monotonic()
            for number in range(25):
                logger.info("%d", number)
            handler.flush()
            assert time.monotonic() - started < WAIT / 4
            assert handler.dropped == 15
            engine.start()
            assert states.get(timeout=WAIT) == "connected"
            wait_until(lambda: len(logged(worker, service)) >= 10, "the lines")
            assert logged(worker, service) == [str(number) for number in range(10)]
            assert handler.dropped == 15


def test_an_engine_that_does_not_read(unique: Unique) -> None:
    """Logging goes on at full speed, and what does not fit is counted."""
    stuck = threading.Event()

    def behave(visit: Visit) -> None:
        visit.welcome()
        visit.serve(lambda message: message["function_id"].startswith("engine::log"))
        stuck.wait(WAIT)

    with raw_engine(behave) as engine, register_worker(engine.url, shutdown_timeout=0.5) as worker:
        handler = EngineLogHandler(worker, capacity=100)
        logger = logging.getLogger(unique("program"))
        logger.setLevel(1)
        logger.propagate = False
        logger.addHandler(handler)
        started = time.monotonic()
        for _ in range(1000):
            logger.info("x" * 60_000)
        assert time.monotonic() - started < WAIT
        assert handler.dropped > 0
        logger.removeHandler(handler)
        stuck.set()
    handler.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_drops(engine_url: str) -> None:
    """It must not touch its parent's connection, nor hang."""
    script = f"""
import logging, os
from iii_sync import register_worker
from iii_sync.logs import EngineLogHandler
with register_worker({engine_url!r}) as worker:
    handler = EngineLogHandler(worker)
    logging.getLogger().addHandler(handler)
    child = os.fork()
    if not child:
        logging.warning("from the child")
        handler.flush()
        dropped = handler.dropped
        handler.close()
        os._exit(dropped)
    _, status = os.waitpid(child, 0)
    print("dropped", os.waitstatus_to_exitcode(status), handler.dropped)
"""
    assert run(script).lines == ["dropped 1 0"]


def test_nonsense(worker: Worker) -> None:
    """Arguments that cannot work are refused."""
    with pytest.raises(errors.ConfigurationError, match="capacity=0"):
        EngineLogHandler(worker, capacity=0)
    with pytest.raises(errors.ConfigurationError, match="service_name=1"):
        EngineLogHandler(worker, service_name=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="worker must be a Worker"):
        EngineLogHandler("ws://")  # type: ignore[arg-type]
