"""Ctrl-C at one exact place in the code after another."""

from __future__ import annotations

import _thread
import dis
import sys
from types import FrameType
from typing import Any, Callable, Optional

__all__ = ["Interrupter"]


class _Trip:
    """``-trip`` is a SIGINT that waits for the interpreter to look, as it does between certain bytecodes only.

    An operator, because the interpreter looks after each call.
    """

    __neg__ = _thread.interrupt_main


#: The interpreter looks for signals in or right behind one of these, and nowhere else. (3.9 looks in more places, among
#: them some where no lock is safe, not even in ``with``: fixed in 3.10.)
_LOOKS = ("CALL", "RESUME", "JUMP", "POP_JUMP", "PRECALL", "WITH", "BEFORE_WITH", "SETUP_WITH")


class Interrupter:
    """Runs functions and interrupts them at one bytecode, counted through every Python function that they call.

    On the main thread only, like Ctrl-C.

    Attributes:
        where: The place at which the last call was interrupted.
    """

    def __init__(self) -> None:
        self.where = ""
        self._left = 0
        self._trip: Any = _Trip()
        # CPython 3.11 only borrows it, and may collect garbage before it calls it: a finalizer that is interrupted
        # there, and no longer traced, would free it. ``self._enter`` makes a new one each time, so this one is kept.
        self._tracer = self._enter

    def interrupt(self, at: int, function: Callable[[], Any]) -> bool:
        """Call ``function`` and interrupt it at the bytecode number ``at``; whether it was that long.

        Exceptions of ``function`` are swallowed with the interruption: what is left behind is what counts.
        """
        self.where = ""
        self._left = at
        before, unraisable = sys.gettrace(), sys.unraisablehook
        # In a finalizer, or in the callback of a weak reference, it is nobody's.
        sys.unraisablehook = lambda args: None if args.exc_type is KeyboardInterrupt else unraisable(args)
        try:
            sys._getframe().f_trace_opcodes = True  # 3.12 wants to know before settrace()
            sys.settrace(self._tracer)
            try:
                function()
            finally:
                sys.settrace(before)
            if self.where:
                for _ in range(1000):
                    pass  # whatever is still pending is raised here
        except KeyboardInterrupt:
            pass
        except Exception as exc:
            if not self.where:
                raise
            self.where += f" -> {exc!r}"
        finally:
            sys.unraisablehook = unraisable
        return bool(self.where)

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Optional[Callable[..., Any]]:
        if frame.f_code.co_filename == __file__:
            return None
        frame.f_trace = self._step  # 3.13 wants it before the next line
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and self._left >= 0:
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if name.startswith(_LOOKS):
                self._left -= 1
                if self._left < 0:
                    self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name} {name}"
                    # Else the interpreter would look at the beginning of the next call of this function.
                    sys.settrace(None)
                    _ = -self._trip
        return self._step
