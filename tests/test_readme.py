"""The README renders, and every program in it runs as it stands; so do the examples."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import docutils.core
import pytest

import iii_sync
from iii_sync import register_worker

from .support.process import ROOT, WAIT

README = (ROOT / "README.rst").read_text(encoding="utf-8")

PROGRAMS = [
    textwrap.dedent(block)
    for block in re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", README, re.MULTILINE)
]

COMMANDS = [
    textwrap.dedent(block)
    for block in re.findall(r"^\.\. code-block:: sh\n\n((?:(?: {4}.*)?\n)+)", README, re.MULTILINE)
]

EXPECTED = [
    "{'text': 'Hello, iii!'}",
    "[0, 5, 10, 15]",
    "changed: 17\n{'pieces': 2}",
    "serving",
    "StreamChannelRef(channel_id=",
    "b'some bytes, and some more'",
    "23 bytes\nwhole: True",
    "{'bytes': 10000000, 'name': 'report.csv'}",
    "['999', '998001']",
    "b'small enough to fit before anybody reads'",
    "499500\norder 0\norder 1\norder 2",
    "{'bytes': 10} b'some notes'",
    "2 passed",
    "[0, 1, 4, 9, 16, 25]",
]


#: The worker that the commands of the README talk to.
SHOP = """
from iii_sync import register_worker

worker = register_worker()
worker.register_function("greetings::hello", lambda data: f"Hello, {data['name']}!")
worker.register_function("orders::price", lambda order: 5 * order["pieces"])


@worker.function("files::store")
@worker.function("archive::store")
def store(data):
    return len(data["reader"].read())


@worker.function("reports::yearly")
def yearly(data):
    with data["writer"] as f:
        f.write(str(data["year"]).encode())


@worker.function("archive::fetch")
def fetch(data):
    import io, tarfile

    with data["writer"] as f, tarfile.open(fileobj=f, mode="w|gz") as archive:
        archive.addfile(tarfile.TarInfo("fetched"), io.BytesIO())
"""


def run_program(arguments: list[str], url: str) -> str:
    """Run a program against an engine; it must end well and say nothing on stderr."""
    environment = dict(os.environ, III_URL=url, PYTHONWARNINGS="error", PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_is_a_program_for_everything() -> None:
    """As many programs as expectations."""
    assert len(PROGRAMS) == len(EXPECTED)


def test_there_are_three_blocks_of_commands() -> None:
    """The demo and the tests, which make a .venv and are run from a clean clone (``.ci/run``), and those run below."""
    demo, tests, others = (block.strip() for block in COMMANDS)
    assert re.fullmatch(r"python3 -m venv \.venv && [^\n]* iii_sync demo", demo)
    assert re.fullmatch(r"python3 -m venv \.venv && [^\n]* pytest", tests)
    assert "iii-sync call" in others


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_every_program_of_the_readme_runs(engine_url: str, number: int, tmp_path: Path) -> None:
    """As it stands, on both engines."""
    program = PROGRAMS[number]
    if "def test_" in program:
        (tmp_path / "test_program.py").write_text(program)
        arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    else:
        arguments = ["-c", program]
    output = run_program(arguments, engine_url)
    # The engines do not promise the order of keys.
    assert normal(EXPECTED[number]) in normal(output)


def test_the_commands_of_the_readme_run(engine_url: str, tmp_path: Path) -> None:
    """In bash, beside ``iii-sync serve shop``."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "report.csv").write_text("a,b\n")
    (tmp_path / "order.json").write_text('{"pieces": 3}')
    (tmp_path / "photos").mkdir()
    environment = dict(os.environ, III_URL=engine_url, PYTHONPATH=str(ROOT))
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    with subprocess.Popen(
        [sys.executable, "-m", "iii_sync", "serve", "shop"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
    ) as serving:
        try:
            with register_worker(engine_url) as worker:
                end = time.monotonic() + WAIT
                while not worker.engine.functions(prefix="archive::fetch"):
                    assert time.monotonic() < end
                    time.sleep(0.02)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", COMMANDS[2]],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=WAIT,
            )
            assert (done.returncode, done.stderr) == (0, "")
        finally:
            serving.terminate()
    assert "files::store" in done.stdout
    assert '"Hello, iii!"\n15\n4\n' in done.stdout
    assert (tmp_path / "yearly.csv").read_text() == "2026"
    assert (tmp_path / "fetched").exists()


def normal(text: str) -> str:
    """Text with the keys of small dictionaries in one order."""
    return re.sub(r"\{(.*?)\}", lambda m: "{" + ", ".join(sorted(m[1].split(", "))) + "}", text)


def test_the_readme_renders() -> None:
    """Without a warning."""
    warnings = io.StringIO()
    docutils.core.publish_doctree(
        README,
        settings_overrides={"warning_stream": warnings, "report_level": 1, "syntax_highlight": "none"},
    )
    assert warnings.getvalue() == ""


def test_it_says_where_things_live() -> None:
    """Files and folders under "Where things live": those it names exist, and it names all at the top."""
    section = README.partition("\nWhere things live\n")[2].partition("\nContributing\n")[0]
    named = re.findall(r"``(iii_sync/[\w./]*|\w+\.py)``", section)
    places = {name if "/" in name else f"iii_sync/{name}" for name in named}
    assert [place for place in places if not (ROOT / place).exists()] == []
    there = {f"iii_sync/{path.name}" for path in (ROOT / "iii_sync").glob("*.py") if path.name[0] != "_"}
    there |= {f"iii_sync/{path.parent.name}/" for path in (ROOT / "iii_sync").glob("*/__init__.py")}
    assert there - places == set()


def test_it_names_everything_public() -> None:
    """Every error, every other public name, and every option."""
    options = [iii_sync.InitOptions, iii_sync.ReconnectionConfig]
    names = {name for name in iii_sync.__all__ if name[0] != "_"}
    names |= {field.name for kind in options for field in dataclasses.fields(kind)}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", README)) == []


#: Examples that run in a server; tests/webapps has them.
SERVED = {"celery_tasks.py"}


@pytest.mark.parametrize("example", sorted({path.name for path in (ROOT / "examples").glob("*.py")} - SERVED))
def test_every_example_runs(engine_url: str, example: str, tmp_path: Path) -> None:
    """As a user would start it."""
    assert run_program([str(ROOT / "examples" / example)], engine_url)


def test_the_large_file_example_takes_a_file(engine_url: str, tmp_path: Path) -> None:
    """And counts its lines."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\nthree")
    assert "2 lines, 13 bytes" in run_program([str(ROOT / "examples" / "large_file.py"), str(path)], engine_url)
