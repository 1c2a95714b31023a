"""Which HTTP trigger a request belongs to. Pure.

A path is matched segment by segment, as it was sent (percent signs and all); a literal segment wins over
a parameter. Paths that differ in the names of parameters alone are one, which has one set of names, whatever the
method. What the real engine breaks on, such as ``*`` and ``{``, is refused.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from .records import Trigger, TriggerError

METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})


class Route(NamedTuple):
    """A trigger and where it is."""

    trigger: Trigger
    method: str
    path: str


class Match(NamedTuple):
    """What answers a path: routes by method, and the values of the parameters."""

    routes: dict[str, Route]
    params: dict[str, str]


class _Node:
    """One segment of the paths that were registered."""

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.param: Optional[_Node] = None
        self.routes: dict[str, Route] = {}

    @property
    def empty(self) -> bool:
        return not (self.literals or self.param or self.routes)


class Routes:
    """All HTTP triggers: the :class:`~.records.Provider` of the type ``http``."""

    def __init__(self) -> None:
        self._root = _Node()

    def bind(self, trigger: Trigger) -> None:
        """Add a trigger; it replaces an earlier one of the same method and path.

        Raises:
            TriggerError: It has no path, or one that cannot be.
        """
        route = _route(trigger)
        segments = _segments(route.path)
        names = _names(segments)
        bad = [segment for segment in segments if segment == ":" or segment[:1] == "*" or set(segment) & set("{}")]
        if bad or len(set(names)) != len(names):
            raise TriggerError(f"Route '{route.method} {route.path}' is not a valid path")
        for other in self._same_path(segments):
            if _names(_segments(other.path)) != names:
                raise TriggerError(
                    f"Route '{route.method} {route.path}' conflicts with already-registered route "
                    f"'{other.method} {other.path}': one path has one set of names for its parameters"
                )
        node = self._root
        for segment in segments:
            if segment[:1] != ":":
                node = node.literals.setdefault(segment, _Node())
                continue
            if node.param is None:
                node.param = _Node()
            node = node.param
        node.routes[route.method] = route

    def _same_path(self, segments: list[str]) -> list[Route]:
        """Return the routes of a path, whatever they call its parameters."""
        node: Optional[_Node] = self._root
        for segment in segments:
            if node is None:
                return []
            node = node.param if segment[:1] == ":" else node.literals.get(segment)
        return [] if node is None else list(node.routes.values())

    def release(self, trigger: Trigger) -> None:
        """Remove a trigger; one that it has replaced does not come back."""
        route = _route(trigger)
        self._remove(self._root, _segments(route.path), route)

    def _remove(self, node: _Node, segments: list[str], route: Route) -> None:
        if not segments:
            if route.method in node.routes and node.routes[route.method].trigger is route.trigger:
                del node.routes[route.method]
            return
        segment, rest = segments[0], segments[1:]
        if segment[:1] == ":":
            if node.param is not None:
                self._remove(node.param, rest, route)
                if node.param.empty:
                    node.param = None
        elif segment in node.literals:
            self._remove(node.literals[segment], rest, route)
            if node.literals[segment].empty:
                del node.literals[segment]

    def find(self, path: str) -> Optional[Match]:
        """Return what answers a path, as it stands in the request line without the query."""
        return _find(self._root, _segments(path), 0, []) if path[:1] == "/" else None


def _find(node: _Node, segments: list[str], index: int, values: list[str]) -> Optional[Match]:
    if index == len(segments):
        route = next(iter(node.routes.values()), None)
        return None if route is None else Match(node.routes, dict(zip(_names(_segments(route.path)), values)))
    segment = segments[index]
    literal = node.literals.get(segment)
    if literal is not None:
        found = _find(literal, segments, index + 1, values)
        if found is not None:
            return found
    if node.param is None or not segment:
        return None
    return _find(node.param, segments, index + 1, [*values, segment])


def _names(segments: list[str]) -> list[str]:
    """Return the names of the parameters."""
    return [segment[1:] for segment in segments if segment[:1] == ":"]


def _segments(path: str) -> list[str]:
    return path[path[:1] == "/" :].split("/")


def _route(trigger: Trigger) -> Route:
    path = trigger.text("api_path")
    if path is None:
        raise TriggerError("api_path is required for http triggers")
    return Route(trigger, (trigger.text("http_method") or "GET").upper(), path)
