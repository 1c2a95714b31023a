"""The command line itself: help, exit codes, errors, what it imports."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import click
import pytest

import iii_sync
from iii_sync.cli.commands import COMMANDS
from iii_sync.cli.options import as_size

from .conftest import HOME, Start, assert_one_line, finish

INSTALL = 'pip install "iii_sync[engine]"'


class TestInfo:
    """``info`` says what is used, and gives no secret away."""

    def test_what_is_used(self, start: Start) -> None:
        """Versions, the engine's address and the way of masking are there."""
        variables = {"III_TOKEN": "secret-2", "III_SYNC_ACCELERATOR": "python"}
        status, out, err = finish(start("info", url="ws://engine.example:1234/?token=secret-1", variables=variables))
        assert (status, err) == (0, "")
        shown = dict(line.split(None, 1) for line in out.splitlines())
        assert shown["iii_sync"] == iii_sync.__version__
        assert shown["engine"] == "ws://engine.example:1234/?…"
        assert shown["masking"].startswith("Python's integers")
        assert shown["parsing"].startswith("Python")
        assert shown["sending"].startswith("the socket module")
        assert shown["III_TOKEN"] == "is set"
        assert "secret" not in out

    @pytest.mark.parametrize("url", ["http://engine.example", "ws://user:secret@engine.example"])
    def test_wrong_address(self, start: Start, url: str) -> None:
        """What is wrong with it is in its line, for that may be what is looked for; the others are there."""
        status, out, err = finish(start("info", url=url))
        assert (status, err) == (0, "")
        shown = dict(line.split(None, 1) for line in out.splitlines())
        assert "engine.example" in shown["engine"] and "give" in shown["engine"]
        assert shown["iii_sync"] == iii_sync.__version__
        assert "secret" not in out

    def test_the_extension_is_visible(self, start: Start) -> None:
        """Whether the C extension was built can be seen."""
        _, out, _ = finish(start("info", variables={"III_SYNC_ACCELERATOR": ""}))
        lines = dict(line.split(None, 1) for line in out.splitlines())
        for name, module in (("masking", "wire._mask"), ("parsing", "wire._frames"), ("sending", "net._direct")):
            built = importlib.util.find_spec(f"iii_sync.{module}") is not None
            assert (lines[name] == "the C extension") == built


class TestHelp:
    """What the parser answers by itself."""

    @pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
    def test_help_shows_an_example(self, start: Start, command: list[str]) -> None:
        """``--help`` goes to standard output, with a command line to copy; ``-h`` says the same."""
        status, out, err = finish(start(*command, "--help"))
        assert (status, err) == (0, "")
        if command != ["info"]:
            example = out.partition("example")[2]
            assert f"iii_sync {command[0]} " in example or f"iii-sync {command[0]} " in example if command else example
        assert finish(start(*command, "-h")) == (0, out, "")

    def test_help_documents_the_exit_codes(self, start: Start) -> None:
        """And how a token is given."""
        _, out, _ = finish(start("--help"))
        for code in ("1 ", "2 ", "69 ", "130 ", "141 "):
            assert f"\n    {code} " in out
        assert "III_TOKEN" in out
        assert "--token" not in out

    def test_version(self, start: Start) -> None:
        """``--version`` names the package and its version."""
        assert finish(start("--version")) == (0, f"iii_sync {iii_sync.__version__}\n", "")

    def test_no_command(self, start: Start) -> None:
        """Nothing asked for is a wrong command line, answered with the help."""
        status, out, err = finish(start())
        assert (status, out) == (2, "")
        for command in COMMANDS:
            assert f"\n  {command} " in err

    @pytest.mark.parametrize(
        "arguments",
        [
            ["nonsense"],
            ["--nonsense"],
            ["demo", "--size", "big"],
            ["demo", "--size", "9" * 400],
            ["demo", "--size", "1KiB", "a-file"],
            ["engine", "--port", "x"],
            ["call"],
            ["call", "a", "{}", "surplus"],
            ["call", "a", "--timeout", "0"],
            ["call", "a", "--timeout", "nan"],
            ["serve", ":worker"],
            ["serve", "app.py"],
            ["serve", "folder/app.py:make"],
            ["engine", "--guard", "{"],
            ["engine", "--guard", '{"ports": 1}'],
        ],
    )
    def test_wrong_arguments(self, start: Start, arguments: list[str]) -> None:
        """A wrong command line is refused with 2 before anything is started."""
        status, out, err = finish(start(*arguments))
        assert (status, out) == (2, "")
        assert_one_line(err)
        assert "--help" in err

    def test_the_script_is_installed(self, start: Start) -> None:
        """``iii-sync`` is the same command line."""
        script = Path(sys.executable).with_name("iii-sync")
        if not script.exists():
            pytest.skip("the package is not installed")
        assert finish(start("--version", program=[str(script)])) == (0, f"iii_sync {iii_sync.__version__}\n", "")


class TestCompletion:
    """What shells are told."""

    @pytest.mark.parametrize(
        ("shell", "last"),
        [
            ("bash", "_iii_sync_completion_setup;"),
            ("zsh", "compdef _iii_sync_completion iii-sync"),
            ("fish", 'complete --no-files --command iii-sync --arguments "(_iii_sync_completion)"'),
        ],
    )
    def test_script(self, start: Start, shell: str, last: str) -> None:
        """The script registers the command and asks it for its words, and the shell accepts it where there is one."""
        status, script, err = finish(start(variables={"_III_SYNC_COMPLETE": f"{shell}_source"}))
        assert (status, err) == (0, "")
        assert f"_III_SYNC_COMPLETE={shell}_complete" in script
        assert last in script
        if shutil.which(shell) is not None:
            assert subprocess.run([shell, "-n"], input=script, text=True).returncode == 0

    @pytest.mark.parametrize(
        ("typed", "offered"), [("", set(COMMANDS)), ("f", {"functions"}), ("s", {"send", "serve"})]
    )
    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_answers(self, start: Start, shell: str, typed: str, offered: set[str]) -> None:
        """The commands, asked for as the scripts of zsh and fish do."""
        # zsh numbers words from one, and takes one off; fish sends the unfinished word apart.
        asked = {"COMP_WORDS": f"iii-sync {typed}", "COMP_CWORD": "1" if shell == "zsh" else typed}
        status, out, err = finish(start(variables={"_III_SYNC_COMPLETE": f"{shell}_complete", **asked}))
        assert (status, err) == (0, "")
        lines = out.splitlines()
        words = lines[1::3] if shell == "zsh" else [line.partition(",")[2].partition("\t")[0] for line in lines]
        assert set(words) == offered

    @pytest.mark.skipif(shutil.which("bash") is None, reason="bash")
    @pytest.mark.parametrize(
        ("typed", "offered"),
        [("", set(COMMANDS)), ("f", {"functions"}), ("s", {"send", "serve"}), ("call --t", {"--timeout"})],
    )
    def test_words(self, start: Start, tmp_path: Path, typed: str, offered: set[str]) -> None:
        """The commands, and their options, asked for as bash does after the Tab key."""
        program = tmp_path / "iii-sync"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m iii_sync "$@"\n')
        program.chmod(0o755)
        ask = """
        eval "$(_III_SYNC_COMPLETE=bash_source iii-sync)"
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        "$(complete -p iii-sync | sed 's/.*-F \\([^ ]*\\).*/\\1/')" iii-sync
        printf '%s\\n' "${COMPREPLY[@]}"
        """
        bash = ["bash", "-c", ask, "bash", "iii-sync", *typed.split(" ")]
        variables = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        status, out, err = finish(start(program=bash, variables=variables))
        assert (status, err) == (0, "")
        assert set(out.split()) == offered


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
        with pytest.raises(click.BadParameter, match="100MiB"):
            as_size(text)

    @pytest.mark.parametrize("text", ["8388608TiB", "9223372036854775808", "9" * 400])
    def test_too_large(self, text: str) -> None:
        """What no file can have."""
        with pytest.raises(click.BadParameter, match="too large"):
            as_size(text)


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes streams")
class TestClosedStreams:
    """Standard streams that the shell has closed."""

    def start(self, start: Start, closing: str, *arguments: str, url: str) -> subprocess.Popen[str]:
        """Start a command the way a shell does that closes a stream."""
        program = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "iii_sync"]
        return start(*arguments, url=url, program=program)

    @pytest.mark.parametrize("command", ["call", "functions", "get"])
    def test_output(
        self, start: Start, worker: iii_sync.Worker, engine_url: str, unique: Callable[[str], str], command: str
    ) -> None:
        """Nothing is printed, nowhere, and all else is done."""
        done = threading.Event()

        def work(data: Any) -> None:
            if data is not None:
                data["writer"].close()
            done.set()

        function = worker.register_function(unique("cli::closed"), work).id
        process = self.start(start, ">&-", command, function, url=engine_url)
        assert finish(process) == (0, "", "")
        assert done.is_set() == (command != "functions")

    @pytest.mark.parametrize("arguments", [["call", "f", "-"], ["send", "f", "-"], ["send", "f", "file", "-"]])
    def test_input(self, start: Start, arguments: list[str]) -> None:
        """It is not taken for an empty one."""
        status, out, err = finish(self.start(start, "<&-", *arguments, url="ws://127.0.0.1:1"))
        assert (status, out, err) == (1, "", "iii-sync: standard input is closed\n")

    @pytest.mark.parametrize("arguments", [["call", "f"], ["call", "f", "{"]])
    def test_errors(self, start: Start, arguments: list[str]) -> None:
        """They do not come out where the result does."""
        status, out, err = finish(self.start(start, "2>&-", *arguments, url="ws://127.0.0.1:1"))
        assert (status, out, err) == (69 if len(arguments) == 2 else 2, "", "")


class TestExtras:
    """aiohttp and tqdm are optional."""

    def test_importing_needs_neither(self) -> None:
        """The command line does not import what it may not need."""
        source = "import iii_sync.cli.main, sys; sys.exit(bool({'aiohttp', 'tqdm'} & set(sys.modules)))"
        environment = dict(os.environ, PYTHONPATH=HOME)
        assert subprocess.run([sys.executable, "-W", "error", "-c", source], env=environment).returncode == 0

    def test_a_call_imports_only_what_it_needs(self, start: Start, worker: iii_sync.Worker, engine_url: str) -> None:
        """No engine, no bar: a call in a script starts quickly."""
        worker.register_function(f"heavy-{worker.worker_id}", lambda data: data)
        source = """
import sys
before = set(sys.modules)  # of Python itself, and of what measures the coverage
from iii_sync.cli.main import main
assert main() == 0
heavy = {'aiohttp', 'asyncio', 'tqdm', 'numpy', 'iii_sync.engine', 'multiprocessing', 'importlib.metadata'}
heavy &= set(sys.modules) - before
assert not heavy, heavy
"""
        arguments = ["call", f"heavy-{worker.worker_id}", "[1]"]
        process = start(*arguments, program=[sys.executable, "-c", source], url=engine_url)
        assert finish(process) == (0, "[1]\n", "")

    @pytest.mark.parametrize("command", ["engine", "demo"])
    def test_without_aiohttp(self, start: Start, command: str) -> None:
        """What needs the local engine says what to install."""
        status, out, err = finish(start(command, without="aiohttp"))
        assert (status, out) == (1, "")
        assert INSTALL in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize("command", COMMANDS)
    def test_without_click(self, start: Start, command: str) -> None:
        """Every command says what to install."""
        status, out, err = finish(start(command, without="click"))
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert INSTALL[len("pip install ") :] in err
        assert "iii_sync[cli]" in err

    def test_calls_without_the_engines_packages(self, start: Start, worker: iii_sync.Worker, engine_url: str) -> None:
        """The extra ``cli`` is enough."""
        worker.register_function(f"cli-{worker.worker_id}", lambda data: data)
        process = start("call", f"cli-{worker.worker_id}", "7", url=engine_url, without="aiohttp")
        assert finish(process) == (0, "7\n", "")


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
