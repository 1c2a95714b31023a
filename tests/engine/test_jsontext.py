"""JSON text: exact for what the wire carries, strict about the rest."""

from __future__ import annotations

import time

import pytest

from iii_sync.engine.jsontext import JSON, MAX_DEPTH, decode, encode


@pytest.mark.parametrize(
    "text",
    [
        '{"a":[1,-2,3.5,true,false,null,"x"]}',
        '"\\u0000\\n\\"\\\\ \u00e4 \u2028 \U0001f600"',
        "[9223372036854775807,-9223372036854775808,18446744073709551615]",
        "[0.1,1e-300,-0.0,123456789.125]",
    ],
)
def test_round_trip_is_exact(text: str) -> None:
    """What is decoded and encoded again is the same value."""
    value = decode(text)
    assert decode(encode(value)) == value
    assert repr(decode(encode(value))) == repr(value)


def test_encoding_is_compact_utf8() -> None:
    """No spaces, no escapes that are not needed."""
    assert encode({"a": [1, "\u00e4"]}) == '{"a":[1,"\u00e4"]}'.encode()


def test_bytes_and_surrogate_pairs_decode() -> None:
    """Bytes are UTF-8, and a pair of escaped surrogates is one character."""
    assert decode(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "NaN", "[Infinity]", "-Infinity", "1e999", '"\\ud800"', '{"\\udfff":1}', b"\xff", "01"],
)
def test_unusable_text_is_refused(text: str | bytes) -> None:
    """What is malformed, or cannot be sent on, raises ValueError."""
    with pytest.raises(ValueError):
        decode(text)


@pytest.mark.parametrize(("digits", "kind"), [(19, int), (21, float), (300, float)])
def test_integers_beyond_64_bits_become_floats(digits: int, kind: type) -> None:
    """Long integers lose their exactness as on the real engine."""
    value = decode("7" * digits)
    assert type(value) is kind
    assert value == pytest.approx(float("7" * digits))


def test_absurdly_long_integer_is_refused_quickly() -> None:
    """A megabyte of digits costs no quadratic time."""
    started = time.perf_counter()
    with pytest.raises(ValueError):
        decode("9" * 1_000_000)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_limited(opening: str, closing: str) -> None:
    """The limit itself passes, one level more does not, nor do a hundred thousand."""

    def nested(levels: int) -> str:
        return opening * levels + ("" if opening == "[" else "1") + closing * levels

    decode(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(ValueError):
            decode(nested(levels))


def test_many_shallow_containers_pass() -> None:
    """The limit is on depth, not on the number of containers."""
    value: JSON = [[] for _ in range(1000)]
    assert decode(encode(value)) == value
