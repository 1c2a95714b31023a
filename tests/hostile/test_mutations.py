"""Damaged frames: many through the parser, some through sockets into a live worker and a live reader."""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import threading
import tracemalloc
import uuid

import pytest

import iii_sync
from iii_sync import errors
from iii_sync.net import connection

from .engine import WAIT, hostile_engine, ref, victim
from .memory import MiB, bounded
from .mutate import SLOWEST, Mutator, run

#: Another one in every run; printed when a test fails.
SEED = random.SystemRandom().randrange(1 << 32)


def test_parser_and_decoder() -> None:
    """20,000 inputs: each refused, ignored or understood, and of each kind there are some."""
    outcomes, slowest = run(20_000, SEED)
    print(f"seed {SEED}: {outcomes}")
    assert sum(outcomes.values()) == 20_000
    assert {"refused 1002", "refused 1007", "closed", "unfinished", "ignored", "understood"} <= set(outcomes)
    assert slowest < SLOWEST


def test_parser_keeps_nothing() -> None:
    """What a parser allocates does not grow with what the headers announce."""
    tracemalloc.start()
    try:
        run(1_000, SEED)
        assert tracemalloc.get_traced_memory()[1] < 4 * MiB
    finally:
        tracemalloc.stop()


def test_control_socket(caplog: pytest.LogCaptureFixture) -> None:
    """A live worker takes 300 damaged streams: every call ends with an error of ours, the thread serves the others."""
    mutator = Mutator(SEED)
    print(f"seed {SEED}")
    with hostile_engine() as engine, bounded(64 * MiB), caplog.at_level(logging.ERROR, "iii_sync.io"):
        with victim(
            engine, reconnection_config=iii_sync.ReconnectionConfig(initial_delay=0.001, backoff_multiplier=1.0)
        ) as worker:
            for number in range(300):
                call = worker.worker.submit("any::function", number)
                data = mutator.input()
                with contextlib.suppress(OSError):
                    worker.peer.sock.sendall(data)
                    worker.peer.sock.close()
                with pytest.raises(errors.IIISyncError):
                    call.result(WAIT)
                worker.peer = engine.control()
                if number % 25 == 0:
                    worker.check_bystander()
            worker.check_calls()
            worker.check_bystander()
        assert not [record for record in caplog.records if record.name == connection._log.name]


def test_channel_reader() -> None:
    """A live reader takes 300 damaged streams: bytes, then the end or an error of ours; the others go on."""
    mutator = Mutator(SEED)
    print(f"seed {SEED}")
    with victim() as worker, bounded(64 * MiB):
        for number in range(300):
            name = str(uuid.uuid4())
            reader = worker.worker.open_ref(ref(name), timeout=WAIT)
            assert isinstance(reader, iii_sync.ChannelReader)
            outcome: queue.Queue[object] = queue.Queue()

            def read(reader: iii_sync.ChannelReader = reader, outcome: queue.Queue[object] = outcome) -> None:
                try:
                    outcome.put(sum(1 for _ in reader.events()))
                except BaseException as exc:
                    outcome.put(exc)

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            peer = worker.engine.channel(name)
            with contextlib.suppress(OSError):
                peer.sock.sendall(mutator.input())
                peer.sock.close()
            ended = outcome.get(timeout=WAIT)
            assert isinstance(ended, (int, errors.ChannelError)), ended
            reader.close()
            thread.join(WAIT)
            if number % 25 == 0:
                worker.check_bystander()
        worker.check_calls()
