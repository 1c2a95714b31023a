"""``python -m iii_sync demo``: both engines, files, and everything that can go wrong in the middle."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from ..support.engines import free_ports
from ..support.terminal import terminal
from .conftest import Start, assert_one_line, finish

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals, named pipes, terminals")

MIB = 1024 * 1024


def wait_for(process: subprocess.Popen[str], beginning: str) -> str:
    """Read lines of its standard output up to one with this beginning, and return that."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return str(line)
    raise AssertionError(f"no line {beginning!r}: {process.communicate(timeout=60)}")


def worker_pid(process: subprocess.Popen[str]) -> int:
    """Wait until the demo has connected; return the process id of its worker, which is a child of it."""
    found = re.search(r"(\d+) \(worker\)", wait_for(process, "processes"))
    assert found is not None
    pid = int(found[1])
    assert pid in children(process.pid)
    return pid


def children(pid: int) -> set[int]:
    """The process ids of the children of a process."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, check=True, text=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return {int(child) for child, parent in pairs if int(parent) == pid}


def assert_gone(pids: set[int]) -> None:
    """None of the processes is there any more, not even as a zombie."""
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe: a demo that sends it goes on when the test writes, and only then."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@contextlib.contextmanager
def feeding(pipe: Path) -> Iterator[IO[bytes]]:
    """Open a pipe for writing and write 4 MiB, which a demo has then read (nearly) all of."""
    with open(pipe, "wb", buffering=0) as feed:
        for _ in range(64):
            feed.write(bytes(64 * 1024))
        yield feed


class TestSuccess:
    """Every byte arrives."""

    def test_local_engine(self, start: Start, scratch: Path) -> None:
        """Without III_URL it brings an engine, and leaves no process and no file behind."""
        process = start("demo", "--size", "256MiB")  # else it may be over before we have looked
        worker_pid(process)
        started = children(process.pid)
        assert len(started) == 2
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert out.splitlines()[-1].startswith(f"OK: {256 * MIB:,} bytes")
        assert re.search(r"peak memory   this process \d+ MB, worker \d+ MB, engine \d+ MB", out)
        assert_gone(started)
        assert not list(scratch.iterdir())

    @pytest.mark.parametrize("size", ["20MiB", "1", "0"])
    def test_named_engine(self, start: Start, engine_url: str, size: str) -> None:
        """With III_URL it runs on that engine; what follows the question mark is not shown."""
        status, out, err = finish(start("demo", "--size", size, url=f"{engine_url}/?token=secret"))
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith(f"engine        {engine_url}")
        assert "secret" not in out
        assert lines[-1].startswith("OK: ")

    @pytest.mark.parametrize("size", [0, 5, 3 * MIB + 7])
    def test_file(self, start: Start, engine_url: str, tmp_path: Path, size: int) -> None:
        """The table shows the file's size and digest, each way, at both ends."""
        content = random.Random(size).randbytes(size)
        file = tmp_path / "data"
        file.write_bytes(content)
        status, out, err = finish(start("demo", str(file), url=engine_url))
        assert (status, err) == (0, "")
        digests = [hashlib.new(name, content).hexdigest()[:16] for name in ("sha256", "blake2b")]
        for direction in ("to worker", "from worker"):
            (row,) = (line for line in out.splitlines() if line.startswith(direction))
            cells = row[len(direction) :].split()
            assert cells[0] == f"{size:,}"
            assert cells[-1] == cells[-2]
            assert cells[-1] in digests

    @posix_only
    def test_stream_without_a_size(self, start: Start, local_engine_url: str, pipe: Path) -> None:
        """What is sent may be a pipe, whose length nobody knows beforehand."""
        process = start("demo", str(pipe), url=local_engine_url)
        with feeding(pipe):
            pass
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert out.splitlines()[-1].startswith(f"OK: {4 * MIB:,} bytes")

    def test_name_of_a_supervised_worker(
        self, start: Start, local_engine_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """III_WORKER_NAME in the environment does not make two workers of one name."""
        monkeypatch.setenv("III_WORKER_NAME", "supervised")
        assert finish(start("demo", "--size", "1", url=local_engine_url))[0] == 0

    @posix_only
    def test_bar_on_a_terminal(self, start: Start, local_engine_url: str) -> None:
        """A bar for each direction, where somebody can see it."""
        pytest.importorskip("tqdm")
        err = self._on_a_terminal(start, local_engine_url, 0)
        assert b"to worker" in err
        assert b"from worker" in err
        assert b"Error" not in err

    @posix_only
    def test_terminal_without_tqdm(self, start: Start, local_engine_url: str) -> None:
        """On a terminal tqdm is needed, and the error says what to install."""
        err = self._on_a_terminal(start, local_engine_url, 1, "tqdm")
        assert b'tqdm, which is not installed: pip install "iii_sync[engine]"' in err

    def _on_a_terminal(self, start: Start, url: str, expected: int, *without: str) -> bytes:
        with terminal() as screen:
            process = start(
                "demo", "--size", "4MiB", url=url, stderr=screen.fd, without=without[0] if without else None
            )
            seen = screen.read_to_the_end()
            process.communicate(timeout=60)
        assert process.returncode == expected
        return seen


class TestFailure:
    """One line, exit code 1, nothing left."""

    def test_missing_file(self, start: Start) -> None:
        """Seen before anything is started."""
        status, out, err = finish(start("demo", "no-such-file"))
        assert (status, out) == (1, "")
        assert err == "iii-sync: no-such-file: No such file or directory\n"

    def test_directory(self, start: Start, tmp_path: Path) -> None:
        """A directory is no file."""
        status, out, err = finish(start("demo", str(tmp_path)))
        assert (status, out) == (1, "")
        assert_one_line(err)

    def test_nobody_listens(self, start: Start) -> None:
        """The address is in the error."""
        url = f"ws://127.0.0.1:{free_ports(1)[0]}"
        status, out, err = finish(start("demo", url=url))
        assert (status, out) == (69, "")
        assert_one_line(err)
        assert url in err

    def test_bad_address(self, start: Start) -> None:
        """What is no address is refused as such."""
        status, out, err = finish(start("demo", url="http://example.com"))
        assert (status, out) == (1, "")
        assert_one_line(err)

    @posix_only
    def test_worker_killed_receiving(self, start: Start, engine_url: str, pipe: Path, scratch: Path) -> None:
        """The writing end fails at once; the error says who died of what."""
        process = start("demo", str(pipe), url=engine_url)
        with feeding(pipe) as feed:
            os.kill(worker_pid(process), signal.SIGKILL)
            with pytest.raises(BrokenPipeError):  # the demo has closed its end
                while True:
                    feed.write(bytes(64 * 1024))
        status, _, err = finish(process)
        assert (status, err) == (1, "iii-sync: the worker process ended in the middle (killed by SIGKILL)\n")
        assert not list(scratch.iterdir())

    @posix_only
    def test_worker_killed_sending(self, start: Start, engine_url: str, scratch: Path) -> None:
        """The reading end fails at once; a stream that was cut is no short file."""
        process = start("demo", "--size", "512MiB", url=engine_url)
        pid = worker_pid(process)
        wait_for(process, "to worker")
        os.kill(pid, signal.SIGKILL)
        status, _, err = finish(process)
        assert (status, err) == (1, "iii-sync: the worker process ended in the middle (killed by SIGKILL)\n")
        assert not list(scratch.iterdir())

    @posix_only
    def test_engine_killed(self, start: Start, pipe: Path) -> None:
        """The engine dies: an error, although the worker process is well."""
        process = start("demo", str(pipe))
        with feeding(pipe) as feed:
            (engine,) = children(process.pid) - {worker_pid(process)}
            os.kill(engine, signal.SIGKILL)
            with pytest.raises(BrokenPipeError):
                while True:
                    feed.write(bytes(64 * 1024))
        status, _, err = finish(process)
        assert status == 1
        assert_one_line(err)


@posix_only
class TestInterrupt:
    """Ctrl-C: exit code 130, no traceback, nothing left."""

    def test_while_it_waits_for_data(self, start: Start, pipe: Path, scratch: Path) -> None:
        """In the middle of a stream, blocked in its source."""
        process = start("demo", str(pipe))
        with feeding(pipe):
            worker_pid(process)
            started = children(process.pid)
            assert len(started) == 2
            process.send_signal(signal.SIGINT)
            status, _, err = finish(process)
        assert (status, err) == (130, "")
        assert_gone(started)
        assert not list(scratch.iterdir())

    @pytest.mark.parametrize("moment", ["direction", "to worker"])
    def test_while_it_streams(self, start: Start, engine_url: str, moment: str) -> None:
        """In the middle of either direction, on a named engine."""
        process = start("demo", "--size", "512MiB", url=engine_url)
        pid = worker_pid(process)
        wait_for(process, moment)
        process.send_signal(signal.SIGINT)
        status, _, err = finish(process)
        assert (status, err) == (130, "")
        assert_gone({pid})

    def test_children_end_with_a_killed_parent(self, start: Start, pipe: Path, scratch: Path) -> None:
        """A demo that cannot clean up leaves nothing either: all who share its standard error end."""
        process = start("demo", str(pipe))
        with feeding(pipe):
            worker_pid(process)
            process.kill()
            assert finish(process)[0] == -signal.SIGKILL
        assert not list(scratch.iterdir())
