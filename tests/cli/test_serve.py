"""``iii-sync serve``: finds the worker, serves it, and lets it finish."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from iii_sync import InvocationError, Worker, register_worker

from ..support.engines import free_ports
from .conftest import Start, assert_one_line, finish

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals")

MODULE = """
import os, time
from iii_sync import Worker, register_worker

def make():
    made = register_worker()
    made.register_function({function!r}, lambda data: {{"pid": os.getpid(), "got": data}})
    return made

def slow():
    made = make()
    @made.function({function!r} + "-slow")
    def run(data):
        print("running", flush=True)
        time.sleep(data)
        return "finished"
    return made

class nested:
    worker = staticmethod(make)

text = "text"
def nothing(): pass
"""


@pytest.fixture
def function(unique: Callable[[str], str]) -> str:
    """The id of the function that the module offers."""
    return unique("cli::served")


@pytest.fixture
def folder(tmp_path: Path, function: str) -> Path:
    """A directory with modules, that nobody else has on his path."""
    (tmp_path / "served_app.py").write_text(MODULE.format(function=function))
    (tmp_path / "served_factory.py").write_text("from served_app import make as worker\n")
    (tmp_path / "served_object.py").write_text("from served_app import make\nworker = make()\n")
    (tmp_path / "served_package").mkdir()
    (tmp_path / "served_package" / "__init__.py").write_text("")
    (tmp_path / "served_package" / "inner.py").write_text("from served_app import make as worker\n")
    return tmp_path


def serving(process: subprocess.Popen[str]) -> str:
    """Wait until it serves; returns the line that says so."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("iii-sync: serving "), line + process.communicate(timeout=60)[1]
    return line


class TestFinding:
    """What MODULE:WORKER may name."""

    @posix_only
    @pytest.mark.parametrize(
        "target",
        ["served_object", "served_factory", "served_app:make", "served_app:nested.worker", "served_package.inner"],
    )
    def test_workers_and_factories(
        self, start: Start, folder: Path, worker: Worker, engine_url: str, function: str, target: str
    ) -> None:
        """A Worker or a function that returns one, in the current directory; Ctrl-C ends it well."""
        process = start("serve", target, url=engine_url, cwd=folder)
        line = serving(process)
        assert target in line
        assert engine_url in line
        assert worker.trigger(function, 1) == {"pid": process.pid, "got": 1}
        process.send_signal(signal.SIGINT)
        assert finish(process) == (0, "", "")

    @posix_only
    def test_options_reach_the_module(self, start: Start, folder: Path, local_engine_url: str, function: str) -> None:
        """Which asks the environment, as register_worker() does."""
        arguments = ["serve", "served_factory", "--url", local_engine_url, "--namespace", function]
        process = start(*arguments, url="ws://127.0.0.1:1", cwd=folder)
        serving(process)
        with register_worker(local_engine_url) as worker:
            assert worker.trigger(function, 1, namespace=function)["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (0, "", "")

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("served_nowhere", "there is no module 'served_nowhere'"),
            ("served_package.nowhere", "there is no module 'served_package.nowhere'"),
            ("served_app", "has no 'worker'"),
            ("served_app:text", "text is of the type str"),
            ("served_app:nothing", "nothing() has returned of the type NoneType"),
        ],
    )
    def test_nothing_to_serve(self, start: Start, folder: Path, target: str, said: str) -> None:
        """One line that says what is missing."""
        status, out, err = finish(start("serve", target, url="ws://127.0.0.1:1", cwd=folder))
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert said in err

    @pytest.mark.parametrize(
        ("source", "last"),
        [
            ("def f():\n    raise ValueError('oh')\nf()", "ValueError: oh"),
            ("import served_nowhere", "ModuleNotFoundError: No module named 'served_nowhere'"),
            ("worker = (", "SyntaxError: '(' was never closed"),
            ("from iii_sync import register_worker\nregister_worker(worker_name='')", "ConfigurationError"),
            ("def worker():\n    raise KeyError('made')", "KeyError: 'made'"),
        ],
    )
    def test_errors_in_the_module(self, start: Start, folder: Path, source: str, last: str) -> None:
        """Python's own traceback, which begins in the module."""
        (folder / "served_broken.py").write_text(source + "\n")
        status, out, err = finish(start("serve", "served_broken", url="ws://127.0.0.1:1", cwd=folder))
        assert (status, out) == (1, "")
        if "Syntax" not in last:
            assert err.startswith("Traceback (most recent call last):\n")
            assert err.splitlines()[1].startswith(f'  File "{folder / "served_broken.py"}"')
            assert last in err.splitlines()[-1]
        assert "served_broken.py" in err
        assert last.partition(":")[0] in err.splitlines()[-1]
        assert "iii_sync/cli" not in err

    def test_no_engine(self, start: Start, folder: Path) -> None:
        """That is no error in the module: one line."""
        url = f"ws://127.0.0.1:{free_ports(1)[0]}"
        status, out, err = finish(start("serve", "served_factory", url=url, cwd=folder))
        assert (status, out) == (69, "")
        assert_one_line(err)
        assert url in err

    def test_a_name_that_is_taken(self, start: Start, folder: Path, engine_url: str, function: str) -> None:
        """Nor is that: the service runs already."""
        with register_worker(engine_url, worker_name=function):
            (folder / "served_taken.py").write_text(
                f"from iii_sync import register_worker\nworker = register_worker(worker_name={function!r})\n"
            )
            status, out, err = finish(start("serve", "served_taken", url=engine_url, cwd=folder))
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert function in err


@posix_only
class TestEnding:
    """Handlers finish first."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_running_handler_answers(
        self, start: Start, folder: Path, worker: Worker, engine_url: str, function: str, number: signal.Signals
    ) -> None:
        """And then the process ends with 0."""
        process = start("serve", "served_app:slow", url=engine_url, cwd=folder)
        serving(process)
        call = worker.submit(f"{function}-slow", 0.5)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        assert call.result(30) == "finished"
        assert finish(process) == (0, "", "")

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
    def test_the_second_signal_does_not_wait(
        self, start: Start, folder: Path, worker: Worker, engine_url: str, function: str, number: int, status: int
    ) -> None:
        """Whatever the handler does."""
        process = start("serve", "served_app:slow", url=engine_url, cwd=folder)
        serving(process)
        call = worker.submit(f"{function}-slow", 100)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(InvocationError):  # it is leaving when it takes no more calls
            while True:
                worker.trigger(function, 1, timeout=30)
        process.send_signal(number)
        assert process.wait(30) == status
        with pytest.raises(InvocationError):
            call.result(30)
