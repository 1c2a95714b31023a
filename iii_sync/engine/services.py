"""What the engine itself offers its workers: every builtin and every trigger type."""

from __future__ import annotations

from .builtins import builtins
from .events import provide_events
from .hub import Hub
from .listings import function_summaries, listings
from .router import Router


def install(router: Router, hub: Hub) -> None:
    """Give a router all services of the engine. Those that nobody uses cost nothing."""
    router.add_builtins(builtins(router, hub))
    router.add_builtins(listings(router))
    provide_events(router, lambda: function_summaries(router))
