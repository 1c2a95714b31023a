"""``iii-sync call`` and ``iii-sync functions``: short calls, what they print, and how they fail."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from typing import Any, Callable

import pytest

from iii_sync import Worker, register_worker

from ..support.engines import free_ports
from ..support.rawserver import RawPeer, raw_server
from ..support.terminal import terminal
from ..support.waiting import wait_until
from .conftest import Start, assert_one_line, finish, pipe

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals, terminals")

Unique = Callable[[str], str]


@pytest.fixture
def echo(worker: Worker, unique: Unique) -> str:
    """A function that returns what it gets."""
    return worker.register_function(unique("cli::echo"), lambda data: data).id


class TestPayload:
    """What reaches the function, and what comes out."""

    @pytest.mark.parametrize("payload", ["null", "0", '"text"', "[1, 2.5]", '{"a": {"b": [true, null]}, "ü": "🎈"}'])
    def test_there_and_back(self, start: Start, engine_url: str, echo: str, payload: str) -> None:
        """As an argument, and through standard input: one line of JSON in UTF-8, whatever the locale."""
        variables = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
        for sent in (None, payload):
            argument = payload if sent is None else "-"
            process = start("call", echo, argument, url=engine_url, variables=variables, stdin=subprocess.PIPE)
            status, out, err = finish(process, sent)
            assert (status, err) == (0, "")
            assert json.loads(out) == json.loads(payload)
            assert out.count("\n") == 1
            assert out.isascii() == payload.isascii()

    @posix_only
    def test_standard_input_that_does_not_block(self, start: Start, engine_url: str, echo: str) -> None:
        """What is not there yet is waited for."""
        with pipe(blocking=False) as (reading, writing):
            process = start("call", echo, "-", url=engine_url, stdin=reading)
            os.write(writing, b"[1,")
            wait_until(lambda: not select.select([reading], [], [], 0)[0], "a reader")
            os.write(writing, b" 2]")
        assert finish(process) == (0, "[1, 2]\n", "")

    def test_no_payload_is_null(self, start: Start, engine_url: str, echo: str) -> None:
        """As in the API."""
        assert finish(start("call", echo, url=engine_url)) == (0, "null\n", "")

    def test_lone_surrogate(self, start: Start) -> None:
        """A text that no encoding has stays JSON."""
        source = r"from iii_sync.cli.jsontext import print_json; print_json(['\ud800'])"
        assert finish(start(program=[sys.executable, "-c", source])) == (0, '["\\ud800"]\n', "")

    @posix_only
    def test_on_a_terminal(self, start: Start, engine_url: str, worker: Worker, unique: Unique) -> None:
        """With line breaks; what would steer the terminal is spelled out."""
        result = {"a": [1], "b": "\x1b[2J \x9b2J ü"}
        function = worker.register_function(unique("cli::pretty"), lambda data: result).id
        with terminal() as screen:
            process = start("call", function, url=engine_url, stdout=screen.fd, variables={"PYTHONIOENCODING": "utf-8"})
            shown = screen.read_to_the_end().decode().replace("\r\n", "\n")
            assert finish(process)[0] == 0
        assert json.loads(shown) == result
        assert '\n  "a": [\n' in shown
        assert "ü" in shown
        assert not {"\x1b", "\x9b"} & set(shown)

    @pytest.mark.parametrize(("payload", "said"), [("text", "quotes"), ("{", "not JSON"), ("", "not JSON")])
    def test_no_json(self, start: Start, payload: str, said: str) -> None:
        """A wrong command line, before anything is connected; for a bare text the cure is named."""
        status, out, err = finish(start("call", "any", payload, url="ws://127.0.0.1:1"))
        assert (status, out) == (2, "")
        assert_one_line(err)
        assert said in err

    def test_what_cannot_travel(self, start: Start, engine_url: str, echo: str) -> None:
        """Python's JSON reads NaN; iii's has none, and the library's words for that are shown."""
        status, out, err = finish(start("call", echo, "[NaN]", url=engine_url))
        assert (status, out) == (1, "")
        assert_one_line(err)


class TestOptions:
    """``--url``, ``--timeout``, ``--namespace``, the environment."""

    def test_url(self, start: Start, engine_url: str, echo: str) -> None:
        """The option wins over the environment."""
        assert finish(start("call", echo, "1", "--url", engine_url, url="ws://127.0.0.1:1")) == (0, "1\n", "")

    def test_namespace(self, start: Start, engine_url: str, unique: Unique) -> None:
        """Where the function lives."""
        with register_worker(engine_url, namespace=unique("room")) as worker:
            function = worker.register_function(unique("cli::there"), lambda data: "there").id
            namespace = str(worker._options.namespace)
            assert finish(start("call", function, "--namespace", namespace, url=engine_url)) == (0, '"there"\n', "")
            assert finish(start("call", function, url=engine_url))[0] == 1

    def test_timeout(self, start: Start, engine_url: str, worker: Worker, unique: Unique) -> None:
        """The function goes on; the command does not wait."""
        go = threading.Event()
        function = worker.register_function(unique("cli::slow"), lambda data: go.wait(60)).id
        try:
            status, out, err = finish(start("call", function, "--timeout", "0.2", url=engine_url))
        finally:
            go.set()
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert "no answer within 0.2 s" in err

    def test_name_of_a_supervised_worker(self, start: Start, engine_url: str, echo: str, worker: Worker) -> None:
        """III_WORKER_NAME of a live worker in the environment is no hindrance."""
        variables = {"III_WORKER_NAME": worker.worker_name}
        assert finish(start("call", echo, "1", url=engine_url, variables=variables)) == (0, "1\n", "")

    def test_token(self, start: Start) -> None:
        """It comes from the environment."""
        requests = []

        def serve(peer: RawPeer) -> None:
            requests.append(peer.read_request())
            peer.sock.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

        with raw_server(serve) as server:
            status, out, err = finish(start("call", "x", url=server.url, variables={"III_TOKEN": "s3cr3t"}))
        assert b"authorization: bearer s3cr3t" in requests[0].lower()
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert "s3cr3t" not in err


class TestFailure:
    """One line, and an exit code that says what kind."""

    @pytest.fixture
    def failing(self, worker: Worker, unique: Unique) -> str:
        def fail(data: Any) -> None:
            raise ValueError("first line\nsecond \x1b[31mline")

        return worker.register_function(unique("cli::fail"), fail).id

    def test_the_function_fails(self, start: Start, engine_url: str, failing: str) -> None:
        """Its words in one line, nothing of them steers the terminal, and no traceback."""
        status, out, err = finish(start("call", failing, url=engine_url))
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert "first line second " in err
        assert "\x1b" not in err
        assert "invocation_failed" in err

    def test_verbose(self, start: Start, engine_url: str, failing: str) -> None:
        """The function's own traceback, too."""
        status, out, err = finish(start("call", "-v", failing, url=engine_url))
        assert (status, out) == (1, "")
        assert err.startswith("iii-sync: ")
        assert "Traceback (most recent call last)" in err
        assert ", in fail\n" in err
        assert "\x1b" not in err

    def test_no_such_function(self, start: Start, engine_url: str, unique: Unique) -> None:
        """With the engine's words."""
        status, out, err = finish(start("call", unique("nowhere"), url=engine_url))
        assert (status, out) == (1, "")
        assert_one_line(err)
        assert "function_not_found" in err

    def test_nobody_listens(self, start: Start) -> None:
        """An exit code of its own: nothing was called."""
        url = f"ws://127.0.0.1:{free_ports(1)[0]}"
        status, out, err = finish(start("call", "x", url=url))
        assert (status, out) == (69, "")
        assert_one_line(err)
        assert url in err

    @posix_only
    def test_nobody_reads(self, start: Start, engine_url: str, echo: str) -> None:
        """Standard output was closed: no word, and the exit code of a broken pipe."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            process = start("call", echo, "1", url=engine_url, stdout=writing)
        finally:
            os.close(writing)
        assert finish(process)[::2] == (141, "")

    @posix_only
    def test_full_disk(self, start: Start, engine_url: str, echo: str) -> None:
        """A result that could not be written is no success."""
        with open("/dev/full", "wb") as full:
            status, _, err = finish(start("call", echo, "1", url=engine_url, stdout=full))
        assert status == 1
        assert_one_line(err)

    @posix_only
    def test_ctrl_c(self, start: Start, engine_url: str, worker: Worker, unique: Unique) -> None:
        """While the function runs: no word, exit code 130."""
        running, go = threading.Event(), threading.Event()

        def slow(data: Any) -> None:
            running.set()
            go.wait(60)

        process = start("call", worker.register_function(unique("cli::slow"), slow).id, url=engine_url)
        try:
            assert running.wait(30)
            process.send_signal(signal.SIGINT)
            assert finish(process) == (130, "", "")
        finally:
            go.set()

    @posix_only
    @pytest.mark.parametrize("arguments", [["call", "x"], ["functions"]])
    def test_ctrl_c_while_connecting(self, start: Start, arguments: list[str]) -> None:
        """Somebody has accepted, and says nothing."""
        accepted = threading.Event()

        def serve(peer: RawPeer) -> None:
            peer.read_request()
            accepted.set()
            peer.sock.recv(1)

        with raw_server(serve) as server:
            process = start(*arguments, url=server.url)
            assert accepted.wait(30)
            process.send_signal(signal.SIGINT)
            assert finish(process) == (130, "", "")


class TestFunctions:
    """The table, and the list."""

    @pytest.fixture
    def offered(self, worker: Worker, unique: Unique) -> str:
        """Two functions; returns what their ids have in common."""
        name = unique("cli")
        worker.register_function(f"{name}::first", lambda data: 1, description="The \x1b[31mfirst")
        worker.register_function(f"{name}::second", lambda data: 2)
        return name

    def test_table(self, start: Start, engine_url: str, offered: str, worker: Worker) -> None:
        """Function, worker, description; nothing that steers a terminal."""
        status, out, err = finish(start("functions", offered, url=engine_url))
        assert (status, err) == (0, "")
        head, first, second = out.splitlines()
        assert head.split() == ["FUNCTION", "WORKER", "DESCRIPTION"]
        assert first.split(None, 2) == [f"{offered}::first", worker.worker_name, r"The \x1b[31mfirst"]
        assert second.split() == [f"{offered}::second", worker.worker_name]

    def test_any_locale(self, start: Start, engine_url: str, worker: Worker, unique: Unique) -> None:
        """What cannot be shown in its encoding is escaped."""
        function = worker.register_function(unique("cli::text"), lambda data: 1, description="Größe → ja").id
        process = start("functions", function, url=engine_url, variables={"PYTHONIOENCODING": "ascii"})
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert out.rstrip().endswith(r"Gr\xf6\xdfe \u2192 ja")

    def test_json(self, start: Start, engine_url: str, offered: str, worker: Worker) -> None:
        """All that the engine tells."""
        status, out, err = finish(start("functions", "--json", f"{offered}*first", url=engine_url))
        assert (status, err) == (0, "")
        (function,) = json.loads(out)
        assert function["function_id"] == f"{offered}::first"
        assert function["worker_name"] == worker.worker_name
        assert function["namespace"] == "default"

    @pytest.mark.parametrize(
        ("pattern", "count"), [("", 2), ("::sec", 1), ("*", 2), ("::[fs]*", 2), ("::f???", 0), ("::f????", 1), ("x", 0)]
    )
    def test_patterns(self, start: Start, engine_url: str, offered: str, pattern: str, count: int) -> None:
        """Part of an id, or a pattern for all of it."""
        _, out, _ = finish(start("functions", "--json", offered + pattern, url=engine_url))
        assert len(json.loads(out)) == count

    def test_all(self, start: Start, engine_url: str) -> None:
        """The engine's own are shown when asked for."""
        own = "engine::workers::list"
        assert own not in finish(start("functions", url=engine_url))[1]
        assert own in finish(start("functions", "--all", url=engine_url))[1]

    def test_namespace(self, start: Start, engine_url: str, offered: str, unique: Unique) -> None:
        """A column of its own where there is more than one."""
        with register_worker(engine_url, namespace=unique("room")) as there:
            namespace = str(there._options.namespace)
            there.register_function(f"{offered}::third", lambda data: 3)
            head, *rows = finish(start("functions", offered, url=engine_url))[1].splitlines()
            assert head.split() == ["FUNCTION", "NAMESPACE", "WORKER", "DESCRIPTION"]
            assert [row.split()[1] for row in rows] == ["default", "default", namespace]
            _, *rows = finish(start("functions", "--namespace", namespace, url=engine_url))[1].splitlines()
            assert [row.split()[0] for row in rows] == [f"{offered}::third"]

    @posix_only
    def test_on_a_terminal(self, start: Start, engine_url: str, worker: Worker, unique: Unique) -> None:
        """A row is a line of it."""
        function = worker.register_function(unique("cli::long"), lambda data: 1, description="long " * 50).id
        with terminal() as screen:
            process = start("functions", function, url=engine_url, stdout=screen.fd, variables={"COLUMNS": "80"})
            shown = screen.read_to_the_end().decode()
            assert finish(process)[0] == 0
        assert [len(line) <= 80 for line in shown.splitlines()] == [True, True]
        assert shown.rstrip().endswith("…")
