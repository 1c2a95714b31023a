"""JSON as it comes from the command line, and goes to standard output."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Optional

import click

from .options import Decorator
from .pieces import pieces_of, standard_input

__all__ = ["payload_argument", "print_json", "read_object", "read_payload"]

payload_argument: Decorator = click.argument("payload", metavar="[JSON|-]", required=False)


def read_payload(text: Optional[str]) -> Any:
    """Return the value of the argument: what the text, or standard input for ``-``, says in JSON; without it ``None``.

    Blocks until the end of standard input.

    Raises:
        UsageError: It is no JSON.
    """
    if text is None:
        return None
    try:
        return json.loads(_standard_input() if text == "-" else text)
    except (ValueError, RecursionError) as error:  # of a wrong encoding, too
        place = "standard input" if text == "-" else "the payload"
        hint = ": a text needs its quotes, '\"like this\"'" if re.match(r"[^\W\d]", text) else ""
        raise click.UsageError(f"{place} is not JSON{hint} ({error})") from None


def _standard_input() -> bytes:
    with standard_input() as file:
        return b"".join(map(bytes, pieces_of(file)))


def read_object(text: Optional[str], key: str) -> dict[str, Any]:
    """Return the value of an argument that must be an object, for a reference is put into it, as ``key``."""
    value = read_payload(text)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise click.UsageError("the payload must be a JSON object: the function's end of the stream is put into it")
    if key in value:
        raise click.UsageError(f"the payload has a {key!r} already: name another place for the stream with --key")
    return value


def print_json(value: Any) -> None:
    """Print a value: on a terminal for people, with line breaks; else one line of UTF-8."""
    if not sys.stdout.isatty():
        text = json.dumps(value, ensure_ascii=False)
        # A terminal's encoding has no say in a pipe. A lone surrogate has no UTF-8; JSON can spell it out.
        sys.stdout.flush()
        sys.stdout.buffer.write(_encoded(text, value, "utf-8") + b"\n")
        return
    text = json.dumps(value, ensure_ascii=False, indent=2)
    # What steers a terminal is spelled out; what it cannot show is, too. JSON leaves only these to us.
    text = re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)
    print(_encoded(text, value, sys.stdout.encoding, indent=2).decode(sys.stdout.encoding))


def _encoded(text: str, value: Any, encoding: str, indent: Optional[int] = None) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent).encode(encoding)
