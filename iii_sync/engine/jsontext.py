"""JSON text of the control socket: strict in, compact out. Pure.

What the real engine drops is refused here too, so that a mistake shows itself in development:
``NaN`` and infinities, numbers out of range, lone surrogates, deep nesting. Integers beyond 64 bits
become floats, as they do there.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn, Union

JSON = Union[None, bool, int, float, str, "list[JSON]", "dict[str, JSON]"]
JsonObject = dict[str, JSON]

MAX_DEPTH = 127
"""Levels of nesting in one message, the frame's own object included (measured on the real engine)."""

_LOW, _HIGH = -(1 << 63), (1 << 64) - 1
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def decode(text: Union[str, bytes]) -> JSON:
    """Parse one JSON document.

    Args:
        text: The document; bytes are taken as UTF-8.

    Returns:
        The value. Of a repeated key the last one counts.

    Raises:
        ValueError: The document is malformed, or holds something the wire cannot carry.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value: JSON = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Only as many openers as levels can nest that deep, so ordinary messages are never walked.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    # A surrogate can come only from an escape, for the text itself was valid UTF-8; pairs are fine.
    if _SURROGATE.search(text):
        encode(value)
    return value


def encode(value: JSON) -> bytes:
    """Serialise a value compactly as UTF-8.

    Raises:
        ValueError: It holds NaN, an infinity or a lone surrogate (:class:`UnicodeEncodeError`).
    """
    return _ENCODER.encode(value).encode("utf-8")


def _depth(value: JSON) -> int:
    """Count the levels of nesting without recursion."""
    depth = 0
    level: list[JSON] = [value]
    while level:
        nested: list[JSON] = []
        for item in level:
            if isinstance(item, dict):
                nested.extend(child for child in item.values() if isinstance(child, (dict, list)))
            elif isinstance(item, list):
                nested.extend(child for child in item if isinstance(child, (dict, list)))
        if nested or isinstance(value, (dict, list)):
            depth += 1
        level = nested
    return depth


def _parse_int(text: str) -> Union[int, float]:
    # int() is quadratic in the number of digits; 20 of them and a sign hold every 64-bit integer.
    if len(text) <= 21:
        number = int(text)
        if _LOW <= number <= _HIGH:
            return number
    return _parse_float(text)


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("number out of range")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)
