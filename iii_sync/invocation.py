"""Functions that the engine calls over HTTP, in the place of a worker (PROTOCOL 3.2)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Optional, Union
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .fields import check_name, check_value
from .wire import messages

__all__ = ["HttpAuthApiKey", "HttpAuthBearer", "HttpAuthHmac", "HttpInvocationConfig"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class HttpAuthBearer:
    """``Authorization: Bearer …``.

    Attributes:
        token_key: The environment variable *of the engine* that holds the token.
    """

    token_key: str

    def __post_init__(self) -> None:
        _check_variable("token_key", self.token_key)


@dataclasses.dataclass(frozen=True)
class HttpAuthHmac:
    """``x-iii-Signature``: HMAC-SHA256 of the time and the body.

    Attributes:
        secret_key: The environment variable *of the engine* that holds the shared secret.
    """

    secret_key: str

    def __post_init__(self) -> None:
        _check_variable("secret_key", self.secret_key)


@dataclasses.dataclass(frozen=True)
class HttpAuthApiKey:
    """A key in a header.

    Attributes:
        header: The name of the header.
        value_key: The environment variable *of the engine* that holds the key.
    """

    header: str
    value_key: str

    def __post_init__(self) -> None:
        try:
            check_name(self.header)
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        _check_variable("value_key", self.value_key)


HttpAuth = Union[HttpAuthBearer, HttpAuthHmac, HttpAuthApiKey]

_AUTH_TYPES = {HttpAuthBearer: "bearer", HttpAuthHmac: "hmac", HttpAuthApiKey: "api_key"}


@dataclasses.dataclass(frozen=True, repr=False)
class HttpInvocationConfig:
    """What the engine calls when a function is called; for ``Worker.register_function`` in the place of a handler.

    The payload is the body, as JSON; the body of an answer with a status of 2xx is the result. Secrets are in the
    engine's environment: the fields of ``auth`` name variables.

    Attributes:
        url: ``https://…``. Plain ``http`` and private addresses only where the engine is configured to allow them.
        method: ``GET``, ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
        timeout_ms: Milliseconds that the exchange may take. Default: the engine's (30,000).
        headers: Sent with every call.
        auth: How the engine shows who it is.

    Raises:
        ConfigurationError: A field that cannot be.
    """

    url: str
    method: str = "POST"
    timeout_ms: Optional[int] = None
    headers: Optional[Mapping[str, str]] = None
    auth: Optional[HttpAuth] = None

    def __post_init__(self) -> None:
        if _location(self.url) is None:
            raise ConfigurationError(
                "url is not an http:// or https:// address with a host and without user and password (name a secret "
                "with auth=)"
            )
        if self.method not in _METHODS:
            raise ConfigurationError(f"method={self.method!r} must be one of {', '.join(_METHODS)}")
        timeout = self.timeout_ms
        if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 1):
            raise ConfigurationError(f"timeout_ms={timeout!r} must be an integer above 0, or None")
        if self.headers is not None:
            if not isinstance(self.headers, Mapping):
                raise ConfigurationError(f"headers is a {type(self.headers).__name__}; give names and values")
            try:
                for name, value in self.headers.items():
                    check_name(name)
                    check_value(name, value)
            except ValueError as exc:
                raise ConfigurationError(f"headers: {exc}") from None
        if self.auth is not None and type(self.auth) not in _AUTH_TYPES:
            raise ConfigurationError(
                f"auth is a {type(self.auth).__name__}, not HttpAuthBearer, HttpAuthHmac or HttpAuthApiKey"
            )

    def message(self) -> dict[str, Any]:
        """Return it as it travels.

        Blocks: Never.
        Threads: Any.
        """
        found: dict[str, Any] = {"url": self.url, "method": self.method}
        if self.timeout_ms is not None:
            found["timeout_ms"] = self.timeout_ms
        if self.headers:
            found["headers"] = dict(self.headers)
        if self.auth is not None:
            found["auth"] = {"type": _AUTH_TYPES[type(self.auth)], **dataclasses.asdict(self.auth)}
        return found

    def where(self) -> str:
        """Return the address without its query, which may hold a key.

        Blocks: Never.
        Threads: Any.
        """
        return _location(self.url) or ""

    def __repr__(self) -> str:
        """Neither the query of the address nor the values of headers."""
        shown = [f"url={self.where()!r}", f"method={self.method!r}"]
        if self.timeout_ms is not None:
            shown.append(f"timeout_ms={self.timeout_ms}")
        if self.headers:
            shown.append(f"headers={dict.fromkeys(self.headers, '…')}")
        if self.auth is not None:
            shown.append(f"auth={self.auth!r}")
        return f"HttpInvocationConfig({', '.join(shown)})"


def _location(url: Any) -> Optional[str]:
    """Return an address without query and fragment; ``None`` when it is none, or has a password in it."""
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        return None
    try:
        messages.check(url, "url")
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or port == 0:
        return None
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?…' if parts.query else ''}"


def _check_variable(field: str, name: Any) -> None:
    """Refuse what is no name of a variable, without showing it: it may be the secret itself."""
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise ConfigurationError(
            f"{field} must be the name of an environment variable of the engine, which holds the secret; what was "
            "given is no such name"
        )
