"""Masking: every step of the ladder against a reference that goes byte by byte."""

from __future__ import annotations

import importlib.util
import random
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_sync.wire import mask

from ..support.process import run

KEY = b"\x01\x80\xff\x5a"
SIZES = [
    *range(71),
    *(base + off for base in (4096, 16384, 32768, 65536) for off in range(-5, 6)),
    3 * 16384 + 1,
    1024 * 1024 + 3,
]


def reference(data: bytes, key: bytes) -> bytes:
    """Mask as RFC 6455, 5.3 says it."""
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


@pytest.fixture(params=["c", "numpy", "python", "half imported"])
def rung(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[mask.MaskInto]:
    """Each step of the ladder: the extension, numpy, neither, and a numpy that is still being imported."""
    if request.param == "c":
        yield extension()
        return
    if request.param == "numpy":
        pytest.importorskip("numpy")
        monkeypatch.setattr(mask, "_WANTED", "")
    else:
        half = types.ModuleType("numpy")
        half.bitwise_xor = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "numpy", half if request.param == "half imported" else None)
    yield mask._mask_in_python


def extension() -> mask.MaskInto:
    """The function of the C extension, whether it is in use or not."""
    if importlib.util.find_spec("iii_sync.wire._mask") is None:
        pytest.skip("the C extension was not built")
    found = mask._extension()
    assert found is not None, "the C extension is there, and masks wrongly"
    return found


def test_mask_into_equals_the_reference(rung: mask.MaskInto) -> None:
    """Every size around every border is masked as the standard says, and nothing beside it is touched."""
    source = random.Random(1).randbytes(max(SIZES))
    expected = reference(source, KEY)
    for size in SIZES:
        target = bytearray(b"\xee" * (size + 2))
        rung(target, 1, memoryview(source)[:size], KEY, 0)
        assert target[1:-1] == expected[:size], size
        assert target[0] == target[-1] == 0xEE, size


def test_mask_into_at_unaligned_offsets(rung: mask.MaskInto) -> None:
    """Source and target may start anywhere."""
    source = bytearray(random.Random(2).randbytes(20000))
    before = bytes(source)
    for source_at in range(9):
        for target_at in range(9):
            for size in (5, 4095, 4096, 4099, 16391):
                target = bytearray(20020)
                rung(target, target_at, memoryview(source)[source_at : source_at + size], KEY, 0)
                # The key starts with the payload, wherever that lies.
                assert mask.masked(target[target_at : target_at + size], KEY) == before[source_at : source_at + size]
                assert not any(target[:target_at])
                assert not any(target[target_at + size :])
    assert source == before


def test_what_is_masked_in_parts_is_masked_as_one(rung: mask.MaskInto) -> None:
    """The key goes on where the part before has ended, however many bytes that had."""
    source = random.Random(4).randbytes(3 * 40_000)
    for first in (0, 1, 2, 3, 4, 4097, 39_999):
        target, at = bytearray(len(source)), 0
        for part in (first, 40_000, len(source) - 40_000 - first):
            rung(target, at, source[at : at + part], KEY, at)
            at += part
        assert target == reference(source, KEY), first


def test_masking_twice_gives_the_data_back(rung: mask.MaskInto) -> None:
    """Masking is its own inverse, on a read-only source too, which stays as it was."""
    for size in SIZES:
        data = random.Random(size).randbytes(size)
        copy = bytes(bytearray(data))
        once, twice = bytearray(size), bytearray(size)
        rung(once, 0, data, KEY, 0)
        rung(twice, 0, once, KEY, 0)
        assert twice == data == copy
        assert mask.masked(mask.masked(data, KEY), KEY) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_masked_equals_the_reference(kind: type) -> None:
    """``masked`` takes all kinds of buffers and gives bytes."""
    source = random.Random(3).randbytes(70000)
    for size in [*range(71), 4095, 4096, 4097, 16385, 65536, 70000]:
        result = mask.masked(kind(source[:size]), KEY)
        assert type(result) is bytes
        assert result == reference(source[:size], KEY), size


@settings(deadline=None)
@given(data=st.binary(max_size=300), key=st.binary(min_size=4, max_size=4))
def test_any_key_and_data(data: bytes, key: bytes) -> None:
    """Keys with zero bytes, equal bytes and high bits mask like any other."""
    assert mask.masked(data, key) == reference(data, key)
    target = bytearray(len(data))
    mask.mask_into(target, 0, data, key, 0)
    assert target == reference(data, key)


def test_numpy_is_used_only_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masking large data never imports numpy by itself."""
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    target = bytearray(100_000)
    mask._mask_in_python(target, 0, bytes(100_000), KEY, 0)
    assert target == KEY * 25_000
    assert "numpy" not in sys.modules


@pytest.mark.parametrize("wanted", ["c", "numpy", "python", ""])
def test_a_step_can_be_picked(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``III_SYNC_ACCELERATOR`` decides what masks, as far as it is there; without it the quickest does."""
    monkeypatch.setenv("III_SYNC_ACCELERATOR", wanted)
    program = run("import numpy; from iii_sync.wire import mask; print(mask.method())")
    built = importlib.util.find_spec("iii_sync.wire._mask") is not None
    expected = wanted if wanted in ("numpy", "python") else "c" if built else "numpy"
    assert program.lines == [expected]


class TestTheExtensionItself:
    """It is called with what Python checks elsewhere, so it checks for itself."""

    @pytest.mark.parametrize(
        ("size", "at", "data", "key"),
        [
            (4, 0, b"12345", KEY),
            (5, 2, b"1234", KEY),
            (5, 6, b"", KEY),
            (5, -1, b"1234", KEY),
            (4, 0, b"1234", b"abc"),
            (4, 0, b"1234", b"abcde"),
            (4, 0, b"1234", b""),
        ],
    )
    def test_sizes_that_do_not_fit(self, size: int, at: int, data: bytes, key: bytes) -> None:
        """Data that reach beyond the target, or another length of key, are a ValueError, and nothing is written."""
        target = bytearray(size)
        with pytest.raises(ValueError, match="bytes"):
            extension()(target, at, data, key, 0)
        assert not any(target)

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            (1, 0, 3, 4, 0),
            (b"1234", 0, b"1234", KEY, 0),
            (bytearray(4), 0, "1234", KEY, 0),
            (bytearray(4), "0", b"1234", KEY, 0),
            (bytearray(4), 0, b"1234", KEY, None),
            (bytearray(4), 0, b"1234", KEY),
        ],
    )
    def test_what_is_no_buffer_and_no_number(self, arguments: tuple[Any, ...]) -> None:
        """Other types, a target that is not writable, and missing arguments are errors."""
        with pytest.raises((TypeError, BufferError)):
            extension()(*arguments)

    @pytest.mark.parametrize("number", [1 << 63, -(1 << 64)])
    def test_numbers_beyond_all_sizes(self, number: int) -> None:
        """They are an error, too."""
        for at, turn in ((number, 0), (0, number)):
            with pytest.raises(OverflowError):
                extension()(bytearray(4), at, b"1234", KEY, turn)

    def test_views_are_let_go(self) -> None:
        """A buffer can be resized after it was masked, and after an error."""
        function = extension()
        target, data = bytearray(8), bytearray(8)
        for key in (KEY, b"bad key"):
            try:
                function(target, 0, data, key, 0)
            except ValueError:
                pass
            target.append(0)
            target.pop()
            data.append(0)
            data.pop()

    def test_above_what_keeps_the_gil(self) -> None:
        """A piece for which the GIL is let go is masked the same, while other threads run."""
        function = extension()
        data = random.Random(5).randbytes(3 * 1024 * 1024 + 5)
        target = bytearray(len(data))
        counted = [0]
        stop = threading.Event()

        def count() -> None:
            while not stop.is_set():
                counted[0] += 1

        thread = threading.Thread(target=count)
        thread.start()
        try:
            for _ in range(50):
                function(target, 0, data, KEY, 0)
        finally:
            stop.set()
            thread.join(30)
        assert mask.masked(target, KEY) == data
