"""The control connection of a worker, and what goes over it.

:mod:`.session` keeps a connection and sends calls, :mod:`.link` is one connection, :mod:`.pending` holds the calls
under way, :mod:`.registering` tells the engine what the worker offers, :mod:`.reconnecting` makes a lost connection
again, :mod:`.repeated` sends answers twice.
"""

from .link import Link
from .session import Handlers, Session
from .states import ConnectionState

__all__ = ["ConnectionState", "Handlers", "Link", "Session"]
