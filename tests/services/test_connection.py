"""What a worker tells an engine of itself, where it takes that from, and large messages in pieces."""

from __future__ import annotations

import json
import os
from typing import Any, Callable

import pytest

from iii_sync import Worker, errors, register_worker

from ..support.rawengine import Visit, alive, raw_engine

WAIT = 20.0
MiB = 1024 * 1024

Unique = Callable[[str], str]


def announced(**options: Any) -> dict[str, Any]:
    """What a worker says first."""
    with raw_engine(alive) as engine:
        with register_worker(engine.url, **options):
            pass
        data: dict[str, Any] = engine.visits[0].seen[0]["data"]
    return data


def test_the_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what there is to say; of the program no more than its process."""
    for name in ("III_NAMESPACE", "III_WORKER_NAME", "III_ISOLATION"):
        monkeypatch.setenv(name, "  ")
    monkeypatch.setenv("LANG", "de_CH.UTF-8")
    data = announced()
    assert data.pop("name").split(":")[1].startswith(f"{os.getpid()}-")
    assert set(data) == {"runtime", "version", "os", "pid", "telemetry"}
    assert data["pid"] == os.getpid()
    assert data["telemetry"] == {"language": "de_CH", "framework": "iii-sync"}


def test_the_environment_speaks_for_the_worker(
    engine_url: str, worker: Worker, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace that is given wins over the environment's, a name does not (a supervisor must find it)."""
    monkeypatch.setenv("III_NAMESPACE", f" {unique('space')} ")
    monkeypatch.setenv("III_WORKER_NAME", unique("name"))
    monkeypatch.setenv("III_ISOLATION", "vm")
    with register_worker(engine_url, worker_name="given") as named:
        assert named.worker_name == unique("name")
        (summary,) = worker.engine.workers(search=unique("name"))
        assert (summary["id"], summary["namespace"], summary["isolation"]) == (named.worker_id, unique("space"), "vm")
        named.register_function(unique("f"), lambda data: data)
        assert named.trigger(unique("f"), 1) == 1
        assert worker.trigger(unique("f"), 2, namespace=unique("space")) == 2
        with pytest.raises(errors.FunctionNotFoundError, match=unique("space")):
            worker.trigger(unique("f"))
    with register_worker(engine_url, namespace=unique("other")):
        (summary,) = worker.engine.workers(search=unique("name"))
        assert summary["namespace"] == unique("other")


def test_large_messages_are_announced_by_who_takes_them() -> None:
    """The engine then sends what is above the usual size, too: all of it, whatever the limit is."""
    assert "features" not in announced()
    assert "features" not in announced(max_payload=1000)
    for limit in (16 * MiB, 64 * MiB):
        assert announced(max_payload=limit)["features"] == ["large-messages.v1"]


def test_features_of_the_engine_are_no_obstacle() -> None:
    """An engine may offer whatever it likes, and send frames that nobody knows."""

    def behave(visit: Visit) -> None:
        visit.peer.handshake()
        features = ["observe.v1", "local-dispatch.v1", "surprise.v9"]
        visit.peer.send_json({"type": "workerregistered", "worker_id": "w", "features": features})
        visit.peer.send_json({"type": "functionregistered", "id": "f", "local_dispatch": True})
        visit.peer.send_json({"type": "observe", "id": 1})
        visit.serve()

    with raw_engine(behave) as engine, register_worker(engine.url) as worker:
        assert worker.trigger("f") == {"value": "f"}


@pytest.mark.parametrize(("size", "limit"), [(2, 64), (20, 64), (20, 24), (20, 17)])
def test_a_large_answer_comes_in_pieces(size: int, limit: int) -> None:
    """As newer engines send everything above 1 MiB: text in frames of 1 MiB and an empty last one.

    They send up to 64 MiB to whoever takes more than 16; what this worker does not take ends the call alone.
    """
    text = "€" * (size * MiB // 3)

    def behave(visit: Visit) -> None:
        visit.welcome()
        visit.serve(lambda message: message["function_id"] == "large")
        message = visit.seen[-1]
        answer = {"type": "invocationresult", "function_id": "large", "invocation_id": message["invocation_id"]}
        sent = json.dumps({**answer, "result": text}, ensure_ascii=False).encode()
        for start in range(0, len(sent), MiB):
            visit.peer.send_frame(0 if start else 1, sent[start : start + MiB], end=False)
        visit.peer.send_frame(0, b"", end=True)
        visit.serve()

    with raw_engine(behave) as engine, register_worker(engine.url, max_payload=limit * MiB) as worker:
        if size < limit:
            assert worker.trigger("large", timeout=WAIT) == text
        else:
            with pytest.raises(errors.PayloadTooLargeError, match=f"{(limit + 1) * MiB:,}"):
                worker.trigger("large", timeout=WAIT)
        assert worker.trigger("next") == {"value": "next"}


@pytest.mark.parametrize("result", [{}, {"result": None}])
def test_no_result_is_none(result: dict[str, None]) -> None:
    """Left out by older engines, told by newer ones."""

    def behave(visit: Visit) -> None:
        visit.welcome()
        visit.serve(lambda message: message["function_id"] == "f")
        answer = {"type": "invocationresult", "function_id": "f", "invocation_id": visit.seen[-1]["invocation_id"]}
        visit.peer.send_json({**answer, **result})
        visit.serve()

    with raw_engine(behave) as engine, register_worker(engine.url) as worker:
        assert worker.trigger("f", timeout=WAIT) is None
        assert worker.trigger("next") == {"value": "next"}


def test_forty_megabytes_there_and_back(engine_url: str, unique: Unique) -> None:
    """Both ways in fragments, on an engine that may not know the feature."""
    limit = 64 * MiB
    payload = "x" * (40 * MiB)
    with register_worker(engine_url, max_payload=limit) as one, register_worker(engine_url, max_payload=limit) as two:
        function = two.register_function(unique("echo"), lambda data: data)
        assert one.trigger(function.id, payload, timeout=60) == payload
