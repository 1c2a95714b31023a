"""The harness itself: it measures what it says, verifies what arrives, and judges by the same round."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import profile, report, running
from .measuring import Contestant, Settings, source_checksum
from .peers import Peer, Peers
from .plot import as_svg
from .rows import GOALS, ROWS, Goal, Row
from .running import Measured

BRIEF = Settings(seconds=0.1, rounds=2)


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    """What is started once."""
    with Peers("local") as peers:
        yield peers


def row(name: str, *labels: str) -> Row:
    """A row of the real list, with only these contestants."""
    found = next(each for each in ROWS if each.name == name)
    return Row(
        found.name,
        found.title,
        found.unit,
        [each for each in found.contestants if each.label in labels],
        found.measure,
        found.verified,
        found.engine,
    )


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("write-64k", ["ours, Python mask", "websocket-client", "raw TCP", "raw TCP, masked"]),
        ("read-64k", ["ours, readinto", "ours, iterate", "ours, read", "ours, copyfileobj", "raw TCP"]),
        ("read-1m", ["raw TCP, thread and copy"]),
        ("write-100", ["ours, makefile"]),
        ("engine-64k", ["ours, Python mask", "premasked frames", "the least of a client"]),
        ("channels-engine", ["the least of a client x64"]),
        ("tls-write", ["ours", "raw TCP"]),
        ("tls-read", ["ours"]),
        ("rpc-1", ["ours"]),
        ("rpc-16", ["ours"]),
        ("channels-read", ["ours x1", "ours x8"]),
        ("import", ["ours", "websocket-client"]),
        ("life", ["ours", "import websocket"]),
    ],
)
def test_everything_measures(peers: Peers, name: str, labels: list[str]) -> None:
    """Each kind of measurement gives positive figures, and what went over the wire was verified."""
    measured = running.run(row(name, *labels), peers, BRIEF, lambda text: None)
    assert not measured.failures
    assert sorted(measured.samples) == sorted(labels)
    for samples in measured.samples.values():
        assert len(samples) == BRIEF.rounds
        assert all(value >= 0 for figures in samples for value in figures.values())
        assert all(figures[measured.row.unit] > 0 for figures in samples)


@pytest.mark.parametrize("language", ["C", "Python"])
@pytest.mark.parametrize("frame", [100, 1024, 65536])
def test_both_fast_peers_send_the_same(peers: Peers, language: str, frame: int) -> None:
    """The one in Python stands in for the one in C."""
    command = peers.fast if language == "C" else peers.in_python(None)
    with Peer(command, "rawsource", frame, 0.0) as peer:
        import socket
        import zlib

        with socket.create_connection(("127.0.0.1", peer.port), timeout=10) as sock:
            peer.await_ready()
            peer.tell()
            data = b"".join(iter(lambda: sock.recv(65536), b""))
        assert len(data) == peer.report().payload
    assert zlib.crc32(data) == source_checksum(frame, len(data))


def test_a_damaged_payload_is_a_failure(peers: Peers) -> None:
    """The verification looks at the bytes."""
    damaged = Contestant("damaged", "damaged")
    whole = row("write-64k")
    measured = running.run(Row("write-64k", "", "MB/s", [damaged], whole.measure), peers, BRIEF, lambda text: None)
    assert "the payload is not what was sent" in measured.failures["damaged"]


def test_memory_is_counted_where_it_is_kept(peers: Peers) -> None:
    """Each module's own, and that of others under their names."""
    lines = profile.memory(peers).splitlines()
    kept = {
        name.partition(",")[0]: float(size.replace(",", ""))
        for size, name in (line.split(None, 1) for line in lines[1:4])
    }
    assert kept["iii_sync"] > 500 and kept["websocket-client"] > 500
    named = {name: float(size.replace(",", "")) for size, name in (line.split() for line in lines[5:])}
    assert {"iii_sync.worker", "iii_sync.net.connection"} <= set(named)
    assert sum(size for name, size in named.items() if name.startswith("iii_sync.")) <= kept["iii_sync"]


def test_ratios_are_of_the_same_round() -> None:
    """A machine that slows down for a while slows both."""
    result = Measured(row("write-64k"))
    result.samples = {"a": [{"x": 2.0}, {"x": 20.0}, {"x": 3.0}], "b": [{"x": 1.0}, {"x": 10.0}, {"x": 1.0}]}
    verdict = report.judge(Goal("write-64k", "x", ("missing", "a"), "b", 2.5), {"write-64k": result})
    assert verdict.spread == (2.0, 2.0, 3.0)
    assert verdict.met is False
    assert not verdict.certain
    assert verdict.bound is None
    verdict = report.judge(Goal("write-64k", "x", ("a",), "b", 2.5, bound="a"), {"write-64k": result})
    assert verdict.bound == verdict.spread and str(verdict).endswith("; a: 2 (2–3)")
    assert report.judge(Goal("write-64k", "x", ("missing",), "b", 2.5), {"write-64k": result}).met is None


def test_goals_name_what_exists() -> None:
    """A goal whose row or contestant was renamed would never be measured again."""
    labels = {each.name: {who.label for who in each.contestants} for each in ROWS}
    for goal in GOALS:
        assert {*goal.ours, goal.other, goal.bound} - {None} <= labels[goal.row], goal


def test_the_plot_has_a_bar_for_everybody() -> None:
    """Bars are drawn from the medians."""
    result = Measured(row("write-64k", "ours, C mask", "raw TCP"))
    result.samples = {"ours, C mask": [{"MB/s": 1000.0}], "raw TCP": [{"MB/s": 2000.0}]}
    svg = as_svg({"write-64k": result})
    assert svg.count('class="ours" x=') == 1
    assert svg.count('class="other" x=') == 1
    assert "2,000" in svg
