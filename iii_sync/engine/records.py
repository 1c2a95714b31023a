"""What the router remembers: workers, functions, pending invocations. Pure data."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Callable, Optional, Union

from typing_extensions import Protocol

from .frames import Failure, Frame, RegisterFunction
from .jsontext import JSON, JsonObject

DEFAULT_NAMESPACE = "default"


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

    @property
    def id(self) -> str:
        """The id it was registered with."""
        return self.registration.id


@dataclass(eq=False)
class Worker:
    """One control connection.

    ``namespace`` is ``None`` until it is known; registrations wait in ``held`` for that moment.
    """

    peer: Peer
    id: str
    reattach_token: str
    connected_at: float
    address: Optional[str] = None
    profile: Profile = field(default_factory=Profile)
    namespace: Optional[str] = None
    held: deque[Frame] = field(default_factory=deque)
    functions: dict[tuple[str, str], Function] = field(default_factory=dict)
    lease: Optional[tuple[str, str]] = None
    calls: set[str] = field(default_factory=set)
    serves: set[str] = field(default_factory=set)
    gone: bool = False


Outcome = Union[Failure, "Success"]


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
    finish: Callable[[Outcome], None]
    caller: Optional[Worker] = None


class BuiltinError(Exception):
    """A builtin refuses: the caller gets ``code`` and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Builtin:
    """A function of the engine itself, in the namespace ``default``.

    ``run`` gets the calling worker and the input, and returns the result or raises
    :class:`BuiltinError` (or :class:`NoAnswer`).
    """

    id: str
    description: str
    run: Callable[[Worker, JSON], JSON]


class NoAnswer(Exception):
    """Raised by a builtin that has closed its caller's connection."""
