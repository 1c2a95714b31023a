"""Random damage to recorded frames: ``python -m tests.hostile.mutate --count 1000000 --seed N``.

Every input goes through the frame parser and the message decoder, which must answer with pieces and messages, with
a :class:`~iii_sync.wire.frames.FrameError`, or with nothing; never with another exception, and at a cost that its
own size bounds. The exit status is 1 when one took too long, or too much memory.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator

from iii_sync.wire import frames, messages

from ..wire import recorded
from ..wire.feeding import feed_read

#: What a message may have; small, so that the cutting off happens too.
LIMIT = 32 * 1024

#: Processor seconds that one input may take, and MiB that the process may have at its peak.
SLOWEST, MEMORY = 1.0, 64

_HEADERS = [0, 1, 2, 8, 9, 10, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xC1, 0xFE, 0xFF]


def recordings() -> list[bytes]:
    """Frames as the real engine sent them, and some that it would not send."""
    found = [data for data, _ in recorded.MESSAGES]
    found += [data for data, _, _ in recorded.CHANNEL_READER + recorded.CHANNEL_WRITER]
    found += [recorded.TWO_PONGS, recorded.CLOSE]
    text = '{"type":"invocationresult","result":"grüße 😀"}'.encode()
    found.append(
        recorded.server_frame(1, text[:37], False)
        + recorded.server_frame(9, b"between")
        + recorded.server_frame(0, text[37:])
    )
    return found


class Mutator:
    """A stream of damaged recordings, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        every = recordings()
        # The large ones are drawn seldom: most of them is one letter.
        self._small = [data for data in every if len(data) < 2000]
        self._large = [data for data in every if len(data) >= 2000]
        self._kinds = [
            self._flip,
            self._header,
            self._truncate,
            self._insert,
            self._delete,
            self._splice,
            self._length,
            self._repeat,
        ]

    def input(self) -> bytes:
        """The next damaged stream of one to four frames."""
        rng = self._rng
        chosen = [rng.choice(self._large if rng.random() < 0.002 else self._small) for _ in range(rng.randint(1, 4))]
        rng.shuffle(chosen)
        data = bytearray(b"".join(chosen))
        for _ in range(rng.randint(1, 3)):
            if data:
                rng.choice(self._kinds)(data)
        return bytes(data)

    def parts(self, data: bytes) -> Iterator[bytes]:
        """``data`` as it might come from a socket."""
        cut = self._rng.randint(0, len(data)) if self._rng.random() < 0.3 else len(data)
        yield data[:cut]
        if cut < len(data):
            yield data[cut:]

    def _flip(self, data: bytearray) -> None:
        for _ in range(self._rng.randint(1, 4)):
            data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)

    def _header(self, data: bytearray) -> None:
        data[self._rng.randrange(min(4, len(data)))] = self._rng.choice(_HEADERS)

    def _truncate(self, data: bytearray) -> None:
        del data[self._rng.randrange(len(data)) :]

    def _insert(self, data: bytearray) -> None:
        at = self._rng.randrange(len(data) + 1)
        data[at:at] = self._rng.randbytes(self._rng.randint(1, 8))

    def _delete(self, data: bytearray) -> None:
        at = self._rng.randrange(len(data))
        del data[at : at + self._rng.randint(1, 16)]

    def _splice(self, data: bytearray) -> None:
        at, other = self._rng.randrange(len(data)), self._rng.choice(self._small)
        data[at:] = other[self._rng.randrange(len(other)) :]

    def _length(self, data: bytearray) -> None:
        bits = self._rng.choice([7, 16, 63, 64])
        size = self._rng.choice([self._rng.getrandbits(bits), self._rng.randint(0, 200), (1 << bits) - 1])
        if bits == 7:
            data[1:2] = bytes([size & 0x7F])
        elif bits == 16:
            data[1:4] = b"\x7e" + (size & 0xFFFF).to_bytes(2, "big")
        else:
            data[1:10] = b"\x7f" + size.to_bytes(8, "big")

    def _repeat(self, data: bytearray) -> None:
        at = self._rng.randrange(len(data))
        data[at:at] = data[at : at + self._rng.randint(1, 40)] * self._rng.randint(1, 20)


def outcome(parts: Iterator[bytes]) -> str:
    """Feed one stream to the parser and the decoder, and name what became of it."""
    parser, texts = frames.FrameParser(), frames.TextAssembler(LIMIT)
    size, handed_out, understood, ignored = 0, 0, 0, 0
    for part in parts:
        size += len(part)
        for piece in feed_read(parser, part):
            handed_out += len(piece.payload)
            if piece.opcode == frames.CLOSE:
                frames.parse_close(piece.payload)
            elif piece.opcode == frames.TEXT:
                try:
                    text = texts.add(piece.payload, piece.end)
                except frames.FrameError as exc:
                    return f"refused {exc.code}"
                if text is not None and texts.oversize:
                    messages.mentioned_invocation(text)
                elif text is not None:
                    message = messages.decode(text)
                    if message is None:
                        ignored += 1
                    else:
                        messages.encode(message)  # whatever came in can go on
                        understood += 1
    assert handed_out <= size, "more came out than went in"
    if parser.error is not None:
        return f"refused {parser.error.code}"
    if parser.closed:
        return "closed"
    if not parser.idle:
        return "unfinished"
    return "ignored" if ignored else "understood" if understood else "no messages"


def run(count: int, seed: int) -> tuple[Counter[str], float]:
    """Feed ``count`` inputs; returns the outcomes, and the processor seconds that the slowest input took.

    Raises:
        AssertionError: An input raised; it is part of the message.
    """
    mutator = Mutator(seed)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number in range(count):
        data = mutator.input()
        started = time.thread_time()
        try:
            outcomes[outcome(mutator.parts(data))] += 1
        except Exception as exc:
            raise AssertionError(f"input {number} of seed {seed}: {exc!r}: {data!r}") from exc
        slowest = max(slowest, time.thread_time() - started)
    return outcomes, slowest


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.mutate", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--trace", action="store_true", help="measure every allocation (many times slower)")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.count:,} inputs", flush=True)
    if arguments.trace:
        tracemalloc.start()
    started = time.monotonic()
    outcomes, slowest = run(arguments.count, arguments.seed)
    for name, number in outcomes.most_common():
        print(f"{number:>10,}  {name}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - started:.1f} s, the slowest input {slowest * 1000:.1f} ms")
    print(f"peak memory {memory:.1f} MiB resident")
    if arguments.trace:
        print(f"peak of allocations {tracemalloc.get_traced_memory()[1] / 1024 / 1024:.1f} MiB")
        return 0  # it measures itself then
    failed = slowest > SLOWEST or memory > MEMORY
    if failed:
        print(f"FAILURE: {SLOWEST:g} s and {MEMORY} MiB are allowed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
