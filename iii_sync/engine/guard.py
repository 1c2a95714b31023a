"""How a guarded listener is configured: whom it asks, and what it lets everybody call. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Optional, Union

_CALL = re.compile(r'match\((["\'])(.*)\1\)', re.DOTALL)


@dataclass(frozen=True)
class Exposed:
    """Functions that everybody behind a guarded listener may call.

    Args:
        match: A pattern for their ids, in which ``*`` stands for any text; ``None`` for every id.
        metadata: What the metadata of their registration must hold: exactly these values, or for a
            text ``match("pattern")`` any text that fits the pattern.
        namespace: Where they must be registered.
    """

    match: Optional[str] = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = "default"

    def __post_init__(self) -> None:
        if self.match is None and not self.metadata:
            raise ValueError("an exposed function needs a pattern (match) or metadata")

    def covers(self, function_id: str, namespace: str, metadata: Any) -> bool:
        """Tell whether a function is one of those.

        Args:
            function_id: The function's id.
            namespace: Where it is registered.
            metadata: That of its registration.

        Returns:
            ``True`` if it is.

        Blocks: Never.
        Threads: Any.
        """
        if namespace != self.namespace or (self.match is not None and not fits(self.match, function_id)):
            return False
        known = metadata if isinstance(metadata, dict) else {}
        return all(key in known and _equal(wanted, known[key]) for key, wanted in self.metadata.items())


@dataclass(frozen=True)
class Guard:
    """A second listener of a local engine, which lets in and through only whom and what it should.

    The functions named here are called in the namespace ``default``; their workers come through the
    ordinary listener. What they get and return is that of the real engine's ``rbac`` listeners.

    Args:
        port: Where it listens, on the host of the engine; 0 takes any free port.
        auth_function_id: Asked for every new connection; what it returns are the rights of the session.
            Without it everybody comes in.
        expose_functions: What every session may call: patterns for ids in ``default``, or
            :class:`Exposed`. ``None`` exposes everything, unless a function is named that is asked.
        on_function_registration_function_id: Asked before a function is registered.
        on_trigger_registration_function_id: Asked before a trigger is registered.
        on_trigger_type_registration_function_id: Asked before a trigger type is registered.
        middleware_function_id: Called in place of whatever a session calls, except the engine's own functions.
    """

    port: int = 0
    auth_function_id: Optional[str] = None
    expose_functions: Optional[Sequence[Union[str, Exposed]]] = None
    on_function_registration_function_id: Optional[str] = None
    on_trigger_registration_function_id: Optional[str] = None
    on_trigger_type_registration_function_id: Optional[str] = None
    middleware_function_id: Optional[str] = None

    def __post_init__(self) -> None:
        if isinstance(self.expose_functions, str):
            raise TypeError("expose_functions must be a list of patterns, not one text")

    def exposes(self, function_id: str, namespace: str, metadata: Any) -> bool:
        """Tell whether every session may call a function.

        Args:
            function_id: The function's id.
            namespace: Where it is registered.
            metadata: That of its registration.

        Returns:
            ``True`` if it may.

        Blocks: Never.
        Threads: Any.
        """
        if self.expose_functions is None:
            return not (
                self.auth_function_id
                or self.on_function_registration_function_id
                or self.on_trigger_registration_function_id
                or self.on_trigger_type_registration_function_id
            )
        for exposed in self.expose_functions:
            if isinstance(exposed, str):
                exposed = Exposed(exposed)
            if exposed.covers(function_id, namespace, metadata):
                return True
        return False

    def to_json(self) -> dict[str, Any]:
        """Return the guard as JSON, for :meth:`from_json`.

        Blocks: Never.
        Threads: Any.
        """
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Any) -> Guard:
        """Make a guard of a JSON object whose keys are the arguments.

        Args:
            data: What was JSON.

        Returns:
            The guard.

        Raises:
            ValueError: It is no such object; the message says what is wrong.

        Blocks: Never.
        Threads: Any.
        """
        if not isinstance(data, dict):
            raise ValueError("a guard must be an object")
        unknown = sorted(set(data) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"a guard has no {', '.join(unknown)}")
        data = dict(data)
        if type(data.get("port", 0)) is not int:
            raise ValueError("the port of a guard must be an integer")
        for key, value in data.items():
            if key.endswith("_function_id") and not isinstance(value, (str, type(None))):
                raise ValueError(f"{key} must be text")
        exposed = data.get("expose_functions")
        if exposed is not None:
            if not isinstance(exposed, list):
                raise ValueError("expose_functions must be a list")
            data["expose_functions"] = [item if isinstance(item, str) else _exposed(item) for item in exposed]
        return cls(**data)


def fits(pattern: str, text: str) -> bool:
    """Tell whether a text fits a pattern, in which ``*`` stands for any text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def _exposed(data: Any) -> Exposed:
    try:
        return Exposed(**data)
    except TypeError:
        raise ValueError("each of expose_functions must be a text, or an object with match or metadata") from None


def _equal(wanted: Any, value: Any) -> bool:
    call = _CALL.fullmatch(wanted) if isinstance(wanted, str) else None
    if call is not None:
        return isinstance(value, str) and fits(call[2], value)
    return bool(wanted == value and type(wanted) is type(value))
