"""Masking of client frames (RFC 6455, 5.3).

Masking decides the speed of a writer, so there is a ladder: numpy when the process has it loaded anyway,
else one big integer a piece, which is the fastest that the standard library offers.
"""

from __future__ import annotations

import sys
from typing import Any, Union

__all__ = ["mask_into", "masked"]

_PIECE = 16 * 1024  # big-integer XOR is quickest in pieces that stay in the first-level cache
_SMALL = 4096  # below this the set-up of numpy costs more than it saves


def masked(data: Union[bytes, bytearray, memoryview], key: bytes) -> bytes:
    """Return ``data`` masked with the four bytes of ``key``; masking twice gives the data back."""
    size = len(data)
    if not size:
        return b""
    pad = key * ((size + 3) // 4)
    number = int.from_bytes(data, "little") ^ int.from_bytes(pad[:size], "little")
    return number.to_bytes(size, "little")


def mask_into(target: memoryview, data: memoryview, key: bytes) -> None:
    """Write ``data`` masked with ``key`` into ``target``.

    Args:
        target: Writable bytes, as long as ``data``; must not overlap it.
        data: The payload, a view of single bytes.
        key: The four bytes of the mask.
    """
    size = len(data)
    if size >= _SMALL:
        numpy = sys.modules.get("numpy")
        # A numpy that another thread is still importing has no attributes yet.
        if numpy is not None and hasattr(numpy, "bitwise_xor") and hasattr(numpy, "frombuffer"):
            _mask_with_numpy(numpy, target, data, key)
            return
    for start in range(0, size, _PIECE):
        target[start : start + _PIECE] = masked(data[start : start + _PIECE], key)


def _mask_with_numpy(numpy: Any, target: memoryview, data: memoryview, key: bytes) -> None:
    whole = len(data) & ~3
    word = numpy.frombuffer(key, dtype="u4")
    source = numpy.frombuffer(data[:whole], dtype="u4")
    out = numpy.frombuffer(target[:whole], dtype="u4")
    numpy.bitwise_xor(source, word, out=out)
    if whole < len(data):
        target[whole:] = masked(data[whole:], key)
