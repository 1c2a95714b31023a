"""What the router remembers: workers, functions, triggers, pending invocations. Pure data."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Callable, Optional, Union

from typing_extensions import Protocol

from .frames import DEFAULT_NAMESPACE as DEFAULT_NAMESPACE
from .frames import Failure, Frame, RegisterFunction, RegisterTriggerType
from .jsontext import JSON, JsonObject
from .rights import Rights


class Peer(Protocol):
    """The connection of a worker, as the router sees it. No method blocks or raises."""

    def send(self, frame: JsonObject) -> None:
        """Queue a frame."""

    def close(self) -> None:
        """Send what is queued, then a Close frame without status, then drop the connection."""

    def drop(self) -> None:
        """Drop the connection at once."""


@dataclass
class Profile:
    """What a worker said about itself in ``engine::workers::register``."""

    runtime: str = "unknown"
    version: Optional[str] = None
    name: Optional[str] = None
    description: Optional[str] = None
    os: Optional[str] = None
    pid: Optional[int] = None
    isolation: Optional[str] = None
    namespace: Optional[str] = None


@dataclass(eq=False)
class Function:
    """A function of a worker, registered under ``(namespace, id)``."""

    owner: Worker
    namespace: str
    registration: RegisterFunction
    own_id: str
    """The id its worker knows it by; others may know it with a prefix."""
    remote: Optional[Callable[[JSON, Finish], None]] = None
    """Calls a function that is not the worker's own code but somewhere on the web."""

    @property
    def id(self) -> str:
        """The id it was registered with."""
        return self.registration.id


@dataclass(eq=False)
class Worker:
    """One control connection.

    ``namespace`` is ``None`` until it is known; registrations wait in ``held`` for that moment.
    ``rights`` is ``None`` for a worker that may do everything; while somebody is ``asking`` whether it may
    register something, what it sends next is held too.
    """

    peer: Peer
    id: str
    reattach_token: str
    connected_at: float
    address: Optional[str] = None
    rights: Optional[Rights] = None
    profile: Profile = field(default_factory=Profile)
    namespace: Optional[str] = None
    held: deque[Frame] = field(default_factory=deque)
    functions: dict[tuple[str, str], Function] = field(default_factory=dict)
    lease: Optional[tuple[str, str]] = None
    calls: set[str] = field(default_factory=set)
    serves: set[str] = field(default_factory=set)
    asking: bool = False
    gone: bool = False


Outcome = Union[Failure, "Success"]
Finish = Callable[[Outcome], None]


@dataclass(frozen=True)
class Success:
    """The result of an invocation that did not fail; ``None`` is not sent to the caller."""

    value: JSON = None


@dataclass(eq=False)
class Invocation:
    """A call that a worker has not answered yet.

    ``caller`` is the worker whose departure makes it pointless; ``finish`` takes the outcome.
    """

    id: str
    callee: Worker
    finish: Finish
    caller: Optional[Worker] = None


@dataclass(frozen=True)
class Later:
    """The result of a builtin that is not there yet: ``start`` gets the function that takes the outcome."""

    start: Callable[[Finish], None]


class TriggerError(Exception):
    """A service of the engine refuses a trigger; the message says why."""


class Provider(Protocol):
    """A service of the engine that provides a trigger type."""

    def bind(self, trigger: Trigger) -> None:
        """Begin to fire a trigger; :class:`TriggerError` refuses it."""

    def release(self, trigger: Trigger) -> None:
        """Fire a trigger no longer."""


@dataclass(eq=False)
class TriggerType:
    """A trigger type, under ``(namespace, id)``: provided by a worker or by the engine itself."""

    namespace: str
    registration: RegisterTriggerType
    provider: Union[Worker, Provider]
    service: str = ""

    @property
    def id(self) -> str:
        """The id it was registered with."""
        return self.registration.id


@dataclass(eq=False)
class Trigger:
    """A function bound to a trigger type, or waiting for one (parked: ``bound`` is ``None``).

    ``namespace`` is the target's; ``home`` is where the type is looked up first when the trigger does
    not name a ``trigger_namespace``. Without an ``owner`` it lives as long as the engine.
    """

    id: str
    type_id: str
    function_id: str
    config: JSON
    metadata: JSON = None
    namespace: str = DEFAULT_NAMESPACE
    trigger_namespace: Optional[str] = None
    home: str = DEFAULT_NAMESPACE
    owner: Optional[Worker] = None
    bound: Optional[TriggerType] = None

    def setting(self, key: str) -> JSON:
        """Return one value of the configuration, ``None`` when it has none."""
        return self.config.get(key) if isinstance(self.config, dict) else None

    def text(self, key: str) -> Optional[str]:
        """Return one value of the configuration if it is a string."""
        value = self.setting(key)
        return value if isinstance(value, str) else None


class BuiltinError(Exception):
    """A builtin refuses: the caller gets ``code`` and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Builtin:
    """A function of the engine itself, in the namespace ``default``.

    ``run`` gets the calling worker and the input, and returns the result, or :class:`Later`, or raises
    :class:`BuiltinError` (or :class:`NoAnswer`). ``service`` is the part of the engine that serves it.
    """

    id: str
    description: str
    run: Callable[[Worker, JSON], Union[JSON, Later]]
    service: str = "iii-engine-functions"


class NoAnswer(Exception):
    """Raised by a builtin that has closed its caller's connection."""
