"""Everything that can be done to a file, by name."""

from __future__ import annotations

import array
import contextlib
import copy
import ctypes
import io
import mmap
import operator
import pickle
from collections.abc import Iterable
from typing import Any, Callable

from .compare import Operation

__all__ = ["BUFFERED", "BUFFERS", "COMMON", "TEXT"]


class Index:
    """Not an integer, but as good as one."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


def mapped(data: bytes) -> mmap.mmap:
    """Anonymous shared memory."""
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def numpy_array(make: Callable[[Any], Any]) -> Callable[[], Any]:
    """Make a numpy array; where there is no numpy, plain bytes do."""

    def made() -> Any:
        try:
            import numpy
        except ImportError:
            return bytearray(8)
        return make(numpy)

    return made


#: What can be written, or read into: C-contiguous, of any format and number of dimensions.
GOOD_BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(b"abcd"),
    "empty bytearray": bytearray,
    "memoryview": lambda: memoryview(bytearray(b"abcdef"))[1:5],
    "memoryview of I": lambda: memoryview(bytearray(b"abcdefgh")).cast("I"),
    "memoryview of d": lambda: memoryview(bytearray(b"abcdefgh")).cast("d"),
    "memoryview of c": lambda: memoryview(bytearray(b"abcdefgh")).cast("c"),
    "memoryview of ?": lambda: memoryview(bytearray(b"\0\1\1\0")).cast("?"),
    "memoryview of b": lambda: memoryview(bytearray(b"abcdefgh")).cast("b"),
    "memoryview of 2 dimensions": lambda: memoryview(bytearray(b"abcdef")).cast("B", (2, 3)),
    "memoryview of 2 dimensions of H": lambda: memoryview(bytearray(b"abcdefghijkl")).cast("B").cast("H", (2, 3)),
    "memoryview of no dimension": lambda: memoryview(bytearray(b"abcd")).cast("I", ()),
    "empty memoryview": lambda: memoryview(bytearray(b"abc"))[3:],
    "array of I": lambda: array.array("I", [1, 2]),
    "array of d": lambda: array.array("d", [1.5]),
    "array of b": lambda: array.array("b", [1, -2, 3]),
    "empty array": lambda: array.array("I"),
    "mmap": lambda: mapped(b"shared"),
    "ctypes array": lambda: (ctypes.c_int * 3)(1, 2, 3),
    "ctypes string": lambda: ctypes.create_string_buffer(b"abc"),
    "ctypes structure": lambda: type("S", (ctypes.Structure,), {"_fields_": [("a", ctypes.c_int)]})(),
    "ctypes integer": lambda: ctypes.c_int(5),
    "ctypes array of 2 dimensions": lambda: (ctypes.c_short * 2 * 3)(),
    "numpy": numpy_array(lambda np: np.arange(3, dtype="i4")),
    "numpy of the other endianness": numpy_array(lambda np: np.arange(3, dtype=">i4")),
    "numpy of 2 dimensions": numpy_array(lambda np: np.arange(6, dtype="f8").reshape(2, 3)),
    "numpy of no dimension": numpy_array(lambda np: np.array(5, dtype="i4")),
    "numpy of no rows": numpy_array(lambda np: np.zeros((0, 3), dtype="i4")),
    "numpy records": numpy_array(lambda np: np.zeros(2, dtype=[("a", "i4"), ("b", "S3")])),
    "numpy complex": numpy_array(lambda np: np.zeros(2, dtype="c16")),
    "numpy halves": numpy_array(lambda np: np.zeros(2, dtype="f2")),
    "numpy of one row": numpy_array(lambda np: np.arange(6, dtype="u1").reshape(2, 3).T[:, :1].copy()),
    "numpy row": numpy_array(lambda np: np.arange(6, dtype="i4").reshape(2, 3)[1]),
    "numpy bytes": numpy_array(lambda np: np.array([b"abc", b"de"])),
}

#: What cannot.
BAD_BUFFERS: dict[str, Callable[[], Any]] = {
    "str": lambda: "text",
    "None": lambda: None,
    "int": lambda: 5,
    "float": lambda: 1.5,
    "list": lambda: [1, 2],
    "every second byte": lambda: memoryview(bytearray(b"abcdefgh"))[::2],
    "backwards": lambda: memoryview(bytearray(b"abcdefgh"))[::-1],
    "released memoryview": lambda: _released(),
    "numpy columns": numpy_array(lambda np: np.arange(6, dtype="i4").reshape(2, 3).T[:, :]),
    "numpy steps": numpy_array(lambda np: np.arange(6, dtype="u1")[::2]),
}

#: What can only be read.
CONSTANT_BUFFERS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"abcd",
    "no bytes": lambda: b"",
    "memoryview of bytes": lambda: memoryview(b"abcd"),
    "memoryview of bytes as I": lambda: memoryview(b"abcdefgh").cast("I"),
    "numpy read-only": numpy_array(lambda np: np.frombuffer(b"abcd", dtype="u1")),
}


def _released() -> memoryview:
    view = memoryview(b"abcd")
    view.release()
    return view


def content(buffer: Any) -> bytes:
    """All bytes of a buffer."""
    try:
        return memoryview(buffer).tobytes()
    except NotImplementedError:
        return bytes(buffer)


def into(make: Callable[[], Any], method: str = "readinto") -> Operation:
    """Read into a buffer, and look at it."""

    def operation(file: Any) -> Any:
        buffer = make()
        return getattr(file, method)(buffer), content(buffer)

    return operation


def writing(make: Callable[[], Any]) -> Operation:
    """Write a buffer."""
    return lambda file: file.write(make())


def call(name: str, *arguments: Any, **options: Any) -> Operation:
    """Call a method."""
    return lambda file: getattr(file, name)(*arguments, **options)


def get(name: str) -> Operation:
    """Get an attribute."""
    return operator.attrgetter(name)


def several(*operations: Operation) -> Operation:
    """Do one after the other."""
    return lambda file: [operation(file) for operation in operations]


def within(file: Any) -> Any:
    """Enter and leave."""
    with file as inside:
        same = inside is file
    return same, file.closed


def left_on_an_error(file: Any) -> Any:
    """Leave with an exception, which must come out."""
    try:
        with file:
            raise KeyError("kept")
    except KeyError as exc:
        return exc.args, file.closed


def suppressed(kind: type[BaseException], operation: Operation) -> Operation:
    """What follows an error."""

    def run(file: Any) -> Any:
        with contextlib.suppress(kind):
            operation(file)
        return None

    return run


def closed_while_iterating(file: Any) -> Any:
    """An iterator does not outlive its file."""
    iterator = iter(file)
    file.close()
    return next(iterator)


def assign(name: str, value: Any) -> Operation:
    """Set an attribute."""
    return lambda file: setattr(file, name, value)


def generator(items: Iterable[Any]) -> Any:
    """Give items one by one."""
    yield from items


COMMON: dict[str, Operation] = {
    # --- reading
    "read()": call("read"),
    "read(-1)": call("read", -1),
    "read(None)": call("read", None),
    "read(-7)": call("read", -7),
    "read(0)": call("read", 0),
    "read(3)": call("read", 3),
    "read(1000)": call("read", 1000),
    "read(True)": call("read", True),
    "read(index)": call("read", Index(3)),
    "read('3')": call("read", "3"),
    "read(1.5)": call("read", 1.5),
    "read(2**70)": call("read", 2**70),
    "read(1, 2)": call("read", 1, 2),
    "read(size=3)": call("read", size=3),
    "read twice": several(call("read"), call("read"), call("read", 5), call("read", 0)),
    "readline()": call("readline"),
    "readline(-1)": call("readline", -1),
    "readline(None)": call("readline", None),
    "readline(0)": call("readline", 0),
    "readline(3)": call("readline", 3),
    "readline(6)": call("readline", 6),
    "readline(100)": call("readline", 100),
    "readline(index)": call("readline", Index(3)),
    "readline('3')": call("readline", "3"),
    "readline(1.5)": call("readline", 1.5),
    "readline(2**70)": call("readline", 2**70),
    "readline to the end": several(*[call("readline")] * 7),
    "readlines()": call("readlines"),
    "readlines(None)": call("readlines", None),
    "readlines(-1)": call("readlines", -1),
    "readlines(0)": call("readlines", 0),
    "readlines(1)": call("readlines", 1),
    "readlines(6)": call("readlines", 6),
    "readlines(7)": call("readlines", 7),
    "readlines(1000)": call("readlines", 1000),
    "readlines(index)": call("readlines", Index(7)),
    "readlines('1')": call("readlines", "1"),
    "readlines(1.5)": call("readlines", 1.5),
    "readlines twice": several(call("readlines"), call("readlines")),
    "iter is itself": lambda file: iter(file) is file,
    "list": list,
    "next": next,
    "next at the end": several(call("readlines"), lambda file: [next(file, "over") for _ in range(3)]),
    "next raises": several(call("readlines"), next),
    "next after close": closed_while_iterating,
    # --- writing
    "write(b'abc')": call("write", b"abc"),
    "write(b'')": call("write", b""),
    "write('abc')": call("write", "abc"),
    "write('')": call("write", ""),
    "write()": call("write"),
    "writelines()": call("writelines"),
    "writelines of a list": call("writelines", [b"a\n", bytearray(b"b"), memoryview(b"c")]),
    "writelines of strings": call("writelines", ["a\n", "b"]),
    "writelines of a generator": lambda file: file.writelines(generator([b"a", b"", b"b"])),
    "writelines of nothing": call("writelines", []),
    "writelines of an empty bytes": call("writelines", b""),
    "writelines of bytes": call("writelines", b"abc"),
    "writelines of an empty str": call("writelines", ""),
    "writelines of None": call("writelines", None),
    "writelines of an int": call("writelines", 5),
    "writelines with a bad one behind": suppressed(TypeError, call("writelines", [b"a", "b", b"c"])),
    "writelines with a bad one behind, raised": call("writelines", [b"a", None]),
    "writelines that raises": suppressed(
        ZeroDivisionError, lambda file: file.writelines(b"%d" % (6 // n) for n in (3, 2, 0, 1))
    ),
    "write twice": several(call("write", b"abc"), call("write", b"de"), call("flush")),
    "flush": call("flush"),
    "flush twice": several(call("flush"), call("flush")),
    "truncate()": call("truncate"),
    "truncate(0)": call("truncate", 0),
    # --- being a file
    "readable": call("readable"),
    "writable": call("writable"),
    "seekable": call("seekable"),
    "isatty": call("isatty"),
    "fileno": lambda file: isinstance(file.fileno(), int),
    "tell": call("tell"),
    "tell after a line": several(call("readline"), call("tell")),
    "tell after a write": several(call("write", b"abc"), call("tell")),
    "tell at the end": several(call("readlines"), call("tell")),
    "seek(0)": call("seek", 0),
    "seek(0, 1)": call("seek", 0, 1),
    "seek(0, 2)": call("seek", 0, 2),
    "seek('0')": call("seek", "0"),
    "seek()": call("seek"),
    "closed": get("closed"),
    "closed = True": assign("closed", True),
    "closefd": get("closefd"),
    "mode": get("mode"),
    "name": lambda file: bool(file.name),
    "no such attribute": get("no_such_attribute"),
    "a new attribute": several(assign("note", 5), get("note")),
    "close": several(call("close"), get("closed")),
    "close twice": several(call("close"), call("close"), get("closed")),
    "with": within,
    "with twice": several(within, within),
    "with, on an error": left_on_an_error,
    "__enter__": lambda file: file.__enter__() is file,
    "__exit__": several(lambda file: file.__exit__(None, None, None), get("closed")),
    "detach twice": lambda file: [file.detach() for _ in range(2)],
    "isinstance IOBase": lambda file: isinstance(file, io.IOBase),
    "isinstance RawIOBase": lambda file: isinstance(file, io.RawIOBase),
    "isinstance BufferedIOBase": lambda file: isinstance(file, io.BufferedIOBase),
    "isinstance TextIOBase": lambda file: isinstance(file, io.TextIOBase),
    "bool": bool,
    "len": len,
    "equal": lambda file: (file == file, file != file, file in {file}),  # noqa: PLR0124
    "repr": lambda file: isinstance(repr(file), str),
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "readinto at the end": several(call("readlines"), into(lambda: bytearray(3))),
    "readinto()": call("readinto"),
    "readall": call("readall"),
    "readall twice": several(call("readall"), call("readall")),
}

_ALL_BUFFERS = {**GOOD_BUFFERS, **CONSTANT_BUFFERS, **BAD_BUFFERS}

BUFFERS: dict[str, Operation] = {
    **{f"readinto({name})": into(make) for name, make in _ALL_BUFFERS.items()},
    **{f"readinto1({name})": into(make, "readinto1") for name, make in _ALL_BUFFERS.items()},
    **{f"write({name})": writing(make) for name, make in _ALL_BUFFERS.items()},
}

BUFFERED: dict[str, Operation] = {
    "read1()": call("read1"),
    "read1(-1)": call("read1", -1),
    "read1(0)": call("read1", 0),
    "read1(3)": call("read1", 3),
    "read1(1000)": call("read1", 1000),
    "read1(index)": call("read1", Index(3)),
    "read1('3')": call("read1", "3"),
    "read1(1.5)": call("read1", 1.5),
    "read1(None)": call("read1", None),
    "read1 at the end": several(call("read"), call("read1"), call("read1", 3)),
    "peek()": call("peek"),
    "peek(0)": call("peek", 0),
    "peek(3)": call("peek", 3),
    "peek(-1)": call("peek", -1),
    "peek(index)": call("peek", Index(3)),
    "peek('3')": call("peek", "3"),
    "peek(1.5)": call("peek", 1.5),
    "peek(None)": call("peek", None),
    "peek twice": several(call("peek", 1), call("read", 2), call("peek", 1)),
    "peek at the end": several(call("read"), call("peek"), call("peek", 3)),
    "readinto(larger)": into(lambda: bytearray(1000)),
    "raw is the end": lambda file: isinstance(file.raw, io.RawIOBase),
    "raw.closed": get("raw.closed"),
    "close, raw.closed": several(call("close"), get("raw.closed")),
    "raw closed first": lambda file: _raw_closed_first(file),
    "detach": lambda file: _detached(file),
    "detach, close": lambda file: _detached(file, "close"),
    "detach, read": lambda file: _detached(file, "read"),
    "detach, readline": lambda file: _detached(file, "readline"),
    "detach, write": lambda file: _detached(file, "write", b"x"),
    "detach, flush": lambda file: _detached(file, "flush"),
    "detach, tell": lambda file: _detached(file, "tell"),
    "detach, repr": lambda file: isinstance(repr(file), str),
    "write, detach": lambda file: (file.write(b"kept"), _detached(file)),
}

TEXT: dict[str, Operation] = {
    "encoding": get("encoding"),
    "errors": get("errors"),
    "newlines": several(get("newlines"), call("readline"), get("newlines"), call("read"), get("newlines")),
    "line_buffering": get("line_buffering"),
    "write_through": get("write_through"),
    "buffer": lambda file: isinstance(file.buffer, io.BufferedIOBase),
    "buffer.raw": lambda file: isinstance(file.buffer.raw, io.RawIOBase),
    "buffer.closed": several(call("close"), get("buffer.closed")),
    "write text": several(call("write", "\u20ac\n"), call("write", "\r\n"), call("flush")),
    "write a lone surrogate": call("write", "\ud800"),
    "write(str) after the buffer": several(lambda file: file.buffer.write(b"1"), call("write", "2")),
    "reconfigure": call("reconfigure", line_buffering=True),
    "reconfigure the encoding": several(call("reconfigure", encoding="latin-1"), get("encoding")),
    "print": lambda file: print("a", 1, file=file, flush=True),
    "detach": lambda file: _detached(file, raw="buffer"),
    "detach, close": lambda file: _detached(file, "close", raw="buffer"),
    "detach, read": lambda file: _detached(file, "read", raw="buffer"),
    "detach, write": lambda file: _detached(file, "write", "x", raw="buffer"),
    "write, detach": lambda file: (file.write("kept"), _detached(file, raw="buffer")),
    "close the buffer": several(lambda file: file.buffer.close(), get("closed")),
}


def _detached(file: Any, name: str = "", *arguments: Any, raw: str = "raw") -> Any:
    """Detach, then call a method of what is empty now."""
    expected = getattr(file, raw)
    below = file.detach()
    try:
        return below is expected, getattr(file, name)(*arguments) if name else None
    finally:
        below.close()


def _raw_closed_first(file: Any) -> Any:
    file.raw.close()
    before = file.closed
    file.close()
    return before, file.closed
