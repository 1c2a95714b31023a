"""The memory that streams are received into."""

from __future__ import annotations

from iii_sync.net.windows import LARGEST, Windows


def test_the_last_window_given_back_goes_out_first() -> None:
    """It is in the processor's cache still."""
    windows, stream = Windows(), object()
    windows.join(stream)
    first, second = bytearray(LARGEST), bytearray(LARGEST)
    for window in (first, second):
        windows.give_back(window)
    assert windows.take() is second and windows.take() is first and windows.take() is None


def test_small_windows_are_not_kept() -> None:
    """They cost less to make."""
    windows = Windows()
    windows.join(object())
    windows.give_back(bytearray(LARGEST // 2))
    assert windows.take() is None


def test_what_is_kept_is_bounded_by_the_number_of_streams() -> None:
    """And nothing is kept when the last of them is over, not even what comes back later."""
    windows, streams = Windows(), [object(), object()]
    for stream in streams:
        windows.join(stream)

    def kept() -> int:
        for _ in range(100):
            windows.give_back(bytearray(LARGEST))
        return len(windows._spare)

    both = kept()
    assert both > 0
    windows.leave(streams[0])
    assert len(windows._spare) == both // 2 == kept()
    windows.leave(streams[1])
    assert kept() == 0
