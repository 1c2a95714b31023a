"""When something happens in a program, to the millisecond and on a machine that is busy with something else."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import NamedTuple, Union

__all__ = ["Moment", "leave", "moment", "of_main_thread", "tell", "until_asleep"]


class Moment(NamedTuple):
    """A moment in the life of a process.

    Attributes:
        time: Of the monotonic clock, which all processes share.
        waited: Seconds for which its threads, all together, have been ready to run and had no processor.
    """

    time: float
    waited: float

    def since(self, earlier: Moment) -> float:
        """Seconds from an earlier moment of the same process, less those for which it waited for a processor.

        What it waits for by itself, and what it computes, counts.
        """
        return self.time - earlier.time - max(0.0, self.waited - earlier.waited)


def moment(pid: Union[int, str] = "self") -> Moment:
    """Now, in the life of a process."""
    waited = 0
    # Where the system does not say how long threads wait for a processor, all of the time counts.
    with contextlib.suppress(FileNotFoundError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            # A thread that has just ended.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as counts:
                    waited += int(counts.read().split()[1])
    return Moment(time.monotonic(), waited / 1e9)


def of_main_thread(pid: Union[int, str] = "self") -> Moment:
    """Now, in the life of a process's main thread, which outlives the others: also when it has just ended."""
    waited = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{pid}/schedstat") as counts:
            waited = int(counts.read().split()[1])
    return Moment(time.monotonic(), waited / 1e9)


def leave() -> None:
    """Print that this is the last thing that the program does, for :meth:`~tests.support.process.Script.leave`."""
    now = of_main_thread()
    print("leaving", now.time, now.waited)


def tell(word: str) -> None:
    """Print a word and the moment, for :meth:`~tests.support.process.Script.moment`."""
    now = moment()
    print(word, now.time, now.waited)


def until_asleep() -> None:
    """Wait until the main thread falls asleep once more, at most two seconds; for another thread.

    What comes right behind this, and does not wake the main thread, is noticed later than at any other moment.
    """
    before, end = _sleeps(), time.monotonic() + 2.0
    while _sleeps() == before and time.monotonic() < end:
        time.sleep(0.0005)


def _sleeps() -> str:
    """How often the main thread has fallen asleep; where the system does not say, nothing that ever changes."""
    with contextlib.suppress(FileNotFoundError):
        with open(f"/proc/self/task/{threading.main_thread().native_id}/status") as status:
            return next(line for line in status if line.startswith("voluntary_ctxt_switches"))
    return ""
