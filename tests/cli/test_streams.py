"""``iii-sync send`` and ``iii-sync get``: files, pipes, terminals, and streams that are cut."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import random
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

import pytest

from iii_sync import Worker, register_worker
from iii_sync.cli.replacing import replacing
from iii_sync.testing import FaultProxy

from ..support.engines import killable_engine
from ..support.sockets import connections
from ..support.terminal import terminal
from ..support.waiting import wait_until
from .conftest import Start, assert_one_line, finish, pipe

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals, named pipes, terminals")

Unique = Callable[[str], str]

MIB = 1024 * 1024

WAIT = 30.0


class Functions:
    """A worker's functions that read and write streams, and what the test knows of them."""

    def __init__(self, worker: Worker, unique: Unique) -> None:
        self.content = random.Random(7).randbytes(3 * MIB + 7)
        self.events: queue.Queue[Any] = queue.Queue()
        self.go = threading.Event()

        def offer(name: str, handler: Callable[[Any], Any]) -> str:
            return worker.register_function(unique(f"cli::{name}"), handler).id

        self.take = offer("take", self._take)
        self.early = offer("early", self._early)
        self.live_take = offer("live_take", self._live_take)
        self.give = offer("give", self._give)
        self.cut = offer("cut", self._cut)
        self.live = offer("live", self._live)
        self.fails_behind = offer("fails_behind", self._fails_behind)
        self.says_nothing = offer("says_nothing", self._says_nothing)

    def _take(self, data: Any) -> Any:
        with data.pop("reader" if "reader" in data else "there") as reader:
            content = reader.read()
        return {"bytes": len(content), "digest": hashlib.sha256(content).hexdigest(), "rest": data}

    def _early(self, data: Any) -> Any:
        with data["reader"] as reader:
            return reader.read(10).decode()

    def _live_take(self, data: Any) -> Any:
        try:
            for chunk in data["reader"]:
                self.events.put(bytes(chunk))
        except OSError as error:
            self.events.put(error)
            raise
        self.events.put("end")

    def _give(self, data: Any) -> Any:
        with data["writer"] as writer:
            writer.write(self.content[: data.get("size", len(self.content))])
        return data.get("result")

    def _cut(self, data: Any) -> Any:
        with contextlib.suppress(RuntimeError), data["writer"] as writer:
            writer.write(self.content)
            raise RuntimeError("cut")
        return "all is well"

    def _fails_behind(self, data: Any) -> Any:
        with data["writer"] as writer:
            writer.write(self.content)
        raise RuntimeError("behind its stream")

    def _live(self, data: Any) -> Any:
        with data["writer"] as writer:
            writer.write(b"first\n")
            self.events.put("begun")
            while not self.go.wait(0.02):
                writer.write(b"and so on\n")

    def _says_nothing(self, data: Any) -> Any:
        writer = data["writer"]
        self.events.put("begun")
        self.go.wait(60)
        writer.close()


@pytest.fixture
def functions(worker: Worker, unique: Unique) -> Iterator[Functions]:
    """The functions; those that wait are let go in the end."""
    functions = Functions(worker, unique)
    yield functions
    functions.go.set()


@pytest.fixture
def file(tmp_path: Path, functions: Functions) -> Path:
    """What the functions give, as a file."""
    path = tmp_path / "sent"
    path.write_bytes(functions.content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files arrive."""
    path = tmp_path / "folder"
    path.mkdir()
    return path


class TestSend:
    """Into a function."""

    def test_file(self, start: Start, engine_url: str, functions: Functions, file: Path) -> None:
        """Every byte, and nothing of a progress bar in a pipe."""
        status, out, err = finish(start("send", functions.take, str(file), url=engine_url))
        assert (status, err) == (0, "")
        digest = hashlib.sha256(functions.content).hexdigest()
        assert json.loads(out) == {"bytes": len(functions.content), "digest": digest, "rest": {}}

    @pytest.mark.parametrize("size", [0, 1, 100_000])
    def test_standard_input(self, start: Start, engine_url: str, functions: Functions, size: int) -> None:
        """Through a pipe, an empty one too."""
        process = start("send", functions.take, "-", url=engine_url, stdin=subprocess.PIPE)
        status, out, err = finish(process, "x" * size)
        assert (status, err) == (0, "")
        assert json.loads(out)["bytes"] == size

    def test_payload_and_key(self, start: Start, engine_url: str, functions: Functions, file: Path) -> None:
        """The stream is added to the payload."""
        arguments = ["send", functions.take, str(file), '{"name": "x"}', "--key", "there"]
        status, out, _ = finish(start(*arguments, url=engine_url))
        assert status == 0
        assert json.loads(out)["rest"] == {"name": "x"}

    @pytest.mark.parametrize("blocking", [True, pytest.param(False, marks=posix_only)])
    def test_arrives_while_it_is_still_growing(
        self, start: Start, engine_url: str, functions: Functions, blocking: bool
    ) -> None:
        """A line is sent when it is there, however standard input says that none is yet."""
        with pipe(blocking) as (reading, writing):
            process = start("send", functions.live_take, "-", url=engine_url, stdin=reading)
            for line in (b"one\n", b"two\n"):
                os.write(writing, line)
                assert functions.events.get(timeout=WAIT) == line
        assert finish(process) == (0, "null\n", "")
        assert functions.events.get(timeout=WAIT) == "end"

    def test_a_function_that_has_enough(
        self, start: Start, engine_url: str, functions: Functions, tmp_path: Path
    ) -> None:
        """Its result is there, and a word about the rest."""
        path = tmp_path / "large"
        path.write_bytes(b"0123456789" * 5_000_000)
        status, out, err = finish(start("send", functions.early, str(path), url=engine_url))
        assert (status, out) == (0, '"0123456789"\n')
        assert err == f"iii-sync: {functions.early} has returned without reading everything\n"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["file", "[1]"], "object"),
            (["file", '{"reader": 1}'], "--key"),
            (["-", "-"], "not both"),
        ],
    )
    def test_wrong_arguments(self, start: Start, arguments: list[str], said: str) -> None:
        """Refused before anything is connected."""
        status, out, err = finish(start("send", "f", *arguments, url="ws://127.0.0.1:1"))
        assert (status, out) == (2, "")
        assert_one_line(err)
        assert said in err

    @pytest.mark.parametrize("name", ["no-such-file", "."])
    def test_no_file(self, start: Start, name: str) -> None:
        """Nor is anything connected for what cannot be read."""
        status, out, err = finish(start("send", "f", name, url="ws://127.0.0.1:1"))
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert f" {name}: " in err

    def test_an_engine_that_goes_when_the_function_runs(
        self, start: Start, engine_url: str, worker: Worker, unique: Unique
    ) -> None:
        """The exit code does not say that nothing was called: whoever calls again calls twice."""
        called = threading.Event()

        def take(data: Any) -> None:
            called.set()
            data["reader"].read()

        with FaultProxy(engine_url) as proxy:
            function = worker.register_function(unique("cli::called"), take).id
            process = start("send", function, "-", url=proxy.url, stdin=subprocess.PIPE)
            assert called.wait(WAIT)
            with proxy.down():
                status, out, err = finish(process, "x")
        assert (status, out) == (1, "")
        assert_one_line(err)

    @posix_only
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_a_command_that_dies_cuts_its_stream(
        self, start: Start, engine_url: str, functions: Functions, number: signal.Signals
    ) -> None:
        """The function hears of it, however the command ends."""
        process = start("send", functions.live_take, "-", url=engine_url, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write("begun")
        process.stdin.flush()
        assert functions.events.get(timeout=WAIT) == b"begun"
        process.send_signal(number)
        assert isinstance(functions.events.get(timeout=WAIT), OSError)
        process.wait(WAIT)
        expected = (130, "", "") if number == signal.SIGINT else (-number, "", "")
        assert finish(process) == expected

    @posix_only
    def test_bar_on_a_terminal(self, start: Start, engine_url: str, functions: Functions, file: Path) -> None:
        """With the name, the size, a rate; the result in its pipe is clean. --quiet shows none."""
        with terminal() as screen:
            process = start("send", functions.take, str(file), url=engine_url, stderr=screen.fd)
            shown = screen.read_to_the_end().decode()
            status, out, _ = finish(process)
        assert status == 0
        assert json.loads(out)["bytes"] == len(functions.content)
        assert "sent: 100%" in shown
        assert "3.00M/3.00M" in shown
        assert "B/s" in shown
        with terminal() as screen:
            process = start("send", "--quiet", functions.take, str(file), url=engine_url, stderr=screen.fd)
            assert screen.read_to_the_end() == b""
            assert finish(process)[0] == 0

    @posix_only
    def test_terminal_without_tqdm(self, start: Start, engine_url: str, functions: Functions, file: Path) -> None:
        """On a terminal tqdm is needed, and the error says what to install; --quiet needs none."""
        with terminal() as screen:
            process = start("send", functions.take, str(file), url=engine_url, stderr=screen.fd, without="tqdm")
            assert b'pip install "iii_sync[cli]"' in screen.read_to_the_end()
            assert finish(process)[0] == 1
        with terminal() as screen:
            process = start("send", "-q", functions.take, str(file), url=engine_url, stderr=screen.fd, without="tqdm")
            assert screen.read_to_the_end() == b""
            assert finish(process)[0] == 0


class TestGet:
    """Out of a function."""

    @pytest.mark.parametrize("size", [0, 1, 3 * MIB + 7])
    def test_file(self, start: Start, engine_url: str, functions: Functions, folder: Path, size: int) -> None:
        """Every byte, under its name, and nothing else in the folder."""
        arguments = ["get", functions.give, json.dumps({"size": size}), "-o", str(folder / "got")]
        assert finish(start(*arguments, url=engine_url)) == (0, "", "")
        assert os.listdir(folder) == ["got"]
        assert (folder / "got").read_bytes() == functions.content[:size]

    def test_standard_output(self, start: Start, engine_url: str, functions: Functions, folder: Path) -> None:
        """The bytes and nothing else."""
        with open(folder / "got", "wb") as out:
            process = start("get", functions.give, '{"result": "not shown"}', url=engine_url, stdout=out)
            assert finish(process)[::2] == (0, "")
        assert (folder / "got").read_bytes() == functions.content

    def test_result(self, start: Start, engine_url: str, functions: Functions, folder: Path) -> None:
        """With a file standard output is free for it."""
        arguments = ["get", functions.give, '{"result": {"n": 1}}', "-o", "got"]
        assert finish(start(*arguments, url=engine_url, cwd=folder)) == (0, '{"n": 1}\n', "")
        assert os.listdir(folder) == ["got"]

    def test_arrives_while_it_is_still_growing(self, start: Start, engine_url: str, functions: Functions) -> None:
        """Lines come out as they come in; when nobody wants more, it ends without a word, and so does the function."""
        process = start("get", functions.live, url=engine_url)
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        process.wait(WAIT)
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (141, "")

    @pytest.mark.parametrize("function", ["cut", "fails_behind"])
    def test_failure_leaves_no_file(
        self, start: Start, engine_url: str, functions: Functions, folder: Path, function: str
    ) -> None:
        """A stream that was cut, and a function that fails when its stream is whole: what was there stays."""
        for before in (None, b"the old one"):
            if before is not None:
                (folder / "got").write_bytes(before)
            process = start("get", getattr(functions, function), "-o", "got", url=engine_url, cwd=folder)
            status, out, err = finish(process)
            assert (status, out) == (1, "")
            assert_one_line(err)
            assert ("cut" if function == "cut" else "behind its stream") in err
            assert os.listdir(folder) == ([] if before is None else ["got"])
        assert (folder / "got").read_bytes() == b"the old one"

    def test_a_cut_on_standard_output(self, start: Start, engine_url: str, functions: Functions) -> None:
        """The exit code tells."""
        process = start("get", functions.cut, url=engine_url, stdout=subprocess.DEVNULL)
        status, _, err = finish(process)
        assert status == 1
        assert_one_line(err)

    @posix_only
    @pytest.mark.parametrize("waiting", ["live", "says_nothing"])
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_signals_leave_no_file(
        self,
        start: Start,
        engine_url: str,
        functions: Functions,
        folder: Path,
        waiting: str,
        name: str,
    ) -> None:
        """Amid the stream and before its first byte."""
        number = getattr(signal, name)
        if signal.getsignal(number) is signal.SIG_IGN:
            pytest.skip(f"{name} is ignored where these tests run (nohup does that), and so by what they start")
        process = start("get", getattr(functions, waiting), "-o", "got", url=engine_url, cwd=folder)
        assert functions.events.get(timeout=WAIT) == "begun"
        (part,) = os.listdir(folder)
        assert part.startswith("got.")
        assert part.endswith(".part")
        if os.path.exists("/proc/self/fd"):
            # A socket that is just being made has no owner yet, and in development mode Python says so.
            port = urlsplit(engine_url).port
            assert port is not None
            wait_until(lambda: connections(process.pid, port) == 2, "the connection of the channel")
        process.send_signal(number)
        assert finish(process) == (128 + number, "", "")
        assert os.listdir(folder) == []

    def test_an_engine_that_dies(self, start: Start, engine_kind: str, folder: Path) -> None:
        """Nothing looks whole, and the wait has an end."""
        with killable_engine(engine_kind) as engine, register_worker(engine.url) as worker:
            functions = Functions(worker, lambda name: name)
            process = start("get", functions.live, "-o", "got", url=engine.url, cwd=folder)
            assert functions.events.get(timeout=WAIT) == "begun"
            engine.kill()
            status, out, err = finish(process)
            functions.go.set()
        # Not 69: the command may have been connecting still, but to the stream, when the function was called.
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert os.listdir(folder) == []

    def test_a_writer_that_marks_nothing(
        self, start: Start, engine_url: str, worker: Worker, unique: Unique, folder: Path
    ) -> None:
        """As those of the official SDKs: the file is there, and what is not known is said."""

        def give(data: Any) -> None:
            with data["writer"] as writer:
                writer.write(b"content")

        with register_worker(engine_url, marks=False) as other:
            function = other.register_function(unique("cli::unmarked"), give).id
            status, out, err = finish(start("get", function, "-o", "got", url=engine_url, cwd=folder))
        assert (status, out) == (0, "")
        assert_one_line(err)
        assert "does not mark the end" in err
        assert (folder / "got").read_bytes() == b"content"

    @posix_only
    def test_permissions(self, start: Start, engine_url: str, functions: Functions, folder: Path) -> None:
        """A new file as any other program would make it; the old one's stay; a link stays one."""
        small = '{"size": 1}'
        umask = os.umask(0)
        os.umask(umask)
        assert finish(start("get", functions.give, small, "-o", "got", url=engine_url, cwd=folder))[0] == 0
        assert stat.S_IMODE((folder / "got").stat().st_mode) == 0o666 & ~umask
        (folder / "got").chmod(0o640)
        (folder / "link").symlink_to("got")
        assert finish(start("get", functions.give, '{"size": 2}', "-o", "link", url=engine_url, cwd=folder))[0] == 0
        assert (folder / "link").is_symlink()
        assert stat.S_IMODE((folder / "got").stat().st_mode) == 0o640
        assert (folder / "got").stat().st_size == 2
        assert sorted(os.listdir(folder)) == ["got", "link"]

    @posix_only
    def test_devices_and_pipes(self, start: Start, engine_url: str, functions: Functions, folder: Path) -> None:
        """What is no regular file is written to, not replaced."""
        os.mkfifo(folder / "pipe")
        process = start("get", functions.give, "-o", "pipe", url=engine_url, cwd=folder)
        with open(folder / "pipe", "rb") as pipe:
            assert pipe.read() == functions.content
        assert finish(process) == (0, "", "")
        assert (folder / "pipe").is_fifo()
        assert finish(start("get", functions.give, "-o", os.devnull, url=engine_url)) == (0, "", "")
        assert Path(os.devnull).is_char_device()
        for output in ("/dev/stdout", "/dev/fd/1"):
            process = start("get", functions.give, '{"size": 3}', "-o", output, url=engine_url)
            assert process.stdout is not None
            assert os.read(process.stdout.fileno(), 10) == functions.content[:3]
            assert finish(process) == (0, "", "")

    def test_long_names(self, start: Start, engine_url: str, functions: Functions, folder: Path) -> None:
        """As long as the file system has them, which counts bytes."""
        for name in ("n" * 255, "ü" * 127):
            arguments = ["get", functions.give, '{"size": 1}', "-o", name]
            assert finish(start(*arguments, url=engine_url, cwd=folder)) == (0, "", "")
        assert set(os.listdir(folder)) == {"n" * 255, "ü" * 127}

    def test_read_only(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What nobody may write to is not replaced either."""
        (folder / "got").write_bytes(b"the old one")
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may do everything
        with pytest.raises(PermissionError, match="got"), replacing(str(folder / "got")):
            raise AssertionError
        assert os.listdir(folder) == ["got"]

    @pytest.mark.parametrize("name", ["no-such-folder/got", ".", "no-such-folder/", ""])
    def test_no_place(self, start: Start, folder: Path, name: str) -> None:
        """Seen before anything is connected."""
        status, out, err = finish(start("get", "f", "-o", name, url="ws://127.0.0.1:1", cwd=folder))
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert ".part" not in err
        assert os.listdir(folder) == []

    @posix_only
    def test_full_disk(self, start: Start, engine_url: str, functions: Functions) -> None:
        """Half a file is no success."""
        status, out, err = finish(start("get", functions.give, "-o", "/dev/full", url=engine_url))
        assert (status, out) == (1, "")
        assert_one_line(err)

    @posix_only
    def test_bar_on_a_terminal(self, start: Start, engine_url: str, functions: Functions, folder: Path) -> None:
        """With the name, what has arrived, and a rate; none where standard output is the terminal."""
        with terminal() as screen:
            process = start("get", functions.give, "-o", "got", url=engine_url, cwd=folder, stderr=screen.fd)
            shown = screen.read_to_the_end().decode()
            assert finish(process)[:2] == (0, "")
        assert "got: 3.00MB" in shown
        assert "B/s" in shown
        with terminal() as screen:
            process = start("get", functions.give, '{"size": 0}', url=engine_url, stdout=screen.fd, stderr=screen.fd)
            assert screen.read_to_the_end() == b""
            assert finish(process)[0] == 0
