"""Cron expressions: seconds first and perhaps a year last, in UTC. Pure.

What is an expression is decided here, as the real engine decides it: it counts days from Sunday, 1, a day of the month
and one of the week must both fit, and neither ``L`` nor ``15W`` nor a range that ends before it begins means anything.
The next point in time is found by croniter, which is imported with the first expression and gets plain numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

from .records import TriggerError

# An expression may name one year of this century or the next; croniter knows none after 2099.
_YEARS = 150
_LAST_YEAR = 2099

_SHORTHANDS = {
    "@yearly": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 1",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}

_PART = re.compile(r"(?:([*?])|([0-9]{1,10})(?:-([0-9]{1,10}))?|([a-z]+)(?:-([a-z]+))?)(?:/([0-9]{1,10}))?")
_JOINED = re.compile(r"\s*([,/-])\s*")


class _Field(NamedTuple):
    """One of the fields, from its lowest to its highest value."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = {}
    is_day: bool = False


def _numbered(*names: str) -> dict[str, int]:
    """Number names, each in its full length and of three letters, from 1 on."""
    return {short: number for number, name in enumerate(names, 1) for short in (name, name[:3])}


_MONTHS = _numbered(
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_DAYS = {
    **_numbered("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"),
    "tues": 3,
    "thurs": 5,
}

_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31, is_day=True),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 1, 7, _DAYS, is_day=True),
    _Field("year", 1970, 2100),
)
_DAY_OF_WEEK, _YEAR = 5, 6


def next_times(expression: str) -> Callable[[float], float]:
    """Return what tells the next point in time after another, in seconds since 1970; infinite for none.

    Raises:
        TriggerError: It is not a cron expression of six or seven fields.
    """
    try:
        from croniter import CroniterBadDateError, croniter
    except ImportError:
        raise TriggerError('cron triggers need croniter: pip install "iii_sync[engine]"') from None

    try:
        found = _parsed(_SHORTHANDS.get(expression, expression))
    except ValueError as error:
        raise TriggerError(f"Invalid cron expression '{expression}': {error}") from None
    found[_DAY_OF_WEEK] = [day - 1 for day in found[_DAY_OF_WEEK]]
    if len(found) > _YEAR:
        found[_YEAR] = [year for year in found[_YEAR] if year <= _LAST_YEAR]
        if not found[_YEAR]:
            return lambda _: float("inf")
    plain = " ".join(map(_plain, found, _FIELDS))
    parsed = croniter(plain, 0, second_at_beginning=True, day_or=False, max_years_between_matches=_YEARS)

    def next_after(moment: float) -> float:
        try:
            return float(parsed.get_next(float, start_time=moment))
        except CroniterBadDateError:
            return float("inf")

    return next_after


def _parsed(expression: str) -> list[list[int]]:
    """Return the values of each field, in their order, or raise :class:`ValueError`."""
    texts = _JOINED.sub(r"\1", expression).lower().split()
    if len(texts) not in (6, 7):
        raise ValueError(f"it needs six fields, seconds first, or seven, the year last, and has {len(texts)}")
    return [
        sorted({value for part in text.split(",") for value in _values(part, field)})
        for text, field in zip(texts, _FIELDS)
    ]


def _values(part: str, field: _Field) -> Sequence[int]:
    match = _PART.fullmatch(part)
    if match is None or (match[1] == "?" and not field.is_day) or (match[6] and match[4] and not match[5]):
        raise ValueError(f"'{part}' means nothing for the {field.name}")
    if match[1]:
        first, last = field.low, field.high
    elif match[2]:
        first = int(match[2])
        last = int(match[3]) if match[3] else field.high if match[6] else first
    else:
        first, last = (_named(name, field) for name in (match[4], match[5] or match[4]))
    step = int(match[6] or 1)
    if not field.low <= first <= last <= field.high or not 1 <= step <= field.high:
        raise ValueError(f"'{part}' is not within {field.low} to {field.high}, as the {field.name} must be")
    return range(first, last + 1, step)


def _named(name: str, field: _Field) -> int:
    if name not in field.names:
        raise ValueError(f"'{name}' is no {field.name}")
    return field.names[name]


def _plain(values: Sequence[int], field: _Field) -> str:
    """Return a field as croniter takes it."""
    return "*" if len(values) == field.high - field.low + 1 else ",".join(map(str, values))
