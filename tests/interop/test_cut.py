"""Streams that are cut: what ours and the official readers see of each other's.

The official SDKs cannot tell a stream that was cut from one that ended: their readers report both as the end. Ours can
for streams of ours, also after a relay that copies every message. For streams of theirs it depends on the engine: the
real one closes a reader in the same way whether the writer has finished or died.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import iii_sync
from iii_sync.errors import ChannelTruncatedError

from . import streams
from .conftest import NAMESPACE, PeerOf
from .peers import OFFICIAL, running_peer

# Making the environments takes its time.
pytestmark = pytest.mark.timeout(600)

#: How long a stream may stand still.
WAIT = 30.0

SCRIPT = streams.script(300_000, True)


@pytest.fixture
def data() -> bytes:
    """What the script sends, without the texts."""
    return b"".join(item for item in streams.items(SCRIPT, 7) if isinstance(item, bytes))


def write(writer: iii_sync.ChannelWriter) -> None:
    """Send the script."""
    writer.timeout = WAIT
    for item in streams.items(SCRIPT, 7):
        if isinstance(item, str):
            writer.send_message(item)
        else:
            writer.write(item)


@pytest.mark.parametrize("reader", OFFICIAL)
def test_official_readers_do_not_see_that_ours_was_cut(worker: iii_sync.Worker, peer_of: PeerOf, reader: str) -> None:
    """They get everything that was written, and a clean end, as from a writer that has finished."""
    peer_of(reader)
    channel = worker.create_channel()
    call = worker.submit(f"interop::{reader}::read", {"deep": [{"reader": channel.reader_ref}]})
    write(channel.writer)
    channel.writer.abort()
    assert call.result(WAIT) == streams.summary(SCRIPT, 7)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
def test_the_python_relay_passes_the_guarantee_on(
    worker: iii_sync.Worker, peer_of: PeerOf, whole: bool, data: bytes
) -> None:
    """It hands out the empty messages that mark our streams, and so forwards them."""
    peer_of("python")
    found = relayed(worker, "python", whole)
    assert next(found) == data
    if whole:
        assert next(found) is True
    else:
        with pytest.raises(ChannelTruncatedError):
            next(found)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
def test_the_node_relay_loses_the_guarantee(worker: iii_sync.Worker, peer_of: PeerOf, whole: bool, data: bytes) -> None:
    """It does not hand out empty messages: its stream is somebody else's, and its end is believed."""
    peer_of("node")
    found = relayed(worker, "node", whole)
    assert next(found) == data
    assert next(found) is None


def relayed(worker: iii_sync.Worker, relay: str, whole: bool) -> Iterator[Any]:
    """Send the script through a relay; gives the bytes, then ``complete`` or the error at the end."""
    inward, outward = worker.create_channel(), worker.create_channel()
    outward.reader.timeout = WAIT
    call = worker.submit(
        f"interop::{relay}::relay", {"reader": inward.reader_ref, "writer": outward.writer_ref}, timeout=WAIT
    )
    write(inward.writer)
    if whole:
        inward.writer.close()
    else:
        inward.writer.abort()
    received = b""
    try:
        for chunk in outward.reader:
            received += chunk
    except ChannelTruncatedError as exc:
        call.result(WAIT)
        yield received
        raise exc
    call.result(WAIT)
    yield received
    yield outward.reader.complete


@pytest.mark.parametrize("writer", OFFICIAL)
def test_an_official_writer_that_dies(
    worker: iii_sync.Worker, engine_kind: str, engine_url: str, peer_of: PeerOf, writer: str
) -> None:
    """The real engine ends the stream as if it were whole, which ours calls unknown; on the local one ours raises."""
    peer_of(writer)
    channel = worker.create_channel()
    channel.reader.timeout = WAIT
    script: streams.Script = ["first", 300_000]
    _, written = streams.items(script, 7)
    with running_peer(writer, engine_url, f"dying::{writer}", f"{NAMESPACE}-dying") as peer:
        peer.die(ref=channel.writer_ref.model_dump(), script=script, seed=7)
    received, error = b"", None
    try:
        for chunk in channel.reader:
            received += chunk
    except ChannelTruncatedError as exc:
        error = exc
    assert channel.reader.complete is (None if engine_kind == "real" else False)
    assert (error is None) == (engine_kind == "real")
    # A process that dies may leave bytes unsent, but what arrived is a beginning of what it wrote.
    assert isinstance(written, bytes) and written.startswith(received)
