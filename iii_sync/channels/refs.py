"""References: how a channel end travels in a payload (PROTOCOL 5.1)."""

from __future__ import annotations

from typing import Any, Callable, Optional

__all__ = ["READ", "WRITE", "StreamChannelRef", "extract_channel_refs", "is_channel_ref", "live"]

READ, WRITE = "read", "write"


class StreamChannelRef:
    """Names one end of a channel; whoever holds it can connect that end, once.

    Immutable; equal by value; can be pickled, stored, and put into any payload at any depth. It holds the
    channel's access key, which ``repr()`` leaves out.

    Args:
        channel_id: The channel.
        access_key: The secret that opens it.
        direction: ``"read"`` or ``"write"``.

    Raises:
        ValueError: Another direction.
        TypeError: An argument that is not a string.
    """

    __slots__ = ("channel_id", "access_key", "direction", "_handed_out")

    channel_id: str
    access_key: str
    direction: str
    _handed_out: Optional[Callable[[], None]]

    def __init__(self, channel_id: str, access_key: str, direction: str) -> None:
        for name, value in (("channel_id", channel_id), ("access_key", access_key), ("direction", direction)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, not {type(value).__name__}")
        if direction not in (READ, WRITE):
            raise ValueError(f"direction={direction!r} must be 'read' or 'write'")
        object.__setattr__(self, "channel_id", channel_id)
        object.__setattr__(self, "access_key", access_key)
        object.__setattr__(self, "direction", str(direction))
        object.__setattr__(self, "_handed_out", None)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a StreamChannelRef cannot be changed ({name})")

    def model_dump(self) -> dict[str, str]:
        """Return the reference as the plain object that travels in JSON.

        The end counts as handed out from then on: it belongs to whoever gets the object.

        Blocks: Never.
        Threads: Any.
        """
        if self._handed_out is not None:
            self._handed_out()
        return self._plain()

    def _plain(self) -> dict[str, str]:
        return {"channel_id": self.channel_id, "access_key": self.access_key, "direction": self.direction}

    def _when_handed_out(self, function: Callable[[], None]) -> StreamChannelRef:
        object.__setattr__(self, "_handed_out", function)
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StreamChannelRef):
            return NotImplemented
        return self._plain() == other._plain()

    def __hash__(self) -> int:
        return hash((self.channel_id, self.access_key, self.direction))

    def __reduce__(self) -> Any:
        dumped = self.model_dump()
        return (StreamChannelRef, (dumped["channel_id"], dumped["access_key"], dumped["direction"]))

    def __repr__(self) -> str:
        return f"StreamChannelRef(channel_id={self.channel_id!r}, direction={self.direction!r})"


def is_channel_ref(value: Any) -> bool:
    """Say whether ``value`` is a reference: a :class:`StreamChannelRef`, or the object that it is in JSON.

    Args:
        value: Anything.

    Returns:
        ``True`` if it is.

    Blocks: Never.
    Threads: Any.
    """
    if isinstance(value, StreamChannelRef):
        return True
    return (
        isinstance(value, dict)
        and isinstance(value.get("channel_id"), str)
        and isinstance(value.get("access_key"), str)
        and value.get("direction") in (READ, WRITE)
    )


def as_ref(value: Any) -> StreamChannelRef:
    """Return the reference that :func:`is_channel_ref` has found."""
    if isinstance(value, StreamChannelRef):
        return value
    return StreamChannelRef(value["channel_id"], value["access_key"], value["direction"])


def extract_channel_refs(data: Any) -> list[tuple[str, StreamChannelRef]]:
    """Find every reference in ``data``, at any depth.

    Args:
        data: Dictionaries, lists and tuples; other values are passed over.

    Returns:
        Pairs of a path such as ``"files[0].reader"`` and the reference, in the order of the data.

    Blocks: Never.
    Threads: Any, while nobody changes ``data``.
    """
    found: list[tuple[str, StreamChannelRef]] = []
    _extract(data, "", found)
    return found


def _extract(data: Any, path: str, found: list[tuple[str, StreamChannelRef]]) -> None:
    if is_channel_ref(data):
        found.append((path, as_ref(data)))
    elif isinstance(data, dict):
        for key, value in data.items():
            _extract(value, f"{path}.{key}" if path else str(key), found)
    elif isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            _extract(value, f"{path}[{index}]", found)


def live(data: Any, open_end: Callable[[StreamChannelRef], Any]) -> Any:
    """Replace every reference in freshly decoded JSON by ``open_end(ref)``; changes ``data`` in place."""
    if isinstance(data, dict):
        if is_channel_ref(data):
            return open_end(as_ref(data))
        for key, value in data.items():
            if isinstance(value, (dict, list)):
                data[key] = live(value, open_end)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            if isinstance(value, (dict, list)):
                data[index] = live(value, open_end)
    return data
