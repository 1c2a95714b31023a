"""The threads of handlers and callbacks: what Ctrl-C amid the handing over of a task leaves behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from iii_sync.pool import HandlerPool

from .support.interrupts import Interrupter
from .support.waiting import wait_until

WAIT = 20.0

every_step = pytest.mark.skipif(sys.version_info < (3, 10), reason="3.9 looks for signals where no lock is safe")


def new_pool(idle: bool) -> HandlerPool:
    """A pool, perhaps with a thread that waits for a task."""
    pool = HandlerPool("test-pool", 10)
    if idle:
        pool.run_soon(lambda: None)
        wait_until(lambda: pool._idle, "the idle thread")
    return pool


def end(pool: HandlerPool) -> None:
    """End the pool's threads."""
    threads = list(pool._threads)
    pool.stop()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def interrupted_hand_overs(idle: bool) -> Iterator[tuple[HandlerPool, list[int], str]]:
    """Pools that were interrupted one step later each time; with what has run there, and the place."""
    interrupter, at = Interrupter(), 0
    while True:
        pool, ran = new_pool(idle), list[int]()
        if not interrupter.interrupt(at, lambda pool=pool, ran=ran: pool.run_soon(lambda: ran.append(1))):  # type: ignore[misc]
            break
        yield pool, ran, interrupter.where
        end(pool)
        at += 1
    end(pool)
    assert at > 5


@every_step
@pytest.mark.parametrize("idle", [True, False])
def test_ctrl_c_while_a_task_is_handed_over(idle: bool) -> None:
    """At every step: no task counts as running for ever, none runs twice, and the next one runs."""
    for pool, ran, where in interrupted_hand_overs(idle):
        assert pool.drain(5), where
        next_one = threading.Event()
        pool.run_soon(next_one.set)
        assert next_one.wait(WAIT), where
        assert pool.drain(5), where
        assert len(ran) <= 1, where
        assert len(pool._threads) == len(pool._idle), where


@every_step
def test_ctrl_c_while_a_task_is_handed_over_leaves_the_next_one_a_thread_of_its_own() -> None:
    """Not the thread that has got the first one, and has had no time to say so: the first may wait for the next."""
    interrupter, at = Interrupter(), 0
    while True:
        pool, second = new_pool(idle=True), threading.Event()
        outcome: list[bool] = []

        def first(second: threading.Event = second, outcome: list[bool] = outcome) -> None:
            outcome.append(second.wait(5))

        with pool._lock:  # so that the thread cannot go on meanwhile
            interrupted = interrupter.interrupt(at, lambda pool=pool, first=first: pool.run_soon(first))  # type: ignore[misc]
            pool.run_soon(second.set)
        assert second.wait(WAIT), interrupter.where
        assert pool.drain(WAIT) and outcome in ([], [True]), interrupter.where
        end(pool)
        if not interrupted:
            break
        at += 1
    assert at > 5


@every_step
def test_ctrl_c_while_the_threads_are_told_to_end_loses_no_task() -> None:
    """A task that comes behind an interrupted stop runs."""
    interrupter, at = Interrupter(), 0
    while True:
        pool, ran = new_pool(idle=True), threading.Event()
        with pool._lock:
            interrupted = interrupter.interrupt(at, pool.stop)
            pool.run_soon(ran.set)
        assert ran.wait(5), interrupter.where
        end(pool)
        if not interrupted:
            break
        at += 1
    assert at > 3


def test_a_failing_start_of_a_thread_is_no_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit of threads: the task is kept, whatever is being handled by then."""
    pool, ran = HandlerPool("test-pool", 10), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert not pool.try_run(ran.set)
            pool.run_soon(ran.set)
    assert not pool._threads and not ran.is_set()
    pool.run_soon(lambda: None)
    assert ran.wait(WAIT)
    end(pool)
