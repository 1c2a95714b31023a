"""Triggers: what calls functions besides workers.

:mod:`.sources` has the trigger types that come with an engine, :mod:`.registered` the triggers of this worker
and :mod:`.routes` where they go, :mod:`.providers` the trigger types it provides to others.
"""

from .providers import TriggerConfig, TriggerHandler, TriggerType
from .registered import Trigger
from .sources import TriggerSource, cron, http, log, queue, state, stream, subscribe

__all__ = [
    "Trigger",
    "TriggerConfig",
    "TriggerHandler",
    "TriggerSource",
    "TriggerType",
    "cron",
    "http",
    "log",
    "queue",
    "state",
    "stream",
    "subscribe",
]
