"""Names of the official SDK that ours has not."""

from __future__ import annotations

import pytest

from iii_sync import Worker


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("trigger_async", "use trigger()"),
        ("create_channel_async", "use create_channel()"),
        ("shutdown_async", "use shutdown()"),
        ("observe", "register_trigger()"),
        ("unregister_trigger_type", "unregister()"),
        ("list_functions", "worker.engine.functions()"),
        ("current_invocation", "from iii_sync import current_invocation"),
    ],
)
def test_names_of_the_official_sdk_say_what_to_use(worker: Worker, name: str, instead: str) -> None:
    """In an ``AttributeError``, so that ``hasattr`` answers as ever."""
    with pytest.raises(AttributeError, match=f"no attribute '{name}': ") as caught:
        getattr(worker, name)
    assert instead in str(caught.value)
    assert not hasattr(worker, name)


def test_what_nobody_has_is_missing_as_ever(worker: Worker) -> None:
    """Nothing is said about names that mean nothing."""
    for name in ("triger", "nothing_async", "_async"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'$"):
            getattr(worker, name)
