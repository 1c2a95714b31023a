"""A site on both engines."""

from __future__ import annotations

import pytest

from iii_sync import Worker

from .site import Site


@pytest.fixture
def site(worker: Worker, engine_http_url: str) -> Site:
    """A site of this test alone."""
    return Site(worker, engine_http_url)
