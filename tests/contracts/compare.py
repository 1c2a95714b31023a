"""Files of three kinds, and what an operation comes to on each: a real file, a real pipe, a channel end."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

from iii_sync import Worker
from iii_sync.errors import ChannelAbortedError

WAIT = 20.0

#: What there is to read. Both line ends, characters of several bytes, an empty line, no newline at the end.
DATA = "first\nsecond \u20ac\r\n\nlast, not \xe9nded".encode()

#: What opens a file. "rb0" and "wb0" are unbuffered: the end itself.
MODES = ("rb0", "wb0", "rb", "wb", "r", "w")

Operation = Callable[[Any], Any]


class Value(NamedTuple):
    """An operation has returned this; ``left`` is what can be read afterwards, or what has arrived."""

    value: Any
    left: Any


class Raised(NamedTuple):
    """An operation has raised this."""

    kind: type[BaseException]
    left: Any


Outcome = Union[Value, Raised]


class Opened(NamedTuple):
    """A file, and what tells what is left of its data: behind a reader's position, or at a writer's other side."""

    file: Any
    left: Callable[[], Any]


def arguments(mode: str) -> tuple[str, int, dict[str, Any]]:
    """What ``open`` and ``makefile`` are given for a mode."""
    if mode.endswith("0"):
        return mode[:-1], 0, {}
    return mode, -1, {} if "b" in mode else {"encoding": "utf-8"}


@contextlib.contextmanager
def closing(file: Any) -> Iterator[Any]:
    """Close a file at the end, unless an operation has taken it apart."""
    try:
        yield file
    finally:
        with contextlib.suppress(ValueError):
            file.close()


@contextlib.contextmanager
def real_file(mode: str, directory: Path, data: bytes = DATA) -> Iterator[Opened]:
    """Open a file on the disk."""
    path = directory / uuid.uuid4().hex
    path.write_bytes(data)
    plain, buffering, options = arguments(mode)
    with closing(open(path, plain, buffering, **options)) as file:
        yield Opened(file, file.read if "r" in plain else path.read_bytes)


@contextlib.contextmanager
def real_pipe(mode: str, data: bytes = DATA) -> Iterator[Opened]:
    """Open one end of a pipe; its other end is closed, or can be read when this one is."""
    plain, buffering, options = arguments(mode)
    reading, writing = os.pipe()
    if "r" in plain:
        os.write(writing, data)
        os.close(writing)
        with closing(open(reading, plain, buffering, **options)) as file:
            yield Opened(file, file.read)
    else:
        with open(reading, "rb") as other:
            with closing(open(writing, plain, buffering, **options)) as file:
                yield Opened(file, other.read)


@contextlib.contextmanager
def channel_end(mode: str, worker: Worker, data: Optional[bytes] = DATA) -> Iterator[Opened]:
    """Open one end of a channel; its other end has been closed (not without data), or can be read when this one is."""
    plain, buffering, options = arguments(mode)
    channel = worker.create_channel()
    channel.reader.timeout = channel.writer.timeout = channel.writer.close_timeout = WAIT
    try:
        if "r" in plain:
            if data is not None:
                with channel.writer:
                    channel.writer.write(data)
            end: Any = channel.reader
        else:
            end = channel.writer
        file = end.makefile(plain, buffering, **options)
        yield Opened(file, file.read if "r" in plain else channel.reader.read)
        with contextlib.suppress(ChannelAbortedError):
            end.close()
    finally:
        channel.reader.abort()
        channel.writer.abort()


def outcome(opened: Opened, operation: Operation) -> Outcome:
    """Run an operation on a file, and close it if it is one for writing, so that all of it can be seen."""
    file = opened.file
    result = _run(operation, file)
    try:
        if getattr(opened.left, "__self__", None) is not file:
            file.close()
        left = opened.left()
    except (ValueError, OSError) as exc:  # closed, detached, cut
        left = type(exc)
    return result._replace(left=left)


def outcome_when_closed(opened: Opened, operation: Operation) -> Outcome:
    """Close a file and run an operation on it."""
    opened.file.close()
    return _run(operation, opened.file)


def _run(operation: Operation, file: Any) -> Outcome:
    try:
        return Value(operation(file), None)
    except Exception as exc:
        return Raised(type(exc), None)


def agree(channel: Outcome, real: Outcome) -> bool:
    """Say whether a program that expects the one is served by the other."""
    if isinstance(channel, Raised) and isinstance(real, Raised):
        return issubclass(channel.kind, real.kind) and channel.left == real.left
    return type(channel) is type(real) and channel == real
