"""A parser fed as a connection feeds it, and what there is to split binary messages with."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import pytest

from iii_sync.wire import frames


def implementations() -> list[Any]:
    """Both ``split_binary``, where the extension was built."""
    found = [pytest.param(frames._split_in_python, id="python")]
    with contextlib.suppress(ImportError):
        found.append(pytest.param(importlib.import_module("iii_sync.wire._frames").split_binary, id="c"))
    return found


def feed_read(parser: frames.FrameParser, data: bytes) -> list[frames.Piece]:
    """Feed what one read brought, the quick way as far as that goes; returns all pieces."""
    pieces: list[frames.Piece] = []
    buffer = bytearray(data) + b"\x82\x01x" * 5  # what an earlier read has left there is none of this one's
    used = 0
    while used < len(data):
        payloads, messages, used = parser.feed_binary(buffer, used, len(data))
        assert len(payloads) <= frames.MAX_PIECES and all(payloads)
        assert messages in (len(payloads), max(0, len(payloads) - 1))
        pieces += frames.binary_pieces(payloads, messages)
        if not payloads:
            break
    while used < len(data):
        more, size = parser.feed(memoryview(data)[used:])
        assert size > 0 and len(more) <= frames.MAX_PIECES
        pieces += more
        used += size
    assert used == len(data)
    return pieces
