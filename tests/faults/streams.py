"""The two sides of a transfer, and what each of them says became of it."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Iterator
from typing import Any, Optional, Union

from iii_sync import ChannelReader, ChannelWriter

from .plan import Plan

__all__ = ["Verdict", "end_of", "error_name", "read_stream", "write_stream"]


@dataclasses.dataclass
class Verdict:
    """What one side says.

    Attributes:
        complete: Whether it takes the stream for complete.
        error: The class of the error, if it ended with one.
        size: Bytes written or read.
        digest: Of the bytes read.
        vouched: A reader's ``complete`` attribute.
        detail: The error's text.
    """

    complete: bool = False
    error: str = ""
    size: int = 0
    digest: str = ""
    vouched: Optional[bool] = None
    detail: str = ""

    def failed(self, error: BaseException) -> None:
        """Note an error."""
        self.complete = False
        self.error, self.detail = error_name(error), str(error)[:300]


def error_name(error: BaseException) -> str:
    """The class of an error; of one that is not expected, its module too."""
    kind = type(error)
    if kind.__module__.startswith("iii_sync") or isinstance(error, OSError):
        return kind.__name__
    return f"{kind.__module__}.{kind.__name__}"


def end_of(file: Any) -> Union[ChannelReader, ChannelWriter]:
    """The end of the channel below a file."""
    while not isinstance(file, (ChannelReader, ChannelWriter)):
        file = file.buffer if hasattr(file, "buffer") else file.raw
    return file


def write_stream(plan: Plan, file: Any, verdict: Verdict) -> None:
    """Write everything into ``file`` and close it; raises what it raises.

    ``file`` is a :class:`iii_sync.ChannelWriter`, or what ``Worker.open`` returns.
    """
    draw = random.Random(plan.chance)
    end = end_of(file)
    assert isinstance(end, ChannelWriter)
    end.timeout = end.close_timeout = plan.patience
    if file is end and plan.writes != "raw":
        file = file.makefile("w", newline="") if plan.text else file.makefile("wb")
    try:
        with file:
            for chunk in plan.content.chunks(plan.chunk, draw):
                file.write(chunk.decode("ascii") if plan.text else chunk)
                verdict.size += len(chunk)
        verdict.complete = True
    except BaseException as exc:
        verdict.failed(exc)
        raise


def read_stream(plan: Plan, file: Any, verdict: Verdict) -> None:
    """Read ``file`` to its end; raises what it raises.

    ``file`` is a :class:`iii_sync.ChannelReader`, or what ``Worker.open`` returns.
    """
    end = end_of(file)
    assert isinstance(end, ChannelReader)
    end.timeout = plan.patience
    if file is end and plan.text:
        file = file.makefile("r", newline="")
    digest = hashlib.blake2b(digest_size=16)
    pauses = 0
    try:
        with file:
            for piece in _pieces(plan, file):
                data = piece.encode("ascii") if isinstance(piece, str) else piece
                digest.update(data)
                verdict.size += len(data)
                if plan.fault == "slow-reader" and pauses < 5:
                    pauses += 1
                    time.sleep(plan.seconds / 5)
        verdict.complete = True
    except BaseException as exc:
        verdict.failed(exc)
        raise
    finally:
        verdict.digest = digest.hexdigest()
        verdict.vouched = end.complete


def _pieces(plan: Plan, file: Any) -> Iterator[Union[bytes, str]]:
    draw = random.Random(plan.chance)
    size = max(plan.chunk, plan.size // 2000)
    if plan.reads == "iterate":
        yield from file
        return
    if plan.reads == "all":
        yield file.read()
        return
    if plan.reads == "makefile" and hasattr(file, "makefile"):
        file = file.makefile("rb")
    while True:
        wanted = draw.randint(1, 2 * size)
        if plan.reads == "readinto":
            buffer = bytearray(wanted)
            data: Union[bytes, str] = bytes(buffer[: file.readinto(buffer)])
        elif plan.reads == "read1":
            data = file.read1(wanted)
        elif plan.reads == "text" and draw.random() < 0.3:
            data = file.readline()
        else:
            data = file.read(wanted)
        if not data:
            return
        yield data
