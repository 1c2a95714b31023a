"""HTTP functions: requests and responses as files, and what handlers return."""

from .answers import HttpResponse
from .handler import http
from .request import StreamRequest
from .response import StreamResponse
from .routes import HttpFunction

__all__ = ["HttpFunction", "HttpResponse", "StreamRequest", "StreamResponse", "http"]
