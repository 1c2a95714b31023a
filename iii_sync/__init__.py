"""iii_sync: the synchronous Python client for iii.

::

    from iii_sync import register_worker

    with register_worker() as worker:
        print(worker.trigger("files::process", {"name": "report.csv"}))

Start reading at :mod:`iii_sync.worker`.

What a program needs to call functions and to use channels is imported here; the rest when it is first asked for.
"""

from typing import TYPE_CHECKING

from ._version import __version__
from .calls import Call
from .channels import (
    Channel,
    ChannelReader,
    ChannelWriter,
    StreamChannelRef,
    extract_channel_refs,
    is_channel_ref,
)
from .errors import (
    AuthenticationError,
    CallTimeout,
    ChannelAbortedError,
    ChannelBrokenError,
    ChannelError,
    ChannelNeverWrittenError,
    ChannelNotFoundError,
    ChannelTruncatedError,
    ChannelUsedError,
    CloseTimeout,
    ConcurrencyError,
    ConfigurationError,
    ConnectFailedError,
    ConnectionLostError,
    ConnectTimeout,
    EngineConnectionError,
    EngineTimeoutError,
    ForkedWorkerError,
    FunctionNotFoundError,
    HandlerFailedError,
    HandshakeRejectedError,
    HttpError,
    IIISyncError,
    InvalidPayloadError,
    InvocationError,
    OverloadedError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ReadTimeout,
    RegistrationRejectedError,
    RemoteProtocolError,
    TriggerRegistrationError,
    UsageError,
    WorkerClosedError,
    WriteTimeout,
)
from .functions import FunctionRef
from .request import TriggerAction
from .worker import Worker, register_worker

if TYPE_CHECKING:
    from .context import Invocation, current_invocation
    from .invocation import HttpAuthApiKey, HttpAuthBearer, HttpAuthHmac, HttpInvocationConfig
    from .options import InitOptions, ReconnectionConfig
    from .triggers import Trigger, TriggerConfig, TriggerHandler, TriggerType
    from .web import HttpResponse, StreamRequest, StreamResponse
    from .web import http as http  # public, but not in __all__

# Without ``http``: whoever imports all names would lose the standard library's.
__all__ = [
    "AuthenticationError",
    "Call",
    "CallTimeout",
    "Channel",
    "ChannelAbortedError",
    "ChannelBrokenError",
    "ChannelError",
    "ChannelNeverWrittenError",
    "ChannelNotFoundError",
    "ChannelReader",
    "ChannelTruncatedError",
    "ChannelUsedError",
    "ChannelWriter",
    "CloseTimeout",
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectFailedError",
    "ConnectTimeout",
    "ConnectionLostError",
    "EngineConnectionError",
    "EngineTimeoutError",
    "ForkedWorkerError",
    "FunctionNotFoundError",
    "FunctionRef",
    "HandlerFailedError",
    "HandshakeRejectedError",
    "HttpAuthApiKey",
    "HttpAuthBearer",
    "HttpAuthHmac",
    "HttpError",
    "HttpInvocationConfig",
    "HttpResponse",
    "IIISyncError",
    "InitOptions",
    "InvalidPayloadError",
    "Invocation",
    "InvocationError",
    "OverloadedError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ReadTimeout",
    "ReconnectionConfig",
    "RegistrationRejectedError",
    "RemoteProtocolError",
    "StreamChannelRef",
    "StreamRequest",
    "StreamResponse",
    "Trigger",
    "TriggerAction",
    "TriggerConfig",
    "TriggerHandler",
    "TriggerRegistrationError",
    "TriggerType",
    "UsageError",
    "Worker",
    "WorkerClosedError",
    "WriteTimeout",
    "__version__",
    "current_invocation",
    "extract_channel_refs",
    "is_channel_ref",
    "register_worker",
]

#: Where the names are that are imported when they are asked for.
_LATER = {
    "HttpAuthApiKey": "invocation",
    "HttpAuthBearer": "invocation",
    "HttpAuthHmac": "invocation",
    "HttpInvocationConfig": "invocation",
    "HttpResponse": "web",
    "InitOptions": "options",
    "Invocation": "context",
    "ReconnectionConfig": "options",
    "StreamRequest": "web",
    "StreamResponse": "web",
    "Trigger": "triggers",
    "TriggerConfig": "triggers",
    "TriggerHandler": "triggers",
    "TriggerType": "triggers",
    "current_invocation": "context",
    "http": "web",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    # Two threads that come at once find the same object.
    value: object = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
