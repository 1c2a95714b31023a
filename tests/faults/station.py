"""An engine, a proxy before it, and two processes that talk through it: where transfers are run."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
import time
from typing import Any, Optional

import iii_sync
from iii_sync import Channel
from iii_sync.errors import IIISyncError
from tests.support.engines import EngineProgram

from .judge import Outcome, failures_of
from .peer import Peer
from .plan import Plan
from .proxy import CLIENT, DOWN, SERVER, UP, FaultProxy, Place, Shot
from .streams import Verdict, error_name, read_stream, write_stream

__all__ = ["Station"]

#: Seconds in which functions must be reachable again after a fault of everything.
_RECOVERY = 30.0


class Station:
    """See the module. Any number of threads may run transfers whose faults are not shared; else one.

    Args:
        port: Where an engine listens.
        seed: Of the soak.
        engine: The engine, where faults may kill it; not stopped by the station.
        marks: Whether writers mark their streams.
    """

    def __init__(self, port: int, seed: int, engine: Optional[EngineProgram] = None, *, marks: bool = True) -> None:
        self._engine = engine
        self._seed = seed
        self._marks = marks
        self.proxy = FaultProxy(port)
        self._local = threading.local()
        self._restarting: Optional[threading.Thread] = None
        self.recoveries: list[float] = []
        self.failures: list[str] = []
        try:
            self.peer = Peer(self.proxy.url, seed, marks=marks)
            self.worker = iii_sync.register_worker(
                self.proxy.url,
                headers={"X-Owner": "driver"},
                channel_timeout=3.0,
                close_timeout=3.0,
                connect_timeout=5.0,
                marks=marks,
            )
        except BaseException:
            self.proxy.close()
            raise
        # Faults are aimed before anybody can connect: Worker.open, too, makes its channel by this.
        self._create_channel = self.worker.create_channel
        self.worker.create_channel = self._create_and_aim  # type: ignore[method-assign]

    def close(self) -> None:
        """End everything but the engine."""
        self.worker.shutdown()
        status = self.peer.end()
        if status or "Exception ignored" in self.peer.stderr or "Exception in thread" in self.peer.stderr:
            self.failures.append(f"the peer ended with {status}: {self.peer.stderr[-5000:]}")
        self.proxy.close()

    # --- one transfer ----------------------------------------------------------------------------------

    def run(self, plan: Plan) -> Outcome:
        """Run one transfer to its end and judge it.

        Raises:
            TimeoutError: The other process has not ended its part in time.
        """
        started = time.monotonic()
        deadline = started + self.limit(plan)
        outcome = Outcome(plan, self._shot(plan))
        self._local.outcome, self._local.channel = outcome, None
        ours = Verdict()
        try:
            self._drive(plan, ours, outcome)
        except Exception as exc:
            # Before the stream began.
            ours.failed(exc)
            outcome.call = outcome.call or error_name(exc)
        sure = plan.benign or not outcome.fired or outcome.call == "ok"
        try:
            theirs = self.peer.verdict(plan.number, deadline, lambda: sure)
        finally:
            channel: Optional[Channel] = self._local.channel
            if channel is not None:
                self.proxy.forget(channel.channel_id)
        outcome.writer, outcome.reader = (ours, theirs) if plan.we_write else (theirs, ours)
        outcome.seconds = time.monotonic() - started
        outcome.failures = failures_of(outcome)
        if plan.shared and not plan.benign:
            self.recover(expect_death=plan.fault == "kill-peer")
        if self.peer.ended:
            outcome.failures.append(f"the other process died: {self.peer.stderr[-3000:]}")
        return outcome

    @staticmethod
    def limit(plan: Plan) -> float:
        """Seconds after which a transfer is no longer waited for: well behind its deadline."""
        return 60.0 + plan.patience + plan.size / (512 * 1024) + (plan.seconds if plan.seconds > 2 else 0)

    def _drive(self, plan: Plan, ours: Verdict, outcome: Outcome) -> None:
        payload = {"number": plan.number, "plan": dataclasses.asdict(plan)}
        if plan.mode.startswith("open"):
            self._drive_opened(plan, ours, outcome, payload)
            return
        channel = self.worker.create_channel()
        if plan.mode == "write":
            call = self.worker.submit("soak::read", {**payload, "reader": channel.reader_ref})
        else:
            call = self.worker.submit("soak::write", {**payload, "writer": channel.writer_ref})
        with contextlib.suppress(Exception):  # it is in the verdict
            if plan.mode == "write":
                write_stream(plan, channel.writer, ours)
            else:
                read_stream(plan, channel.reader, ours)
        try:
            outcome.result = call.result(plan.call_timeout)
            outcome.call = "ok"
        except Exception as exc:
            outcome.call = error_name(exc)

    def _drive_opened(self, plan: Plan, ours: Verdict, outcome: Outcome, payload: dict[str, Any]) -> None:
        function, letter = ("soak::read", "w") if plan.we_write else ("soak::write", "r")
        options: dict[str, Any] = {"newline": ""} if plan.text else {}
        if plan.writes == "raw" and plan.we_write:
            options["buffering"] = 0
        file: Any = self.worker.open(
            function,
            letter if plan.text else letter + "b",
            payload,
            timeout=plan.call_timeout,
            **options,  # type: ignore[call-overload]
        )
        try:
            if plan.we_write:
                write_stream(plan, file, ours)
            else:
                read_stream(plan, file, ours)
            outcome.result = file.result
            outcome.call = "ok"
        except Exception as exc:
            # The stream and the call are one here.
            outcome.call = error_name(exc)

    def _create_and_aim(self, *args: Any, **kwargs: Any) -> Channel:
        channel = self._create_channel(*args, **kwargs)
        outcome: Outcome = self._local.outcome
        self._local.channel = channel
        plan, shot = outcome.plan, outcome.shot
        if plan.fault == "refuse":
            assert shot is not None
            shot.fired = True
            self.proxy.refuse(plan.seconds)
        elif shot is not None:
            socket = plan.socket
            if plan.fault.startswith("control"):
                socket = "write" if plan.chance % 2 else "read"
            self.proxy.aim(channel.channel_id, socket, shot)
        return channel

    # --- faults ----------------------------------------------------------------------------------------

    def _shot(self, plan: Plan) -> Optional[Shot]:
        draw = random.Random(plan.chance)
        place = Place(*plan.place)
        data_leg, back = (UP, DOWN) if plan.socket == "write" else (DOWN, UP)
        one_side = (draw.choice((CLIENT, SERVER)),)
        fault = plan.fault
        if fault in ("none", "slow-reader"):
            return None
        if fault in ("delay", "trickle", "stall"):
            return Shot(fault, place, legs=draw.choice(((data_leg,), (UP, DOWN))), seconds=plan.seconds)
        if fault == "half-open":
            return Shot("half-open", place, legs=draw.choice(((data_leg,), (UP, DOWN))))
        if fault == "half-open-back":
            return Shot("half-open", place, legs=(back,))
        if fault in ("reset", "cut"):
            return Shot(fault, place)
        if fault in ("reset-one-side", "cut-one-side"):
            return Shot(fault.split("-")[0], place, sides=one_side)
        if fault in ("black-hole", "refuse"):
            return Shot("black-hole", place)
        if fault.startswith("control"):
            kind = fault[len("control-") :]
            at_control = Shot(kind, place, seconds=plan.seconds)
            return Shot("action", place, action=lambda: self.proxy.control(plan.socket, at_control))
        reset = draw.random() < 0.5
        actions = {
            "stop-peer": lambda: self.peer.stop(plan.seconds),
            "kill-peer": lambda: self.peer.kill(),
            "kill-engine": lambda: self._restart_engine(plan.seconds / 3),
            "restart-proxy": lambda: self.proxy.restart(plan.seconds / 3, reset=reset),
            "black-hole-all": lambda: self.proxy.black_hole(plan.seconds),
        }
        return Shot("action", place, action=actions[fault])

    def _restart_engine(self, seconds: float) -> None:
        engine = self._engine
        assert engine is not None, "this fault needs an engine of its own"

        def restart() -> None:
            engine.kill()
            time.sleep(seconds)
            engine.start()

        self._restarting = threading.Thread(target=restart, name="fault-restart", daemon=True)
        self._restarting.start()

    def recover(self, *, expect_death: bool = False) -> None:
        """Wait until both processes are connected again; start the other one again if it was killed."""
        if self._restarting is not None:
            self._restarting.join(_RECOVERY)
            self._restarting = None
        started = time.monotonic()
        while not self.proxy.is_whole():
            assert time.monotonic() - started < _RECOVERY, "the proxy does not listen again"
            time.sleep(0.02)
        started = time.monotonic()
        if expect_death or self.peer.ended:
            # It may have been about to die just now, or the shot was never fired.
            self.peer.kill()
            self.peer.end()
            self.peer = Peer(self.proxy.url, self._seed, marks=self._marks)
        for owner in ("driver", "peer"):
            self.proxy.mend_control(owner)
        while True:
            try:
                if self.worker.trigger("soak::ping", {}, timeout=2.0) == self.peer.pid:
                    break
            except IIISyncError as exc:
                failure = exc
            else:
                failure = IIISyncError("another process answers")
            if time.monotonic() - started > _RECOVERY:
                raise AssertionError(
                    f"not connected again after {_RECOVERY:g} s: {failure!r} {self.peer.stderr[-2000:]}"
                )
            time.sleep(0.02)
        self.recoveries.append(time.monotonic() - started)
