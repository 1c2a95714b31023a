"""iii_sync: the synchronous Python client for iii.

::

    from iii_sync import register_worker

    with register_worker() as worker:
        print(worker.trigger("files::process", {"name": "report.csv"}))

Start reading at :mod:`iii_sync.worker`.
"""

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
from .context import Invocation, current_invocation
from .errors import HttpError, IIISyncError, InvocationError, RegistrationRejectedError
from .functions import FunctionRef
from .invocation import HttpAuthApiKey, HttpAuthBearer, HttpAuthHmac, HttpInvocationConfig
from .options import InitOptions, ReconnectionConfig
from .request import TriggerAction
from .triggers import Trigger, TriggerConfig, TriggerHandler, TriggerType
from .web import HttpResponse, StreamRequest, StreamResponse, http
from .worker import Worker, register_worker

__all__ = [
    "Call",
    "Channel",
    "ChannelReader",
    "ChannelWriter",
    "FunctionRef",
    "HttpAuthApiKey",
    "HttpAuthBearer",
    "HttpAuthHmac",
    "HttpInvocationConfig",
    "HttpError",
    "HttpResponse",
    "IIISyncError",
    "InitOptions",
    "Invocation",
    "InvocationError",
    "ReconnectionConfig",
    "RegistrationRejectedError",
    "StreamChannelRef",
    "StreamRequest",
    "StreamResponse",
    "Trigger",
    "TriggerAction",
    "TriggerConfig",
    "TriggerHandler",
    "TriggerType",
    "Worker",
    "__version__",
    "current_invocation",
    "extract_channel_refs",
    "http",
    "is_channel_ref",
    "register_worker",
]
