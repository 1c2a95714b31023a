"""Fixtures: a function that digests streams, offered by the test's own process."""

from __future__ import annotations

import hashlib
from typing import Any, Callable

import pytest

from iii_sync import Worker


@pytest.fixture
def digest(worker: Worker, unique: Callable[[str], str]) -> str:
    """The id of a function that returns size and digest of a whole stream."""

    def handler(data: Any) -> dict[str, Any]:
        found, size = hashlib.sha256(), 0
        for chunk in data["reader"]:
            found.update(chunk)
            size += len(chunk)
        return {"size": size, "sha256": found.hexdigest(), "complete": data["reader"].complete}

    return worker.register_function(unique("digest"), handler).id
