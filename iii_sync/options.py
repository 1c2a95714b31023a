"""What a worker can be told, and where it looks when it is not: the environment."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional, TypedDict

from .arguments import flag, integer, number, text
from .errors import ConfigurationError
from .net.address import Address
from .net.proxy import Proxy
from .net.tls import check_context, default_context

if TYPE_CHECKING:
    import ssl

__all__ = ["DEFAULT_URL", "InitOptions", "ReconnectionConfig"]

#: Where the engine listens unless told otherwise (PROTOCOL 1.1).
DEFAULT_URL = "ws://127.0.0.1:49134"

_log = logging.getLogger("iii_sync.worker")

#: The default of ``max_payload``: the engine takes frames of 16 MiB at most, and adds something on the way.
MAX_PAYLOAD = 16 * 1024 * 1024 - 64 * 1024
_LARGEST_MESSAGE = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class ReconnectionConfig:
    """How a lost control connection is made again.

    Tries count, and delays grow, until a connection has lasted ten seconds. A worker that the engine refuses when it
    comes back (its name is taken, its credentials are not accepted) goes on trying for 30 seconds, then gives up.

    Attributes:
        initial_delay: Seconds before the second try; the first comes at once.
        max_delay: Seconds that a delay may grow to; one second during the first 90 seconds of an outage.
        backoff_multiplier: What a delay is multiplied with after each try.
        jitter_factor: Part of a delay that is random, 0 to 1: it is shorter by up to this part.
        max_retries: Tries before the worker gives up; ``None``: never; 0: a lost connection is the end.
    """

    initial_delay: float = 0.1
    max_delay: float = 10.0
    backoff_multiplier: float = 2.0
    jitter_factor: float = 0.3
    max_retries: Optional[int] = None

    def __post_init__(self) -> None:
        _check_types(self)
        _positive(self, "initial_delay", "max_delay")
        if not self.backoff_multiplier >= 1:
            raise ConfigurationError(f"backoff_multiplier={self.backoff_multiplier!r} must be at least 1")
        if not 0 <= self.jitter_factor <= 1:
            raise ConfigurationError(f"jitter_factor={self.jitter_factor!r} must be between 0 and 1")
        if self.max_retries is not None and self.max_retries < 0:
            raise ConfigurationError(f"max_retries={self.max_retries!r} must be 0 or more, or None")


@dataclasses.dataclass(frozen=True, repr=False)
class InitOptions:
    """Options of :func:`iii_sync.register_worker`; times are seconds, ``None`` waits for ever.

    Attributes:
        worker_name: The worker's name, unique among the live workers of its namespace. Default: ``III_WORKER_NAME``,
            else ``hostname:pid`` and something unique.
        worker_description: One line for people who list workers.
        namespace: Where the worker registers and calls. Default: ``III_NAMESPACE``, else the engine's ``default``.
        headers: Sent with the handshake of every socket. ``Authorization: Bearer $III_TOKEN`` is added when
            ``III_TOKEN`` is set and no ``Authorization`` is given.
        ssl_context: For ``wss://``: a private authority, a client certificate. Default: the system's authorities, or
            those in ``SSL_CERT_FILE``.
        insecure_skip_tls_verification: Talk to whoever answers at a ``wss://`` address; logs a warning. Together with
            an ``ssl_context`` it accepts one that does not verify.
        proxy: ``http://[user:password@]host:port``, or ``""`` for none. Default: the environment's
            (``https_proxy``, ``http_proxy``, ``all_proxy``, ``no_proxy``), never for the loopback interface.
        connect_timeout: For each socket, from the name look-up to the end of the handshake; and again for
            the engine's hello, and for each registration.
        invocation_timeout: Default of ``trigger``.
        channel_timeout: Default of ``timeout`` of channel ends: silence that a read or write tolerates.
        close_timeout: Silence that ``close()`` of a writer tolerates.
        shutdown_timeout: Default of ``shutdown()``, for everything it does.
        keep_trying: When the engine cannot be reached, ``register_worker`` returns all the same and the
            worker connects in the background, instead of raising.
        reconnection_config: How a lost connection is made again.
        marks: Whether writers mark the beginning and end of their streams, so that a cut one is noticed.
        max_handlers: Handlers that run at once; further calls are answered with ``overloaded``.
        max_payload: Bytes that a message may have, at most 64 MiB. Above 16 MiB less 64 KiB the message
            breaks the connections of peers that accept no more.
        tracing: Whether calls and handlers are spans of OpenTelemetry, whose API the extra ``otel`` installs. Default:
            if the program has imported it, and ``OTEL_ENABLED`` does not say ``false``.
        trace_payloads: Whether the spans of handlers hold what these get and return, as JSON of at most 8,192
            characters, without the values of keys, and of lines of a header, that look like secrets, and without the
            credentials in addresses. ``III_DISABLE_TRACE_PAYLOADS=1`` forbids it.
    """

    worker_name: Optional[str] = None
    worker_description: Optional[str] = None
    namespace: Optional[str] = None
    headers: Optional[Mapping[str, str]] = None
    ssl_context: Optional[ssl.SSLContext] = None
    insecure_skip_tls_verification: bool = False
    proxy: Optional[str] = None
    connect_timeout: float = 10.0
    invocation_timeout: Optional[float] = 30.0
    channel_timeout: Optional[float] = None
    close_timeout: Optional[float] = 30.0
    shutdown_timeout: float = 5.0
    keep_trying: bool = False
    reconnection_config: ReconnectionConfig = dataclasses.field(default_factory=ReconnectionConfig)
    marks: bool = True
    max_handlers: int = 1000
    max_payload: int = MAX_PAYLOAD
    tracing: Optional[bool] = None
    trace_payloads: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        _positive(
            self,
            "connect_timeout",
            "invocation_timeout",
            "channel_timeout",
            "close_timeout",
            "shutdown_timeout",
            "max_handlers",
            "max_payload",
        )
        if not isinstance(self.reconnection_config, ReconnectionConfig):
            raise ConfigurationError(f"reconnection_config={self.reconnection_config!r} must be a ReconnectionConfig")
        if self.max_payload > _LARGEST_MESSAGE:
            raise ConfigurationError(
                f"max_payload={self.max_payload} is above 64 MiB, which no engine accepts; use a channel"
            )
        for name in ("worker_name", "namespace"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ConfigurationError(f"{name}={value!r} is blank: give a name, or leave it out")
        for name in ("worker_name", "worker_description", "namespace"):
            if re.search("[\ud800-\udfff]", getattr(self, name) or ""):
                raise ConfigurationError(f"{name}={getattr(self, name)!r} has a lone surrogate, which cannot be sent")
        _check_headers(self.headers)
        if self.ssl_context is not None:
            check_context(self.ssl_context, self.insecure_skip_tls_verification)
        if self.proxy is not None and self.proxy != "":
            Proxy.parse(self.proxy, "proxy")

    def all_headers(self) -> dict[str, str]:
        """Return the headers of a handshake, the environment's token among them (read at each connection).

        Raises:
            ConfigurationError: ``III_TOKEN`` is not one line of text.

        Blocks: Never.
        Threads: Any.
        """
        headers = dict(self.headers or {})
        token = (os.environ.get("III_TOKEN") or "").strip()
        if token and not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"] = f"Bearer {token}"
            from .fields import check_value  # not everybody has a token

            try:
                check_value("Authorization", headers["Authorization"])
            except ValueError:
                raise ConfigurationError("III_TOKEN is not one line of text") from None
        return headers

    def __repr__(self) -> str:
        """What differs from the defaults; of headers the names only, of a proxy no credentials."""
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "headers" and value:
                shown.append(f"headers={dict.fromkeys(value, '…')}")
            elif field.name == "proxy" and value:
                shown.append(f"proxy='http://{Proxy.parse(value, 'proxy')}'")
            elif value is not None and value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"InitOptions({', '.join(shown)})"


#: The handshake's own.
_RESERVED = re.compile(r"connection|upgrade|content-length|transfer-encoding|sec-websocket-.*")


def _check_headers(headers: object) -> None:
    """Refuse what cannot be a header, without showing a value: it may be a secret."""
    if headers is None:
        return
    from .fields import check_name, check_value  # not everybody has headers

    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers is a {type(headers).__name__}; give a dictionary of names and values")
    names = set()
    for name, value in headers.items():
        try:
            check_name(name)
            check_value(name, value)
        except ValueError as exc:
            raise ConfigurationError(f"headers: {exc}") from None
        if _RESERVED.fullmatch(name.lower()) or name.lower() in names:
            why = "belongs to the handshake" if name.lower() not in names else "is given twice"
            raise ConfigurationError(f"headers: {name!r} {why}")
        names.add(name.lower())


class OptionArguments(TypedDict, total=False):
    """The fields of :class:`InitOptions` as keyword arguments of :func:`iii_sync.register_worker`."""

    worker_name: Optional[str]
    worker_description: Optional[str]
    namespace: Optional[str]
    headers: Optional[Mapping[str, str]]
    ssl_context: Optional[ssl.SSLContext]
    insecure_skip_tls_verification: bool
    proxy: Optional[str]
    connect_timeout: float
    invocation_timeout: Optional[float]
    channel_timeout: Optional[float]
    close_timeout: Optional[float]
    shutdown_timeout: float
    keep_trying: bool
    reconnection_config: ReconnectionConfig
    marks: bool
    max_handlers: int
    max_payload: int
    tracing: Optional[bool]
    trace_payloads: bool


_CHECKS: dict[str, Callable[[str, Any], object]] = {"str": text, "bool": flag, "int": integer, "float": number}


def _check_types(options: Any) -> None:
    """Refuse what is not of a field's type, where that is a plain one; ``None`` passes where the type allows it."""
    for field in dataclasses.fields(options):
        declared, value = str(field.type), getattr(options, field.name)
        optional = declared.startswith("Optional[")
        # What is no proxy is refused where it is looked at, without a word of it: it may hold a password.
        check = (
            None if field.name == "proxy" else _CHECKS.get(declared[len("Optional[") : -1] if optional else declared)
        )
        if check is not None and not (optional and value is None):
            check(field.name, value)


def _positive(options: Any, *names: str) -> None:
    """Refuse numbers that are not above zero, NaN among them."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name}={value!r} must be a number above 0")


def from_environment(options: InitOptions) -> InitOptions:
    """Fill in what the environment says: ``III_NAMESPACE`` and ``III_WORKER_NAME``; blank counts as unset."""
    found: dict[str, Any] = {}
    if options.namespace is None:
        found["namespace"] = (os.environ.get("III_NAMESPACE") or "").strip() or None
    # A supervisor that names its workers must be able to find them, so the variable wins (DELTA 0.25, 6).
    name = (os.environ.get("III_WORKER_NAME") or "").strip()
    if name:
        found["worker_name"] = name
    return dataclasses.replace(options, **found)


def completed(options: Optional[InitOptions], arguments: OptionArguments) -> InitOptions:
    """Return what :func:`iii_sync.register_worker` was given and the environment says, as one.

    Raises:
        ConfigurationError: An option that cannot work.
    """
    options = options if options is not None else InitOptions()
    if not isinstance(options, InitOptions):
        raise TypeError(f"options must be InitOptions, not {type(options).__name__}; or give them as keywords")
    return from_environment(dataclasses.replace(options, **arguments))


def address_from_environment(address: Optional[str]) -> str:
    """Return the given address, else ``III_URL``, else :data:`DEFAULT_URL`."""
    return address or (os.environ.get("III_URL") or "").strip() or DEFAULT_URL


def for_address(options: InitOptions, address: Address) -> InitOptions:
    """Return the options with what an address needs of them: a ``wss`` one a context, made once for all sockets.

    Raises:
        ConfigurationError: There are options for TLS, and the address has none.
    """
    insecure = options.insecure_skip_tls_verification
    if not address.secure:
        if options.ssl_context is not None or insecure:
            name = "ssl_context" if options.ssl_context is not None else "insecure_skip_tls_verification"
            raise ConfigurationError(f"{name} is for wss:// addresses, and {address} is not encrypted: use wss://")
        return options
    if insecure:
        _log.warning("the certificate of %s is not verified (insecure_skip_tls_verification)", address)
    if options.ssl_context is not None:
        return options
    return dataclasses.replace(options, ssl_context=default_context(verify=not insecure))
