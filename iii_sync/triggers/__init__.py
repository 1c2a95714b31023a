"""Triggers: what calls functions besides workers.

:mod:`.sources` has the trigger types that come with an engine, :mod:`.registered` the triggers of this worker.
"""

from .registered import Trigger
from .sources import TriggerSource, cron, http, log, queue, state, stream, subscribe

__all__ = ["Trigger", "TriggerSource", "cron", "http", "log", "queue", "state", "stream", "subscribe"]
