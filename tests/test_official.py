"""Names of the official SDK that ours has not."""

from __future__ import annotations

from typing import Any

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
    """Nothing is said about names that mean nothing; and completion shows what there is."""
    for name in ("triger", "nothing_async", "_async"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'$"):
            getattr(worker, name)
    channel = worker.create_channel()
    for each in (worker, channel.reader, channel.writer):
        assert all(hasattr(each, name) for name in dir(each) if not name.startswith("_"))


def test_names_of_channel_ends(worker: Worker) -> None:
    """Likewise; whoever looks for what other files have is not told more than ever."""
    channel = worker.create_channel()
    for end, name in (
        (channel.writer, "send_message"),
        (channel.writer, "close"),
        (channel.reader, "read_all"),
        (channel.reader, "close"),
    ):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}_async': .* use {name}\(\)$"):
            getattr(end, f"{name}_async")
    for end in (channel.writer, channel.reader):
        for name in ("name", "observe", "connect"):
            assert not hasattr(end, name)
            with pytest.raises(AttributeError, match=f"no attribute '{name}'$"):
                getattr(end, name)


@pytest.mark.parametrize(
    ("name", "cure"),
    [("observe", r"register_trigger\(\)$"), ("local_dispatch", "through the engine$"), ("descripton", "$")],
)
def test_keywords_of_the_official_sdk_say_what_to_do(worker: Worker, name: str, cure: str) -> None:
    """And nothing is registered."""
    options: dict[str, Any] = {name: True}
    for register in (
        lambda: worker.register_function("f", print, **options),
        lambda: worker.function("f", **options)(print),
    ):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'.*{cure}"):
            register()
    assert worker._registrations.registrations() == []
