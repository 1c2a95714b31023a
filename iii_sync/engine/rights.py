"""What the session of a worker may do, as the function that let it in has said. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .frames import DEFAULT_NAMESPACE, Failure
from .guard import Guard, fits
from .jsontext import JSON, JsonObject

REGISTER = "engine::workers::register"

# Nobody can work without these.
_ALWAYS = frozenset(
    [
        "engine::channels::create",
        REGISTER,
        *(f"engine::log::{level}" for level in ("trace", "debug", "info", "warn", "error")),
        *(f"engine::baggage::{what}" for what in ("get", "set", "get_all")),
    ]
)


@dataclass(frozen=True)
class Rights:
    """The rights of one session behind a guarded listener."""

    guard: Guard
    namespaces: dict[str, list[str]] = field(default_factory=dict)
    allowed_functions: list[str] = field(default_factory=list)
    forbidden_functions: list[str] = field(default_factory=list)
    allowed_trigger_types: Optional[list[str]] = None
    allow_trigger_type_registration: bool = False
    allow_function_registration: bool = True
    context: JSON = field(default_factory=dict)
    function_registration_prefix: Optional[str] = None

    def refusal(self, function_id: str, namespace: str, metadata: JSON) -> Optional[Failure]:
        """Return why the session may not call a function, ``None`` if it may."""
        if function_id in self.forbidden_functions:
            return Failure("FORBIDDEN", f"function '{function_id}' not allowed (remove from rbac.forbidden_functions)")
        at_home = namespace == DEFAULT_NAMESPACE
        if (
            any(fits(pattern, function_id) for pattern in self.namespaces.get(namespace, ()))
            or (at_home and function_id in self.allowed_functions)
            or (at_home and function_id in _ALWAYS)
            or self.guard.exposes(function_id, namespace, metadata)
        ):
            return None
        return Failure("FORBIDDEN", f"function '{function_id}' not allowed (add to rbac.expose_functions)")

    def refuse_namespace(self, namespace: str) -> Optional[Failure]:
        """Return why the session may not live in a namespace, ``None`` if it may."""
        if not self.namespaces or namespace in self.namespaces:
            return None
        permitted = ", ".join(sorted(self.namespaces))
        return Failure("FORBIDDEN", f"namespace '{namespace}' not allowed for this session (permitted: {permitted})")

    def prefixed(self, function_id: str) -> str:
        """Return the id under which others know a function of the session."""
        prefix = self.function_registration_prefix
        return function_id if prefix is None else f"{prefix}::{function_id}"


def unasked(guard: Guard) -> Rights:
    """Return the rights of a session that nobody was asked about."""
    return Rights(guard, allow_trigger_type_registration=True)


def granted(guard: Guard, answer: JSON) -> Rights:
    """Return the rights that an authentication function has answered with.

    Raises:
        ValueError: It is no such answer; the message says why.
    """
    if answer is None:
        raise ValueError("auth function returned no result")
    if not isinstance(answer, dict):
        raise ValueError("invalid type: the result of the auth function must be a map")
    namespaces = answer.get("namespaces")
    if not isinstance(namespaces, (dict, type(None))):
        raise ValueError("invalid type: `namespaces` must be a map")
    prefix = answer.get("function_registration_prefix")
    if not isinstance(prefix, (str, type(None))):
        raise ValueError("invalid type: `function_registration_prefix` must be a string")
    trigger_types = answer.get("allowed_trigger_types")
    return Rights(
        guard,
        namespaces={name: _texts(namespaces, name) for name in namespaces or {}},
        allowed_functions=_texts(answer, "allowed_functions"),
        forbidden_functions=_texts(answer, "forbidden_functions"),
        allowed_trigger_types=None if trigger_types is None else _texts(answer, "allowed_trigger_types"),
        allow_trigger_type_registration=_flag(answer, "allow_trigger_type_registration", False),
        allow_function_registration=_flag(answer, "allow_function_registration", True),
        context=answer.get("context", {}),
        function_registration_prefix=prefix,
    )


def _texts(data: Optional[JsonObject], key: str) -> list[str]:
    value = [] if data is None else data.get(key, [])
    texts = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(texts) != len(value):
        raise ValueError(f"invalid type: `{key}` must be a list of strings")
    return texts


def _flag(data: JsonObject, key: str, default: bool) -> bool:
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"invalid type: `{key}` must be a boolean")
    return value
