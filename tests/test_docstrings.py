"""What users can call says what it does, and what no signature shows: how long it blocks, and who may call it."""

from __future__ import annotations

import ast
import dis
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Callable

import iii_sync
import iii_sync.engine
import iii_sync.logs
import iii_sync.services
import iii_sync.testing
import iii_sync.triggers
import iii_sync.web
from iii_sync.channels import files, opened
from iii_sync.web import forms

#: What users get without importing it: files that ``makefile`` and ``open`` return, and the parts of a form.
HANDED_OUT = [
    files.ChannelFileReader,
    files.ChannelFileWriter,
    files.ChannelTextReader,
    files.ChannelTextWriter,
    opened.FunctionReader,
    opened.FunctionTextReader,
    opened.FunctionTextWriter,
    opened.FunctionWriter,
    forms.FormPart,
]

MODULES = [
    iii_sync,
    iii_sync.engine,
    iii_sync.logs,
    iii_sync.services,
    iii_sync.testing,
    iii_sync.triggers,
    iii_sync.web,
]

#: What only ends something has nothing to raise, even where it waits.
ENDS = {"close", "flush", "restart", "shutdown", "stop", "unregister"}

#: A first line that says what is returned.
RETURNS = re.compile(r"(Return|Whether|Iterate|(Read|Fill) .* and return|Refuse:|Refuse, )")

LAST = re.compile(r"\n\nBlocks: [A-Z][^\n]*\.?(?:\n {4}[^\n]+)*\nThreads: [A-Z][^\n]*(?:\n {4}[^\n]+)*\Z")


def does_work(getter: Callable[..., Any]) -> bool:
    """Whether a property calls anything, instead of handing out what is there."""
    return any(step.opname.startswith("CALL") for step in dis.get_instructions(getter))


def named_as(function: Callable[..., Any]) -> str:
    """The name of a function with that of its module, below ``iii_sync``."""
    return f"{function.__module__.partition('.')[2]}.{function.__qualname__}"


def public() -> Iterator[tuple[str, Callable[..., Any], bool]]:
    """Every function, method and working property that users can call, under its name; and whether it is a property."""
    named = [getattr(module, name) for module in MODULES for name in module.__all__]
    found: dict[str, tuple[Callable[..., Any], bool]] = {}
    for thing in [*named, *HANDED_OUT]:
        if inspect.isfunction(thing):
            found[named_as(thing)] = thing, False
        for kind in inspect.getmro(thing) if inspect.isclass(thing) else ():
            if not kind.__module__.startswith("iii_sync"):
                continue
            for name, member in vars(kind).items():
                function = getattr(member, "__func__", member)
                if isinstance(member, property) and member.fget is not None:
                    if not name.startswith("_") and does_work(member.fget):
                        found[named_as(member.fget)] = member.fget, True
                elif inspect.isfunction(function) and (not name.startswith("_") or name == "__call__"):
                    found[named_as(function)] = function, False
    for name, (function, is_property) in sorted(found.items()):
        yield name, function, is_property


def faults(name: str, function: Callable[..., Any], is_property: bool) -> list[str]:
    """What is missing in a docstring."""
    text = inspect.getdoc(function) or ""
    if not text:
        return ["a docstring"]
    missing = []
    signature = inspect.signature(function)
    arguments = text.partition("Args:")[2]
    for name_of, parameter in signature.parameters.items():
        shown = re.escape(str(parameter).partition(":")[0])  # with its stars
        if name_of not in ("self", "cls") and not re.search(rf"\n    {shown}: ", arguments):
            missing.append(f"the argument {name_of}")
    silent = signature.return_annotation in (None, "None")
    if not (silent or is_property or RETURNS.match(text) or re.search(r"\n(Returns|Yields):\n", text)):
        missing.append("Returns")
    body = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raises = any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(body))
    waits = not re.search(r"\nBlocks: (Never|As long as it likes)", text) and name.rpartition(".")[2] not in ENDS
    abstract = ast.unparse(body).endswith("raise NotImplementedError")
    if (raises or waits) and not (abstract or "\nRaises:\n" in text):
        missing.append("Raises")
    if not LAST.search(text):
        missing.append("Blocks and Threads at its end")
    if len(re.findall(r"\bBlocks?\b|never waits", text)) > 1:
        missing.append("only one place about blocking")
    return missing


PUBLIC = {name: (function, is_property) for name, function, is_property in public()}


def test_everything_is_looked_at() -> None:
    """A few of each kind."""
    assert {
        "calls.Call.result",
        "channels.end.End.isatty",
        "channels.files.ChannelFileReader.read",
        "channels.opened.FunctionWriter.result",
        "channels.reader.ChannelReader.readable",
        "engine.guard.Guard.from_json",
        "engine.local.LocalEngine.url",
        "logs.EngineLogHandler.emit",
        "services.EngineInfo.functions",
        "services.UpdateOp.set",
        "testing.workers.Connect.__call__",
        "triggers.sources.http",
        "web.forms.FormPart.text",
        "web.handler.http",
        "web.response.StreamResponse.send_event",
        "worker.Worker.state",
        "worker.Worker.trigger",
        "worker.register_worker",
    } <= set(PUBLIC)


def test_what_can_be_called_is_described() -> None:
    """What it does, its arguments, what it returns and raises; how long it blocks, and who may call it."""
    assert {name: found for name, described in PUBLIC.items() if (found := faults(name, *described))} == {}


def test_what_is_missing_is_seen() -> None:
    """Each part of a docstring."""

    def bare(size: int) -> bytes:
        """Take something."""
        raise ValueError(size)

    assert faults("bare", bare, False) == ["the argument size", "Returns", "Raises", "Blocks and Threads at its end"]

    def twice() -> None:
        """Blocks for a second.

        Blocks: Never.
        Threads: Any.
        """

    assert faults("twice", twice, False) == ["only one place about blocking"]


def test_every_public_class_is_described() -> None:
    """Errors, options and types too."""
    named = [getattr(module, name) for module in MODULES for name in module.__all__]
    kinds = [thing for thing in [*named, *HANDED_OUT] if inspect.isclass(thing)]
    assert [kind.__name__ for kind in kinds if not vars(kind).get("__doc__")] == []
