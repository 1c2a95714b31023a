"""What the engine itself offers its workers: every builtin and every trigger type."""

from __future__ import annotations

from .builtins import builtins
from .configuration import Configurations
from .consumers import Consumers
from .cron import Cron
from .events import provide_events
from .hub import Hub
from .listings import function_summaries, listings
from .logs import Logs
from .pubsub import provide_pubsub
from .queues import Queues
from .router import Router
from .state import State
from .streams import Streams


def install(router: Router, hub: Hub) -> Consumers:
    """Give a router all services of the engine. Those that nobody uses cost nothing.

    Returns:
        The consumers of its streams, none yet.
    """
    router.add_builtins(builtins(router, hub))
    router.add_builtins(listings(router))
    Logs(router)
    State(router)
    provide_pubsub(router)
    consumers = Consumers(router, Streams(router))
    Cron(router)
    Queues(router)
    Configurations(router)
    provide_events(router, lambda: function_summaries(router))
    return consumers
