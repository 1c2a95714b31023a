"""``iii-sync info``: what is installed and what would be used, for a look or a bug report."""

from __future__ import annotations

import os
import platform
import ssl
from importlib import metadata

import click

from .._version import __version__
from ..errors import ConfigurationError
from ..net import direct
from ..net.connect import Address
from ..options import address_from_environment
from ..wire import frames, mask
from .failures import visible

__all__ = ["command"]

_NOT_BUILT = "the C extension was not built, or III_SYNC_ACCELERATOR says so"

_MASKS = {
    "c": "the C extension",
    "numpy": "numpy, since this process has it loaded",
    "python": f"Python's integers, or numpy if loaded: {_NOT_BUILT}",
}

_PACKAGES = ("websocket-client", "typing-extensions", "click", "tqdm", "aiohttp", "numpy")

#: Environment variables that matter, and whether their values may be shown.
_VARIABLES = {
    "III_NAMESPACE": True,
    "III_WORKER_NAME": True,
    "III_ISOLATION": True,
    "III_SYNC_ACCELERATOR": True,
    "III_TOKEN": False,
}


@click.command("info")
def command() -> None:
    """Say what is installed and what would be used.

    It is for a look, or for a bug report: no token and no key is shown.
    """
    lines = {
        "iii_sync": __version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}",
        "TLS": ssl.OPENSSL_VERSION,
        "masking": _MASKS[mask.method()],
        "parsing": "the C extension" if frames.split_in_c else f"Python: {_NOT_BUILT}",
        "sending": "the C extension" if direct.in_c else f"the socket module: {_NOT_BUILT}",
        "engine": _engine(),
    }
    for package in _PACKAGES:
        lines[package] = _version(package)
    for name, shown in _VARIABLES.items():
        value = os.environ.get(name)
        if value:
            lines[name] = value if shown else "is set"
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  {text}")


def _engine() -> str:
    try:
        return str(Address(address_from_environment(None)))
    except ConfigurationError as error:
        return visible(str(error))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
