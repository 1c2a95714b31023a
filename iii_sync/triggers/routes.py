"""The routes of ``http`` triggers: which are one and the same, and which do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

__all__ = ["conflicting", "route"]


def route(trigger_type: str, config: Any) -> Optional[str]:
    """Return what two ``http`` triggers cannot both have: the method and the path, parameters unnamed."""
    own = _route(config) if trigger_type == "http" else None
    return None if own is None else f"{own[0]} /{'/'.join(_shape(own[1]))}"


def conflicting(config: Any, listed: Any) -> Optional[str]:
    """Return a route of another method that breaks the engine if this one joins it: its parameters have other names.

    With the same method the engine refuses it. With another one it registers no HTTP trigger any more, for nobody,
    and answers nothing on this connection, until it is started again.

    Args:
        config: Of the trigger that is to be registered.
        listed: What ``engine::registered-triggers::list`` has answered.
    """
    own = _route(config)
    triggers = listed.get("registered_triggers") if isinstance(listed, dict) else None
    for trigger in triggers if own is not None and isinstance(triggers, list) else ():
        other = _route(trigger.get("config") if isinstance(trigger, dict) else None)
        if other is None or own is None or other[0] == own[0] or other[1] == own[1]:
            continue
        if _shape(other[1]) == _shape(own[1]):
            return f"{other[0]} /{'/'.join(other[1])}"
    return None


def _route(config: Any) -> Optional[tuple[str, list[str]]]:
    """Return the method and the segments of the path."""
    path = config.get("api_path") if isinstance(config, Mapping) else None
    if not isinstance(path, str):
        return None
    # Only the first slash may be left out: with another one at the end it is another path.
    return str(config.get("http_method") or "GET").upper(), path[path[:1] == "/" :].split("/")


def _shape(segments: list[str]) -> list[str]:
    return [":" if segment[:1] == ":" else segment for segment in segments]
