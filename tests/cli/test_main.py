"""The command line itself: help, exit codes, errors, what it imports."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import subprocess
import sys

import pytest

import iii_sync
from iii_sync.cli.data import as_size

from .conftest import HOME, Start

INSTALL = 'pip install "iii_sync[engine]"'


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command; return its exit code and what it wrote."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


class TestInfo:
    """``info`` says what is used, and gives no secret away."""

    def test_what_is_used(self, start: Start) -> None:
        """Versions, the engine's address and the way of masking are there."""
        variables = {"III_TOKEN": "secret-2", "III_SYNC_MASK": "python"}
        status, out, err = finish(start("info", url="ws://engine.example:1234/?token=secret-1", variables=variables))
        assert (status, err) == (0, "")
        shown = dict(line.split(None, 1) for line in out.splitlines())
        assert shown["iii_sync"] == iii_sync.__version__
        assert shown["engine"] == "ws://engine.example:1234/?…"
        assert shown["masking"].startswith("Python's integers")
        assert shown["III_TOKEN"] == "is set"
        assert "secret" not in out

    def test_the_extension_is_visible(self, start: Start) -> None:
        """Whether the C extension was built can be seen."""
        built = importlib.util.find_spec("iii_sync.wire._mask") is not None
        _, out, _ = finish(start("info"))
        assert ("the C extension\n" in out) == built


class TestHelp:
    """What the parser answers by itself."""

    @pytest.mark.parametrize("arguments", [[], ["engine"], ["demo"]])
    def test_help_shows_an_example(self, start: Start, arguments: list[str]) -> None:
        """``--help`` goes to standard output, with a command line to copy."""
        status, out, err = finish(start(*arguments, "--help"))
        assert (status, err) == (0, "")
        assert "example" in out
        assert "python -m iii_sync " in out.partition("example")[2]

    def test_version(self, start: Start) -> None:
        """``--version`` names the package and its version."""
        assert finish(start("--version")) == (0, f"iii_sync {iii_sync.__version__}\n", "")

    def test_no_command(self, start: Start) -> None:
        """Nothing asked for is a wrong command line, answered with the help."""
        status, out, err = finish(start())
        assert (status, out) == (2, "")
        assert "engine" in err
        assert "demo" in err

    @pytest.mark.parametrize(
        "arguments",
        [
            ["nonsense"],
            ["demo", "--size", "big"],
            ["demo", "--size", "1KiB", "a-file"],
            ["engine", "--port", "x"],
        ],
    )
    def test_wrong_arguments(self, start: Start, arguments: list[str]) -> None:
        """A wrong command line is refused with 2 before anything is started."""
        status, out, err = finish(start(*arguments))
        assert (status, out) == (2, "")
        assert "error: " in err
        assert "Traceback" not in err


class TestSize:
    """Sizes as people write them."""

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0", 0),
            ("4096", 4096),
            ("17B", 17),
            ("100MiB", 100 * 1024**2),
            ("1gib", 1024**3),
            ("2Ki", 2048),
            ("10MB", 10**7),
            ("1.5k", 1500),
        ],
    )
    def test_sizes(self, text: str, size: int) -> None:
        """Binary and decimal units, in any case, and none."""
        assert as_size(text) == size

    @pytest.mark.parametrize("text", ["", "B", "-1", "1iB", "1XB", "1 2", "1e3", "MiB"])
    def test_nonsense(self, text: str) -> None:
        """Anything else is refused with an example."""
        with pytest.raises(argparse.ArgumentTypeError, match="100MiB"):
            as_size(text)


class TestExtras:
    """aiohttp and tqdm are optional."""

    def test_importing_needs_neither(self) -> None:
        """The command line does not import what it may not need."""
        source = "import iii_sync.cli.main, sys; sys.exit(bool({'aiohttp', 'tqdm'} & set(sys.modules)))"
        environment = dict(os.environ, PYTHONPATH=HOME)
        assert subprocess.run([sys.executable, "-W", "error", "-c", source], env=environment).returncode == 0

    @pytest.mark.parametrize("command", ["engine", "demo"])
    def test_without_aiohttp(self, start: Start, command: str) -> None:
        """What needs the local engine says what to install."""
        status, out, err = finish(start(command, without="aiohttp"))
        assert (status, out) == (1, "")
        assert INSTALL in err
        assert err.count("\n") == 1


class TestEngine:
    """``python -m iii_sync engine``."""

    @pytest.mark.skipif(os.name != "posix", reason="signals")
    def test_serves_until_ctrl_c(self, start: Start) -> None:
        """It says where it listens, serves workers, and ends without a word."""
        process = start("engine", "--port", "0")
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with iii_sync.register_worker(url) as worker:
            worker.register_function("test::echo", lambda data: data)
            assert worker.trigger("test::echo", [1]) == [1]
        process.send_signal(signal.SIGINT)
        assert finish(process) == (0, "", "")

    def test_port_in_use(self, start: Start) -> None:
        """One line that names the port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            status, out, err = finish(start("engine", "--port", port))
        assert (status, out) == (1, "")
        assert port in err
        assert err.count("\n") == 1
