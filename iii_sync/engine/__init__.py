"""The local engine: an in-memory iii engine for scripts, tests and first steps.

It speaks the control and the channel protocol of the real engine, so that a worker cannot tell the
two apart. Production runs on the real iii engine. Importing this package is cheap: its WebSocket
server, aiohttp (``pip install "iii_sync[engine]"``), is imported when an engine is started.

Read :mod:`.local` for the way in, :mod:`.router` for what a worker's frame causes, :mod:`.hub` for what
a channel is, and :mod:`.guard` for listeners whose workers may not do everything.
"""

from __future__ import annotations

from .guard import Exposed, Guard
from .local import LocalEngine

__all__ = ["Exposed", "Guard", "LocalEngine"]
