"""The engine's address: what it must look like, the URLs derived from it, and what of it may be shown."""

from __future__ import annotations

import re
from typing import Optional
from urllib.parse import SplitResult, quote, urlsplit

from ..errors import ConfigurationError

__all__ = ["Address", "redacted"]

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff]")


class Address:
    """The engine's control URL, and the URLs derived from it.

    Args:
        url: ``ws://host[:port][/path][?query]`` or ``wss://…``.

    Raises:
        ConfigurationError: Anything else.
    """

    def __init__(self, url: str) -> None:
        if not isinstance(url, str):
            raise ConfigurationError(f"an address must be text such as ws://host:port, not {type(url).__name__}")
        if _UNPRINTABLE.search(url):
            raise ConfigurationError(f"the address {redacted(url)} holds blanks or control characters")
        parts = _split(url)
        if parts is None or parts.scheme not in ("ws", "wss"):
            raise ConfigurationError(
                f"not an address of an engine: {redacted(url)}; give it as ws://host:port or wss://host:port"
            )
        if "@" in parts.netloc:
            raise ConfigurationError(
                f"the address {redacted(url)} holds a user name; give credentials in headers, or in III_TOKEN"
            )
        if "#" in url:
            raise ConfigurationError(f"the address {redacted(url)} holds a #, which a WebSocket's cannot")
        self.url = url
        self.secure: bool = parts.scheme == "wss"
        self.host: str = parts.hostname or ""
        self.port: int = parts.port or (443 if self.secure else 80)

    def channel(self, channel_id: str, access_key: str, direction: str) -> str:
        """Return the URL of one end of a channel (PROTOCOL 1.2); it holds the access key, so never show it."""
        base, _, query = self.url.partition("?")
        keyed = f"key={quote(access_key, safe='')}&dir={quote(direction, safe='')}"
        query = f"{query}&{keyed}" if query else keyed
        return f"{base.rstrip('/')}/ws/channels/{quote(channel_id, safe='')}?{query}"

    def __str__(self) -> str:
        """The address without its query, which may hold a token."""
        base, mark, _ = self.url.partition("?")
        return base + ("?…" if mark else "")

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


def _split(url: str) -> Optional[SplitResult]:
    """Split a URL whose host and port make sense, else return ``None``: the exception quotes pieces of it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if not host or port == 0:
            return None
        if not _can_be_looked_up(host):
            return None
    except ValueError:
        return None
    return parts


def _can_be_looked_up(host: str) -> bool:
    """Whether a name has the shape of one; raises ``UnicodeError`` as well when it has not."""
    if not host.isascii():
        host.encode("idna")  # as the look-up will
        return True
    *labels, last = host.split(".")  # the last one may be empty
    return all(0 < len(label) < 64 for label in labels) and len(last) < 64


def redacted(url: str) -> str:
    """Return what may be shown of a URL that nobody has checked: no user, password, query or fragment."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://)?([^/?#]*)([^?#]*)(.?)", url, re.DOTALL)
    assert found is not None
    scheme, authority, path, more = found[1] or "", found[2], found[3], found[4]
    if url.count("@") == 1 and "@" in authority:
        authority = "…@" + authority.rpartition("@")[2]
    elif "@" in url:
        # A password with a / or ? in it looks like the end of the authority: nothing behind the scheme is certain.
        return scheme + "…"
    # Nor behind a line break: somebody else's text may follow.
    plain, *broken = _UNPRINTABLE.split(scheme + authority + path, maxsplit=1)
    return plain + ("…" if broken else more and f"{more}…")
