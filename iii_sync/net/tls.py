"""TLS: contexts that verify, the handshake on a non-blocking socket, and errors that name the cure.

``ssl`` is imported only where it is needed: a worker on ``ws://`` never loads it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Optional

from ..errors import ConfigurationError
from .attempts import Attempts
from .dial import step
from .waiting import Deadline, wait_for_socket

if TYPE_CHECKING:
    import ssl

__all__ = ["check_context", "default_context", "explained", "start_tls"]

_SKIP = "insecure_skip_tls_verification=True"

#: What OpenSSL's verification found (X509_V_ERR_…), and what to do about it.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21, 27)
_OTHER_NAME = (62, 63, 64)


def default_context(*, verify: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.

    Args:
        verify: ``False`` trusts anybody.
    """
    import ssl

    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def check_context(context: object, insecure: bool) -> None:
    """Refuse a context that is none for a client, or that leaves verification out without anybody having said so.

    Raises:
        ConfigurationError: It is one of these.
    """
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError(f"ssl_context is a {type(context).__name__}, not an ssl.SSLContext")
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError("ssl_context is for servers; ssl.create_default_context() makes one for clients")
    if not insecure and (context.verify_mode == ssl.CERT_NONE or not context.check_hostname):
        missing = "certificates" if context.verify_mode == ssl.CERT_NONE else "host names (check_hostname is False)"
        raise ConfigurationError(
            f"ssl_context does not verify {missing}; ssl.create_default_context() makes one that does, "
            f"and {_SKIP} accepts this one"
        )


def start_tls(
    sock: socket.socket, host: str, context: ssl.SSLContext, deadline: Deadline, attempts: Attempts
) -> ssl.SSLSocket:
    """Make the handshake on a connected socket, which belongs to the result from then on.

    Blocks until it is made, at most until ``deadline``.

    Raises:
        TimeoutError: It was not made in time.
        OSError: It failed; :func:`explained` says why.
    """
    import ssl

    # Certificates know neither a final dot nor the scope of an address.
    name = host.rstrip(".").partition("%")[0]
    tls = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
    try:
        attempts.let_go(sock)
        attempts.add(tls)
        # Non-blocking, so that a peer that trickles cannot stretch the deadline.
        tls.setblocking(False)
        while True:
            try:
                tls.do_handshake()
                return tls
            except ssl.SSLWantReadError:
                wait_for_socket(tls, step(deadline), write=False)
            except ssl.SSLWantWriteError:
                wait_for_socket(tls, step(deadline), write=True)
    except BaseException:
        attempts.close(tls)
        raise


def explained(error: OSError, host: str) -> Optional[str]:
    """Say what a TLS error of a connection to ``host`` means and what to do; ``None`` for any other error."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return _refused_certificate(error, host)
    if not isinstance(error, ssl.SSLError):
        return None
    reason = error.reason or ""
    if isinstance(error, ssl.SSLEOFError):
        return f"{host} ended the TLS handshake; {CLIENT_CERTIFICATE}"
    if "ALERT" in reason and any(part in reason for part in ("CERT", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "DENIED")):
        return f"{host} refused the TLS handshake ({_words(reason)}); {CLIENT_CERTIFICATE}"
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        return (
            f"{host} and this side have no version of TLS in common ({_words(reason)}): see minimum_version and "
            "maximum_version of ssl_context"
        )
    if any(part in reason for part in ("WRONG_VERSION", "RECORD_LAYER", "PACKET_LENGTH", "HTTP_REQUEST", "UNEXPECTED")):
        return f"{host} does not speak TLS on this port ({_words(reason)}): is it a ws:// address?"
    return f"TLS with {host} failed ({_words(reason) or error.strerror or type(error).__name__})"


CLIENT_CERTIFICATE = (
    "if it wants a client certificate, load the right one: ssl_context = ssl.create_default_context(); "
    "ssl_context.load_cert_chain(certificate, key)"
)


def _refused_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    code, said = error.verify_code, error.verify_message
    if code == _EXPIRED or code == _NOT_YET_VALID:
        cure = "it needs a new one (or the clock of this machine is wrong)"
    elif code in _OTHER_NAME:
        cure = "use a name that the certificate holds in the address"
    elif code in _UNKNOWN_ISSUER:
        cure = (
            "if a private authority has signed it, give ssl_context=ssl.create_default_context(cafile=…), "
            "or name the file in SSL_CERT_FILE"
        )
    else:
        cure = "see ssl_context"
    return f"the certificate of {host} is refused, {said}: {cure}"


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()
