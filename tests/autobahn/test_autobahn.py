"""The whole suite as one test; it needs a CPython 2.7, and the network the first time."""

from __future__ import annotations

import pytest

from . import __main__ as command
from .suite import NoPython, find_python


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_case_passes() -> None:
    try:
        find_python()
    except NoPython as exc:
        pytest.skip(str(exc))
    assert command.main([]) == 0
