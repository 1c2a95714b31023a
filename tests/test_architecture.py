"""The structure of the package, read from its imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import iii_sync
import iii_sync.errors

PACKAGE = Path(iii_sync.__file__).parent

#: Layers from the bottom up; a module may import from its own layer and from those below.
LAYERS = [
    ["arguments", "errors", "fields", "official", "_version"],
    ["wire"],
    ["net", "options"],
    ["calls", "context", "invocation", "pool", "signals"],
    ["tracing"],
    ["channels"],
    ["annotations"],
    ["handlers"],
    ["functions", "request", "session", "suspicion"],
    ["calling", "triggers"],
    ["registrations", "web"],
    ["services"],
    ["worker"],
    ["logs"],
    ["__init__"],
]

#: Rooms of their own, and what they may use of the package.
APART = {
    "engine": {"wire", "_version", "errors"},
    "cli": {"__init__", "engine", "errors", "net", "options", "signals", "wire", "_version"},
    "__main__": {"cli"},
    "testing": {"engine", "net", "options", "worker"},
    "pytest_plugin": {"errors", "net", "testing", "worker"},
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package under its dotted name below ``iii_sync``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts), path


def imports(name: str, path: Path) -> Iterator[str]:
    """What a module imports, dotted; of this package below ``iii_sync``, with a leading dot."""
    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield "." + alias.name[9:] if alias.name.startswith("iii_sync.") else alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
                if node.module:
                    yield "." + module
                else:
                    for alias in node.names:
                        yield "." + ".".join([*base, alias.name])
            elif node.module is not None:
                own = node.module.startswith("iii_sync")
                yield "." + (node.module[9:] or "__init__") if own else node.module


def room(name: str) -> str:
    """The top-level file or folder a module belongs to."""
    return name.lstrip(".").split(".")[0] or "__init__"


def test_no_import_goes_up() -> None:
    """Each room imports only from its own layer and from those below."""
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = []
    for name, path in modules():
        own = room(name)
        for target in imports(name, path):
            if not target.startswith("."):
                continue
            there = room(target)
            if there == own:
                continue
            if own in APART:
                allowed = there in APART[own]
            else:
                allowed = there in level and level[there] <= level[own]
            if not allowed:
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_no_cycles() -> None:
    """No two modules import each other, however far around."""
    known = {name for name, _ in modules()}
    graph = {}
    for name, path in modules():
        targets = set()
        for target in imports(name, path):
            target = target.lstrip(".") if target.startswith(".") else ""
            for candidate in (target, f"{target}.__init__"):
                if candidate in known and candidate != name:
                    targets.add(candidate)
        graph[name] = targets
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for target in graph[name]:
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_websocket_is_imported_in_one_place() -> None:
    """The handshake is the only thing that is not ours."""
    users = [name for name, path in modules() if any(room(t) == "websocket" for t in imports(name, path))]
    assert users == ["net.handshake"]


def test_the_wire_is_pure() -> None:
    """No socket, thread, clock or logger at the bottom."""
    forbidden = {"socket", "threading", "time", "logging", "select", "selectors", "ssl", "queue", "asyncio"}
    for name, path in modules():
        if room(name) == "wire":
            assert not forbidden & {room(target) for target in imports(name, path)}, name


def test_threads_are_made_in_few_places() -> None:
    """The reader thread, the pool, the reconnecting thread, the local engine's, the demo's, the proxy's for tests."""
    makers = {room(name) for name, path in modules() if "threading.Thread(" in path.read_text(encoding="utf-8")}
    assert makers <= {"net", "pool", "session", "engine", "cli", "testing"}


def test_clocks_are_monotonic() -> None:
    """Wall time jumps."""
    for name, path in modules():
        if room(name) not in ("engine", "cli"):
            assert "time.time(" not in path.read_text(encoding="utf-8"), name


def test_the_public_names() -> None:
    """What users import; a change here is a change of the interface."""
    assert iii_sync.__all__ == [
        "AuthenticationError",
        "Call",
        "CallTimeout",
        "Channel",
        "ChannelAbortedError",
        "ChannelBrokenError",
        "ChannelError",
        "ChannelNeverWrittenError",
        "ChannelNotFoundError",
        "ChannelReader",
        "ChannelTruncatedError",
        "ChannelUsedError",
        "ChannelWriter",
        "CloseTimeout",
        "ConcurrencyError",
        "ConfigurationError",
        "ConnectFailedError",
        "ConnectTimeout",
        "ConnectionLostError",
        "EngineConnectionError",
        "EngineTimeoutError",
        "ForkedWorkerError",
        "FunctionNotFoundError",
        "FunctionRef",
        "HandlerFailedError",
        "HandshakeRejectedError",
        "HttpAuthApiKey",
        "HttpAuthBearer",
        "HttpAuthHmac",
        "HttpError",
        "HttpInvocationConfig",
        "HttpResponse",
        "IIISyncError",
        "InitOptions",
        "InvalidPayloadError",
        "Invocation",
        "InvocationError",
        "OverloadedError",
        "PayloadTooLargeError",
        "PermissionDeniedError",
        "ReadTimeout",
        "ReconnectionConfig",
        "RegistrationRejectedError",
        "RemoteProtocolError",
        "StreamChannelRef",
        "StreamRequest",
        "StreamResponse",
        "Trigger",
        "TriggerAction",
        "TriggerConfig",
        "TriggerHandler",
        "TriggerRegistrationError",
        "TriggerType",
        "UsageError",
        "Worker",
        "WorkerClosedError",
        "WriteTimeout",
        "__version__",
        "current_invocation",
        "extract_channel_refs",
        "is_channel_ref",
        "register_worker",
    ]
    assert set(iii_sync.errors.__all__) <= set(iii_sync.__all__)
    # It has the name of a module of the standard library, which ``import *`` must not hide.
    for name in [*iii_sync.__all__, "http"]:
        assert getattr(iii_sync, name) is not None


def test_every_public_module_says_what_is_public() -> None:
    """``__all__`` in each, and a docstring."""
    for name, path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) or name == "_version", name


#: Functions of threads of the package's own: ``KeyboardInterrupt`` hits the main thread only.
OWN_THREADS = {("net.loop", "_run"), ("pool", "_wait"), ("session.reconnecting", "_run")}


def test_no_interruption_gets_past_what_must_run() -> None:
    """No ``while`` or comprehension stands directly inside of ``with``, ``try … finally`` and the like.

    From Python 3.12 on these do not cover its jump back, where the interpreter looks for signals: a lock would be
    left taken. See ``iii_sync.net.waiting``.
    """
    found = set()
    for name, path in modules():
        if room(name) not in APART:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {(name, function, line) for function, line in bare_loops(tree, "", False)}
    assert {(name, function) for name, function, _ in found} == OWN_THREADS, sorted(found)


def bare_loops(node: ast.AST, function: str, guarded: bool) -> Iterator[tuple[str, int]]:
    """Give the functions and lines of loops that stand directly inside of something that must run to its end."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            if isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
                yield from bare_loops(child, getattr(child, "name", function), False)
                continue
            inside = guarded or (field == "body" and must_run(node))
            # ``while True`` has its jump back where it is covered.
            endless = isinstance(child, ast.While) and isinstance(child.test, ast.Constant)
            if inside and isinstance(child, (ast.While, ast.ListComp, ast.SetComp, ast.DictComp)) and not endless:
                yield function, child.lineno
            yield from bare_loops(child, function, inside)


def must_run(node: ast.AST) -> bool:
    """Whether there is something to be done however the body is left."""
    if isinstance(node, ast.Try):
        catches_all = any(each.type is None or ast.unparse(each.type) == "BaseException" for each in node.handlers)
        return bool(node.finalbody) or catches_all
    return isinstance(node, ast.With)
