"""Handlers: which are refused, what annotated ones are called with, and what their callers hear."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
from typing import Any, Callable, Optional

import pytest
from typing_extensions import TypedDict

from iii_sync import ChannelReader, ChannelWriter, Worker, errors
from iii_sync.handlers import Handler

WAIT = 20.0

Unique = Callable[[str], str]


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclasses.dataclass
class Item:
    name: str
    size: Size = Size.SMALL


@dataclasses.dataclass
class Basket:
    items: list[Item]
    owner: Optional[str] = None


@dataclasses.dataclass
class Limits:
    speed: float = math.inf
    count: int = 5


class Range(TypedDict):
    first: int
    last: int


@dataclasses.dataclass
class Copy:
    source: ChannelReader
    targets: list[ChannelWriter]


def no_parameter() -> None: ...


def two_parameters(data: Any, more: Any) -> None: ...


def required_keyword(data: Any, *, more: Any) -> None: ...


def only_keywords(*, metadata: Any) -> None: ...


def generator(data: Any) -> Any:
    yield data


class Generating:
    def __call__(self, data: Any) -> Any:
        yield data


def of_bytes(data: list[bytes]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (no_parameter, "takes no argument.*data"),
        (only_keywords, "takes no argument.*data"),
        (two_parameters, "requires 'more'.*default"),
        (required_keyword, "requires 'more'.*default"),
        (generator, "generator.*list.*channel"),
        (Generating(), "generator"),
        (functools.partial(generator), "generator"),
        (of_bytes, "annotation of 'data': bytes.*dataclasses"),
        (Basket.__init__, "requires"),
    ],
)
def test_handlers_that_could_not_be_called_are_refused(worker: Worker, unique: Unique, handler: Any, said: str) -> None:
    """At the registration, naming the cure; the id stays free."""
    name = unique("bad")
    with pytest.raises(errors.ConfigurationError, match=said):
        worker.register_function(name, handler)
    with pytest.raises(errors.FunctionNotFoundError):
        worker.trigger(name)
    worker.register_function(name, lambda data: 1).unregister()


def handed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(data: Any) -> Any:
        return function("bound", data)

    return wrapper


class Methods:
    def method(self, data: Item, metadata: Any = None) -> Any:
        return [data.name, metadata]

    def __call__(self, data: Item) -> str:
        return data.name


def with_database(database: str, item: Item) -> list[str]:
    return [database, item if isinstance(item, str) else "converted"]


@pytest.mark.parametrize(
    ("target", "payload", "result"),
    [
        (Methods().method, {"name": "a"}, ["a", "m"]),
        (Methods(), {"name": "a"}, "a"),
        (handed_on(Methods().method), {"name": "a"}, ["a", "m"]),
        (bound(with_database), "x", ["bound", "x"]),
        (functools.partial(with_database, "db"), {"name": "a"}, ["db", "converted"]),
        (lambda data, metadata: [data, metadata], 1, [1, "m"]),
        (lambda *data, **more: [data, more], 1, [(1,), {}]),
        (lambda metadata: metadata, 1, 1),
        (lambda data, *, metadata: metadata, 1, "m"),
        (len, "abc", 3),
        (dict, [["a", 1]], {"a": 1}),
    ],
)
def test_whatever_can_be_called_with_the_payload_is_a_handler(target: Any, payload: Any, result: Any) -> None:
    """Methods, objects, partials, builtins, and decorated ones, as what their decorator makes of them."""
    assert Handler("f", target).run(payload, "m") == result


def test_annotations_that_mean_nothing_here_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A name for the type checker only checks nothing, which is said; and the other annotations still count."""

    def handler(data: NoSuchType) -> int:  # type: ignore[name-defined]  # noqa: F821
        return 1

    found = Handler("f", handler)
    assert found.request_format is None and found.response_format == {"type": "integer"}
    assert found.run({"anything": 1}, None) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "'f': its payload is not checked" in caplog.text
    assert "'data'" in caplog.text and "NoSuchType" in caplog.text


def test_names_within_an_annotation_count(caplog: pytest.LogCaptureFixture) -> None:
    """Those in quotes too, wherever they are in it."""

    def handler(data: Any) -> str:
        return type(data[0]).__name__

    handler.__annotations__["data"] = list["Item"]
    found = Handler("f", handler)
    assert found.run([{"name": "a"}], None) == "Item" and found.request_format is not None
    with pytest.raises(errors.InvocationError, match=r"payload\[0\].name: expected text"):
        found.run([{"name": 1}], None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("annotation", "default"),
    [(inspect.Parameter.empty, {"a": 1}), (Any, "x"), (dict, {"a": 1}), (dict[str, int], {"a": 1}), (Item, Item("a"))],
)
def test_a_call_without_a_payload_gets_the_default(annotation: Any, default: Any) -> None:
    """Where the parameter has one, whatever it is annotated with."""

    def handler(data=default):  # type: ignore[no-untyped-def]
        return data

    if annotation is not inspect.Parameter.empty:
        handler.__annotations__["data"] = annotation
    assert Handler("f", handler).run(None, None) is default


def test_dataclasses_come_and_go(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Nested, with enumerations, in the payload and in the result; listed with their schemas."""

    def second(data: Basket) -> Item:
        assert isinstance(data, Basket) and data.items[0].size is Size.LARGE and data.owner is None
        return data.items[1]

    function = peer.register_function(unique("second"), second)
    sent = {"items": [{"name": "a", "size": "l"}, {"name": "b"}]}
    assert worker.trigger(function.id, sent) == {"name": "b", "size": "s"}
    assert worker.trigger(function.id, Basket([Item("a", Size.LARGE), Item("c")])) == {"name": "c", "size": "s"}
    listed = worker.trigger("engine::functions::info", {"function_id": function.id})
    assert listed["request_schema"]["required"] == ["items"]
    assert listed["response_schema"]["properties"]["name"] == {"type": "string"}


def test_a_payload_that_does_not_fit_is_refused_before_the_handler(
    worker: Worker, peer: Worker, unique: Unique
) -> None:
    """The caller hears the code, the place, what was expected and what came."""
    ran: list[Any] = []

    def keep(data: Basket) -> None:
        ran.append(data)

    function = peer.register_function(unique("keep"), keep)
    with pytest.raises(errors.InvocationError) as caught:
        worker.trigger(function.id, {"items": [{"name": "a", "size": "x"}]}, timeout=WAIT)
    assert caught.value.code == "invalid_payload" and not ran
    assert caught.value.message == 'payload.items[0].size: expected one of "s", "l", got text \'x\''


def test_a_default_that_json_does_not_have_is_used_all_the_same(worker: Worker, peer: Worker, unique: Unique) -> None:
    """It is not listed: the engine would drop the registration."""

    def faster(data: Limits) -> bool:
        return data.speed > 1e300

    function = peer.register_function(unique("faster"), faster)
    assert worker.trigger(function.id, {}) is True
    listed = worker.trigger("engine::functions::info", {"function_id": function.id})
    assert listed["request_schema"]["properties"] == {
        "speed": {"type": "number"},
        "count": {"type": "integer", "default": 5},
    }


def test_typed_dictionaries_and_plain_types(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Whole numbers that came as 3.0 are whole; the engine's own key is in nobody's way."""

    def numbers(data: Range) -> list[int]:
        return list(range(data["first"], data["last"]))

    function = peer.register_function(unique("numbers"), numbers)
    assert worker.trigger(function.id, {"first": 1.0, "last": 3}) == [1, 2]
    with pytest.raises(errors.InvocationError, match=r"payload\.last: missing, expected a whole number"):
        worker.trigger(function.id, {"first": 1})


def test_ends_in_an_annotated_payload(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Live, like those of a handler without annotations; the wrong end is refused."""

    def copy(data: Copy) -> int:
        content = data.source.read()
        for target in data.targets:
            with target as f:
                f.write(content)
        return len(content)

    function = peer.register_function(unique("copy"), copy)
    source, targets = worker.create_channel(), [worker.create_channel() for _ in range(2)]
    payload = {"source": source.reader_ref, "targets": [target.writer_ref for target in targets]}
    call = worker.submit(function.id, payload)
    with source.writer as f:
        f.write(b"content")
    assert [target.reader.read() for target in targets] == [b"content"] * 2
    assert call.result(WAIT) == 7
    wrong = worker.create_channel()
    with pytest.raises(errors.InvocationError, match=r"payload\.source: expected a reference to the read end"):
        worker.trigger(function.id, {"source": wrong.writer_ref, "targets": []}, timeout=WAIT)


def test_explicit_schemas_win(worker: Worker, unique: Unique) -> None:
    """They are listed; the annotation still converts."""

    def double(data: int) -> int:
        return 2 * data

    function = worker.register_function(
        unique("double"), double, request_format={"title": "own"}, response_format={"title": "result"}
    )
    listed = worker.trigger("engine::functions::info", {"function_id": function.id})
    assert listed["request_schema"] == {"title": "own"} and listed["response_schema"] == {"title": "result"}
    assert worker.trigger(function.id, 2.0) == 4
