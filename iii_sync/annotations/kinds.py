"""The kinds of values that annotations name: the JSON Schema of each, and how a JSON value becomes one."""

from __future__ import annotations

import json
from typing import Any, Callable, NamedTuple, Union

from ..channels import ChannelReader, ChannelWriter
from ..errors import InvocationError, brief, described

__all__ = [
    "Anything",
    "Choice",
    "Dataclass",
    "Definitions",
    "EndOf",
    "Field",
    "Kind",
    "ListOf",
    "ManyOf",
    "Mismatch",
    "Model",
    "NO_DEFAULT",
    "ObjectOf",
    "PLAIN",
    "Plain",
    "Record",
    "Schema",
    "TupleOf",
    "TypedDictionary",
    "UnionOf",
]

Schema = dict[str, Any]


class Mismatch(Exception):
    """A value is not what it should be; ``path`` leads there, its last step first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.path: list[str] = []

    def below(self, key: Union[str, int]) -> Mismatch:
        if isinstance(key, int):
            self.path.append(f"[{key}]")
        else:
            self.path.append(f".{key}" if key.isidentifier() else f"[{brief(key, 50)!r}]")
        return self


class Definitions:
    """The named types of one schema."""

    def __init__(self, returned: bool) -> None:
        self.mode = "serialization" if returned else "validation"
        self.entries: dict[str, Schema] = {}
        self._names: dict[Any, str] = {}

    def document(self, root: Kind) -> Schema:
        """Return the schema of the root with everything it refers to."""
        schema = dict(root.schema(self))
        if set(schema) == {"$ref"}:
            # Whoever lists functions looks for the properties at the top.
            name = schema["$ref"].rpartition("/")[2]
            schema = dict(self.entries[name])
            if f'"#/$defs/{name}"' not in json.dumps(self.entries, ensure_ascii=False):
                del self.entries[name]
        if self.entries:
            schema["$defs"] = self.entries
        return schema

    def refer(self, named: Any, make: Callable[[str], Schema]) -> Schema:
        """Return a reference to the schema of a type, which ``make(name)`` makes."""
        name = self._names.get(named)
        if name is None:
            name = base = named.__name__
            number = 1
            while name in self.entries:
                number += 1
                name = f"{base}{number}"
            self._names[named] = name
            self.entries[name] = {}  # its name is taken while it is made, and may refer to itself
            self.entries[name] = make(name)
        return {"$ref": f"#/$defs/{name}"}


class Kind:
    """One type: its schema, and how a JSON value becomes one."""

    expected = "anything"

    def schema(self, definitions: Definitions) -> Schema:
        raise NotImplementedError

    def convert(self, value: Any) -> Any:
        raise NotImplementedError

    def is_exactly(self, value: Any) -> bool:
        """Whether a value is one without being converted."""
        return False

    def mismatch(self, value: Any) -> Mismatch:
        return Mismatch(f"expected {self.expected}, got {_shown(value)}")


class Anything(Kind):
    def schema(self, definitions: Definitions) -> Schema:
        return {}

    def convert(self, value: Any) -> Any:
        return value


class Plain(Kind):
    """Null, a boolean, text, a number."""

    def __init__(self, kind: type, name: str, expected: str) -> None:
        self.kind: type = kind
        self.name: str = name
        self.expected: str = expected

    def schema(self, definitions: Definitions) -> Schema:
        return {"type": self.name}

    def is_exactly(self, value: Any) -> bool:
        return type(value) is self.kind

    def convert(self, value: Any) -> Any:
        if type(value) is self.kind:
            return value
        if self.kind is float and type(value) is int:
            return float(value)
        if self.kind is int and type(value) is float and value.is_integer():
            return int(value)  # the engine and JavaScript make no difference between 1 and 1.0
        raise self.mismatch(value)


PLAIN: dict[Any, Plain] = {
    type(None): Plain(type(None), "null", "null"),
    bool: Plain(bool, "boolean", "true or false"),
    int: Plain(int, "integer", "a whole number"),
    float: Plain(float, "number", "a number"),
    str: Plain(str, "string", "text"),
}


class Choice(Kind):
    """One of some values: ``Literal`` and enumerations."""

    def __init__(self, values: list[tuple[Any, Any]]) -> None:
        self.values = values  # as JSON, and what they become
        self.expected: str = "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value, _ in values)

    def schema(self, definitions: Definitions) -> Schema:
        return {"enum": [value for value, _ in self.values]}

    def is_exactly(self, value: Any) -> bool:
        return any(type(value) is type(own) and value == own for own, _ in self.values)

    def convert(self, value: Any) -> Any:
        for own, meant in self.values:
            # The engine and JavaScript make no difference between 1 and 1.0; Python would make none to True.
            same = type(value) is type(own) or {type(value), type(own)} == {int, float}
            if same and value == own:
                return meant
        raise self.mismatch(value)


class UnionOf(Kind):
    def __init__(self, options: list[Kind]) -> None:
        self.options = options
        self.expected: str = " or ".join(option.expected for option in options)

    def schema(self, definitions: Definitions) -> Schema:
        return {"anyOf": [option.schema(definitions) for option in self.options]}

    def convert(self, value: Any) -> Any:
        for option in self.options:
            if option.is_exactly(value):
                return option.convert(value)
        nested: list[Mismatch] = []
        for option in self.options:
            try:
                return option.convert(value)
            except Mismatch as exc:
                if exc.path or not isinstance(option, Plain):
                    nested.append(exc)
        if len(nested) == 1 and nested[0].path:
            raise nested[0]  # the one option that was meant, and where it fails
        raise self.mismatch(value)


class ListOf(Kind):
    expected = "a list"

    def __init__(self, items: Kind) -> None:
        self.items = items

    def schema(self, definitions: Definitions) -> Schema:
        items = self.items.schema(definitions)
        return {"type": "array", "items": items} if items else {"type": "array"}

    def convert(self, value: Any) -> Any:
        if not isinstance(value, list):
            raise self.mismatch(value)
        index = 0
        try:
            converted = []
            for index, item in enumerate(value):  # noqa: B007 - for the error
                converted.append(self.items.convert(item))
            return converted
        except Mismatch as exc:
            raise exc.below(index) from None


class ManyOf(ListOf):
    def convert(self, value: Any) -> Any:
        return tuple(super().convert(value))


class TupleOf(Kind):
    def __init__(self, items: list[Kind]) -> None:
        self.items = items
        self.expected: str = f"a list of {len(items)}"

    def schema(self, definitions: Definitions) -> Schema:
        prefix = [item.schema(definitions) for item in self.items]
        return {"type": "array", "prefixItems": prefix, "minItems": len(prefix), "maxItems": len(prefix)}

    def convert(self, value: Any) -> Any:
        if not isinstance(value, list):
            raise self.mismatch(value)
        if len(value) != len(self.items):
            raise Mismatch(f"expected {self.expected}, got a list of {len(value)}")
        converted = []
        for index, (kind, item) in enumerate(zip(self.items, value)):
            try:
                converted.append(kind.convert(item))
            except Mismatch as exc:
                raise exc.below(index) from None
        return tuple(converted)


class ObjectOf(Kind):
    """An object with any keys."""

    expected = "an object"

    def __init__(self, values: Kind) -> None:
        self.values = values

    def schema(self, definitions: Definitions) -> Schema:
        values = self.values.schema(definitions)
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}

    def convert(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise self.mismatch(value)
        converted = {}
        for key, item in value.items():
            try:
                converted[key] = self.values.convert(item)
            except Mismatch as exc:
                raise exc.below(key) from None
        return converted


class Field(NamedTuple):
    name: str
    kind: Kind
    required: bool
    default: Any  # NO_DEFAULT when there is none to tell of


NO_DEFAULT = object()


class Record(Kind):
    """An object with named fields: a dataclass, a typed dictionary. What else it holds is left alone."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.expected: str = f"an object ({kind.__name__})"
        self.fields: list[Field] = []

    def schema(self, definitions: Definitions) -> Schema:
        def make(name: str) -> Schema:
            properties = {}
            for field in self.fields:
                properties[field.name] = field.kind.schema(definitions)
                if field.default is not NO_DEFAULT:
                    properties[field.name] = {**properties[field.name], "default": field.default}
            schema: Schema = {"type": "object", "title": self.kind.__name__, "properties": properties}
            required = [field.name for field in self.fields if field.required]
            if required:
                schema["required"] = required
            return schema

        return definitions.refer(self.kind, make)

    def values(self, value: Any) -> dict[str, Any]:
        """Return the fields that are there, converted."""
        if not isinstance(value, dict):
            raise self.mismatch(value)
        converted = {}
        for field in self.fields:
            if field.name in value:
                try:
                    converted[field.name] = field.kind.convert(value[field.name])
                except Mismatch as exc:
                    raise exc.below(field.name) from None
            elif field.required:
                raise Mismatch(f"missing, expected {field.kind.expected}").below(field.name)
        return converted


class TypedDictionary(Record):
    def convert(self, value: Any) -> Any:
        return {**value, **self.values(value)} if isinstance(value, dict) else self.values(value)


class Dataclass(Record):
    def convert(self, value: Any) -> Any:
        values = self.values(value)
        try:
            return self.kind(**values)
        except InvocationError:
            raise  # its author has chosen what the caller is told
        except Exception as exc:
            said = str(exc) if type(exc) in (TypeError, ValueError) else described(exc)
            raise Mismatch(f"no {self.kind.__name__}: {said}") from None


class Model(Kind):
    """A class with the methods of pydantic's models."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.expected: str = f"an object ({kind.__name__})"

    def schema(self, definitions: Definitions) -> Schema:
        def make(name: str) -> Schema:
            template = f"#/$defs/{name}.{{model}}"
            schema: Schema = self.kind.model_json_schema(mode=definitions.mode, ref_template=template)
            for inner, its in schema.pop("$defs", {}).items():
                definitions.entries[f"{name}.{inner}"] = its
            return schema

        return definitions.refer(self.kind, make)

    def convert(self, value: Any) -> Any:
        try:
            return self.kind.model_validate(value)
        except ValueError as exc:
            problems: Any = getattr(exc, "errors", list)()
            if not problems:
                raise Mismatch(brief(str(exc), 500)) from None
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            mismatch = Mismatch(f"{brief(problems[0]['msg'], 500)}{more}")
            for step in reversed(problems[0]["loc"]):
                mismatch.below(step)
            raise mismatch from None


class EndOf(Kind):
    """A channel end: a reference in the payload has become one before it is converted."""

    def __init__(self, kind: Union[type[ChannelReader], type[ChannelWriter]]) -> None:
        self.kind = kind
        self.expected: str = f"a reference to the {kind.direction} end of a channel"

    def schema(self, definitions: Definitions) -> Schema:
        return self.kind._json_schema()

    def convert(self, value: Any) -> Any:
        if not isinstance(value, self.kind):
            raise self.mismatch(value)
        return value


def _shown(value: Any) -> str:
    """Tell what a value is; of objects and lists nothing that is in them."""
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, str):
        return f"text {brief(value, 40)!r}"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return f"the {value.direction} end of a channel" if hasattr(value, "direction") else f"a {type(value).__name__}"
