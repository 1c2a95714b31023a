"""What the pytest plugin hands to tests: an engine, a connecter of workers, a proxy that breaks the network.

The fixtures are in :mod:`iii_sync.pytest_plugin`. The names here are for annotations::

    from iii_sync.testing import FaultProxy

    def test_it_survives(iii_proxy: FaultProxy) -> None: ...
"""

from .engine import EngineHandle
from .proxy import FaultProxy
from .workers import Connect

__all__ = ["Connect", "EngineHandle", "FaultProxy"]
