"""The JSON of the control socket: what may travel, what is refused and how, and what is ignored."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import time
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_sync.errors import InvalidPayloadError
from iii_sync.wire import messages
from iii_sync.wire.messages import check, decode, encode, mentioned_invocation

from . import recorded


class Number(enum.IntEnum):
    """An integer by another name."""

    ONE = 1
    HUGE = 2**64


class Word(str, enum.Enum):
    """A string by another name."""

    RED = "red"
    BAD = "\ud800"


class Ratio(float):
    """A float by another name."""


Pair = namedtuple("Pair", ["left", "right"])


class Foreign:
    """Something that JSON does not have."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Foreign({self.value!r})"


class Unshowable:
    """Something whose representation fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested(levels: int, kind: str = "list") -> Any:
    """A value of so many levels."""
    value: Any = [] if kind == "list" else {}
    for _ in range(levels - 1):
        value = [value] if kind == "list" else {"k": value}
    return value


def plain(value: Any) -> Any:
    """What JSON makes of a value."""
    return json.loads(json.dumps(value))


# --- accepted -------------------------------------------------------------------------------------------

ACCEPTED: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.5,
    5e-324,
    1.7976931348623157e308,
    "",
    "plain",
    "grüße 😀",
    "\x00\x7f\u2028\ufeff\uffff\U0010ffff",
    'quotes " and \\',
    [],
    {},
    [[], {}, [[]]],
    {"": {"a": [1, 2.5, "x", None, True]}},
    {"ключ 😀": ["значение"], "a b": 1, "1": 2},
    [Number.ONE, Word.RED, Ratio(0.5)],
    OrderedDict([("b", 1), ("a", [2])]),
    defaultdict(list, {"x": [1]}),
    {Word.RED: 1},
]


@pytest.mark.parametrize("value", ACCEPTED, ids=repr)
def test_accepted_values_are_given_back_as_they_are(value: Any) -> None:
    """A value that can travel is not copied, at the top and inside."""
    assert check(value, "payload") is value
    for outer in ([value], {"k": value}, {"k": [0, {"k": value}]}):
        assert check(outer, "payload") is outer
        assert json.loads(encode(outer if isinstance(outer, dict) else {"k": outer})) == plain(
            outer if isinstance(outer, dict) else {"k": outer}
        )


@pytest.mark.parametrize("value", [Number.ONE, Word.RED, Ratio(0.5), Ratio(-0.0)])
def test_subclasses_of_scalars_travel_as_what_they_are(value: Any) -> None:
    """Enumerations and other subclasses of str, int and float leave as plain values."""
    expected = {Number.ONE: b"1", Word.RED: b'"red"', Ratio(0.5): b"0.5", Ratio(-0.0): b"-0.0"}[value]
    assert encode({"k": check(value, "payload")}) == b'{"k":' + expected + b"}"
    assert encode({"k": check([value], "payload")}) == b'{"k":[' + expected + b"]}"


def test_numpy_floats_travel_and_other_numpy_values_say_what_to_do() -> None:
    """numpy's float64 is a float; its other numbers are foreign and the error says what to convert to."""
    numpy = pytest.importorskip("numpy")
    value = {"x": numpy.float64(0.25)}
    assert check(value, "payload") is value
    assert encode(value) == b'{"x":0.25}'
    for bad in (numpy.float64("nan"), numpy.float64("inf")):
        with pytest.raises(InvalidPayloadError, match=r"payload\.x: .*is not JSON and the engine would drop"):
            check({"x": bad}, "payload")
    for foreign in (numpy.int64(1), numpy.float32(1), numpy.bool_(True), numpy.zeros(2)):
        with pytest.raises(InvalidPayloadError, match=r"payload\.x: numpy\.\w+ is not JSON \(.*\); use its tolist\(\)"):
            check({"x": foreign}, "payload")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((), []),
        ((1, 2), [1, 2]),
        (Pair(1, [2]), [1, [2]]),
        ([(1,), [2]], [(1,), [2]]),
        ({"a": ((), {"b": (1,)})}, {"a": [[], {"b": [1]}]}),
    ],
)
def test_tuples_travel_as_arrays(value: Any, expected: Any) -> None:
    """Tuples, named ones too, leave as arrays; json writes them as they are, without a copy."""
    checked = check(value, "payload")
    assert plain(checked) == plain(expected)
    assert json.loads(encode({"k": checked})) == plain({"k": expected})


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_depth(kind: str) -> None:
    """120 levels pass, 121 do not, wherever the scalar stands."""
    assert messages.MAX_DEPTH == 120
    deepest = nested(120, kind)
    assert check(deepest, "payload") is deepest
    assert json.loads(encode({"k": deepest})) == {"k": deepest}
    with pytest.raises(InvalidPayloadError) as caught:
        check(nested(121, kind), "metadata")
    assert str(caught.value) == (
        "metadata: nested deeper than 120 levels, or contains itself; flatten it, or send it through a channel"
    )
    with pytest.raises(InvalidPayloadError, match="nested deeper than 120 levels"):
        check(nested(50_000, kind), "payload")


def test_values_that_contain_themselves() -> None:
    """Lists and objects that contain themselves are refused, and quickly."""
    wide: list[Any] = [0] * 1000
    wide[0] = wide
    loop: dict[str, Any] = {}
    loop["a"] = [{"b": loop}]
    start = time.perf_counter()
    for value in (wide, loop, [wide, loop]):
        with pytest.raises(InvalidPayloadError, match="or contains itself"):
            check(value, "payload")
    assert time.perf_counter() - start < 2


def test_the_same_value_twice_is_no_loop() -> None:
    """One list in two places is fine."""
    shared = [1]
    value = {"a": shared, "b": [shared, shared]}
    assert check(value, "payload") is value


# --- refused --------------------------------------------------------------------------------------------

_JSON_CURE = "convert it to dict, list, str, int, float, bool or None first"
_DROPPED = "is not JSON and the engine would drop the message; send None or a string"
_ROUNDED = "is beyond 64 bits, the engine would round it; send it as a string"
_SURROGATE = "which UTF-8 cannot carry; decode with errors='replace', or send the bytes through a channel"

REFUSED: list[tuple[Any, str]] = [
    (math.nan, f"payload: nan {_DROPPED}"),
    (math.inf, f"payload: inf {_DROPPED}"),
    (-math.inf, f"payload: -inf {_DROPPED}"),
    ({"a": [0, 1, math.nan]}, f"payload.a[2]: nan {_DROPPED}"),
    ([[Ratio("inf")]], f"payload[0][0]: inf {_DROPPED}"),
    (2**64, f"payload: 18446744073709551616 {_ROUNDED}"),
    (-(2**63) - 1, f"payload: -9223372036854775809 {_ROUNDED}"),
    ({"n": {"m": 2**64}}, f"payload.n.m: 18446744073709551616 {_ROUNDED}"),
    ([10**5000], f"payload[0]: an integer of 16610 bits {_ROUNDED}"),
    ("a\ud800", f"payload: lone surrogate '\\ud800' at character 1, {_SURROGATE}"),
    ("\udfff\ud800", f"payload: lone surrogate '\\udfff' at character 0, {_SURROGATE}"),
    (Word.BAD, f"payload: lone surrogate '\\ud800' at character 0, {_SURROGATE}"),
    (["ok", ("\udc80",)], f"payload[1][0]: lone surrogate '\\udc80' at character 0, {_SURROGATE}"),
    (
        {"a": {"k\ud800": 1}},
        f"payload.a: the key 'k\\ud800': lone surrogate '\\ud800' at character 1, {_SURROGATE}",
    ),
    ({1: 2}, "payload: the key 1 is not a string; use str(key)"),
    ({"a": [{None: 2}]}, "payload.a[0]: the key None is not a string; use str(key)"),
    ({True: 2}, "payload: the key True is not a string; use str(key)"),
    ({1.5: 2}, "payload: the key 1.5 is not a string; use str(key)"),
    ({b"x": 2}, "payload: the key b'x' is not a string; use str(key)"),
    ({(1, 2): 2}, "payload: the key (1, 2) is not a string; use str(key)"),
    (b"x", "payload: bytes is not JSON (b'x'); send bytes through a channel, or as base64 text"),
    (
        {"a b": {"c": [bytearray(b"x")]}},
        (
            "payload['a b'].c[0]: bytearray is not JSON (bytearray(b'x')); "
            "send bytes through a channel, or as base64 text"
        ),
    ),
    ({1}, "payload: set is not JSON ({1}); use sorted(...) or list(...)"),
    (
        [frozenset({1})],
        "payload[0]: frozenset is not JSON (frozenset({1})); use sorted(...) or list(...)",
    ),
    (1j, f"payload: complex is not JSON (1j); {_JSON_CURE}"),
    ({"r": range(3)}, f"payload.r: range is not JSON (range(0, 3)); {_JSON_CURE}"),
    (decimal.Decimal(1), f"payload: decimal.Decimal is not JSON (Decimal('1')); {_JSON_CURE}"),
    (
        {"schlüssel": datetime.date(2024, 1, 2)},
        "payload.schlüssel: datetime.date is not JSON (datetime.date(2024, 1, 2)); use its isoformat()",
    ),
    ([..., 1], f"payload[0]: ellipsis is not JSON (Ellipsis); {_JSON_CURE}"),
    ({"k": int}, f"payload.k: type is not JSON (<class 'int'>); {_JSON_CURE}"),
    ([Foreign()], f"payload[0]: {__name__}.Foreign is not JSON (Foreign(None)); {_JSON_CURE}"),
    (Unshowable(), f"payload: {__name__}.Unshowable is not JSON (whose repr() fails); {_JSON_CURE}"),
]


@pytest.mark.parametrize(("value", "expected"), REFUSED, ids=[text[:60] for _, text in REFUSED])
def test_refused_values(value: Any, expected: str) -> None:
    """What cannot travel is refused with its place and the cure."""
    with pytest.raises(InvalidPayloadError) as caught:
        check(value, "payload")
    assert str(caught.value) == expected
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidPayloadError) as caught:
        check({"deep": [1, (0, value)]}, "result")
    assert str(caught.value) == expected.replace("payload", "result.deep[1][1]", 1)


def test_integers_beyond_64_bits_of_an_enumeration() -> None:
    """An enumeration is no way around the range."""
    with pytest.raises(InvalidPayloadError, match=r"payload\[0\]: .* is beyond 64 bits"):
        check([Number.HUGE], "payload")


def test_long_values_are_shortened() -> None:
    """An error does not carry a megabyte of its value."""
    for value in (b"x" * 1_000_000, Foreign("y" * 1000), {"k": set(range(1000))}):
        with pytest.raises(InvalidPayloadError) as caught:
            check(value, "payload")
        assert "..." in str(caught.value)
        assert len(str(caught.value)) < 250


def test_the_path_is_right_after_good_neighbours() -> None:
    """Values that were walked before leave nothing in the path."""
    value = {"good": [[1], {"a": ["ü"]}, (2, 3)], "also": {"x": {"y": 1}}, "bad": [[0], {"z": math.nan}]}
    with pytest.raises(InvalidPayloadError, match=r"^payload\.bad\[1\]\.z: nan"):
        check(value, "payload")


# --- convert --------------------------------------------------------------------------------------------


def unwrap(value: Any) -> Any:
    """A ``convert`` that knows Foreign."""
    return {"foreign": value.value} if isinstance(value, Foreign) else NotImplemented


def test_convert_at_any_depth() -> None:
    """Foreign values are replaced where they stand; only what contains them is copied."""
    untouched = [1, {"a": 2}]
    inner = {"x": Foreign(1), "same": untouched}
    value = {"first": untouched, "list": [0, inner, (Foreign(2),)], "deep": nested(100)}
    checked = check(value, "payload", unwrap)
    assert checked == {
        "first": untouched,
        "list": [0, {"x": {"foreign": 1}, "same": untouched}, [{"foreign": 2}]],
        "deep": nested(100),
    }
    assert checked["first"] is untouched
    assert checked["list"][1]["same"] is untouched
    assert checked["deep"] is value["deep"]
    assert list(checked) == list(value)
    # What was given is as it was.
    assert isinstance(inner["x"], Foreign)
    assert value["list"][1] is inner
    assert check(Foreign(3), "payload", unwrap) == {"foreign": 3}


def test_convert_keeps_the_order_of_an_ordered_dict() -> None:
    """The copy of an object has its keys in the same order."""
    value = OrderedDict([("z", Foreign(1)), ("a", 2), ("m", Foreign(3))])
    checked = check(value, "payload", unwrap)
    assert list(checked) == ["z", "a", "m"]
    assert isinstance(value["z"], Foreign)


def test_convert_is_asked_for_foreign_values_only() -> None:
    """Plain values never reach ``convert``; what it does not know is refused; its errors pass."""
    asked: list[Any] = []

    def nothing(value: Any) -> Any:
        asked.append(value)
        return NotImplemented

    check({"a": [1, "x", None, 2.5, True, (), {}]}, "payload", nothing)
    assert asked == []
    with pytest.raises(InvalidPayloadError, match=r"payload\.a\[1\]: .*Foreign"):
        check({"a": [1, Foreign(7)]}, "payload", nothing)
    assert len(asked) == 1

    def broken(value: Any) -> Any:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        check([Foreign()], "payload", broken)


def test_convert_may_give_none() -> None:
    """``None`` is a value like any other."""
    assert check([Foreign()], "payload", lambda value: None) == [None]


# --- any value ------------------------------------------------------------------------------------------

_texts = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\ud800\udbff\udfff")), max_size=8)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**64, 2**64 - 1, -(2**63), -(2**63) - 1, 10**30]),
    st.floats(),
    _texts,
)
_sound_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)


def _values(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(keys, inner, max_size=4),
        ),
        max_leaves=25,
    )


def travels(value: Any) -> bool:
    """The model: whether a value can be sent as it is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and travels(key) and travels(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(travels, value))
    if isinstance(value, str):
        return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in value)
    if isinstance(value, float):
        return not (math.isnan(value) or math.isinf(value))
    return value is None or -(2**63) <= value < 2**64


def arrays(value: Any) -> Any:
    """The value with lists in place of tuples."""
    if isinstance(value, dict):
        return {key: arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [arrays(item) for item in value]
    return value


def _refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} on the wire")


@settings(deadline=None, max_examples=400)
@given(_values(_leaves, st.one_of(_texts, st.integers())))
def test_check_accepts_exactly_what_travels(value: Any) -> None:
    """What ``check`` accepts, ``encode`` encodes and JSON gives back; the rest is refused by ``check``."""
    if not travels(value):
        with pytest.raises(InvalidPayloadError, match="^payload"):
            check(value, "payload")
        return
    wire = encode({"data": check(value, "payload")})
    assert json.loads(wire.decode("utf-8"), parse_constant=_refuse_constant) == {"data": arrays(value)}


@settings(deadline=None, max_examples=200)
@given(_values(_sound_leaves, st.text(max_size=6)))
def test_sound_values_travel_unchanged(value: Any) -> None:
    """Every sound value arrives as an equal one, in one line without blanks between its parts."""
    message = messages.invoke_function("f", check(value, "payload"), invocation_id=None)
    wire = encode(message)
    assert b"\n" not in wire
    assert decode(wire.decode("utf-8")) == arrays(message)
    assert wire == json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def test_encode_never_writes_nan() -> None:
    """Even a value that no one checked cannot put NaN or an infinity on the wire."""
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="not JSON compliant|Out of range"):
            encode({"data": [bad]})


# --- decode ---------------------------------------------------------------------------------------------

JUNK = [
    "",
    " ",
    "\n\t",
    "{",
    "}",
    "[",
    "nul",
    "null",
    "true",
    "1",
    '"text"',
    "[]",
    '["type"]',
    '[{"type":"pong"}]',
    "{}",
    '{"typ":"pong"}',
    '{"type":null}',
    '{"type":1}',
    '{"type":["pong"]}',
    '{"type":{"type":"pong"}}',
    '{"Type":"pong"}',
    '{"type":"pong"',
    '{"type":"pong"}}',
    '{"type":"pong"} x',
    '{"type":"pong"}{"type":"pong"}',
    "{'type':'pong'}",
    '{"type":"pong",}',
    '{type:"pong"}',
    '{"type":"po\nng"}',
    '{"type":"\\x"}',
    '{"type":"\\u12"}',
    '\ufeff{"type":"pong"}',
    "\x00",
    "\ud800",
    "OTLP{}",
    '{"type":"pong","n":01}',
    '{"type":"pong","n":1e}',
    '{"type":"pong","n":--1}',
]


@pytest.mark.parametrize("text", JUNK)
def test_junk_is_ignored(text: str) -> None:
    """What is no message is ``None``, never an exception."""
    assert decode(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"pong"}', {"type": "pong"}),
        (' \r\n{ "type" : "pong" }\t', {"type": "pong"}),
        ('{"type":""}', {"type": ""}),
        ('{"type":"unheard of","x":[]}', {"type": "unheard of", "x": []}),
        ('{"a":1,"type":"x","a":2}', {"type": "x", "a": 2}),
        ('{"type":1,"type":"x"}', {"type": "x"}),
        ('{"\\u0074ype":"\\u00e4\\ud83d\\ude00"}', {"type": "ä😀"}),
        ('{"type":"x","n":18446744073709551615}', {"type": "x", "n": 2**64 - 1}),
        ('{"type":"x","n":1e400}', {"type": "x", "n": math.inf}),
    ],
)
def test_messages_are_decoded(text: str, expected: Any) -> None:
    """An object with a ``type`` is a message, known or not; the last of two equal keys counts."""
    assert decode(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"type":"x","d":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"type":"x","d":' + '{"d":' * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=["open arrays", "arrays", "open objects", "objects"],
)
def test_deep_nesting_is_ignored(text: str) -> None:
    """Nesting beyond what the interpreter can follow is ignored, not a crash."""
    decoded = decode(text)
    assert decoded is None or decoded["type"] == "x"


def test_120_levels_are_decoded() -> None:
    """What may be sent can be received."""
    assert decode(encode({"type": "x", "data": nested(120)}).decode()) == {"type": "x", "data": nested(120)}


@pytest.mark.parametrize("number", ["9" * 100_000, "-" + "9" * 100_000, "0." + "9" * 100_000, "9" * 100_000 + "e5"])
def test_huge_numbers_are_quick(number: str) -> None:
    """A number of 100,000 digits neither raises nor takes long."""
    start = time.perf_counter()
    decoded = decode('{"type":"x","n":' + number + "}")
    assert time.perf_counter() - start < 2
    assert decoded is None or decoded["type"] == "x"


@settings(deadline=None)
@given(st.one_of(st.text(max_size=50), st.text(alphabet='{}[]",:\\type0123.eE-+nulf ', max_size=50)))
def test_any_text_can_be_decoded(text: str) -> None:
    """No text raises; a result is always an object with a ``type``."""
    decoded = decode(text)
    assert decoded is None or isinstance(decoded["type"], str)


@settings(deadline=None)
@given(_values(_sound_leaves, st.text(max_size=4)))
def test_any_json_can_be_decoded(value: Any) -> None:
    """Any JSON is a message exactly when it is an object with a text as its ``type``."""
    decoded = decode(json.dumps(value))
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        assert decoded == arrays(value)
    else:
        assert decoded is None


# --- messages too large to keep -------------------------------------------------------------------------

ID = "9d4b1e52-92c1-4c2c-8f7d-6f3f9a7d2b10"


def test_the_ids_of_a_recorded_large_message() -> None:
    """The beginning of a large recorded call and of a result name what they are about."""
    start = recorded.INVOCATION_BIG[10:4106].decode()
    assert mentioned_invocation(start) == (
        "invokefunction",
        "00000000-0000-4000-8000-000000000010",
        "rec::echo",
    )
    start = recorded.RESULT_LONG[4:200].decode()
    assert mentioned_invocation(start) == (
        "invocationresult",
        "00000000-0000-4000-8000-000000000010",
        "rec::echo",
    )


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (f'{{"type":"invokefunction","invocation_id":"{ID}","function_id":"a::b","data":"xx', ("a::b",)),
        (f'{{ "type" : "invokefunction" ,\n"invocation_id" : "{ID}", "data": "xx', ("",)),
        (f'{{"function_id":"f","invocation_id":"{ID}","type":"invokefunction","data":["', ("f",)),
        # The first of several counts: those of the message stand before those in its data.
        (
            (
                f'{{"type":"invokefunction","invocation_id":"{ID}","function_id":"f","data":'
                f'{{"function_id":"g","invocation_id":"{uuid.UUID(int=0)}","type":"invocationresult"'
            ),
            ("f",),
        ),
        (f'{{"type":"invokefunction","invocation_id":"{ID}","function_id":"ä::ü","data":"', ("ä::ü",)),
        # A name cut by the end of what was kept is no name.
        (f'{{"type":"invokefunction","invocation_id":"{ID}","function_id":"half', ("",)),
    ],
)
def test_mentioned_invocation(start: str, expected: tuple[str]) -> None:
    """Type, invocation and function are found wherever they stand in the beginning."""
    assert mentioned_invocation(start) == ("invokefunction", ID, *expected)


@pytest.mark.parametrize(
    "start",
    [
        "",
        "{",
        f'{{"invocation_id":"{ID}"',
        '{"type":"invokefunction","function_id":"f","data":"x',
        f'{{"type":"registrationrejected","invocation_id":"{ID}"',
        '{"type":"invokefunction","invocation_id":"not-a-uuid"',
        f'{{"type":"invokefunction","invocation_id":"{ID[:-1]}',
        # Inside a text every quote is escaped.
        f'{{"data":"{{\\"type\\":\\"invokefunction\\",\\"invocation_id\\":\\"{ID}\\"}}',
        '"type"' * 600,
        '"invocation_id":"' * 250,
        '"function_id":"' + "x" * 4000,
    ],
)
def test_nothing_mentioned(start: str) -> None:
    """Without both a type and an id of a call there is nothing to answer."""
    assert mentioned_invocation(start) is None


# --- builders -------------------------------------------------------------------------------------------


def test_a_call_always_has_data() -> None:
    """``data`` is there even when it is ``None``; keys that were not given are left out."""
    assert messages.invoke_function("f", None, invocation_id=None) == {
        "type": "invokefunction",
        "function_id": "f",
        "data": None,
    }
    assert messages.invoke_function(
        "f", [1], invocation_id=ID, namespace="n", action={"type": "void"}, metadata={"m": 1}
    ) == {
        "type": "invokefunction",
        "function_id": "f",
        "data": [1],
        "invocation_id": ID,
        "namespace": "n",
        "action": {"type": "void"},
        "metadata": {"m": 1},
    }


@pytest.mark.parametrize("metadata", [0, False, "", [], {}])
def test_empty_metadata_is_metadata(metadata: Any) -> None:
    """Only ``None`` means that there is none."""
    call = messages.invoke_function("f", 0, invocation_id=ID, metadata=metadata)
    assert call["metadata"] == metadata
    assert call["data"] == 0
    assert messages.register_function("f", metadata=metadata)["metadata"] == metadata


def test_results() -> None:
    """A result has ``result``, even ``None``, or ``error``, which wins."""
    base = {"type": "invocationresult", "invocation_id": ID, "function_id": "f"}
    assert messages.invocation_result(ID, "f") == {**base, "result": None}
    assert messages.invocation_result(ID, "f", result=[1]) == {**base, "result": [1]}
    error = {"code": "c", "message": "m"}
    assert messages.invocation_result(ID, "f", error=error) == {**base, "error": error}
    assert messages.invocation_result(ID, "f", result=1, error=error) == {**base, "error": error}


def test_registrations() -> None:
    """Optional keys are left out when they were not given."""
    assert messages.register_function("f") == {"type": "registerfunction", "id": "f"}
    assert messages.register_function(
        "f", description="", metadata={"a": 1}, request_format={}, response_format={"type": "object"}
    ) == {
        "type": "registerfunction",
        "id": "f",
        "description": "",
        "metadata": {"a": 1},
        "request_format": {},
        "response_format": {"type": "object"},
    }
    assert messages.unregister_function("f") == {"type": "unregisterfunction", "id": "f"}
    assert messages.reattach(ID, None) == {"type": "reattach", "previous_worker_id": ID}
    assert messages.reattach(ID, "t") == {
        "type": "reattach",
        "previous_worker_id": ID,
        "reattach_token": "t",
    }


def test_public_names_exist() -> None:
    """Every name that the module offers is there."""
    assert all(hasattr(messages, name) for name in messages.__all__)


def test_new_ids() -> None:
    """They are random UUIDs, written as the engine writes them, and all different."""
    found = {messages.new_id() for _ in range(1000)}
    assert len(found) == 1000
    for text in found:
        assert str(uuid.UUID(text)) == text
        assert uuid.UUID(text).version == 4
        assert uuid.UUID(text).variant == uuid.RFC_4122


class Direction(enum.Enum):
    UP = "up"


@dataclasses.dataclass
class Leaf:
    direction: Direction
    weight: float = 1.5


@dataclasses.dataclass
class Branch:
    leaves: list[Leaf]
    parent: Any = None


def test_dataclasses_and_enumerations_become_what_they_are_in_json() -> None:
    """At any depth, and the places in errors go through them."""
    leaf = {"direction": "up", "weight": 1.5}
    assert messages.check({"a": Branch([Leaf(Direction.UP)])}, "payload") == {"a": {"leaves": [leaf], "parent": None}}
    with pytest.raises(InvalidPayloadError, match=r"payload\.leaves\[0\]\.weight: nan"):
        messages.check(Branch([Leaf(Direction.UP, float("nan"))]), "payload")
    with pytest.raises(InvalidPayloadError, match="type is not JSON"):
        messages.check([Branch], "payload")
    endless = Branch([])
    endless.parent = endless
    with pytest.raises(InvalidPayloadError, match="contains itself"):
        messages.check(endless, "payload")


class Unwilling:
    @classmethod
    def model_validate(cls, value: Any) -> Unwilling:
        return cls()

    def model_dump(self, **_: Any) -> Any:
        raise ValueError("not today")


def test_a_model_that_cannot_be_dumped_says_why() -> None:
    """With its place."""
    with pytest.raises(InvalidPayloadError, match=r"payload\[0\]: .*Unwilling.*not today"):
        messages.check([Unwilling()], "payload")
