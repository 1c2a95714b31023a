"""A live stream that is consumed while it is being made: a tone, played into a WAV file, with the latency printed.

The function makes the sound bit by bit, as a microphone would, and writes every bit at once; the caller reads each as
it arrives. Text messages beside the bytes carry the time at which each bit was made. Needs an engine:
python -m iii_sync engine.
"""

import array
import math
import statistics
import sys
import tempfile
import time
import wave
from typing import Any

from iii_sync import register_worker

RATE = 16_000  # samples a second
PIECE = 0.02  # seconds of sound in one write
SECONDS = 1.0


def record(data: dict[str, Any]) -> dict[str, int]:
    """The function: writes 16-bit samples as they come into being."""
    samples = int(RATE * PIECE)
    pieces = int(data["seconds"] / PIECE)
    with data["writer"] as out:
        for piece in range(pieces):
            start = piece * samples
            sound = array.array(
                "h", (int(20_000 * math.sin(2 * math.pi * 440 * t / RATE)) for t in range(start, start + samples))
            )
            out.send_message(str(time.time()))
            out.write(sound)
            time.sleep(PIECE)
    return {"pieces": pieces}


def main(path: str) -> None:
    """The caller: plays into a file what it hears."""
    delays: list[float] = []
    with register_worker() as worker:
        worker.register_function("audio::record", record)
        channel = worker.create_channel()
        call = worker.submit("audio::record", {"seconds": SECONDS, "writer": channel.writer_ref})
        with wave.open(path, "wb") as player, channel.reader as microphone:
            player.setnchannels(1)
            player.setsampwidth(2)
            player.setframerate(RATE)
            made = 0.0
            for event in microphone.events():
                if isinstance(event, str):
                    made = float(event)
                else:
                    delays.append(time.time() - made)
                    player.writeframes(event)
        pieces = call.result(timeout=10)["pieces"]
    with wave.open(path, "rb") as played:
        print(f"{pieces} pieces, {played.getnframes() / RATE:.2f} s of sound in {path}")
    print(f"latency: median {statistics.median(delays) * 1000:.2f} ms, longest {max(delays) * 1000:.2f} ms")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            main(file.name)
