"""Masking of client frames (RFC 6455, 5.3).

Masking decides the speed of a writer, so there is a ladder: the C extension where it was built, else numpy when
the process has it loaded anyway, else what is fastest in Python itself: ``bytes.translate`` of every fourth byte with
each byte of the key, nearly twice as fast as one big integer a piece; small data are one big integer.
``III_SYNC_ACCELERATOR`` (``c``, ``numpy`` or ``python``) picks a step by name; it is read when this is imported.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Optional, Union

from .entropy import Pieces

__all__ = ["C_WANTED", "mask_into", "masked", "method", "new_key"]

MaskInto = Callable[[bytearray, int, Union[bytes, bytearray, memoryview], bytes, int], None]

_PIECE = 32 * 1024  # translating is quickest in pieces that stay in the first-level cache; a multiple of 4
_SMALL = 4096  # below this the set-up of anything but one big integer costs more than it saves

_ALL_BYTES = bytes(range(256))


new_key: Callable[[], bytes] = Pieces(4).next
"""Return the four bytes of a new mask, which nobody can foresee."""


def masked(data: Union[bytes, bytearray, memoryview], key: bytes) -> bytes:
    """Return ``data`` masked with the four bytes of ``key``; masking twice gives the data back."""
    size = len(data)
    if not size:
        return b""
    pad = key * ((size + 3) // 4)
    number = int.from_bytes(data, "little") ^ int.from_bytes(pad[:size], "little")
    return number.to_bytes(size, "little")


def method() -> str:
    """Return which step of the ladder large frames take now: ``c``, ``numpy`` or ``python``."""
    if mask_into is not _mask_in_python:
        return "c"
    return "python" if _loaded_numpy() is None else "numpy"


def _mask_in_python(
    target: bytearray, at: int, data: Union[bytes, bytearray, memoryview], key: bytes, turn: int, /
) -> None:
    with memoryview(target)[at : at + len(data)] as place, memoryview(data) as view:
        _mask_view(place, view, key[turn & 3 :] + key[: turn & 3])


def _mask_view(target: memoryview, data: memoryview, key: bytes) -> None:
    size = len(data)
    if size < _SMALL:
        target[:] = masked(data, key)
        return
    numpy = _loaded_numpy()
    if numpy is not None:
        _mask_with_numpy(numpy, target, data, key)
        return
    tables = [_table(byte) for byte in key]
    for start in range(0, size, _PIECE):
        piece = bytes(data[start : start + _PIECE])
        out = bytearray(len(piece))
        for lane, table in enumerate(tables):
            out[lane::4] = piece[lane::4].translate(table)
        target[start : start + _PIECE] = out


def _table(byte: int) -> bytes:
    """Return what each of the 256 bytes is when it is masked with this one."""
    return masked(_ALL_BYTES, bytes([byte] * 4))


def _loaded_numpy() -> Any:
    if _WANTED == "python":
        return None
    numpy = sys.modules.get("numpy")
    # A numpy that another thread is still importing has no attributes yet.
    return numpy if hasattr(numpy, "bitwise_xor") and hasattr(numpy, "frombuffer") else None


def _mask_with_numpy(numpy: Any, target: memoryview, data: memoryview, key: bytes) -> None:
    whole = len(data) & ~3
    word = numpy.frombuffer(key, dtype="u4")
    source = numpy.frombuffer(data[:whole], dtype="u4")
    out = numpy.frombuffer(target[:whole], dtype="u4")
    numpy.bitwise_xor(source, word, out=out)
    if whole < len(data):
        target[whole:] = masked(data[whole:], key)


def _extension() -> Optional[MaskInto]:
    """Return the function of the C extension, if it was built and masks as it should."""
    try:
        from ._mask import mask_into as found
    except ImportError:
        return None
    # Not trusted before it has shown what it does: a wrong mask would reach the peer as somebody's data.
    data, key = bytes(range(1, 28)), b"\x9a\x01\xff\x80"
    target = bytearray(3 + len(data))
    try:
        found(target, 3, data, key[2:] + key[:2], 6)
    except TypeError:  # built for an older version
        return None
    return found if target == bytes(3) + masked(data, key) else None


_WANTED = os.environ.get("III_SYNC_ACCELERATOR", "")

#: Whether C may be used where it was built, for masks and elsewhere.
C_WANTED: bool = _WANTED not in ("numpy", "python")

_in_c = _extension() if C_WANTED else None

mask_into: MaskInto = _in_c or _mask_in_python
"""``mask_into(target, at, data, key, turn)`` writes ``data``, masked, into ``target`` from ``at`` on.

``target`` is long enough and does not overlap ``data``, of single bytes; ``key`` has the four bytes of the mask, of
which byte ``turn % 4`` is the first to be used.
"""
