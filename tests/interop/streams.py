"""What is sent through channels here: a script of bytes and texts, the same in every language.

A script is a list of numbers and strings: a number writes as many bytes of the stream's data, a string is sent as a
text message. The data is SHAKE-128 of the seed, so no part of it is like another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Optional, Union

Script = list[Union[int, str]]

#: Around the sizes of frames and their headers, and writes of more than any reader takes in one message.
PIECES = [1, 125, 126, 1000, 65_535, 65_536, 65_537, 100_003, 1 << 20, 3 << 20]

TEXTS = [
    "",
    "plain",
    "Grüße, 世界, \U0001f600",
    '{"type": "progress", "done": 0.5}',
    "\x00\u2028\ufffd",
    "long " * 5000,
]


def script(size: int, texts: bool) -> Script:
    """Write ``size`` bytes in pieces of all kinds; with texts before, between and after them."""
    made: Script = []
    left, number = size, 0
    while left or (texts and number < len(TEXTS)):
        if texts and number < 2 * len(TEXTS):
            made.append(f"{number}: {TEXTS[number % len(TEXTS)]}" if number else TEXTS[0])
        piece = min(left, PIECES[number % len(PIECES)])
        if piece:
            made.append(piece)
        left -= piece
        number += 1
    return [*made, "the last word"] if texts else made


def items(script: Script, seed: int) -> Iterator[Union[bytes, str]]:
    """What the script sends."""
    total = sum(item for item in script if isinstance(item, int))
    data = memoryview(hashlib.shake_128(str(seed).encode()).digest(total))
    start = 0
    for item in script:
        if isinstance(item, str):
            yield item
        else:
            yield bytes(data[start : start + item])
            start += item


class Summary:
    """What a stream has carried: ``size`` and ``sha256`` of the bytes, the list of ``texts``."""

    def __init__(self) -> None:
        self._size = 0
        self._digest = hashlib.sha256()
        self._texts: list[str] = []

    def add(self, item: Union[bytes, str]) -> None:
        """One more message."""
        if isinstance(item, str):
            self._texts.append(item)
        else:
            self._size += len(item)
            self._digest.update(item)

    def done(self, complete: Optional[bool] = None) -> dict[str, Any]:
        """As JSON."""
        return {
            "size": self._size,
            "sha256": self._digest.hexdigest(),
            "texts": self._texts,
            "complete": complete,
        }


def summary(script: Script, seed: int) -> dict[str, Any]:
    """What arrives when everything does."""
    made = Summary()
    for item in items(script, seed):
        made.add(item)
    return made.done()
