"""Masking: both rungs of the ladder against a reference that goes byte by byte."""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_sync.wire import mask

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


@pytest.fixture(params=["numpy", "none", "half imported"])
def rung(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run with numpy loaded, without it, and while another thread is still importing it."""
    if request.param == "numpy":
        pytest.importorskip("numpy")
    else:
        half = types.ModuleType("numpy")
        half.bitwise_xor = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "numpy", half if request.param == "half imported" else None)
    yield request.param


def test_mask_into_equals_the_reference(rung: str) -> None:
    """Every size around every border is masked as the standard says, and nothing beside it is touched."""
    source = random.Random(1).randbytes(max(SIZES))
    expected = reference(source, KEY)
    for size in SIZES:
        target = bytearray(b"\xee" * (size + 2))
        mask.mask_into(memoryview(target)[1 : 1 + size], memoryview(source)[:size], KEY)
        assert target[1:-1] == expected[:size], size
        assert target[0] == target[-1] == 0xEE, size


def test_mask_into_at_unaligned_offsets(rung: str) -> None:
    """Source and target may start anywhere."""
    source = bytearray(random.Random(2).randbytes(20000))
    before = bytes(source)
    for source_at in range(9):
        for target_at in range(9):
            for size in (5, 4095, 4096, 4099, 16391):
                target = bytearray(20020)
                mask.mask_into(
                    memoryview(target)[target_at : target_at + size],
                    memoryview(source)[source_at : source_at + size],
                    KEY,
                )
                # The key starts with the payload, wherever that lies.
                assert mask.masked(target[target_at : target_at + size], KEY) == before[source_at : source_at + size]
                assert not any(target[:target_at])
                assert not any(target[target_at + size :])
    assert source == before


def test_masking_twice_gives_the_data_back(rung: str) -> None:
    """Masking is its own inverse, on a read-only source too, which stays as it was."""
    for size in SIZES:
        data = random.Random(size).randbytes(size)
        copy = bytes(bytearray(data))
        once, twice = bytearray(size), bytearray(size)
        mask.mask_into(memoryview(once), memoryview(data), KEY)
        mask.mask_into(memoryview(twice), memoryview(once), KEY)
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
    mask.mask_into(memoryview(target), memoryview(data), key)
    assert target == reference(data, key)


def test_numpy_is_used_only_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masking large data never imports numpy by itself."""
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    target = bytearray(100_000)
    mask.mask_into(memoryview(target), memoryview(bytes(100_000)), KEY)
    assert target == KEY * 25_000
    assert "numpy" not in sys.modules
