"""What one transfer of the soak is: drawn from the seed and its number, the same in both processes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Iterator

__all__ = ["BENIGN", "Content", "Plan"]

KIB, MIB = 1024, 1024 * 1024

#: Faults after which a stream must still arrive.
BENIGN = ("none", "delay", "trickle", "stall", "slow-reader", "stop-peer", "control-stall")

#: Faults of single connections, with weights.
_ON_CHANNELS = {
    "none": 3,
    "delay": 6,
    "trickle": 6,
    "stall": 8,
    "slow-reader": 4,
    "half-open": 14,
    "half-open-back": 4,
    "reset": 20,
    "reset-one-side": 6,
    "cut": 20,
    "cut-one-side": 6,
    "black-hole": 2,
}

#: Faults of everything that a pair of processes has.
_ON_ALL = {
    "stop-peer": 4,
    "kill-peer": 4,
    "kill-engine": 4,
    "restart-proxy": 4,
    "black-hole-all": 2,
    "refuse": 1,
    "control-stall": 2,
    "control-reset": 4,
    "control-cut": 3,
    "control-half-open": 2,
}

#: How the two sides use the stream.
_MODES = ("write", "read", "open-wb", "open-rb")

_PRINTABLE = bytes(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n"[i % 64] for i in range(256))

_BLOCK = 256 * KIB


@dataclasses.dataclass(frozen=True)
class Plan:
    """One transfer.

    Attributes:
        mode: ``write``: we write into a channel that a function reads; ``read``: the other way round; ``open-wb`` and
            ``open-rb``: the same with ``Worker.open``.
        size: Bytes.
        chunk: Bytes of a write, on average.
        text: Whether both sides use text files (the content is text then).
        writes: How the writer writes: ``raw``, ``buffered`` or ``text``.
        reads: How the reader reads.
        fault: One of the names above.
        socket: At which end of the channel: ``read`` or ``write``; of control faults: ``driver`` or ``peer``.
        phase: ``handshake``, ``first``, ``middle`` or ``end``.
        place: ``kind`` and ``offset`` of the :class:`~.proxy.Place`.
        seconds: How long a fault lasts that ends.
        number: Of the transfer.
        seed: Of the soak.
    """

    seed: int
    number: int
    mode: str
    size: int
    chunk: int
    writes: str
    reads: str
    fault: str
    socket: str
    phase: str
    place: tuple[str, int]
    seconds: float
    chance: int

    @classmethod
    def draw(cls, seed: int, number: int) -> Plan:
        """Draw the transfer ``number`` of a soak."""
        draw = random.Random(f"{seed}:{number}")
        size = _size(draw)
        faults = _ON_ALL if draw.random() < 0.2 else _ON_CHANNELS
        fault = draw.choices(list(faults), list(faults.values()))[0]
        phase = draw.choices(("handshake", "first", "middle", "end"), (6, 14, 58, 22))[0]
        if fault in ("black-hole", "refuse"):
            phase = "handshake"
        elif faults is _ON_ALL and phase == "handshake":
            phase = "middle"
        text = draw.random() < 0.15
        smallest = max(1, size // 2000)
        chunk = max(smallest, int(2 ** draw.uniform(0, 22)))
        return cls(
            seed=seed,
            number=number,
            mode=draw.choice(_MODES),
            size=size,
            chunk=chunk,
            writes="text" if text else draw.choice(("raw", "raw", "buffered")),
            reads="text" if text else draw.choice(("read", "read1", "readinto", "iterate", "makefile", "all")),
            fault=fault,
            socket=draw.choice(("driver", "peer") if fault.startswith("control") else ("read", "write")),
            phase=phase,
            place=_place(draw, phase, size),
            seconds=draw.uniform(0.2, 1.5),
            chance=draw.randrange(1 << 30),
        )

    @property
    def benign(self) -> bool:
        """Whether the stream must arrive."""
        return self.fault in BENIGN

    @property
    def shared(self) -> bool:
        """Whether the fault hits everything that a pair of processes has."""
        return self.fault in _ON_ALL

    @property
    def text(self) -> bool:
        """Whether both sides use text files."""
        return self.writes == "text"

    @property
    def patience(self) -> float:
        """Seconds of silence that both ends tolerate."""
        return (25.0 + self.seconds) if self.benign else 3.0

    @property
    def call_timeout(self) -> float:
        """Seconds after which the call has failed."""
        return 4.0 if self.fault == "control-half-open" else 60.0 + self.seconds if self.benign else 20.0

    @property
    def deadline(self) -> float:
        """Seconds within which it must have ended, in one way or the other, unless the answer of its call was lost.

        Five for connecting, three of silence, three for closing, and four for a busy machine; twice what the fault
        lasts, for both directions; and one for every 4 MiB.
        """
        return 15.0 + 2 * self.seconds + self.size / (4 * MIB)

    @property
    def we_write(self) -> bool:
        """Whether the driving process holds the writer."""
        return self.mode in ("write", "open-wb")

    @property
    def content(self) -> Content:
        """What is sent."""
        return Content(self.seed, self.number, self.size, self.text)


def _size(draw: random.Random) -> int:
    dice = draw.random()
    for share, low, high in (
        (0.05, 0, 0),
        (0.08, 1, 1),
        (0.20, 2, KIB),
        (0.42, KIB, 64 * KIB),
        (0.70, 64 * KIB, MIB),
        (0.997, MIB, 6 * MIB),
    ):
        if dice < share:
            return draw.randint(low, high)
    return 64 * MIB


def _place(draw: random.Random, phase: str, size: int) -> tuple[str, int]:
    if phase == "handshake":
        return draw.choice(("request", "answer")), draw.randrange(0, 100)
    if phase == "first":
        return "data", draw.randrange(0, min(40, size + 12))
    if phase == "end":
        # Behind the Close nothing is in flight any more.
        return draw.choice(("end-mark", "end-mark", "close", "close", "in-close", "after-close")), 0
    # Twelve bytes of marks are there even on the shorter way, from the engine to a reader.
    offset = int(draw.uniform(0.02, 0.98) * (size + 12))
    return ("header" if size and draw.random() < 0.2 else "data"), offset


@dataclasses.dataclass(frozen=True)
class Content:
    """The bytes of one transfer: pseudo-random, so that whatever is lost, doubled or swapped shows."""

    seed: int
    number: int
    size: int
    text: bool

    def block(self, index: int) -> bytes:
        """The bytes from ``index`` times the size of a block on."""
        size = min(_BLOCK, self.size - index * _BLOCK)
        data = _random_bytes(f"{self.seed}:{self.number}:{index}", size)
        return data.translate(_PRINTABLE) if self.text else data

    def blocks(self) -> Iterator[bytes]:
        """All of them."""
        for index in range(-(-self.size // _BLOCK)):
            yield self.block(index)

    def chunks(self, chunk: int, draw: random.Random) -> Iterator[bytes]:
        """Pieces of random size, ``chunk`` bytes on average."""
        rest = b""
        wanted = draw.randint(1, 2 * chunk)
        for block in self.blocks():
            view = rest + block
            position = 0
            while len(view) - position >= wanted:
                yield view[position : position + wanted]
                position += wanted
                wanted = draw.randint(1, 2 * chunk)
            rest = view[position:]
        if rest:
            yield rest

    def digest(self, size: int) -> str:
        """The digest of the first ``size`` bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for block in self.blocks():
            if size <= 0:
                break
            digest.update(block[:size])
            size -= len(block)
        return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _random_bytes(key: str, size: int) -> bytes:
    return random.Random(key).randbytes(size)
