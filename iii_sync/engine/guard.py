"""How a guarded listener is configured: whom it asks, and what it lets everybody call. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Optional, Union

from .ports import check_port

_CALL = re.compile(r'match\((["\'])(.*)\1\)', re.DOTALL)


@dataclass(frozen=True)
class Exposed:
    """Functions that everybody behind a guarded listener may call.

    Args:
        match: A pattern for their ids, in which ``*`` stands for any text; ``None`` for every id.
        metadata: What the metadata of their registration must hold: exactly these values, or for a
            text ``match("pattern")`` any text that fits the pattern.
        namespace: Where they must be registered.

    Raises:
        TypeError: One of them is of another type.
        ValueError: There is neither a pattern nor metadata.
    """

    match: Optional[str] = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = "default"

    def __post_init__(self) -> None:
        if not isinstance(self.match, (str, type(None))):
            raise TypeError(f"match={self.match!r:.80} of an exposed function must be text")
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata={self.metadata!r:.80} of an exposed function must be an object")
        if not isinstance(self.namespace, str):
            raise TypeError(f"namespace={self.namespace!r:.80} of an exposed function must be text")
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

    Raises:
        TypeError: One of them is of another type.
        ValueError: ``port`` is out of range.
    """

    port: int = 0
    auth_function_id: Optional[str] = None
    expose_functions: Optional[Sequence[Union[str, Exposed]]] = None
    on_function_registration_function_id: Optional[str] = None
    on_trigger_registration_function_id: Optional[str] = None
    on_trigger_type_registration_function_id: Optional[str] = None
    middleware_function_id: Optional[str] = None

    def __post_init__(self) -> None:
        check_port("port", self.port)
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_function_id") and not isinstance(value, (str, type(None))):
                raise TypeError(f"{item.name}={value!r:.80} must be text")
        if self.expose_functions is None:
            return
        if isinstance(self.expose_functions, str) or not isinstance(self.expose_functions, Sequence):
            raise TypeError(f"expose_functions={self.expose_functions!r:.80} must be a list of patterns")
        for exposed in self.expose_functions:
            if not isinstance(exposed, (str, Exposed)):
                raise TypeError(f"{exposed!r:.80} in expose_functions must be text, or have match or metadata")

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
        exposed = data.get("expose_functions")
        try:
            if isinstance(exposed, list):
                data = {**data, "expose_functions": [_exposed(item) for item in exposed]}
            return cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from None


def fits(pattern: str, text: str) -> bool:
    """Tell whether a text fits a pattern, in which ``*`` stands for any text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def _exposed(item: Any) -> Any:
    """Return an item of the list; what is none stays as it is."""
    known = isinstance(item, dict) and set(item) <= {field.name for field in fields(Exposed)}
    return Exposed(**item) if known else item


def _equal(wanted: Any, value: Any) -> bool:
    call = _CALL.fullmatch(wanted) if isinstance(wanted, str) else None
    if call is not None:
        return isinstance(value, str) and fits(call[2], value)
    return bool(wanted == value and type(wanted) is type(value))
