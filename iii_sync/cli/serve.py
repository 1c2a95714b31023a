"""``iii-sync serve``: the functions of a module, until the process is told to end."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import traceback
from types import ModuleType
from typing import Any, NoReturn, Optional

import click

from iii_sync import Worker

from ..errors import EngineConnectionError, EngineTimeoutError, RegistrationRejectedError
from ..signals import terminating
from . import options
from .connecting import reaching
from .failures import FAILED, CommandFailed

__all__ = ["command"]

_EPILOG = """\
\b
example, in the file shop.py:
  from iii_sync import register_worker
\b
  def worker():
      worker = register_worker()
      worker.register_function("shop::price", lambda order: 5 * order["pieces"])
      return worker
\b
and in its directory:
  iii-sync serve shop
"""


@click.command("serve", epilog=_EPILOG)
@click.argument("target", metavar="MODULE[:WORKER]")
@click.option("--url", metavar="URL", help="Sets III_URL for the module.")
@click.option("--namespace", metavar="NAME", help="Sets III_NAMESPACE for the module.")
@options.verbose
def command(target: str, url: Optional[str], namespace: Optional[str]) -> int:
    """Serve the functions of a worker until Ctrl-C or SIGTERM.

    WORKER is what the module calls its worker, "worker" if it is not given: a Worker, or a function without arguments
    that returns one. The module is found as "python -m" finds it, the current directory first.

    Ctrl-C and SIGTERM let running handlers finish, as long as the worker's shutdown_timeout allows (5 seconds), and the
    exit code is 0. The second one ends at once. Where the module sets up no logging, warnings go to standard error.
    """
    name, _, attribute = target.partition(":")
    if not name or name.startswith("."):
        raise click.BadParameter(f"{target!r} names no module: give it like app, package.module or app:worker")
    if name.endswith(".py"):
        module = name[: -len(".py")].replace(os.sep, ".").strip(".")
        raise click.BadParameter(f"{name!r} is the name of a file: give that of its module, {module}")
    for variable, value in (("III_URL", url), ("III_NAMESPACE", namespace)):
        if value:
            os.environ[variable] = value
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        with reaching():
            worker = _worker(_module(name), attribute or "worker", name)
    except (CommandFailed, EngineConnectionError, EngineTimeoutError, RegistrationRejectedError):
        raise
    except Exception as error:
        _show(error)
        return FAILED
    if options.is_verbose():
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with worker:
        # wait() looks after SIGTERM too, but from its own beginning on only, and calls may have come in by then.
        with contextlib.suppress(KeyboardInterrupt), terminating(_interrupt):
            print(f"iii-sync: serving {target} as {worker.worker_name} on {worker.get_address()}", file=sys.stderr)
            worker.wait()
    return 0


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only if it is this one that is missing, not one that it imports.
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise CommandFailed(f"there is no module {name!r} in {os.getcwd()} or where Python looks for modules") from None


def _worker(module: ModuleType, attribute: str, name: str) -> Worker:
    try:
        found: Any = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise CommandFailed(f"the module {name!r} has no {attribute!r}; name its worker: {name}:WORKER") from None
    made = found() if callable(found) else found
    if not isinstance(made, Worker):
        what = f"{attribute}() has returned" if callable(found) else f"{attribute} is"
        raise CommandFailed(
            f"{name}: {what} of the type {type(made).__name__}, and must be a Worker or a function that returns one"
        )
    return made


def _show(error: Exception) -> None:
    """Print the traceback as Python would have, from the module on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in (__name__, "importlib", *_BOOTSTRAP):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


_BOOTSTRAP = ("importlib._bootstrap", "importlib._bootstrap_external")
