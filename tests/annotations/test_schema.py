"""Schemas from type hints, and payloads converted to what the hints say."""

from __future__ import annotations

import dataclasses
import enum
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NewType, Optional, TypeVar, Union

import pytest
from typing_extensions import NotRequired, TypeAliasType, TypedDict

from iii_sync import ChannelReader, ChannelWriter, InvocationError
from iii_sync.annotations.schema import Shape, shape


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Bound(enum.Enum):
    NONE = 0
    ALL = math.inf


class Ratio(enum.Enum):
    HALF = 0.5
    FULL = 1.0


@dataclasses.dataclass
class Item:
    name: str
    price: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Order:
    id: int
    items: list[Item]
    colour: Optional[Colour] = None
    note: Optional[str] = None
    total: float = dataclasses.field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if self.id < 0:
            raise ValueError("the id is below 0")
        self.total = sum(item.price for item in self.items)


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Größe:
    größer: Optional[Größe] = None


@dataclasses.dataclass
class Priced:
    amount: int
    price: dataclasses.InitVar[float | None]
    kind: ClassVar[str] = "priced"
    total: float = dataclasses.field(init=False)

    def __post_init__(self, price: Optional[float]) -> None:
        self.total = self.amount * (price or 0.0)


@dataclasses.dataclass
class Limits:
    speed: float = math.inf
    size: int = 2**70
    text: str = "\ud800"
    count: int = 5


@dataclasses.dataclass
class Failing:
    code: str

    def __post_init__(self) -> None:
        if self.code == "own":
            raise InvocationError("own", "its own code")
        raise KeyError(self.code)


class Point(TypedDict):
    x: float
    y: float
    label: NotRequired[str]


UserId = NewType("UserId", int)
T = TypeVar("T")
Items = TypeAliasType("Items", "list[Item]")
Some = TypeAliasType("Some", list[T], type_params=(T,))
Endless = TypeAliasType("Endless", "list[Endless] | None")


def shaped(annotation: Any) -> Shape:
    found = shape(annotation, names=globals())
    assert found is not None
    return found


def convert(annotation: Any, value: Any) -> Any:
    found = shaped(annotation)
    assert found.convert is not None
    return found.convert(value)


@pytest.mark.parametrize(
    ("annotation", "value", "converted"),
    [
        (int, 3, 3),
        (int, 3.0, 3),
        (float, 3, 3.0),
        (bool, True, True),
        (str, "", ""),
        (None, None, None),
        (Optional[int], None, None),
        (Optional[int], 4, 4),
        (Union[int, str], "4", "4"),
        (Union[float, int], 4, 4),
        (Literal["a", 1], 1, 1),
        (Literal["a", 1], 1.0, 1),
        (Level, 2.0, Level.HIGH),
        (Ratio, 1, Ratio.FULL),
        (Union[float, Level], 1.0, 1.0),
        (Colour, "red", Colour.RED),
        (Literal[Colour.RED], "red", Colour.RED),
        (list, [1, "a"], [1, "a"]),
        (list[Colour], ["red"], [Colour.RED]),
        (Sequence[int], [1, 2.0], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (dict[str, Colour], {"a": "blue"}, {"a": Colour.BLUE}),
        (Mapping[str, list[int]], {"a": [1]}, {"a": [1]}),
        (UserId, 7, 7),
        (Annotated[int, "the number"], 7, 7),
        ("Item | None", {"name": "a"}, Item("a")),
        ("list['Item']", [{"name": "a"}], [Item("a")]),
        (list["Item"], [{"name": "a"}], [Item("a")]),
        (Optional["Item"], {"name": "a"}, Item("a")),
        (Items, [{"name": "a"}], [Item("a")]),
        (dict[str, Items], {"a": [{"name": "a"}]}, {"a": [Item("a")]}),
        (Some[int], ["a"], ["a"]),
        (Priced, {"amount": 2, "price": 3}, Priced(2, 3.0)),
        (Item, {"name": "a"}, Item("a")),
        (Item, {"name": "a", "unknown": 1, "price": 2}, Item("a", 2.0)),
        (Optional[Item], {"name": "a"}, Item("a")),
        (Union[Item, Point], {"x": 1, "y": 2}, {"x": 1.0, "y": 2.0}),
        (Point, {"x": 1, "y": 2.5, "more": None}, {"x": 1.0, "y": 2.5, "more": None}),
        (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)])),
        (
            Order,
            {"id": 1, "items": [{"name": "a", "price": 2}], "colour": "red"},
            Order(1, [Item("a", 2.0)], Colour.RED),
        ),
    ],
)
def test_values_become_what_the_annotation_says(annotation: Any, value: Any, converted: Any) -> None:
    """Of the very types, nested ones too."""
    found = convert(annotation, value)
    assert found == converted and type(found) is type(converted)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, "3", "payload: expected a whole number, got text '3'"),
        (int, 3.5, "payload: expected a whole number, got 3.5"),
        (int, True, "payload: expected a whole number, got true"),
        (float, False, "payload: expected a number, got false"),
        (bool, 1, "payload: expected true or false, got 1"),
        (str, None, "payload: expected text, got null"),
        (Optional[int], "x", "payload: expected a whole number or null, got text 'x'"),
        (Priced, {"amount": 2}, "payload.price: missing, expected a number or null"),
        (Failing, {"code": "x"}, "payload: no Failing: KeyError: 'x'"),
        (Literal["a", 1], True, 'payload: expected one of "a", 1, got true'),
        (Colour, "green", 'payload: expected one of "red", "blue", got text \'green\''),
        (list[int], {"a": 1}, "payload: expected a list, got an object"),
        (list[int], [1, 2, "c"], "payload[2]: expected a whole number, got text 'c'"),
        (tuple[int, str], [1], "payload: expected a list of 2, got a list of 1"),
        (tuple[int, str], [1, 2], "payload[1]: expected text, got 2"),
        (dict[str, int], {"a b": None}, "payload['a b']: expected a whole number, got null"),
        (Item, [], "payload: expected an object (Item), got a list"),
        (Item, {}, "payload.name: missing, expected text"),
        (Optional[Item], {"name": 1}, "payload.name: expected text, got 1"),
        (Point, {"x": 1}, "payload.y: missing, expected a number"),
        (Order, {"id": -1, "items": []}, "payload: no Order: the id is below 0"),
        (
            Order,
            {"id": 1, "items": [{"name": "a"}, {"name": "b", "tags": [None]}]},
            "payload.items[1].tags[0]: expected text, got null",
        ),
        (ChannelReader, {}, "payload: expected a reference to the read end of a channel, got an object"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(annotation: Any, value: Any, said: str) -> None:
    """The place, what was expected, what came; of objects and lists nothing that is in them."""
    with pytest.raises(InvocationError) as caught:
        convert(annotation, value)
    assert caught.value.code == "invalid_payload" and caught.value.message == said


def test_a_class_may_choose_the_code() -> None:
    """As a handler may, by raising an InvocationError when it is made."""
    with pytest.raises(InvocationError) as caught:
        convert(Failing, {"code": "own"})
    assert caught.value.code == "own"


def test_a_long_value_is_not_quoted_whole() -> None:
    """An error is not the place to return a payload."""
    with pytest.raises(InvocationError) as caught:
        convert(int, "x" * 10_000)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (int, {"type": "integer"}),
        (None, {"type": "null"}),
        (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Level, {"enum": [1, 2]}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (
            Point,
            {
                "type": "object",
                "title": "Point",
                "properties": {"x": {"type": "number"}, "y": {"type": "number"}, "label": {"type": "string"}},
                "required": ["x", "y"],
            },
        ),
        (
            Tree,
            {
                "type": "object",
                "title": "Tree",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
                },
                "required": ["value"],
                "$defs": {
                    "Tree": {
                        "type": "object",
                        "title": "Tree",
                        "properties": {
                            "value": {"type": "integer"},
                            "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
                        },
                        "required": ["value"],
                    }
                },
            },
        ),
    ],
)
def test_schemas(annotation: Any, schema: Any) -> None:
    """JSON Schema 2020-12; the root is inline."""
    assert shaped(annotation).schema == schema


def test_the_schema_of_a_dataclass_tells_defaults_and_what_it_holds() -> None:
    """Fields that are not given to it are not in it."""
    schema = shaped(Order).schema
    assert list(schema["properties"]) == ["id", "items", "colour", "note"]
    assert schema["required"] == ["id", "items"]
    assert schema["properties"]["note"]["default"] is None
    assert schema["properties"]["items"] == {"type": "array", "items": {"$ref": "#/$defs/Item"}}
    assert schema["$defs"]["Item"]["properties"]["price"] == {"type": "number", "default": 0.0}
    assert list(schema["$defs"]) == ["Item"]


def test_a_default_that_json_does_not_have_is_not_told() -> None:
    """The engine would drop the registration for it."""
    schema = shaped(Limits).schema
    assert schema["properties"] == {
        "speed": {"type": "number"},
        "size": {"type": "integer"},
        "text": {"type": "string"},
        "count": {"type": "integer", "default": 5},
    }
    assert "required" not in schema


def test_a_choice_that_json_does_not_have_takes_the_schema_away() -> None:
    """For the same reason; the others are chosen all the same."""
    found = shaped(Bound)
    assert found.schema == {} and found.convert is not None
    assert found.convert(0) is Bound.NONE


def test_a_definition_that_holds_itself_is_there_whatever_its_name() -> None:
    """Not in ASCII, for instance."""
    assert list(shaped(Größe).schema["$defs"]) == ["Größe"]


def test_two_types_of_one_name_are_two_definitions() -> None:
    """Neither hides the other."""

    def other() -> Any:
        @dataclasses.dataclass
        class Item:
            weight: int

        return Item

    schema = shaped(tuple.__class_getitem__((Item, other()))).schema
    first, second = (schema["$defs"][item["$ref"].rpartition("/")[2]] for item in schema["prefixItems"])
    assert "name" in first["properties"] and "weight" in second["properties"]


@pytest.mark.parametrize("annotation", [Any, object, T, dataclasses.Field, "object", "dataclasses.Field"])
def test_what_says_nothing_about_json_is_left_alone(annotation: Any) -> None:
    """Neither schema nor conversion."""
    assert shape(annotation, names=globals()) is None


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ("NotThere", "NotThere: NameError"),
        (list.__class_getitem__("NotThere"), "NotThere: NameError"),
        (Endless, "Endless holds itself"),
    ],
)
def test_what_cannot_be_resolved_is_said(annotation: Any, said: str) -> None:
    """Whoever asks decides what becomes of it."""
    with pytest.raises(NameError, match=said):
        shape(annotation, names=globals())


@pytest.mark.parametrize("annotation", [dict, dict[str, Any], Mapping[str, Any]])
def test_plain_dictionaries_have_a_schema_and_cost_nothing(annotation: Any) -> None:
    """What a handler without annotations gets is what these get."""
    assert shape(annotation) == Shape({"type": "object"}, None)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (list[bytes], "bytes"),
        (dict[int, str], r"text in JSON: use dict\[str"),
        (Optional[set], "set"),
        (dict[str, complex], "complex"),
    ],
)
def test_what_no_json_value_can_become_is_an_error(annotation: Any, said: str) -> None:
    """It names the part and the cure."""
    with pytest.raises(TypeError, match=said):
        shape(annotation)


def test_ends_have_the_schema_of_their_reference() -> None:
    """So that whoever lists functions sees where a reference goes."""
    for kind, direction in ((ChannelReader, "read"), (ChannelWriter, "write")):
        schema = shaped(kind).schema
        assert schema["properties"]["direction"] == {"const": direction}
        assert schema["required"] == ["channel_id", "access_key", "direction"]


def test_neither_this_nor_pydantic_is_imported_before_it_is_needed() -> None:
    """A process whose handlers have no annotations never loads it."""
    code = (
        "import sys, iii_sync; from iii_sync.handlers import Handler;"
        "Handler('f', lambda data: data); h = Handler('g', print);"
        "assert 'iii_sync.annotations.schema' not in sys.modules and 'pydantic' not in sys.modules;"
        "exec('def f(data: int): return data'); h = Handler('h', f);"
        "assert 'iii_sync.annotations.schema' in sys.modules and 'pydantic' not in sys.modules;"
        "assert h.run(3.0, None) == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
