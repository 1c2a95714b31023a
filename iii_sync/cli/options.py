"""Options that several commands have, and the kinds of values that options take."""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Optional, TypeVar

import click

__all__ = [
    "Decorator",
    "as_seconds",
    "as_size",
    "function",
    "is_verbose",
    "key",
    "namespace",
    "quiet",
    "timeout",
    "url",
    "verbose",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNITS = " KMGT"
_TOO_LARGE = 1 << 63


def as_size(text: str) -> int:
    """Return the bytes in ``100MiB``, ``1.5GB`` or ``4096``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise click.BadParameter(f"{text!r} is not a size: give it like 4096, 100MiB or 1.5GB")
    size = float(match[1]) * (1024 if match[3] else 1000) ** _UNITS.index(match[2].upper() or " ")
    if size >= _TOO_LARGE:
        raise click.BadParameter(f"{text!r:.80} is too large: give less than 8388608TiB")
    return int(size)


def as_seconds(text: str) -> Optional[float]:
    """Return the seconds in ``30`` or ``0.5``; ``None``, no limit, for ``none``."""
    if text.strip().lower() == "none":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise click.BadParameter(f"{text!r} is not a time: give seconds above 0, or 'none' for no limit")
    return seconds


def is_verbose() -> bool:
    """Whether the running command was given ``--verbose``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get("verbose"))


def _remember(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta["verbose"] = value  # shared with the context of the group, which reports errors


#: What click makes of an option or an argument.
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

function: Decorator = click.argument("function", metavar="FUNCTION")
url: Decorator = click.option(
    "--url", metavar="URL", help="The engine's address.  [default: III_URL, or ws://127.0.0.1:49134]"
)
namespace: Decorator = click.option("--namespace", metavar="NAME", help="Where the function lives.")
key: Decorator = click.option(
    "--key", metavar="NAME", help="Where in the payload the function finds its end of the stream."
)
quiet: Decorator = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
verbose: Decorator = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Say more: the traceback of a function that failed, and what the connection does.",
)


def timeout(default: str) -> Callable[[_Command], _Command]:
    """Make the option ``--timeout``: seconds that the function may take in total."""
    return click.option(
        "--timeout",
        type=as_seconds,
        default=default,
        show_default=True,
        metavar="SECONDS",
        help="How long the function may take; 'none' for no limit.",
    )
