"""Writer × reader × direction × size, with and without texts: bytes and texts arrive exactly."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from . import streams
from .conftest import PeerOf
from .peers import NAMES

# Making the environments takes its time.
pytestmark = pytest.mark.timeout(600)

KIB, MIB = 1 << 10, 1 << 20

SIZES = [1, 64 * KIB, MIB, MIB + 1, 10 * MIB]

_seeds = itertools.count(1)


def check(peer_of: PeerOf, writer: str, reader: str, caller: str, script: streams.Script) -> None:
    """Send the script once; ``caller`` makes the channel and calls the other."""
    seed = next(_seeds)
    for name in (writer, reader):
        peer_of(name)
    arguments: dict[str, Any] = {"script": script, "seed": seed}
    if caller == "writer":
        found = peer_of(writer).do("send", function_id=f"interop::{reader}::read", **arguments)
    else:
        found = peer_of(reader).do("receive", function_id=f"interop::{writer}::write", **arguments)
    expected = streams.summary(script, seed)
    assert found["wrote"] == expected
    # Marks tell ours that a stream of ours is whole; nothing tells about the others'.
    assert found["read"] == {**expected, "complete": True if writer == reader == "ours" else None}


@pytest.mark.parametrize("caller", ["writer", "reader"])
@pytest.mark.parametrize("texts", [False, True], ids=["bytes", "mixed"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reader", NAMES)
@pytest.mark.parametrize("writer", NAMES)
def test_what_is_written_is_read(
    peer_of: PeerOf, writer: str, reader: str, size: int, texts: bool, caller: str
) -> None:
    """In every pair, whoever calls."""
    check(peer_of, writer, reader, caller, streams.script(size, texts))


@pytest.mark.parametrize("caller", ["writer", "reader"])
@pytest.mark.parametrize("reader", NAMES)
def test_an_empty_stream_of_ours_arrives(peer_of: PeerOf, reader: str, caller: str) -> None:
    """The official writers do not connect without data, so nobody can read an empty stream of theirs."""
    check(peer_of, "ours", reader, caller, [])


@pytest.mark.parametrize("caller", ["writer", "reader"])
@pytest.mark.parametrize("reader", NAMES)
@pytest.mark.parametrize("writer", NAMES)
def test_texts_alone(peer_of: PeerOf, writer: str, reader: str, caller: str) -> None:
    """A text connects every writer."""
    check(peer_of, writer, reader, caller, streams.script(0, True))


@pytest.mark.slow
@pytest.mark.parametrize("caller", ["writer", "reader"])
@pytest.mark.parametrize("texts", [False, True], ids=["bytes", "mixed"])
@pytest.mark.parametrize("reader", NAMES)
@pytest.mark.parametrize("writer", NAMES)
def test_100_mib(peer_of: PeerOf, writer: str, reader: str, texts: bool, caller: str) -> None:
    """More than anything in between can hold."""
    check(peer_of, writer, reader, caller, streams.script(100 * MIB, texts))
