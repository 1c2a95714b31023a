"""What is measured, with whom, and which goal it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Callable, Optional

from .measuring import Contestant, Figures, Settings, calls, end_to_end, imports, life, to_and_from_peer
from .peers import Peers

__all__ = ["GOALS", "ROWS", "Goal", "Row"]

Measure = Callable[[Peers, Contestant, Settings], Figures]


@dataclass(frozen=True)
class Row:
    """One comparison: everybody takes a turn in every round.

    Attributes:
        name: For ``--only``; a row belongs to all groups that its name begins with.
        title: For the tables.
        unit: The figure that is shown first.
        contestants: Who takes part.
        measure: Measures one of them once.
        verified: Whether the payload can be checked.
        engine: Whether an engine takes part.
    """

    name: str
    title: str
    unit: str
    contestants: list[Contestant]
    measure: Measure
    verified: bool = True
    engine: bool = False


@dataclass(frozen=True)
class Goal:
    """A ratio, or a figure, that is to be reached.

    Attributes:
        row: The row's name.
        figure: Which of its figures.
        ours: Contestants of ours; the first that took part counts.
        other: Whom to compare with; ``None`` for a goal in absolute terms.
        factor: The bound.
        at_least: Whether larger is better.
        bound: A contestant that does less than a client must, held against the same: nobody can be better.
    """

    row: str
    figure: str
    ours: tuple[str, ...]
    other: Optional[str]
    factor: float
    at_least: bool = True
    bound: Optional[str] = None


_BEST = ("ours, C mask", "ours, numpy mask")

_TCP = Contestant("raw TCP", "bare")
_MASKED = Contestant("raw TCP, masked", "bare", "masked", "c")
_THREADED = Contestant("raw TCP, thread and copy", "bare", "threaded")
_LEAST = Contestant("the least of a client", "bare", "least", "c")
_WEBSOCKET_CLIENT = Contestant("websocket-client", "websocket_client")
_SDK = Contestant("iii-sdk, own loop", "sdk")
_SDK_SYNC = Contestant("iii-sdk, sync caller", "sdk", "sync")


def _ours(mode: str = "", suffix: str = "") -> list[Contestant]:
    steps = [("C", "c"), ("numpy", "numpy"), ("Python", "python")]
    return [Contestant(f"ours, {name} mask{suffix}", "ours", mode, step) for name, step in steps]


def _peer_row(what: str, name: str, size: int) -> Row:
    if what == "write":
        ours, bound = _ours(), _MASKED
    else:
        modes = ["readinto", "iterate", "read", "copyfileobj"]
        ours = [Contestant(f"ours, {mode}", "ours", mode) for mode in modes]
        bound = _THREADED
    title = f"write({name}) to a fast peer" if what == "write" else f"read {name} frames of a fast peer"
    return Row(
        f"{what}-{name.lower()}",
        title,
        "MB/s",
        [*ours, _SDK, _SDK_SYNC, _WEBSOCKET_CLIENT, _TCP, *([bound] if size >= 64 * 1024 else [])],
        partial(_peer, what=what, size=size),
    )


def _peer(
    peers: Peers, who: Contestant, settings: Settings, *, what: str, size: int, tls: bool = False, busy: bool = False
) -> Figures:
    return to_and_from_peer(peers, who, settings, what, size, tls=tls, busy=busy)


def _engine(peers: Peers, who: Contestant, settings: Settings, *, size: int) -> Figures:
    return end_to_end(peers, who, settings, size)


def _calls(peers: Peers, who: Contestant, settings: Settings, *, callers: int, own: bool) -> Figures:
    return calls(peers, who, settings, callers, own=own)


def _imports(peers: Peers, who: Contestant, settings: Settings) -> Figures:
    return imports(who)


def _life(peers: Peers, who: Contestant, settings: Settings) -> Figures:
    return life(peers, who)


def _engine_row(name: str, size: int) -> Row:
    return Row(
        f"engine-{name.lower()}",
        f"write({name}) → engine → reader, two processes",
        "MB/s",
        [
            *[Contestant(each.label, "ours", "readinto", each.mask, writer_mode="") for each in _ours()],
            _SDK,
            _SDK_SYNC,
            Contestant("Rust SDK", "rust"),
            Contestant("premasked frames", "bare", "premasked"),
            _LEAST,
        ],
        partial(_engine, size=size),
        engine=True,
    )


def _busy_row(what: str, name: str, size: int) -> Row:
    mode = "" if what == "write" else "readinto"
    ours = Contestant("ours", "ours", mode)
    title = f"{'write' if what == 'write' else 'read'} {name} pieces, fast peer, beside a thread that computes"
    measure = partial(_peer, what=what, size=size, busy=True)
    return Row(f"busy-{what}-{name.lower()}", title, "MB/s", [ours, _SDK, _SDK_SYNC, _TCP], measure, verified=False)


def _tls_row(what: str) -> Row:
    ours = Contestant("ours", "ours", "" if what == "write" else "readinto")
    measure = partial(_peer, what=what, size=64 * 1024, tls=True)
    title = f"{'write(64K) to' if what == 'write' else 'read 64K frames of'} a TLS peer (OpenSSL in Python)"
    return Row(f"tls-{what}", title, "MB/s", [ours, _SDK, _SDK_SYNC, _TCP], measure)


def _many(client: str, label: str, counts: list[int], mode: str = "readinto") -> list[Contestant]:
    return [Contestant(f"{label} x{n}", client, mode, writer_mode="", channels=n) for n in counts]


ROWS: list[Row] = [
    _engine_row("64K", 64 * 1024),
    _engine_row("1M", 1024 * 1024),
    Row(
        "engine-100",
        "write(100 bytes) → engine → reader, two processes",
        "messages/s",
        [
            Contestant("ours, unbuffered", "ours", "readinto", writer_mode=""),
            Contestant("ours, makefile", "ours", "readinto", writer_mode="makefile"),
            _SDK,
            Contestant("Rust SDK", "rust"),
        ],
        partial(_engine, size=100),
        engine=True,
    ),
    Row(
        "channels-engine",
        "1, 8, 64 channels at once through the engine, write(64K), all together",
        "MB/s",
        [
            *_many("ours", "ours", [1, 8, 64]),
            *_many("sdk", "iii-sdk", [1, 64], ""),
            Contestant("premasked frames x64", "bare", "premasked", channels=64),
            replace(_LEAST, label=f"{_LEAST.label} x64", channels=64),
        ],
        partial(_engine, size=64 * 1024),
        verified=False,
        engine=True,
    ),
    _peer_row("write", "64K", 64 * 1024),
    _peer_row("write", "1M", 1024 * 1024),
    _peer_row("write", "1K", 1024),
    Row(
        "write-100",
        "write(100 bytes) to a fast peer",
        "messages/s",
        [
            Contestant("ours, unbuffered", "ours"),
            Contestant("ours, makefile", "ours", "makefile"),
            _SDK,
            _WEBSOCKET_CLIENT,
            _TCP,
        ],
        partial(_peer, what="write", size=100),
    ),
    _peer_row("read", "64K", 64 * 1024),
    _peer_row("read", "1M", 1024 * 1024),
    _peer_row("read", "1K", 1024),
    _peer_row("read", "100", 100),
    Row(
        "channels-read",
        "1, 8, 64 channels at once of a fast peer, 64K frames, all together",
        "MB/s",
        [
            *_many("ours", "ours", [1, 8, 64]),
            *_many("sdk", "iii-sdk", [1, 64], ""),
            *_many("bare", "raw TCP", [1, 64], ""),
        ],
        partial(_peer, what="read", size=64 * 1024),
        verified=False,
    ),
    _busy_row("write", "64K", 64 * 1024),
    _busy_row("write", "1M", 1024 * 1024),
    _busy_row("read", "64K", 64 * 1024),
    _tls_row("write"),
    _tls_row("read"),
    Row(
        "rpc-1",
        "an echo called through the engine, 1 caller",
        "p50 µs",
        [
            Contestant("ours", "ours"),
            Contestant("iii-sdk", "sdk"),
            Contestant("iii-sdk, telemetry on", "sdk", "default"),
            Contestant("Rust SDK", "rust"),
        ],
        partial(_calls, callers=1, own=False),
        verified=False,
        engine=True,
    ),
    Row(
        "rpc-16",
        "an echo called through the engine, 16 callers",
        "calls/s",
        [
            Contestant("ours", "ours"),
            Contestant("iii-sdk", "sdk"),
            Contestant("iii-sdk, telemetry on", "sdk", "default"),
            Contestant("Rust SDK", "rust"),
        ],
        partial(_calls, callers=16, own=False),
        verified=False,
        engine=True,
    ),
    Row(
        "rpc-own",
        "the same, 1 caller, the function served by the same client",
        "p50 µs",
        [Contestant("ours", "ours"), Contestant("iii-sdk", "sdk")],
        partial(_calls, callers=1, own=True),
        verified=False,
        engine=True,
    ),
    Row(
        "import",
        "import",
        "import ms",
        [
            Contestant("ours", "", "iii_sync"),
            Contestant("iii-sdk", "", "iii"),
            Contestant("websocket-client", "", "websocket"),
        ],
        _imports,
        verified=False,
    ),
    Row(
        "life",
        "a small worker: connected, first result, exit",
        "exit ms",
        [
            Contestant("ours", "ours"),
            Contestant("iii-sdk", "sdk"),
            Contestant("import websocket", "websocket_client"),
            Contestant("bare interpreter", "nothing"),
        ],
        _life,
        verified=False,
        engine=True,
    ),
]


def _write_goals(row: str) -> list[Goal]:
    return [
        Goal(row, "MB/s", _BEST, "raw TCP", 0.6, bound=_MASKED.label),
        Goal(row, "MB/s", ("ours, Python mask",), "raw TCP", 0.1),
        Goal(row, "MB/s", _BEST, "iii-sdk, own loop", 1.5, bound=_MASKED.label),
        Goal(row, "MB/s", _BEST, "iii-sdk, sync caller", 4.0, bound=_MASKED.label),
    ]


def _read_goals(row: str) -> list[Goal]:
    goals = []
    for label, share in (("ours, readinto", 0.5), ("ours, iterate", 0.4)):
        goals += [
            Goal(row, "MB/s", (label,), "raw TCP", share, bound=_THREADED.label),
            Goal(row, "MB/s", (label,), "iii-sdk, own loop", 1.5, bound=_THREADED.label),
            Goal(row, "MB/s", (label,), "iii-sdk, sync caller", 4.0, bound=_THREADED.label),
        ]
    return goals


GOALS: list[Goal] = [
    Goal("engine-64k", "MB/s", _BEST, "iii-sdk, own loop", 1.3),
    Goal("engine-1m", "MB/s", _BEST, "iii-sdk, own loop", 1.7, bound="premasked frames"),
    Goal("engine-1m", "MB/s", _BEST, "Rust SDK", 1.3, bound="premasked frames"),
    Goal("engine-1m", "MB/s", _BEST, "premasked frames", 0.85),
    *_write_goals("write-64k"),
    *_write_goals("write-1m"),
    *_read_goals("read-64k"),
    *_read_goals("read-1m"),
    Goal("busy-write-64k", "MB/s", ("ours",), "iii-sdk, own loop", 5.0),
    Goal("busy-write-1m", "MB/s", ("ours",), "iii-sdk, own loop", 5.0),
    Goal("busy-read-64k", "MB/s", ("ours",), "iii-sdk, own loop", 5.0),
    Goal("engine-100", "messages/s", ("ours, unbuffered",), "iii-sdk, own loop", 1.5),
    Goal("engine-100", "messages/s", ("ours, makefile",), "iii-sdk, own loop", 10.0),
    Goal("engine-64k", "cpu ns/B", _BEST, "iii-sdk, own loop", 0.6, at_least=False, bound=_LEAST.label),
    Goal("engine-1m", "cpu ns/B", _BEST, "iii-sdk, own loop", 0.6, at_least=False, bound=_LEAST.label),
    Goal("rpc-1", "p50 µs", ("ours",), "iii-sdk", 0.6, at_least=False),
    Goal("rpc-16", "calls/s", ("ours",), "iii-sdk", 1.8),
    Goal("rpc-1", "cpu µs/call", ("ours",), "iii-sdk", 0.4, at_least=False),
    Goal("channels-engine", "MB/s", ("ours x64",), "ours x1", 0.8, bound=f"{_LEAST.label} x64"),
    Goal("channels-read", "MB/s", ("ours x64",), "ours x1", 0.8, bound="raw TCP x64"),
    Goal("import", "import ms", ("ours",), "websocket-client", 1.3, at_least=False),
    Goal("life", "RSS MB", ("ours",), None, 22.0, at_least=False, bound="import websocket"),
    Goal("life", "threads", ("ours",), None, 2.0, at_least=False),
]
