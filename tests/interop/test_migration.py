"""The README's table for those who come from the official Python SDK: both sides of every row do the same."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import iii_sync

from .conftest import PeerOf
from .migration import Row, rows

# Making the environments takes its time.
pytestmark = pytest.mark.timeout(600)

WAIT = 20.0

ROWS = {row.what: row for row in rows()}

IMPORTS = ROWS["Import"]

SQUARE = "request = {'function_id': 'math::square', 'payload': {'n': 9}}"

OLD_CHANNEL = """\
channel = await create_channel_async(worker)
async def send():
    await channel.writer.send_message_async("a text")
    await channel.writer.write(b"bytes")
    await channel.writer.close_async()
"""

NEW_CHANNEL = """\
channel = worker.create_channel()
def send():
    with channel.writer as f:
        f.send_message("a text")
        f.write(b"bytes")
"""


class Case(NamedTuple):
    """What a row needs and does.

    Attributes:
        result: An expression that tells what the row has done.
        expected: Its value.
        before: Code that comes before the row, for the official SDK and for ours.
        after: Code that comes after it, likewise.
    """

    result: str
    expected: Any
    before: tuple[str, str] = ("", "")
    after: tuple[str, str] = ("", "")


CASES = {
    "Import": Case("[InitOptions.__name__, register_worker.__name__]", ["InitOptions", "register_worker"]),
    "Connect": Case(
        "[asked['n'], options.worker_name]",
        [81, "reports"],
        before=(f"worker.shutdown()\n{SQUARE}", f"worker.shutdown()\n{SQUARE}"),
        after=(
            "asked = await worker.trigger_async(request)\nworker.shutdown()",
            "asked = worker.trigger(request)\nworker.shutdown()",
        ),
    ),
    "Leave": Case("worker.get_connection_state()", "disconnected"),
    "Offer a function": Case(
        "doubled",
        {"n": 42},
        after=(
            "doubled = await worker.trigger_async({'function_id': 'tests::ask', 'payload': {'to': 'numbers::double'}})",
            "doubled = worker.trigger('tests::ask', {'to': 'numbers::double'})",
        ),
    ),
    "Call": Case("result", {"n": 9}),
    "With a time limit": Case("late", True),
    "Errors": Case("[code, text]", ["out_of_stock", "nothing left"]),
    "Do not wait": Case(
        "noted",
        1,
        after=(
            "noted = await worker.trigger_async({'function_id': 'math::noted', 'payload': {}})",
            "noted = worker.trigger('math::noted', {})",
        ),
    ),
    "Several at once": Case("list(results)", [{"n": 0}, {"n": 1}, {"n": 4}]),
    "Namespace, metadata": Case("result", {"tenant": "blue"}),
    "Make a channel": Case("[channel.writer_ref.direction, channel.reader_ref.direction]", ["write", "read"]),
    "Pass its reader, write, take the result": Case(
        "result", {"bytes": "some bytes, and some more", "texts": ["half way"]}, before=(OLD_CHANNEL, NEW_CHANNEL)
    ),
    "Pass its writer, read": Case("size", 100_000, before=(OLD_CHANNEL, NEW_CHANNEL)),
    "Read everything, with texts": Case(
        "[data.decode(), texts]",
        ["bytes", ["a text"]],
        before=(OLD_CHANNEL + "sending = asyncio.create_task(send())\n", NEW_CHANNEL + "send()\n"),
        after=("await sending", ""),
    ),
    "Read and write in a function": Case(
        "made",
        "LOUD",
        after=(
            "made = await worker.trigger_async({'function_id': 'tests::stream', 'payload': {'to': 'files::upper'}})",
            "made = worker.trigger('tests::stream', {'to': 'files::upper'})",
        ),
    ),
}


@pytest.fixture
def functions(worker: iii_sync.Worker) -> Iterator[None]:
    """What the rows call."""
    notes: queue.SimpleQueue[int] = queue.SimpleQueue()
    released = threading.Event()

    @worker.function("math::square")
    def square(data: Any) -> Any:
        return {"n": data["n"] ** 2}

    @worker.function("math::slow")
    def slow(data: Any) -> None:
        released.wait(WAIT)

    @worker.function("math::fail")
    def fail(data: Any) -> None:
        raise iii_sync.InvocationError("out_of_stock", "nothing left")

    @worker.function("math::note")
    def note(data: Any) -> None:
        notes.put(data["n"])

    @worker.function("math::noted")
    def noted(data: Any) -> int:
        return notes.get(timeout=WAIT)

    @worker.function("math::metadata")
    def metadata(data: Any, metadata: Any = None) -> Any:
        return metadata

    @worker.function("files::process")
    def process(data: Any) -> Any:
        texts: list[str] = []
        data["reader"].on_message(texts.append)
        return {"bytes": data["reader"].read().decode(), "texts": texts}

    @worker.function("files::generate")
    def generate(data: Any) -> None:
        with data["writer"] as f:
            f.write(bytes(100_000))

    @worker.function("tests::ask")
    def ask(data: Any) -> Any:
        return worker.trigger(data["to"], {"n": 21})

    @worker.function("tests::stream")
    def stream(data: Any) -> str:
        there, back = worker.create_channel(), worker.create_channel()
        call = worker.submit(data["to"], {"reader": there.reader_ref, "writer": back.writer_ref})
        with there.writer as f:
            f.write(b"loud")
        read: str = back.reader.read().decode()
        call.result(WAIT)
        return read

    yield
    released.set()


def test_every_row_is_run() -> None:
    """No more and no fewer."""
    assert list(ROWS) == list(CASES)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("what", CASES)
def test_the_line_of_ours_does_it(peer_of: PeerOf, what: str) -> None:
    """As the table has it."""
    run(peer_of, "ours", ROWS[what], CASES[what])


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("what", CASES)
def test_the_official_line_does_the_same(peer_of: PeerOf, what: str) -> None:
    """So the table compares like with like."""
    run(peer_of, "python", ROWS[what], CASES[what])


def run(peer_of: PeerOf, name: str, row: Row, case: Case) -> None:
    """Run one side of a row in its peer."""
    side = 0 if name == "python" else 1
    imports = (
        IMPORTS.old + "\nimport asyncio\nfrom iii.helpers import create_channel_async" if side == 0 else IMPORTS.new
    )
    setup = f"{imports}\n{case.before[side]}" if row.what != "Import" else ""
    code = f"{row[1 + side]}\n{case.after[side]}"
    assert peer_of(name).do("run", setup=setup, code=code, result=case.result) == case.expected
