"""JSON Schema from type hints, and payloads converted to what the hints say.

Imported by the first handler whose payload or result is annotated. Plain types, ``Optional`` and ``Union``, lists,
tuples and dictionaries, ``Literal``, enumerations, dataclasses, typed dictionaries, channel ends, and whatever
validates itself as pydantic's models do, which are recognised by their methods.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import logging
import types
import typing
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional, Union

import typing_extensions

from ..channels import ChannelReader, ChannelWriter
from ..errors import InvalidPayloadError, InvocationError, described
from ..wire import messages
from .hints import module_names, of_class, resolved
from .kinds import (
    NO_DEFAULT,
    PLAIN,
    Anything,
    Choice,
    Dataclass,
    Definitions,
    EndOf,
    Field,
    Kind,
    ListOf,
    ManyOf,
    Mismatch,
    Model,
    ObjectOf,
    Record,
    Schema,
    TupleOf,
    TypedDictionary,
    UnionOf,
)

__all__ = ["Shape", "Unresolved", "shape"]

_log = logging.getLogger("iii_sync.worker")

_NO_NAMES: Mapping[str, Any] = types.MappingProxyType({})


class Unresolved(NameError):
    """A name in an annotation means nothing here, or an annotation holds itself."""


class Shape(NamedTuple):
    """What an annotation says about a JSON value.

    Attributes:
        schema: Its JSON Schema.
        convert: Makes of a payload what the annotation says, or raises ``InvocationError`` with the code
            ``invalid_payload``; ``None`` for a plain dictionary, which is not checked: its handler gets what one
            without annotations gets.
    """

    schema: Schema
    convert: Optional[Callable[[Any], Any]]


def shape(annotation: Any, *, names: Mapping[str, Any] = _NO_NAMES, returned: bool = False) -> Optional[Shape]:
    """Return what an annotation says; ``None`` when it is not about JSON at all.

    Args:
        annotation: A type, or one in quotes.
        names: What names in quotes mean where it stands.
        returned: Whether it is what a handler returns, for models whose schema differs then.

    Raises:
        Unresolved: A name in it means nothing, or it holds itself: nothing can be said or checked.
        TypeError: A part of it is something that no JSON value can become; the message says which, and the cure.
    """
    try:
        root = _Reading(names).kind(annotation)
    except _NotJson as exc:
        if exc.what is annotation:
            return None
        raise TypeError(
            f"{_name(exc.what)} is nothing that a JSON value can become; use plain types, dataclasses, typed "
            "dictionaries, pydantic models, or Any"
        ) from None
    if isinstance(root, Anything):
        return None
    definitions = Definitions(returned)
    try:
        schema = messages.check(definitions.document(root), "schema")
    except Exception as exc:
        # A model may hold what its own library has no schema for, an enumeration an infinity; they check all the same.
        _log.debug("no schema of %s: %s", annotation, exc)
        schema = {}
    if isinstance(root, ObjectOf) and isinstance(root.values, Anything):
        return Shape(schema, None)

    def convert(value: Any) -> Any:
        try:
            return root.convert(value)
        except Mismatch as exc:
            raise InvocationError("invalid_payload", f"payload{''.join(reversed(exc.path))}: {exc.text}") from None

    return Shape(schema, convert)


class _NotJson(Exception):
    """An annotation that is not about JSON."""

    def __init__(self, what: Any) -> None:
        super().__init__(what)
        self.what = what


_UNIONS = {Union, getattr(types, "UnionType", Union)}
_LISTS = {list, *(getattr(collections.abc, n) for n in ("Sequence", "MutableSequence", "Collection", "Iterable"))}
_OBJECTS = {dict, collections.abc.Mapping, collections.abc.MutableMapping}
_QUALIFIERS = (
    typing_extensions.Annotated,
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
)


class _Reading:
    """One annotation, read."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names  # what they mean where the annotation stands that is being read
        self._records: dict[type, Record] = {}  # by class, for those that hold themselves
        self._open: set[Any] = set()  # what texts and aliases are being read

    def kind(self, annotation: Any) -> Kind:
        """Return the kind that an annotation names."""
        text = getattr(annotation, "__forward_arg__", annotation)
        if isinstance(text, str):
            return self._meant(text, self._names, lambda: resolved(text, self._names))
        if annotation in (Any, object) or isinstance(annotation, typing.TypeVar):
            return Anything()
        if annotation is None:
            annotation = type(None)
        origin, arguments = typing_extensions.get_origin(annotation), typing_extensions.get_args(annotation)
        alias = next((one for one in (origin, annotation) if hasattr(one, "__value__")), None)
        if alias is not None:  # a TypeAliasType; where it has parameters, they may be anything
            return self._meant(alias, module_names(alias), lambda: alias.__value__)
        if origin in _QUALIFIERS:
            return self.kind(arguments[0])
        if hasattr(annotation, "__supertype__"):  # NewType
            return self.kind(annotation.__supertype__)
        if origin in _UNIONS:
            return UnionOf([self.kind(option) for option in arguments])
        if origin in (typing.Literal, typing_extensions.Literal):
            return _choice(annotation, [(getattr(value, "value", value), value) for value in arguments])
        return self._class(annotation, origin or annotation, arguments)

    def _meant(self, what: Any, names: Mapping[str, Any], look_up: Callable[[], Any]) -> Kind:
        """Return the kind of what a text or an alias stands for, itself to be read with the names of its place."""
        try:
            found = look_up()
        except Exception as exc:
            raise Unresolved(f"{what}: {described(exc)}") from None
        if isinstance(found, type) and found in self._records:
            return self._records[found]
        step = (what, id(names))
        if step in self._open:
            raise Unresolved(f"{what} holds itself, which only a dataclass or a typed dictionary can")
        outer, self._names = self._names, names
        self._open.add(step)
        try:
            return self.kind(found)
        except _NotJson as exc:
            if exc.what is found:
                exc.what = what
            raise
        finally:
            self._names = outer
            self._open.remove(step)

    def _class(self, annotation: Any, kind: Any, arguments: tuple[Any, ...]) -> Kind:
        if not isinstance(kind, type):
            raise _NotJson(annotation)
        if kind in PLAIN:
            return PLAIN[kind]
        if kind in _LISTS:
            return ListOf(self.kind(arguments[0]) if arguments else Anything())
        if kind in _OBJECTS:
            if arguments and arguments[0] not in (str, Any) and not isinstance(arguments[0], typing.TypeVar):
                raise TypeError(f"the keys of {annotation} are text in JSON: use dict[str, …]")
            return ObjectOf(self.kind(arguments[1]) if arguments else Anything())
        if kind is tuple:
            return self._tuple(arguments)
        if issubclass(kind, enum.Enum):
            return _choice(annotation, [(member.value, member) for member in kind])
        if issubclass(kind, (ChannelReader, ChannelWriter)):
            return EndOf(kind)
        if hasattr(kind, "model_validate") and hasattr(kind, "model_json_schema"):
            return Model(annotation if isinstance(annotation, type) else kind)
        if typing_extensions.is_typeddict(kind) or dataclasses.is_dataclass(kind):
            return self._record(kind)
        raise _NotJson(annotation)

    def _tuple(self, arguments: tuple[Any, ...]) -> Kind:
        if not arguments:
            return ManyOf(Anything())
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return ManyOf(self.kind(arguments[0]))
        return TupleOf([self.kind(item) for item in arguments if item != ()])

    def _record(self, kind: type) -> Record:
        if kind in self._records:
            return self._records[kind]
        outer, self._names = self._names, module_names(kind)
        try:
            return self._read(kind)
        finally:
            self._names = outer

    def _read(self, kind: type) -> Record:
        try:
            hints = of_class(kind)
        except Exception as exc:
            raise Unresolved(f"{_name(kind)}: {described(exc)}") from None
        record: Record
        if dataclasses.is_dataclass(kind):
            record = self._records[kind] = Dataclass(kind)
            for name, field in kind.__dataclass_fields__.items():  # with the InitVars, which fields() leaves out
                hint = hints[name]
                if field.init and typing.ClassVar not in (hint, typing_extensions.get_origin(hint)):
                    hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
                    required = field.default is field.default_factory is dataclasses.MISSING
                    record.fields.append(Field(name, self.kind(hint), required, _tellable(field.default)))
        else:
            record = self._records[kind] = TypedDictionary(kind)
            for name, hint in hints.items():
                required = name in kind.__required_keys__  # type: ignore[attr-defined]
                # Where annotations are text the class has not seen these two.
                origin: Any = typing_extensions.get_origin(hint)
                if origin in (typing_extensions.Required, typing_extensions.NotRequired):
                    required = origin is typing_extensions.Required
                record.fields.append(Field(name, self.kind(hint), required, NO_DEFAULT))
        return record


def _choice(annotation: Any, values: list[tuple[Any, Any]]) -> Choice:
    if not values or any(type(value) not in PLAIN for value, _ in values):
        raise _NotJson(annotation)
    return Choice(values)


def _tellable(default: Any) -> Any:
    if isinstance(default, enum.Enum):
        default = default.value
    try:
        return messages.check(default, "default") if type(default) in PLAIN else NO_DEFAULT
    except InvalidPayloadError:
        return NO_DEFAULT  # no JSON value says it, as with an infinity


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
